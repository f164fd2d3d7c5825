"""How well a reward model's probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reward_vlm.model import Judgement


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal width (Guo et al. 2017, Eq. 3).

    Args:
        confidence: (N,) 0..1.
        correct: (N,) bool.
    """
    p, hit = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if p.shape != hit.shape or p.ndim != 1 or len(p) == 0:
        raise ValueError(f"confidence and correct must be (N,), got {p.shape}, {hit.shape}")
    at = np.minimum((p * bins).astype(int), bins - 1)
    total = 0.0
    for b in np.unique(at):
        inside = at == b
        total += inside.mean() * abs(p[inside].mean() - hit[inside].mean())
    return float(total)


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive outscores a negative, ties by half."""
    s, y = np.asarray(scores, np.float64), np.asarray(positive, np.bool_)
    if not 0 < y.sum() < len(y):
        return float("nan")
    order = np.sort(s)
    rank = (np.searchsorted(order, s, "left") + np.searchsorted(order, s, "right") + 1) / 2
    n, m = int(y.sum()), int((~y).sum())
    return float((rank[y].sum() - n * (n + 1) / 2) / (n * m))


def false_positives(scores: ArrayLike, positive: ArrayLike, recall: float = 0.8) -> float:
    """Share of negatives above the threshold that keeps ``recall`` of the positives."""
    s, y = np.asarray(scores, np.float64), np.asarray(positive, np.bool_)
    if not 0 < y.sum() < len(y):
        return float("nan")
    threshold = np.sort(s[y])[::-1][int(np.ceil(recall * y.sum())) - 1]
    return float((s[~y] >= threshold).mean())


def calibration(labels: NDArray[np.int64], judged: Sequence[Judgement]) -> dict[str, float]:
    """ECE of the likeliest score and of success; AUROC and false positives of success."""
    probs = np.stack([j.probs for j in judged])
    success, done = np.array([j.success for j in judged]), labels == 5
    return {
        "ece": expected_calibration_error(probs.max(axis=1), probs.argmax(axis=1) + 1 == labels),
        "ece_success": expected_calibration_error(success, done),
        "auroc": auroc(success, done), "fpr_at_tpr80": false_positives(success, done),
    }  # fmt: skip


def ranking(labels: NDArray[np.int64], judged: Sequence[Judgement]) -> dict[str, float]:
    """Spearman's correlation of the expected score with the label; balanced accuracy of 5."""
    expected = np.array([j.expected for j in judged])
    x, y = (_ranks(v) for v in (expected, labels.astype(np.float64)))
    done, said = labels == 5, np.array([j.score for j in judged]) == 5
    rates = [float((said == done)[done == side].mean()) for side in (True, False)
             if (done == side).any()]  # fmt: skip
    return {
        "spearman": float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan"),
        "success_balanced_accuracy": float(np.mean(rates)),
    }


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.sort(values)
    return (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2


def distribution_error(judgement: Judgement, label: int) -> dict[str, float]:
    """Absolute error by three rules of deciding on a score."""
    mode = int(judgement.probs.argmax()) + 1
    return {
        "median": float(abs(judgement.score - label)),
        "mean": abs(judgement.expected - label), "mode": float(abs(mode - label)),
    }  # fmt: skip
