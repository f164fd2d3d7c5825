"""What a robot makes of what it senses, behind one door for three tiers.

Tier 1 (:mod:`toponav.doorways`) reads the map that the lidar has made and finds doorways and
branchings. Tier 2 (:mod:`toponav.semantics`) reads beams that say of what class the thing is that
they hit. Tier 3 (:mod:`toponav.camera`) reads pictures. TopoNav (Hossain et al. 2024) has the
third one only; the tiers are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .occupancy import OccupancyMap


@dataclass(frozen=True, eq=False)
class Frame:
    """What a robot has at one moment; each tier says what it needs of it."""

    pose_w: NDArray[np.float64]
    """(3,) lidar x, y, yaw in the map frame, m and rad."""
    map: OccupancyMap | None = None
    """What is known of the floor."""
    ranges: NDArray[np.float64] | None = None
    """(B,) m."""
    angles: NDArray[np.float64] | None = None
    """(B,) rad, lidar frame."""
    range_max: float = math.inf
    """Beams at or beyond this hit nothing, m."""
    labels: NDArray[np.int8] | None = None
    """(B,) class of what each beam hit, -1 none."""
    image: NDArray[np.uint8] | None = None
    """(H, W, 3) RGB."""


@dataclass(frozen=True, eq=False)
class Detections:
    """K things found at one moment, any tier."""

    kind: tuple[str, ...] = ()
    """What each is: "doorway", "branching" or the likeliest class of thing."""
    pose_w: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """(K, 3) x, y, yaw; the yaw of a doorway leads through it, that of a thing to it."""
    cov: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2, 2)))
    """(K, 2, 2) covariance of x, y, m^2."""
    width_m: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(K,) of a doorway, of a branching's free disc, of a thing as far as it is seen."""
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(K,) in [0, 1]."""
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """(K, C) chance of each of the perception's classes."""
    ways: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(K,) ways out: 2 of a doorway, 3 or more of a branching, 0 of a thing."""
    descriptor: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(D,) of unit length of the whole view, (0,) where the tier has none."""

    def __post_init__(self) -> None:
        k = len(self.kind)
        shapes = {"pose_w": (k, 3), "cov": (k, 2, 2), "width_m": (k,), "confidence": (k,),
                  "ways": (k,)}  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, got {getattr(self, name).shape}")
        if self.scores.ndim != 2 or len(self.scores) != k:
            raise ValueError(f"scores must be ({k}, C), got {self.scores.shape}")

    def __len__(self) -> int:
        return len(self.kind)

    def of(self, kind: str) -> NDArray[np.int64]:
        """Numbers of those of a kind."""
        return np.flatnonzero([k == kind for k in self.kind])


class Perception(Protocol):
    """One tier."""

    classes: tuple[str, ...]
    """Columns of ``Detections.scores``."""

    def detect(self, frame: Frame) -> Detections:
        """What there is.

        Raises:
            ValueError: the frame lacks what this tier reads.
        """
