"""Occupancy grid of a planar world: built from obstacles or from scans, inflated for planning.

Cells are ``data[iy, ix]``, row 0 at the smallest y, as in nav_msgs/OccupancyGrid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import njit
from .observation import ScanSpec

UNKNOWN, FREE, OCCUPIED = -1, 0, 100
OCCUPIED_FROM = 65
"""A cell at or above this percentage is an obstacle (ROS map_server's occupied_thresh)."""
FORGET = 20
"""Default of ``forget``: two scans that look through an obstacle clear it."""


@dataclass
class OccupancyGrid:
    """Occupancy of the floor, axis aligned in the world frame."""

    data: NDArray[np.int8]
    """(H, W) percent: -1 unknown, 0 free, 100 occupied."""
    resolution: float
    """Side of a cell, m."""
    origin_w: tuple[float, float]
    """Corner of cell (0, 0) with the smallest x and y, m."""

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.data.dtype != np.int8:
            raise ValueError(f"data must be (H, W) int8, got {self.data.shape} {self.data.dtype}")
        if not self.resolution > 0:
            raise ValueError(f"resolution must be > 0 m, got {self.resolution}")
        self.data = np.ascontiguousarray(self.data)

    @classmethod
    def empty(
        cls, bounds: Sequence[float], resolution: float, fill: int = UNKNOWN
    ) -> OccupancyGrid:
        """All cells ``fill`` over bounds (xmin, ymin, xmax, ymax), m."""
        xmin, ymin, xmax, ymax = (float(b) for b in bounds)
        if not (xmin < xmax and ymin < ymax and resolution > 0):
            raise ValueError(f"bounds must be (xmin, ymin, xmax, ymax) in order, got {bounds}")
        shape = [int(np.ceil(side / resolution - 1e-6)) for side in (ymax - ymin, xmax - xmin)]
        return cls(np.full(shape, fill, dtype=np.int8), float(resolution), (xmin, ymin))

    @classmethod
    def from_obstacles(
        cls, boxes: ArrayLike, discs: ArrayLike, bounds: Sequence[float], resolution: float
    ) -> OccupancyGrid:
        """A fully known grid: every cell that an obstacle overlaps is occupied.

        Args:
            boxes: (K, 4) [cx, cy, hx, hy] axis-aligned boxes, m.
            discs: (D, 3) [x, y, r], m.
            bounds: (xmin, ymin, xmax, ymax), m.
            resolution: side of a cell, m.
        """
        grid = cls.empty(bounds, resolution, FREE)
        origin, height, width = np.array(grid.origin_w), *grid.data.shape
        for cx, cy, hx, hy in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
            x, y = (
                ((cx - hx, cx + hx) - origin[0]) / resolution,
                ((cy - hy, cy + hy) - origin[1]) / resolution,
            )
            # 1e-3: a face that lies on a cell edge must not claim the next cell through float noise
            x0, y0 = int(np.floor(x[0] + 1e-3)), int(np.floor(y[0] + 1e-3))
            x1, y1 = int(np.ceil(x[1] - 1e-3)), int(np.ceil(y[1] - 1e-3))
            grid.data[max(y0, 0) : max(y1, y0 + 1, 0), max(x0, 0) : max(x1, x0 + 1, 0)] = OCCUPIED
        for x, y, r in np.asarray(discs, dtype=np.float64).reshape(-1, 3):
            (ix0, iy0), (ix1, iy1) = (
                np.floor((np.array([x, y]) + side * r - origin) / resolution).astype(int)
                for side in (-1, 1)
            )
            ix, iy = (
                np.arange(max(ix0, 0), min(ix1 + 1, width)),
                np.arange(max(iy0, 0), min(iy1 + 1, height)),
            )
            # distance from the disc's centre to each cell's square
            dx = np.maximum(np.abs(origin[0] + (ix + 0.5) * resolution - x) - resolution / 2, 0)
            dy = np.maximum(np.abs(origin[1] + (iy + 0.5) * resolution - y) - resolution / 2, 0)
            near = dx[None, :] ** 2 + dy[:, None] ** 2 <= r * r
            grid.data[iy[:, None], ix[None, :]] = np.where(
                near, OCCUPIED, grid.data[iy[:, None], ix[None, :]]
            )
        return grid

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax), m."""
        x, y = self.origin_w
        height, width = self.data.shape
        return x, y, x + width * self.resolution, y + height * self.resolution

    def cell(self, xy: ArrayLike) -> tuple[int, int]:
        """Cell (iy, ix) of a world point (2,); a point outside belongs to the nearest edge cell."""
        x, y = np.asarray(xy, dtype=np.float64)
        ix = int(np.floor((x - self.origin_w[0]) / self.resolution))
        iy = int(np.floor((y - self.origin_w[1]) / self.resolution))
        height, width = self.data.shape
        return min(max(iy, 0), height - 1), min(max(ix, 0), width - 1)

    def centre(self, iy: Any, ix: Any) -> NDArray[np.float64]:
        """World point(s) (..., 2) at the centre of cell(s) (iy, ix), m."""
        cell = np.stack([np.asarray(ix), np.asarray(iy)], axis=-1)
        return np.asarray(self.origin_w) + (cell + 0.5) * self.resolution

    def occupied(self, unknown: bool = False) -> NDArray[np.bool_]:
        """(H, W) cells that hold an obstacle, with the unknown ones if ``unknown``."""
        full = self.data >= OCCUPIED_FROM
        return full | (self.data < 0) if unknown else full

    def inflate(self, radius_m: float, unknown: bool = False) -> NDArray[np.bool_]:
        """(H, W) cells whose centre is within ``radius_m`` of the centre of an occupied one.

        Unknown cells are passable (optimistic planning) unless ``unknown``.
        """
        full = self.occupied(unknown)
        return full | (distance_m(full, self.resolution) <= radius_m)

    def integrate(
        self, pose_w: ArrayLike, ranges: ArrayLike, scan: ScanSpec, forget: int = FORGET
    ) -> None:
        """Enter one scan: cells seen through lose ``forget`` percent, cells hit become 100.

        Unknown cells seen through become free. Within one scan a hit outweighs any look-through,
        and a cell loses once. NaN, -inf and readings below range_min say nothing; a reading at
        or beyond range_max clears up to range_max.

        Args:
            pose_w: (3,) lidar x, y, yaw in the world, m and rad.
            ranges: (beams,) m.
            scan: layout of the scan.
            forget: percent in [0, 100].

        Raises:
            ValueError: ranges does not fit the scan, or forget is out of range.
        """
        r = np.asarray(ranges, dtype=np.float64)
        if r.shape != (scan.beams,) or not 0 <= forget <= 100:
            raise ValueError(
                f"ranges must be ({scan.beams},) and forget in [0, 100], got {r.shape} and {forget}"
            )
        pose, origin = (
            np.asarray(pose_w, dtype=np.float64),
            np.asarray(self.origin_w, dtype=np.float64),
        )
        seen = np.zeros(self.data.shape, dtype=np.uint8)
        limits = scan.range_min, scan.range_max
        _integrate(self.data, seen, origin, self.resolution, pose, r, scan.angles, *limits, forget)


def distance_m(full: NDArray[np.bool_], resolution: float) -> NDArray[np.float32]:
    """(H, W) float32 distance from each cell to the nearest full one (their centres), m or inf."""
    if not full.any():
        return np.full(full.shape, np.inf, dtype=np.float32)
    free = (~full).astype(np.uint8)
    cells = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(cells * np.float32(resolution), dtype=np.float32)


@njit(cache=True, nogil=True)
def integrate_many(
    data: NDArray[np.int8],
    origins: NDArray[np.float64],
    resolution: float,
    pose_w: NDArray[np.float64],
    ranges: NDArray[np.floating],
    angles: NDArray[np.float64],
    max_range: float,
    min_range: float = 0.0,
    forget: int = FORGET,
) -> None:
    """Enter one scan into each of N grids of one size, in place.

    Args:
        data: (N, H, W) int8, as :attr:`OccupancyGrid.data`; changed.
        origins: (N, 2) corner of cell (0, 0), m.
        resolution: side of a cell, m.
        pose_w: (N, 3) lidar poses, m and rad.
        ranges: (N, B) m.
        angles: (B,) beam angles in the lidar frame, rad.
        max_range: a reading here or beyond hit nothing, m.
        min_range: readings below say nothing, m.
        forget: see :meth:`OccupancyGrid.integrate`.
    """
    seen = np.zeros(data.shape[1:], dtype=np.uint8)
    for n in range(data.shape[0]):
        _integrate(
            data[n],
            seen,
            origins[n],
            resolution,
            pose_w[n],
            ranges[n],
            angles,
            min_range,
            max_range,
            forget,
        )


@njit(cache=True, nogil=True)
def _integrate(  # type: ignore[no-untyped-def]
    data, seen, origin, resolution, pose, ranges, angles, min_range, max_range, forget
):
    """One scan into one grid; ``seen`` (H, W) uint8 comes and leaves all zero (scratch)."""
    height, width = data.shape
    flat, stride = seen.ravel(), np.uint32(width)
    x0 = (pose[0] - origin[0]) / resolution
    y0 = (pose[1] - origin[1]) / resolution
    # the part of the grid that this scan can touch
    reach = max_range / resolution + 2
    ix_lo, ix_hi = max(int(x0 - reach), 0), min(int(x0 + reach) + 1, width)
    iy_lo, iy_hi = max(int(y0 - reach), 0), min(int(y0 + reach) + 1, height)
    for b in range(len(angles)):
        r = ranges[b]
        if not r >= min_range or r < 0:  # also NaN
            continue
        c, s = np.cos(pose[2] + angles[b]), np.sin(pose[2] + angles[b])
        length = min(r, max_range) / resolution
        if r < max_range:
            # a quarter cell behind the surface: a wall on a cell edge always lands in the same cell
            hit_x = int(np.floor(x0 + c * (length + 0.25)))
            hit_y = int(np.floor(y0 + s * (length + 0.25)))
            if 0 <= hit_x < width and 0 <= hit_y < height:
                seen[hit_y, hit_x] = 2
        # clip the ray to the grid (Liang & Barsky 1984); sample it once per cell of its long axis
        t0, t1 = 0.0, length
        for p, d, size in ((x0, c, width), (y0, s, height)):
            if abs(d) > 1e-12:
                near, far = (1e-6 - p) / d, (size - 1e-6 - p) / d
                t0, t1 = max(t0, min(near, far)), min(t1, max(near, far))
            elif p < 0 or p >= size:
                t1 = -1.0
        if t1 < t0:
            continue
        steps = int(np.ceil((t1 - t0) * max(abs(c), abs(s))))
        if steps == 0:
            continue
        dt = (t1 - t0) / steps
        x, y, dx, dy = x0 + c * t0, y0 + s * t0, c * dt, s * dt
        for _ in range(steps):
            flat[np.uint32(y) * stride + np.uint32(x)] |= (
                1  # unsigned: no test for negative indices
            )
            x += dx
            y += dy
    for iy in range(iy_lo, iy_hi):
        for ix in range(ix_lo, ix_hi):
            mark = seen[iy, ix]
            if mark >= 2:
                data[iy, ix] = 100
            elif mark == 1:
                data[iy, ix] = max(data[iy, ix] - forget, 0)
            seen[iy, ix] = 0
