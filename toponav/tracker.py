"""From odometry and scans to poses on the map, with a robot that may be lost.

A :class:`toponav.localizer.Localizer` matches scans; this decides which scans it keeps, which poses
are good enough to write into a map, when the robot is lost, and when it is found again. The TopoNav
paper (arXiv:2402.04061) says nothing of it; all rules and numbers are ours.

A robot that is carried away goes on to match somewhere near for a few scans. So what is written
into the map waits for matches that agree with the scan before, and an answer of relocalisation is
on trial until it has held for a while of driving.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .localizer import Localizer, between, compose, looked_through, scan_points, wrap

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrackerConfig:
    """Numbers of a :class:`Tracker`."""

    spacing_m: float = 1.5
    """A scan is kept this far from all that are kept ..."""
    crowded_m: float = 0.3
    """... or this far where a match explains little; nearer it takes the place of the nearest:
    a door has opened, or a crate is gone."""
    few_inliers: float = 0.8
    """A match explains little below this share of inliers."""
    drop: float = 0.2
    """A share of inliers that falls by so much from one scan to the next is not believed."""
    through: float = 0.15
    """Nor is a scan that looks through more than this share of the walls known near it."""
    ask_m: float = 0.25
    """A lost robot asks anew after so much way ..."""
    ask_rad: float = 1.0
    """... or turning."""
    trial_m: float = 3.0
    """An answer counts once it has held for so much way."""
    trial_scans: int = 10
    """... and so many scans ..."""
    trial_inliers: float = 0.85
    """... each with such a share of inliers ..."""
    trial_through: float = 0.08
    """... and looking through less than this share of known walls."""

    def __post_init__(self) -> None:
        for f in fields(self):
            if not getattr(self, f.name) > 0:
                raise ValueError(f"{f.name} must be > 0, got {getattr(self, f.name)}")


@dataclass(frozen=True, eq=False)
class Fix:
    """Where the robot was when a scan was taken."""

    pose_w: Array
    """(3,) base in the map frame, m and rad; dead reckoned while lost."""
    cov: Array
    """(3, 3) of it in the map frame, drift of the kept scans included."""
    lost: bool
    """The pose means nothing."""
    sure: bool
    """The scan may be written into the map there."""


class Tracker:
    """A robot among the kept scans.

    Args:
        localizer: holds scans of an earlier visit, or none: then the map frame is that of odometry
            at the first scan.
        config: see there.
        lost: begin without an idea where on the localizer's map the robot is.

    Raises:
        ValueError: the robot is lost on a map without scans.
    """

    def __init__(
        self, localizer: Localizer | None = None, config: TrackerConfig | None = None,
        lost: bool = False,
    ) -> None:  # fmt: skip
        self.localizer = localizer or Localizer()
        self.config = config or TrackerConfig()
        if lost and len(self.localizer) == 0:
            raise ValueError("lost must be False on a map without scans, got True")
        self.lost = lost
        self.answers = 0
        """Times that it was found again."""
        self.map_from_odom = np.zeros(3)
        """(3,) pose of the odometry frame in the map frame."""
        self._began = len(self.localizer) > 0
        self._next = 1 + max(self.localizer.ids(), default=-1)
        self._spread: dict[int, Array] = {}
        self._inliers, self._doubts = 1.0, 0
        self._asked: Array | None = None
        self._trial_m, self._trial_scans = math.inf, 0
        self._odom: Array | None = None
        self._base: Array | None = None
        self._gone_m = 0.0  # since the last scan; turning on the spot is no way

    def follow(
        self, odom: ArrayLike, ranges: ArrayLike, angles: ArrayLike, range_max: float,
        lidar_b: ArrayLike = (0.0, 0.0, 0.0),
    ) -> Fix:  # fmt: skip
        """Enter one scan.

        Args:
            odom: (3,) base in the odometry frame when it was taken, m and rad.
            ranges: (B,) m; angles: (B,) rad in the lidar frame, ascending.
            range_max: readings from here on hit nothing, m.
            lidar_b: (3,) pose of the lidar on the base.
        """
        base = np.asarray(odom, np.float64)
        lidar = compose(base, lidar_b)
        points = scan_points(ranges, angles, range_max)
        self._gone_m = 0.0 if self._base is None else float(np.hypot(*(base - self._base)[:2]))
        self._base = base.copy()
        if not self._began:
            self.localizer.place(lidar)
        if self.lost:
            self._search(lidar, points)
        sure = not self.lost and self._track(lidar, points)
        pose = compose(self.localizer.pose_w, between(np.asarray(lidar_b, np.float64), np.zeros(3)))
        self.map_from_odom = compose(pose, between(base, np.zeros(3)))
        self._odom = lidar
        return Fix(pose, self._cov(), self.lost, sure)

    def lose(self) -> None:
        """The robot does not know where it is any more."""
        self.lost, self._asked, self._doubts = True, None, 0
        self._trial_m = math.inf
        self.localizer.place(self.localizer.pose_w)

    # Inside

    def _track(self, lidar: Array, points: Array) -> bool:
        """Follow by matching; whether the scan may be written down."""
        c, loc = self.config, self.localizer
        told = loc.track(lidar, points)
        if told.match is None:  # nothing to match with: odometry it is
            if len(points):
                self._keep(points, self._next)
            return True
        fits = told.believed and told.match.inliers > self._inliers - c.drop
        fits = fits and self._through(points) < c.through
        self._doubts = 0 if fits else self._doubts + 1
        if told.lost or self._doubts >= loc.config.lost_after:
            self.lose()
            return False
        if not fits:
            return False
        self._inliers = told.match.inliers
        nearest, apart = loc.nearest(loc.pose_w[:2])
        few = told.match.inliers < c.few_inliers
        if apart > (c.crowded_m if few else c.spacing_m):
            self._keep(points, self._next)
        elif few and nearest is not None:
            self._keep(points, nearest)
        return True

    def _through(self, points: Array) -> float:
        known = self.localizer.around(self.localizer.pose_w[:2])
        return looked_through(points, known, self.localizer.pose_w) if len(known) else 0.0

    def _keep(self, points: Array, node: int) -> None:
        """Keep a scan; where it is, is known as well as where it was matched to."""
        loc = self.localizer
        self._spread[node] = self._cov()
        gone = loc.add(node, loc.pose_w, points)
        if gone is not None:
            self._spread.pop(gone, None)
        self._began, self._next = True, max(self._next, node + 1)

    def _cov(self) -> Array:
        """(3, 3) of the pose in the map frame: drift of the kept scans and of this match."""
        nearest = self.localizer.nearest(self.localizer.pose_w[:2])[0]
        drift = None if nearest is None else self._spread.get(nearest)
        return self.localizer.cov + (0.0 if drift is None else drift)

    def _search(self, lidar: Array, points: Array) -> None:
        """Ask where the scan fits; put an answer on trial."""
        c, loc = self.config, self.localizer
        if self._trial_m < math.inf:
            self._try(lidar, points)
            return
        if self._odom is not None:
            step = between(self._odom, lidar)
            loc.pose_w = compose(loc.pose_w, step)
        if self._asked is not None:
            gone = between(self._asked, lidar)
            if np.hypot(gone[0], gone[1]) < c.ask_m and abs(gone[2]) < c.ask_rad:
                return
        self._asked = lidar
        found = loc.relocalise(points, lidar)
        if found is not None:
            loc.place(found.pose, found.cov)
            loc.track(lidar, points)
            self._trial_m, self._trial_scans, self._doubts = 0.0, 0, 0

    def _try(self, lidar: Array, points: Array) -> None:
        """Hold an answer against one more scan."""
        c, loc = self.config, self.localizer
        told = loc.track(lidar, points)
        self._trial_m += self._gone_m
        self._trial_scans += 1
        fits = told.believed and told.match is not None and told.match.inliers >= c.trial_inliers
        fits = fits and self._through(points) < c.trial_through
        self._doubts = 0 if fits else self._doubts + 1
        if self._doubts >= loc.config.lost_after:
            self.lose()
        elif fits and self._trial_m >= c.trial_m and self._trial_scans >= c.trial_scans:
            self.lost, self._asked, self._doubts, self._trial_m = False, None, 0, math.inf
            self._inliers, self.answers = 1.0, self.answers + 1


def clear_way(
    points_b: ArrayLike, radius_m: float, reach_m: float, headings: int = 24
) -> tuple[float, float]:
    """The straight way that a scan leaves most open: heading, rad, and length, m, from the base.

    A heading ahead is worth more than one behind: a robot that looks for a place it knows gets on.

    Args:
        points_b: (P, 2) that the scan hit, in the frame of the base, m.
        radius_m: of the robot.
        reach_m: longest way asked for.
        headings: so many are tried.
    """
    p = np.asarray(points_b, np.float64).reshape(-1, 2)
    yaw = wrap(np.linspace(0, 2 * np.pi, headings, endpoint=False))
    along = p[:, :1] * np.cos(yaw) + p[:, 1:] * np.sin(yaw)  # (P, headings)
    across = np.abs(p[:, 1:] * np.cos(yaw) - p[:, :1] * np.sin(yaw))
    ahead = (across < radius_m) & (along > 0)
    room = np.where(ahead, along - radius_m, reach_m).min(axis=0, initial=reach_m)
    best = int((np.maximum(room, 0) * (1.5 + np.cos(yaw))).argmax())
    return float(yaw[best]), float(max(room[best], 0.0))
