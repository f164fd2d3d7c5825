"""Tier 1: doorways and branchings in what a lidar has mapped.

Both lie on the ridge of the distance to the nearest obstacle (the medial axis). A doorway is a
place on it with obstacles at opposite sides, near each other, that opens on both sides along the
passage; a branching is one from whose free disc three or more ways lead on, doorways not counted:
where corridors meet. The rules are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ._jit import njit
from .occupancy import OCCUPIED_FROM, OccupancyMap
from .perception import Detections, Frame

DOORWAY, BRANCHING = "doorway", "branching"


@dataclass(frozen=True)
class DoorwayConfig:
    """Sizes in the world."""

    width_m: tuple[float, float] = (0.6, 1.8)
    """Narrowest and widest doorway."""
    opens_m: float = 0.2
    """Half the width grows by this on both sides of a doorway ..."""
    within_m: float = 0.9
    """... within this way along the passage."""
    opposite_rad: float = 2.4
    """The nearest obstacles of both sides are seen at least this far apart from the middle."""
    apart_m: float = 0.8
    """Of doorways nearer to each other than this the narrowest counts."""
    branch_m: tuple[float, float] = (0.6, 2.5)
    """Radius of the free disc of a branching."""
    beyond: float = 2.0
    """A way leads on if it is free up to this many radii of the free disc ..."""
    beyond_m: float = 2.0
    """... and at least this far beyond it."""
    way_rad: float = 0.3
    """A way is at least this wide, seen from the middle."""
    between: float = 1.5
    """Between two ways something stands within this many radii of the free disc: the two corners
    of a room's far end are no two ways."""
    branches_apart_m: float = 3.0
    """Of branchings nearer to each other than this the one with most ways counts, of equals the
    one with the widest disc."""

    def __post_init__(self) -> None:
        for name in ("width_m", "branch_m"):
            low, high = getattr(self, name)
            if not 0 < low < high:
                raise ValueError(f"{name} must be 0 < low < high, got {(low, high)}")
        for name in ("opens_m", "within_m", "apart_m", "beyond_m", "way_rad", "branches_apart_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not (0 < self.opposite_rad < math.pi and self.beyond > 1 and self.between > 1):
            raise ValueError(f"opposite_rad in (0, pi), beyond, between > 1 wanted, got {self}")


@dataclass(frozen=True, eq=False)
class _Field:
    """Distance to the nearest obstacle and where that is."""

    free: NDArray[np.bool_]
    far_m: NDArray[np.float64]
    """(H, W) m."""
    basis: NDArray[np.float64]
    """(H, W, 2) iy, ix of the nearest obstacle's cell."""


class LidarPerception:
    """Doorways and branchings of a map. Needs ``Frame.map``; classes are its two kinds."""

    classes = (DOORWAY, BRANCHING)

    def __init__(self, config: DoorwayConfig | None = None) -> None:
        self.config = config or DoorwayConfig()

    def detect(self, frame: Frame) -> Detections:
        """See :class:`toponav.perception.Perception`."""
        if frame.map is None:
            raise ValueError("frame must have a map for doorways and branchings")
        return self.find(frame.map)

    def find(self, known: OccupancyMap) -> Detections:
        """Doorways and branchings of a map."""
        field = _field(known)
        if field is None:
            return Detections(scores=np.zeros((0, 2)))
        doors = self._doorways(field, known)
        branches = self._branchings(field, known, doors)
        k, n = len(doors), len(doors) + len(branches)
        rows = np.concatenate([doors, branches])
        sigma = known.resolution
        scores = np.zeros((n, 2))
        scores[:k, 0], scores[k:, 1] = rows[:k, 4], rows[k:, 4]
        return Detections(
            (DOORWAY,) * k + (BRANCHING,) * (n - k), rows[:, :3],
            np.tile(np.eye(2) * sigma**2, (n, 1, 1)), rows[:, 3], rows[:, 4], scores,
            rows[:, 5].astype(np.int64),
        )  # fmt: skip

    def _doorways(self, field: _Field, known: OccupancyMap) -> NDArray[np.float64]:
        """(k, 6) x, y, yaw, width, confidence, ways."""
        c, side = self.config, known.resolution
        low, high = c.width_m
        # the distance is to a cell's centre, the obstacle begins half a cell before it
        ridge = field.free & (field.far_m >= low / 2) & (field.far_m <= high / 2 + side)
        cells = np.argwhere(ridge)
        cells, left, right = _opposite(field, cells, c.opposite_rad)
        across = right - left  # from one side's obstacle to the other's, cells
        width = np.hypot(*across.T) * side - side
        kept = (width >= low) & (width <= high)
        cells, left, right, across, width = (a[kept] for a in (cells, left, right, across, width))
        along = np.stack([-across[:, 1], across[:, 0]], 1) / np.hypot(*across.T)[:, None]
        middle = (left + right) / 2
        here = _at(field.far_m, middle)
        grown = []
        for sign in (1, -1):
            best = np.zeros(len(cells))
            clear = np.ones(len(cells), bool)
            for step in np.arange(side, c.within_m + side / 2, side):
                at = middle + sign * along * step / side
                clear &= _at(field.free, at).astype(bool)
                best = np.maximum(best, np.where(clear, _at(field.far_m, at) - here, 0))
            grown.append(best)
        opens = np.minimum(*grown) if len(cells) else np.zeros(0)
        kept = opens >= c.opens_m
        middle, along, width, opens = (a[kept] for a in (middle, along, width, opens))
        order = np.lexsort((-opens, np.round(width / side)))
        rows: list[NDArray[np.float64]] = []
        for k in order:
            xy = known.centre(middle[k])
            if all(np.hypot(*(xy - row[:2])) > c.apart_m for row in rows):
                yaw = math.atan2(along[k, 0], along[k, 1])
                sure = 1 - 0.5 * math.exp(-(opens[k] - c.opens_m) / c.opens_m)
                rows.append(np.array([*xy, yaw, width[k], sure, 2]))
        return np.array(rows).reshape(-1, 6)

    def _branchings(
        self, field: _Field, known: OccupancyMap, doors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(k, 6) x, y, yaw of the widest way, radius of the disc, confidence, ways."""
        c, side = self.config, known.resolution
        low, high = c.branch_m
        peak = cv2.dilate(field.far_m.astype(np.float32), np.ones((5, 5), np.uint8))
        top = field.free & (field.far_m >= peak - 1.5 * side)
        cells = np.argwhere(top & (field.far_m >= low) & (field.far_m <= high))
        cells = cells[cells.sum(axis=1) % 3 == 0]  # plateaus are wide: a third of them will do
        radius = field.far_m[cells[:, 0], cells[:, 1]]
        reach = np.maximum(c.beyond * radius, radius + c.beyond_m) / side
        open_ = _open(closed(field.free, known, doors[:, :4]), cells, reach, _SIN, _COS)
        least = c.way_rad * BEAMS / (2 * np.pi)
        # a way begins where an open beam follows a blocked one: few cells have three
        many = np.flatnonzero((open_ & ~np.roll(open_, 1, axis=1)).sum(axis=1) >= 3)
        clear = _open(field.free, cells[many], c.between * radius[many] / side, _SIN, _COS)
        found = []
        for k, near in zip(many, clear, strict=True):
            arcs = [arc for arc in _arcs(_joined(open_[k], near)) if arc[0] >= least]
            if len(arcs) >= 3:
                found.append((len(arcs), float(radius[k]), min(arcs)[0], k, max(arcs)[1]))
        rows: list[NDArray[np.float64]] = []
        for ways, disc, width, k, yaw in sorted(found, reverse=True):
            xy = known.centre(cells[k])
            beside = (np.hypot(*(doors[:, :2] - xy).T) < c.apart_m).any()
            if not beside and all(np.hypot(*(xy - row[:2])) > c.branches_apart_m for row in rows):
                sure = min(1.0, width / (2 * least))
                rows.append(np.array([*xy, yaw, disc, sure, ways]))
        return np.array(rows).reshape(-1, 6)


def closed(
    free: NDArray[np.bool_], known: OccupancyMap, doors: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(H, W) free cells with doorways (k, 4) x, y, yaw, width shut, as a copy."""
    out = free.astype(np.uint8)
    rows, columns = free.shape[0] / known.data.shape[0], free.shape[1] / known.data.shape[1]
    for x, y, yaw, width in doors:
        half = (width / 2 + known.resolution) * np.array([-math.sin(yaw), math.cos(yaw)])
        ends = ((np.array([[x, y]]) + np.array([half, -half])) - known.origin_w) / known.resolution
        ends = np.floor(ends * (columns, rows)).astype(int)
        cv2.line(out, ends[0].tolist(), ends[1].tolist(), 0, thickness=2)
    return out.astype(bool)


def _field(known: OccupancyMap) -> _Field | None:
    """Distances of a map; None where nothing is occupied."""
    wall = known.data >= OCCUPIED_FROM
    if not wall.any():
        return None
    far, label = cv2.distanceTransformWithLabels(
        (~wall).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros((int(label.max()) + 1, 2))
    of_label[label[wall]] = np.argwhere(wall)
    free = (known.data >= 0) & ~wall
    return _Field(free, far.astype(np.float64) * known.resolution, of_label[label])


def _opposite(
    field: _Field, cells: NDArray[np.int64], least_rad: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Cells beside which the nearest obstacle changes sides, and those two obstacles' cells."""
    height, width = field.free.shape
    out = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        to = cells + (dy, dx)
        inside = ((to >= 0) & (to < (height, width))).all(axis=1)
        at, to = cells[inside], to[inside]
        a, b = field.basis[at[:, 0], at[:, 1]], field.basis[to[:, 0], to[:, 1]]
        middle = (at + to) / 2
        u, v = a - middle, b - middle
        norm = np.maximum(np.hypot(*u.T) * np.hypot(*v.T), 1e-9)
        apart = np.arccos(np.clip((u * v).sum(axis=1) / norm, -1, 1))
        kept = apart >= least_rad
        out.append((at[kept], a[kept], b[kept]))
    return tuple(np.concatenate(part) for part in zip(*out, strict=True))  # type: ignore[return-value]


def _at(values: NDArray[np.generic], yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values at the cells nearest to points (k, 2), edge cells outside."""
    cell = np.rint(yx).astype(int)
    y = np.clip(cell[:, 0], 0, values.shape[0] - 1)
    x = np.clip(cell[:, 1], 0, values.shape[1] - 1)
    return np.asarray(values[y, x], np.float64)


BEAMS = 120
_SIN, _COS = (f(2 * np.pi * np.arange(BEAMS) / BEAMS) for f in (np.sin, np.cos))


@njit(cache=True, nogil=True)
def _open(free, cells, reach, sin, cos):  # type: ignore[no-untyped-def]
    """(n, BEAMS) is the way from a cell free in each direction, up to its reach in cells?"""
    height, width = free.shape
    out = np.ones((len(cells), len(sin)), np.bool_)
    for k in range(len(cells)):
        for b in range(len(sin)):
            for t in range(1, int(reach[k]) + 1):
                y = int(np.floor(cells[k, 0] + 0.5 + t * sin[b]))
                x = int(np.floor(cells[k, 1] + 0.5 + t * cos[b]))
                if not (0 <= y < height and 0 <= x < width) or not free[y, x]:
                    out[k, b] = False
                    break
    return out


def _joined(open_: NDArray[np.bool_], near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Open beams, and runs of blocked ones of which none is blocked ``near``."""
    out = open_.copy()
    for count, middle in _arcs(~open_):
        first = round(middle * BEAMS / (2 * np.pi) - (count - 1) / 2)
        run = (first + np.arange(count)) % BEAMS
        out[run] |= near[run].all()
    return out


def _arcs(open_: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """Beams and direction, rad, of each run of open ones; none if all are open."""
    if open_.all():
        return []
    first = int(np.flatnonzero(~open_)[0])
    turned = np.roll(open_, -first).astype(int)
    edge = np.flatnonzero(np.diff(np.concatenate([[0], turned, [0]])))
    return [
        (int(end - begin), float((begin + end - 1) / 2 + first) % BEAMS * 2 * np.pi / BEAMS)
        for begin, end in zip(edge[::2], edge[1::2], strict=True)
    ]
