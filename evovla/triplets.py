r"""The texts of a stage as triplets, and the score of a frame (arXiv 2511.16166, Eq. 2).

The score of stage k in a frame comes from three similarities of the frame with texts,

.. math:: u_k = \sigma((s^+ - \max(s^-, s^h)) / \tau_k)

The paper writes :math:`\sigma(\tau [\cdot])` with a temperature of 0.05, which keeps u within 0.475
and 0.525 whatever is seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .stages import StageDictionary

Floats = NDArray[np.float64]


class Triplets:
    """The texts of a dictionary, each once, and where they stand in the triplets.

    Args:
        hard: False leaves the hard negatives out, for the ablation.
    """

    def __init__(self, dictionary: StageDictionary, hard: bool = True) -> None:
        stages = dictionary.stages
        told = [(s.positive, s.negative, *(s.hard_negatives if hard else ())) for s in stages]
        self.texts = tuple(dict.fromkeys(text for row in told for text in row))
        """All of them: what a scorer is asked for."""
        place = {text: i for i, text in enumerate(self.texts)}
        most = max(len(row) for row in told)
        rows = [[place[t] for t in row] + [place[row[1]]] * (most - len(row)) for row in told]
        self.places = np.array(rows)
        """(K, 2 + H) index of positive, negative, hard negatives; short rows repeat the negative"""

    def gaps(self, similarities: ArrayLike) -> Floats:
        """Similarities (N, len(texts)) -> (N, K): positive less the larger of the negatives.

        Raises:
            ValueError: another shape, or a number that is not finite.
        """
        s = np.asarray(similarities, np.float64)
        if s.ndim != 2 or s.shape[1] != len(self.texts):
            raise ValueError(f"similarities must be (N, {len(self.texts)}), got {s.shape}")
        if not np.isfinite(s).all():
            raise ValueError("similarities must be finite, got NaN or infinity")
        told = s[:, self.places]
        out: Floats = told[..., 0] - told[..., 1:].max(axis=-1)
        return out


def scores(gaps: ArrayLike, tau: ArrayLike, literal: bool = False) -> Floats:
    """u of gaps: sigmoid(gap / tau), or as printed in Eq. 2, sigmoid(tau * gap)."""
    gaps = np.asarray(gaps, np.float64)
    x = gaps * np.asarray(tau) if literal else gaps / np.asarray(tau)
    out: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))  # never overflows
    return out
