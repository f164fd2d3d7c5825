"""What the robot believes of the floor: scans entered into a grid, and that grid made coarse.

Cells are ``data[iy, ix]``, row 0 at the smallest y, as in nav_msgs/OccupancyGrid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import njit

UNKNOWN, FREE, OCCUPIED = -1, 0, 100
OCCUPIED_FROM = 65
"""A cell at or above this percentage is an obstacle (ROS map_server's occupied_thresh)."""


@dataclass
class OccupancyMap:
    """Occupancy of the floor, axis aligned in the map frame."""

    data: NDArray[np.int8]
    """(H, W) percent: -1 unknown, 0 free, 100 occupied."""
    resolution: float
    """Side of a cell, m."""
    origin_w: tuple[float, float] = (0.0, 0.0)
    """Corner of cell (0, 0) with the smallest x and y, m."""

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.data.dtype != np.int8:
            raise ValueError(f"data must be (H, W) int8, got {self.data.shape} {self.data.dtype}")
        if not self.resolution > 0:
            raise ValueError(f"resolution must be > 0 m, got {self.resolution}")

    @classmethod
    def unknown(cls, bounds: Sequence[float], resolution: float) -> OccupancyMap:
        """Nothing known within bounds (xmin, ymin, xmax, ymax), m."""
        xmin, ymin, xmax, ymax = (float(b) for b in bounds)
        if not (xmin < xmax and ymin < ymax and resolution > 0):
            raise ValueError(f"bounds must be (xmin, ymin, xmax, ymax) in order, got {bounds}")
        shape = [int(np.ceil(side / resolution - 1e-6)) for side in (ymax - ymin, xmax - xmin)]
        return cls(np.full(shape, UNKNOWN, np.int8), float(resolution), (xmin, ymin))

    def cell(self, xy: ArrayLike) -> tuple[int, int]:
        """Cell (iy, ix) of a point (2,), m; a point outside belongs to the nearest edge cell."""
        x, y = np.asarray(xy, dtype=np.float64)[:2]
        ix = int(np.floor((x - self.origin_w[0]) / self.resolution))
        iy = int(np.floor((y - self.origin_w[1]) / self.resolution))
        height, width = self.data.shape
        return min(max(iy, 0), height - 1), min(max(ix, 0), width - 1)

    def inside(self, xy: ArrayLike) -> bool:
        """Has a point (2,), m, a cell?"""
        height, width = self.data.shape
        at = (np.asarray(xy, np.float64) - self.origin_w) / self.resolution
        return bool((at >= 0).all() and (at < (width, height)).all())

    def centre(self, cells: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 2) x, y at the centres of cells (..., 2) (iy, ix), m."""
        yx = np.asarray(cells, np.float64)
        return np.asarray(self.origin_w) + (yx[..., ::-1] + 0.5) * self.resolution

    def grown(self, xy: ArrayLike, reach_m: float) -> OccupancyMap:
        """This map, or a larger copy, so that all within ``reach_m`` of a point (2,) has cells."""
        x, y = np.asarray(xy, np.float64)
        height, width = self.data.shape
        low = np.floor(([x, y] - np.asarray(self.origin_w) - reach_m) / self.resolution)
        high = np.ceil(([x, y] - np.asarray(self.origin_w) + reach_m) / self.resolution)
        before = np.maximum(-low, 0).astype(int)
        after = np.maximum(high - (width, height), 0).astype(int)
        if not (before.any() or after.any()):
            return self
        # by a quarter more than needed, in whole blocks of 8: it is not done at every scan
        before, after = ((-(-side * 5 // 4) + 7) // 8 * 8 for side in (before, after))
        data = np.pad(self.data, ((before[1], after[1]), (before[0], after[0])),
                      constant_values=UNKNOWN)  # fmt: skip
        origin = np.asarray(self.origin_w) - before * self.resolution
        return OccupancyMap(data, self.resolution, (float(origin[0]), float(origin[1])))

    def integrate(
        self, pose_w: ArrayLike, ranges: ArrayLike, angles: ArrayLike, range_max: float,
        behind: float = 0.25, forget: int = 5,
    ) -> None:  # fmt: skip
        """Enter one scan: cells seen through lose ``forget`` percent, cells hit become 100.

        Unknown cells seen through become free. Within a scan a hit outweighs any look-through, and
        a cell loses once. Readings that are NaN or negative say nothing; one at or beyond
        ``range_max`` hit nothing and clears up to there.

        Args:
            pose_w: (3,) lidar x, y, yaw, m and rad.
            ranges: (B,) m.
            angles: (B,) beam angles in the lidar frame, rad.
            range_max: m.
            behind: cells behind a reading at which its obstacle is entered: a wall that lies on
                the edge of cells always lands in the same ones.
            forget: percent in [0, 100].

        Raises:
            ValueError: ranges and angles differ in length.
        """
        r, a = np.asarray(ranges, np.float64), np.asarray(angles, np.float64)
        if r.ndim != 1 or r.shape != a.shape:
            raise ValueError(f"ranges must be as many as angles, got {r.shape} and {a.shape}")
        pose = np.asarray(pose_w, np.float64)
        at = (pose[:2] - self.origin_w) / self.resolution
        scale = 1 / self.resolution
        _integrate(
            self.data, at[0], at[1], a + pose[2], r * scale, range_max * scale, behind, forget
        )

    def coarse(self, factor: int) -> NDArray[np.int8]:
        """(H // factor, W // factor) blocks: occupied if any cell is, else free if all are."""
        if factor < 1:
            raise ValueError(f"factor must be >= 1, got {factor}")
        height, width = self.data.shape[0] // factor, self.data.shape[1] // factor
        out = np.empty((height, width), np.int8)
        coarsen(self.data, factor, out, 0, height, 0, width)
        return out


@njit(cache=True, nogil=True)
def _integrate(data, x, y, angles, ranges, limit, behind, forget):  # type: ignore[no-untyped-def]
    """One scan in cells; every cell on a ray is visited once (Amanatides & Woo 1987)."""
    height, width = data.shape
    reach = int(limit) + 2
    x_lo, y_lo = max(int(x) - reach, 0), max(int(y) - reach, 0)
    x_hi, y_hi = min(int(x) + reach + 1, width), min(int(y) + reach + 1, height)
    if x_lo >= x_hi or y_lo >= y_hi:
        return
    mark = np.zeros((y_hi - y_lo, x_hi - x_lo), np.uint8)
    for b in range(len(angles)):
        r = ranges[b]
        if not r >= 0:  # also NaN
            continue
        c, s = np.cos(angles[b]), np.sin(angles[b])
        length = min(r, limit)
        ix, iy = int(np.floor(x)), int(np.floor(y))
        step_x, step_y = (1 if c > 0 else -1), (1 if s > 0 else -1)
        every_x = abs(1 / c) if abs(c) > 1e-12 else np.inf
        every_y = abs(1 / s) if abs(s) > 1e-12 else np.inf
        next_x = ((ix + 1 - x) if c > 0 else (x - ix)) * every_x if every_x < np.inf else np.inf
        next_y = ((iy + 1 - y) if s > 0 else (y - iy)) * every_y if every_y < np.inf else np.inf
        while True:
            if x_lo <= ix < x_hi and y_lo <= iy < y_hi:
                mark[iy - y_lo, ix - x_lo] |= 1
            t = min(next_x, next_y)
            if t >= length:
                break
            if next_x < next_y:
                ix += step_x
                next_x += every_x
            else:
                iy += step_y
                next_y += every_y
        if r < limit:
            hit_x = int(np.floor(x + c * (length + behind)))
            hit_y = int(np.floor(y + s * (length + behind)))
            if x_lo <= hit_x < x_hi and y_lo <= hit_y < y_hi:
                mark[hit_y - y_lo, hit_x - x_lo] = 2
    for iy in range(y_lo, y_hi):
        for ix in range(x_lo, x_hi):
            m = mark[iy - y_lo, ix - x_lo]
            if m >= 2:
                data[iy, ix] = 100
            elif m == 1:
                data[iy, ix] = max(data[iy, ix] - forget, 0)


@njit(cache=True, nogil=True)
def coarsen(  # type: ignore[no-untyped-def]
    data, factor, out, y_lo, y_hi, x_lo, x_hi
):  # fmt: skip
    """Write blocks [y_lo, y_hi) x [x_lo, x_hi) of :meth:`OccupancyMap.coarse` into ``out``."""
    low, high = np.empty(out.shape[1] * factor, np.int8), np.empty(out.shape[1] * factor, np.int8)
    for by in range(y_lo, y_hi):
        low[:], high[:] = 100, -1
        for iy in range(by * factor, (by + 1) * factor):
            for ix in range(x_lo * factor, x_hi * factor):  # over whole vectors
                low[ix], high[ix] = min(low[ix], data[iy, ix]), max(high[ix], data[iy, ix])
        for bx in range(x_lo, x_hi):
            least, most = np.int8(100), np.int8(-1)
            for ix in range(bx * factor, (bx + 1) * factor):
                least, most = min(least, low[ix]), max(most, high[ix])
            out[by, bx] = 100 if most >= OCCUPIED_FROM else (-1 if least < 0 else 0)
