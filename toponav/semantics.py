"""Tier 2: things from beams that say of what class the thing is that they hit, and their map.

Beams with labels stand in for a detector whose boxes are matched with the scan. Neighbouring beams
of one label are one detection; detections are fused into things with a mean, a covariance, a count
and a chance of every class (Bayes' rule with a stated rate of right labels). The rules are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .graph import TopologicalMap
from .perception import Detections, Frame


@dataclass(frozen=True)
class SemanticsConfig:
    """What is believed of the detector."""

    right: float = 0.85
    """Chance that a thing's label is right; the wrong ones are equally likely."""
    jump_m: float = 0.5
    """Neighbouring beams whose ranges differ by more are of two things."""
    sigma_m: float = 0.1
    """Error of a position at no range ..."""
    sigma_per_m: float = 0.02
    """... and what it grows by per metre."""
    gate: float = 9.21
    """Squared Mahalanobis distance up to which a detection is of a known thing."""
    gate_m: float = 1.0
    """... and distance."""
    again_m: float = 0.3
    """A thing is counted again, and its class believed more, after the robot has moved so far:
    the errors of two looks from one place are not independent."""

    def __post_init__(self) -> None:
        if not 0 < self.right < 1:
            raise ValueError(f"right must be in (0, 1), got {self.right}")
        for name in ("jump_m", "sigma_m", "gate", "gate_m", "again_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not self.sigma_per_m >= 0:
            raise ValueError(f"sigma_per_m must be >= 0, got {self.sigma_per_m}")


class RayPerception:
    """Things that beams with labels hit. Needs ranges, angles and labels of the frame.

    Args:
        names: of the labels, in their order.
        classes: of things; labels of other names (walls, people) are no things.
        config: of the detector.

    Raises:
        ValueError: a class has no label.
    """

    def __init__(
        self, names: Sequence[str], classes: Sequence[str], config: SemanticsConfig | None = None
    ) -> None:
        if missing := sorted(set(classes) - set(names)):
            raise ValueError(f"every class must be among names, not so {', '.join(missing)}")
        self.classes, self.config = tuple(classes), config or SemanticsConfig()
        known = [self.classes.index(name) if name in self.classes else -1 for name in names]
        self._class_of = np.array([*known, -1])  # the last is that of label -1

    def detect(self, frame: Frame) -> Detections:
        """See :class:`toponav.perception.Perception`; yaws lead from the robot to the things."""
        if frame.ranges is None or frame.angles is None or frame.labels is None:
            raise ValueError("frame must have ranges, angles and labels for things")
        ranges, angles = np.asarray(frame.ranges, np.float64), np.asarray(frame.angles, np.float64)
        labels = np.asarray(frame.labels)
        if not ranges.shape == angles.shape == labels.shape or ranges.ndim != 1:
            raise ValueError(
                f"ranges, angles, labels must be (B,), got {ranges.shape}, {angles.shape}, "
                f"{labels.shape}"
            )
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(self._class_of) - 1:
            raise ValueError(f"labels must be in [-1, {len(self._class_of) - 1}), got {labels}")
        c, hit = self.config, self._class_of[labels]
        hit = np.where((ranges > 0) & (ranges < frame.range_max), hit, -1)
        x, y, yaw = frame.pose_w
        points = np.stack([x + ranges * np.cos(yaw + angles), y + ranges * np.sin(yaw + angles)], 1)
        kinds, poses, covs, widths = list[int](), [], [], []
        for beams in _runs(hit, ranges, c.jump_m):
            xy = points[beams].mean(axis=0)
            away = xy - (x, y)
            far, width = float(np.hypot(*away)), float(np.hypot(*np.ptp(points[beams], axis=0)))
            sigma2 = (c.sigma_m + c.sigma_per_m * far) ** 2 + width**2 / 12
            kinds.append(int(hit[beams[0]]))
            poses.append((*xy, math.atan2(away[1], away[0])))
            covs.append(np.eye(2) * sigma2)
            widths.append(width)
        k, n = len(kinds), len(self.classes)
        scores = np.full((k, n), (1 - c.right) / max(n - 1, 1))
        scores[np.arange(k), kinds] = c.right
        return Detections(
            tuple(self.classes[i] for i in kinds), np.array(poses).reshape(-1, 3),
            np.array(covs).reshape(-1, 2, 2), np.array(widths), np.full(k, c.right), scores,
            np.zeros(k, np.int64),
        )  # fmt: skip


@dataclass(eq=False)
class Thing:
    """Something that was seen."""

    xy: NDArray[np.float64]
    """(2,) mean position of what is seen of it, m."""
    cov: NDArray[np.float64]
    """(2, 2) m^2."""
    log_p: NDArray[np.float64]
    """(C,) logarithm of the chance of each class, up to a constant."""
    count: int = 1
    """Looks from different places."""
    seen_s: float = 0.0
    """When it was last seen."""
    from_w: NDArray[np.float64] = field(default_factory=lambda: np.full(2, np.inf))
    """(2,) from where its class was last believed more."""
    node: int | None = None
    """Node of the topological map that it belongs to."""

    @property
    def p(self) -> NDArray[np.float64]:
        """(C,) chance of each class."""
        grown = np.exp(self.log_p - self.log_p.max())
        return np.asarray(grown / grown.sum(), np.float64)


class ThingMap:
    """All things seen.

    Args:
        classes: of things.
        config: of the detector.
        prior: (C,) chance of each class before anything is seen, uniform if None.
    """

    def __init__(
        self, classes: Sequence[str], config: SemanticsConfig | None = None,
        prior: ArrayLike | None = None,
    ) -> None:  # fmt: skip
        self.classes, self.config = tuple(classes), config or SemanticsConfig()
        flat = np.full(len(self.classes), 1 / max(len(self.classes), 1))
        self.prior = flat if prior is None else np.asarray(prior, np.float64)
        if self.prior.shape != flat.shape or not self.prior.min() > 0:
            raise ValueError(f"prior must be ({len(flat)},) > 0, got {self.prior}")
        self.things: list[Thing] = []

    def update(self, found: Detections, from_w: ArrayLike, t_s: float) -> list[Thing]:
        """Enter detections made from a place (2,), m; the things that they are of.

        Each goes to the thing that explains it best, by position and class, within the gate; a
        position is fused as by a Kalman filter for things that stand still.
        """
        here, out = np.asarray(from_w, np.float64)[:2], []
        for k in range(len(found)):
            xy, cov, scores = found.pose_w[k, :2], found.cov[k], found.scores[k]
            thing = self._match(xy, cov, scores)
            if thing is None:
                thing = Thing(xy.copy(), cov.copy(), np.log(self.prior) + np.log(scores))
                thing.from_w, thing.seen_s = here.copy(), t_s
                self.things.append(thing)
            else:
                self._fuse(thing, xy, cov, scores, here)
                thing.seen_s = t_s
            out.append(thing)
        return out

    def _match(
        self, xy: NDArray[np.float64], cov: NDArray[np.float64], scores: NDArray[np.float64]
    ) -> Thing | None:
        best, least = None, math.inf
        x, y = float(xy[0]), float(xy[1])
        for thing in self.things:
            if math.hypot(x - thing.xy[0], y - thing.xy[1]) > self.config.gate_m:
                continue
            off, both = xy - thing.xy, thing.cov + cov
            d2 = float(off @ np.linalg.solve(both, off))
            if d2 > self.config.gate:
                continue
            cost = d2 + math.log(np.linalg.det(both)) - 2 * math.log(float(thing.p @ scores))
            if cost < least:
                best, least = thing, cost
        return best

    def _fuse(
        self, thing: Thing, xy: NDArray[np.float64], cov: NDArray[np.float64],
        scores: NDArray[np.float64], here: NDArray[np.float64],
    ) -> None:  # fmt: skip
        if np.hypot(*(here - thing.from_w)) < self.config.again_m:
            return
        gain = thing.cov @ np.linalg.inv(thing.cov + cov)
        thing.xy = thing.xy + gain @ (xy - thing.xy)
        least = self.config.sigma_m**2 * np.eye(2)  # views of different sides never agree better
        thing.cov = thing.cov - gain @ thing.cov + 0.1 * least
        thing.log_p = thing.log_p + np.log(scores)
        thing.log_p -= thing.log_p.max()
        thing.count += 1
        thing.from_w = here.copy()

    def attach(self, graph: TopologicalMap) -> None:
        """Give every thing that has no node, or whose node is gone, to the node nearest to it."""
        for thing in self.things:
            if thing.node not in graph.nodes:
                thing.node = graph.nearest(thing.xy)

    def at(self, node: int) -> list[Thing]:
        """The things that belong to a node."""
        return [thing for thing in self.things if thing.node == node]


def _runs(
    hit: NDArray[np.int64], ranges: NDArray[np.float64], jump_m: float
) -> list[NDArray[np.int64]]:
    """Beams of each run of neighbours of one class without a jump in range, the ends joined."""
    beams = np.flatnonzero(hit >= 0)
    if len(beams) == 0:
        return []
    before = beams[:-1]
    parted = (np.diff(beams) > 1) | (hit[beams[1:]] != hit[before])
    parted |= np.abs(ranges[beams[1:]] - ranges[before]) > jump_m
    runs = np.split(beams, np.flatnonzero(parted) + 1)
    first, last = runs[0], runs[-1]
    joined = len(runs) > 1 and first[0] == 0 and last[-1] == len(hit) - 1
    if joined and hit[first[0]] == hit[last[-1]]:
        if abs(ranges[first[0]] - ranges[last[-1]]) <= jump_m:
            runs = [np.concatenate([last, first]), *runs[1:-1]]
    return runs
