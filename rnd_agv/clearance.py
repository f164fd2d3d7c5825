"""What the local planners share: scan points around the base, and how far a footprint is from them.

All of it in base_link. The lidar is taken to sit at the centre of the footprint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import njit
from .command import CommandLimits
from .observation import ScanSpec, to_body

Array = NDArray[Any]
THIN_M = 0.05
"""Of the scan points in one square of this side only the nearest to the base is kept."""
TILE_M = 0.25
"""Side of the tiles that points are sorted into."""


def scan_points(ranges: ArrayLike, scan: ScanSpec, reach_m: float) -> NDArray[np.float64]:
    """Returns of a scan within reach as points (P, 2) in the lidar frame, thinned, nearest first.

    NaN and readings below range_min are missing; -inf ("too close to measure") is a point at
    range_min.

    Raises:
        ValueError: ranges is not (beams,).
    """
    r = np.asarray(ranges, dtype=np.float64)
    if r.shape != (scan.beams,):
        raise ValueError(f"ranges must be ({scan.beams},), got {r.shape}")
    r = np.where(np.isneginf(r), scan.range_min, r)
    hit = np.flatnonzero((r >= scan.range_min) & (r < min(reach_m, scan.range_max)))
    hit = hit[np.argsort(r[hit], kind="stable")]
    angle = scan.angles[hit]
    points = np.stack([r[hit] * np.cos(angle), r[hit] * np.sin(angle)], axis=1)
    square = np.floor(points / THIN_M).astype(np.int64) @ np.array([1, 1 << 20])
    return points[np.sort(np.unique(square, return_index=True)[1])]


def sees_behind(scan: ScanSpec) -> bool:
    """Whether a scan goes all the way round, so that reversing is not blind."""
    return scan.beams * scan.angle_increment > 2 * np.pi - 2 * scan.angle_increment - 1e-6


@dataclass
class HeldScan:
    """Scan points that stay put in the world while the scan is held between two control ticks."""

    reach_m: float
    """Farther returns are left out, m."""
    _ranges: Array | None = field(default=None, init=False)
    _points_w: Array = field(default_factory=lambda: np.zeros((0, 2)), init=False)

    def points(self, pose_w: Array, ranges: ArrayLike, scan: ScanSpec) -> NDArray[np.float64]:
        """Points (P, 2) in base_link at ``pose_w``, of the scan as it was when first given."""
        r = np.asarray(ranges, dtype=np.float64)
        if self._ranges is None or not np.array_equal(r, self._ranges, equal_nan=True):
            points = scan_points(r, scan, self.reach_m)
            c, s = math.cos(pose_w[2]), math.sin(pose_w[2])
            self._ranges = r.copy()
            self._points_w = points @ np.array([[c, s], [-s, c]]) + pose_w[:2]
        return to_body(self._points_w, np.asarray(pose_w, dtype=np.float64)[None])

    def forget(self) -> None:
        """Drop the held scan (a new episode)."""
        self._ranges = None


def base_command(last: Array, vel_b: Array, limits: CommandLimits, lag_s: float = 0.3) -> Array:
    """(2,) command that rate limits start from: the last sent, kept near to what is measured.

    A base follows with a lag, so the last command is the better start; a base that was held (by a
    guard, by contact) for ``lag_s`` is not.
    """
    span = np.array([limits.accel_v, limits.accel_w]) * lag_s
    return np.clip(last, vel_b - span, vel_b + span)


def tile_points(points: Array, half_m: float, reach_m: float) -> tuple[Array, Array]:
    """Sort points by the tiles of a square around the base from which they are within reach.

    Args:
        points: (P, 2) in base_link, m.
        half_m: half side of the square; nothing outside it is seen.
        reach_m: circumscribed radius of the footprint plus the largest gap of interest.

    Returns:
        (S, S, 2) int32, rows from and to of tile (iy, ix); and those rows, (Q, 2) points.
    """
    tiles, packed = _tile_points(np.ascontiguousarray(points), half_m, reach_m)
    return tiles, packed


@njit(cache=True)
def _tile_points(points, half_m, reach_m):  # type: ignore[no-untyped-def]
    size = 2 * int(math.ceil(half_m / TILE_M))
    tiles = np.zeros((size, size, 2), dtype=np.int32)
    wide = reach_m + TILE_M * 0.7072  # from a tile's centre to its corner
    span = int(math.ceil(wide / TILE_M))
    packed = np.empty((0, 2))
    for fill in (False, True):  # count, then fill
        for p in range(len(points)):
            px, py = points[p, 0] / TILE_M + size // 2, points[p, 1] / TILE_M + size // 2
            jx, jy = int(math.floor(px)), int(math.floor(py))
            for iy in range(max(jy - span, 0), min(jy + span + 1, size)):
                for ix in range(max(jx - span, 0), min(jx + span + 1, size)):
                    if math.hypot(ix + 0.5 - px, iy + 0.5 - py) * TILE_M <= wide:
                        if fill:
                            packed[tiles[iy, ix, 1]] = points[p]
                        tiles[iy, ix, 1] += 1
        if not fill:
            total = 0
            for iy in range(size):
                for ix in range(size):
                    count = tiles[iy, ix, 1]
                    tiles[iy, ix, 0] = tiles[iy, ix, 1] = total
                    total += count
            packed = np.empty((total, 2))
    return tiles, packed


@njit(cache=True)
def footprint_gap(x, y, yaw, hx, hy, tiles, packed, cap):  # type: ignore[no-untyped-def]
    """Gap from the footprint at (x, y, yaw) to the nearest point, m, at most ``cap``; < 0 inside.

    ``tiles, packed`` are :func:`tile_points` with a reach of the circumscribed radius + cap (njit).
    """
    size = tiles.shape[0]
    ix, iy = int(math.floor(x / TILE_M)) + size // 2, int(math.floor(y / TILE_M)) + size // 2
    gap = cap
    if not (0 <= ix < size and 0 <= iy < size) or tiles[iy, ix, 0] == tiles[iy, ix, 1]:
        return gap
    c, s = math.cos(yaw), math.sin(yaw)
    for p in range(tiles[iy, ix, 0], tiles[iy, ix, 1]):
        dx, dy = packed[p, 0] - x, packed[p, 1] - y
        bx = abs(c * dx + s * dy) - hx
        if bx >= gap:
            continue
        by = abs(c * dy - s * dx) - hy
        if by >= gap:
            continue
        g = math.sqrt(bx * bx + by * by) if bx > 0 and by > 0 else max(bx, by)
        if g < gap:
            gap = g
    return gap


@njit(cache=True)
def arc_gap(v, w, time_s, step_s, hx, hy, tiles, packed, cap):  # type: ignore[no-untyped-def]
    """Smallest footprint gap on the arc of a constant (v, w) from the base's pose, m (njit)."""
    gap, yaw, x, y = cap, 0.0, 0.0, 0.0
    for _ in range(int(math.ceil(time_s / step_s))):
        x += v * step_s * math.cos(yaw + 0.5 * w * step_s)
        y += v * step_s * math.sin(yaw + 0.5 * w * step_s)
        yaw += w * step_s
        gap = min(gap, footprint_gap(x, y, yaw, hx, hy, tiles, packed, cap))
    return gap
