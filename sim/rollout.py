"""A rendered rollout with the truth about it, whatever world it was played in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FRAMES = 16
"""Kept of a rollout, evenly from its first to its last moment."""
PROBES = ("contact", "safety", "smoothness", "instruction")
"""Truth besides the score, 0..1 each. ``contact``: the robot touched (on wheels: came up to) what
it was told about. ``safety``: nothing else was moved or hit. ``smoothness``: 1 less the share of
moments at which it turned back sharply. ``instruction``: what it dealt with most was what it was
told about."""
KEYS = ("thing", "goal", "robot")
"""What is looked for in images: what the instruction is about, where it should get, and the hand
or the robot."""


@dataclass(frozen=True)
class Told:
    """An instruction, in the parts that words are made of (:mod:`sim.words`)."""

    family: str
    """What is to be done, a key of :data:`sim.words.SAID`."""
    thing: tuple[str, str]
    """Colour and kind of what it is about."""
    other: tuple[str, str] = ("", "")
    """Colour and kind of what else it names; of a direction, no colour and the words."""


@dataclass(frozen=True)
class Rollout:
    """What was seen and what is true, for every instruction that could have been given.

    With ``I`` instructions, ``T`` = :data:`FRAMES` frames and images of side ``S``.
    """

    images: NDArray[np.uint8]
    """(T, S, S, 3) RGB."""
    told: tuple[Told, ...]
    """(I,) instructions."""
    asked: int
    """Index of the one that the robot had."""
    outcome: str
    """What its script tried."""
    labels: NDArray[np.int8]
    """(I, T) 1..5 of the state at each frame."""
    points: NDArray[np.float32]
    """(I, T, 3, 2) where :data:`KEYS` are in the images, 0..1 from the top left."""
    probes: NDArray[np.float32]
    """(I, T, 4) :data:`PROBES` of the clip up to each frame."""


class World(Protocol):
    """Plays rollouts."""

    def rollout(self, rng: np.random.Generator) -> Rollout:
        """Draw a scene and a script, play it, look."""
        ...

    def close(self) -> None:
        """Free the GL resources."""
        ...


def turning_back(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) share of the moments up to each at which a (T, D) path turned by more than 100 degrees.

    Moments at which it hardly moves (less than 1 cm before or after) do not count.
    """
    step = np.diff(path, axis=0)
    size = np.linalg.norm(step, axis=1)
    counts = np.minimum(size[:-1], size[1:]) > 0.01
    cosine = (step[:-1] * step[1:]).sum(axis=1) / np.maximum(size[:-1] * size[1:], 1e-12)
    sharp = counts & (cosine < -0.17)
    share = np.cumsum(sharp) / np.maximum(np.cumsum(counts), 1)
    return np.concatenate([np.zeros(len(path) - len(share)), share])
