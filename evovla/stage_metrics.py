"""How far stage scores can be believed: hallucination, recall, calibration error, calibration.

The hallucination rate of EvoVLA (arXiv 2511.16166, Sec. 4) is ``P(stage not done | score > theta)``
over the time steps of an evaluation, with the truth from the simulator. The public code, which has
no truth, counts high scores that no longer rise instead; :class:`Diagnosis` has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .stage_reward import StageRewardConfig, StageTracker
from .stages import StageDictionary
from .triplets import scores

PROXY_RISE = 0.1
"""The public proxy calls a high score a hallucination where the stage reward is below this."""
TAUS = np.geomspace(0.005, 2.0, 80)
"""Temperatures that a calibration tries."""


@dataclass(frozen=True)
class Diagnosis:
    """Counts and rates over the time steps of an evaluation; NaN where there is nothing to count"""

    steps: int
    claimed: int
    """Steps whose score is above the threshold."""
    hallucinated: int
    """Of them, those whose stage is not done."""
    rate: float
    """True hallucination rate, hallucinated / claimed."""
    proxy: float
    """What the public code reports as the rate, without a truth; 0 where nothing is claimed."""
    recall: float
    """P(score > threshold | done)."""
    ece: float
    """Expected calibration error of the score as a chance that the stage is done."""


def diagnose(
    score: ArrayLike, done: ArrayLike, rise: ArrayLike, theta: ArrayLike = 0.7, bins: int = 10
) -> Diagnosis:
    """Compare scores of active stages with the truth.

    Args:
        score: (...) scores in [0, 1], raw or running.
        done: (...) bool, whether the result of that stage held then, from the simulator.
        rise: (...) stage rewards, the rise of the running score in that step (for the proxy).
        theta: threshold, one or (...).

    Raises:
        ValueError: shapes differ, or scores outside [0, 1].
    """
    u, truth, up = (np.asarray(x) for x in (score, done, rise))
    if u.shape != truth.shape or u.shape != up.shape:
        raise ValueError(f"done and rise must be {u.shape}, got {truth.shape} and {up.shape}")
    if u.size and not (u.min() >= 0 and u.max() <= 1):
        raise ValueError(f"score must be in [0, 1], got {u.min()} to {u.max()}")
    truth = truth.astype(np.bool_)
    claims = u > theta
    claimed, hits = int(claims.sum()), int((claims & truth).sum())
    return Diagnosis(
        steps=u.size,
        claimed=claimed,
        hallucinated=claimed - hits,
        rate=_share(claimed - hits, claimed),
        proxy=int((claims & (up < PROXY_RISE)).sum()) / max(claimed, 1),
        recall=_share(hits, int(truth.sum())),
        ece=calibration_error(u, truth, bins),
    )


@dataclass(frozen=True)
class Agreement:
    """How well believed stages follow the true ones over recorded episodes."""

    exact: float
    """Share of steps whose stage is right."""
    within_one: float
    advances: int
    """Times a stage was taken for done."""


def follow(
    dictionary: StageDictionary,
    episodes: Sequence[ArrayLike],
    config: StageRewardConfig | None = None,
) -> list[NDArray[np.int64]]:
    """(T,) believed stages of each recorded episode, given gaps (T, K); the first frame has 0."""
    found = []
    for gaps in (np.asarray(g, np.float64) for g in episodes):
        tracker = StageTracker(dictionary, 1, config)
        tracker.reset(gaps[:1])
        off = np.zeros(1, np.bool_)
        found.append(np.array([0, *(tracker.step(g[None], off, off).stage[0] for g in gaps[1:])]))
    return found


def agreement(believed: Sequence[ArrayLike], truth: Sequence[ArrayLike]) -> Agreement:
    """Compare stages (T,) of several episodes.

    Raises:
        ValueError: an episode's lengths differ.
    """
    pairs = [(np.asarray(b), np.asarray(t)) for b, t in zip(believed, truth, strict=True)]
    for i, (b, t) in enumerate(pairs):
        if b.shape != t.shape or b.ndim != 1:
            raise ValueError(f"episode {i}: truth must be {b.shape} like believed, got {t.shape}")
    off = np.concatenate([np.abs(b - t) for b, t in pairs])
    advances = sum(int((np.diff(b) > 0).sum()) for b, _ in pairs)
    return Agreement(float((off == 0).mean()), float((off <= 1).mean()), advances)


def calibration_error(score: ArrayLike, done: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017, Eq. 3), over bins of equal width."""
    u, truth = np.asarray(score, np.float64).ravel(), np.asarray(done, np.float64).ravel()
    if not u.size:
        return float("nan")
    place = np.minimum((u * bins).astype(int), bins - 1)
    gap = np.bincount(place, u - truth, bins)
    return float(np.abs(gap).sum() / u.size)


def calibrate(
    gaps: ArrayLike,
    done: ArrayLike,
    precision: float = 0.9,
    recall: float = 0.6,
    default: tuple[float, float] = (0.05, 0.7),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Temperature and threshold of every stage, from labelled frames.

    The temperature makes sigmoid(gap / tau) as likely as can be; the threshold is the lowest one
    from which on claims are right as often as wanted, if that leaves the wanted recall; otherwise
    the one with the best precision at that recall.

    Args:
        gaps: (M, K) of demonstrations and near misses, see :meth:`.triplets.Triplets.gaps`.
        done: (M, K) bool, whether the result of each stage held.
        precision: share of right claims that is wanted, 1 less the hallucination rate.
        recall: share of done frames that must be claimed.
        default: what a stage gets whose frames are all done, or none of them.

    Returns:
        tau (K,), theta (K,), for :meth:`.stages.StageDictionary.calibrated`.

    Raises:
        ValueError: shapes differ or are not (M, K).
    """
    gaps, truth = np.asarray(gaps, np.float64), np.asarray(done, np.bool_)
    if gaps.ndim != 2 or gaps.shape != truth.shape:
        raise ValueError(f"gaps and done must be (M, K), got {gaps.shape} and {truth.shape}")
    tau, theta = np.empty((2, gaps.shape[1]))
    for k in range(gaps.shape[1]):
        if truth[:, k].all() or not truth[:, k].any():
            tau[k], theta[k] = default
            continue
        tau[k] = _temperature(gaps[:, k], truth[:, k])
        theta[k] = _threshold(scores(gaps[:, k], tau[k]), truth[:, k], precision, recall)
    return tau, theta


def _temperature(gap: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    sign = np.where(truth, 1.0, -1.0)
    losses = [float(np.logaddexp(0.0, -sign * gap / tau).mean()) for tau in TAUS]
    return float(TAUS[int(np.argmin(losses))])


def _threshold(
    u: NDArray[np.float64], truth: NDArray[np.bool_], precision: float, recall: float
) -> float:
    order = np.argsort(-u, kind="stable")
    ranked, right = u[order], truth[order]
    hits = np.cumsum(right)
    precise, found = hits / np.arange(1, len(u) + 1), hits / hits[-1]
    last = np.append(ranked[:-1] > ranked[1:], True)  # equal scores are claimed together
    good = np.flatnonzero(last & (precise >= precision) & (found >= recall))
    if good.size:
        at = int(good[-1])
    else:
        enough = np.flatnonzero(last & (found >= recall))
        at = int(enough[np.argmax(precise[enough])])
    below = ranked[at + 1] if at + 1 < len(u) else 0.0
    return float(np.clip((ranked[at] + below) / 2, 0.05, 0.999))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
