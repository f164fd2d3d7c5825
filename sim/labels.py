"""What a detector would make of the true labels of beams: it misses things and mistakes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .randomization import Range
from .worlds import LABELS


@dataclass(frozen=True)
class LabelNoise:
    """Ranges (low, high) of a detector's rates, drawn once per episode."""

    miss: Range = (0.1, 0.3)
    """Chance per look that a thing gets no label."""
    mistake: Range = (0.05, 0.15)
    """Chance per look that it gets that of another class, each as likely."""
    ghost: Range = (0.0, 0.02)
    """Chance per scan that a few beams on a wall get the label of a thing."""

    def __post_init__(self) -> None:
        for name in ("miss", "mistake", "ghost"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} must be 0 <= low <= high <= 1, got {(low, high)}")


PERFECT = LabelNoise((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
GHOST_BEAMS = 3


class Detector:
    """One episode's detector.

    Args:
        classes: names of things, each of :data:`sim.worlds.LABELS`.
        noise: ranges of its rates.
        seed: of what is drawn.
    """

    def __init__(self, classes: Sequence[str], noise: LabelNoise, seed: int) -> None:
        self.labels = np.array([LABELS.index(name) for name in classes], np.int8)
        self.rng = np.random.default_rng([seed, 4207])
        rates = (noise.miss, noise.mistake, noise.ghost)
        self.miss, self.mistake, self.ghost = (float(self.rng.uniform(*rate)) for rate in rates)

    def see(self, labels: NDArray[np.int8]) -> NDArray[np.int8]:
        """(B,) labels as the detector gives them, of the true ones of one scan; a copy.

        A run of neighbouring beams of one class is one look at one thing.
        """
        out = labels.copy()
        thing = np.isin(labels, self.labels)
        begin = thing & ~(np.roll(thing, 1) & (np.roll(labels, 1) == labels))
        run = np.cumsum(begin) % max(int(begin.sum()), 1)  # what begins at the end goes on at 0
        for k in range(int(begin.sum())):
            beams, u = thing & (run == k), self.rng.random()
            if u < self.miss:
                out[beams] = -1
            elif u < self.miss + self.mistake:
                others = self.labels[self.labels != labels[beams][0]]
                out[beams] = others[self.rng.integers(len(others))]
        if self.rng.random() < self.ghost:
            first = int(self.rng.integers(len(out)))
            beams = (first + np.arange(GHOST_BEAMS)) % len(out)
            bare = beams[(labels[beams] >= 0) & ~thing[beams]]
            out[bare] = self.labels[self.rng.integers(len(self.labels))]
        return out
