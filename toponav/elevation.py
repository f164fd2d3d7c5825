"""The ground as a robot has sensed it: heights in cells, planes fitted to them, what stands on it.

Points of a lidar or a depth camera go in, in the map frame; the map grows as they come. Cells are
``[iy, ix]``, row 0 at the smallest y. What a cell holds are moments, so that nothing is forgotten
and a scan costs the same however many came before.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

_LAYERS = _WEIGHT, _SUM, _SQUARES, _STANDS = range(4)


@dataclass(frozen=True)
class ElevationConfig:
    """Cells, and what counts as ground. The rules and numbers are our own."""

    cell_m: float = 0.2
    """Side of a cell."""
    stands_m: float = 0.4
    """Points of one scan in one cell that are farther apart in height are no ground."""
    stands_scans: int = 2
    """A cell stands out after so many such scans more than scans without."""
    plane_m: float = 1.4
    """Side of the square of cells that a plane is fitted to."""
    plane_cells: int = 6
    """Least cells with a height in that square."""
    plane_spread_m: float = 0.2
    """Least standard deviation of their positions, along their narrow side."""

    def __post_init__(self) -> None:
        for name in ("cell_m", "stands_m", "plane_spread_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.plane_m < 3 * self.cell_m:
            raise ValueError(f"plane_m must be >= 3 cells, got {self.plane_m}")
        if self.plane_cells < 3 or self.stands_scans < 1:
            raise ValueError(
                f"plane_cells >= 3 and stands_scans >= 1 wanted, got {self.plane_cells}, "
                f"{self.stands_scans}"
            )


@dataclass
class Surface:
    """What the map says about the ground now. Arrays are (H, W); nan where nothing is known."""

    height: NDArray[np.float64]
    """Of the fitted plane at the cell's centre, m."""
    slope_x: NDArray[np.float64]
    """Rise over run of the plane along x."""
    slope_y: NDArray[np.float64]
    rough: NDArray[np.float64]
    """Standard deviation of the heights from the plane, m."""
    stands: NDArray[np.bool_]
    """A trunk, a wall, a rock: not ground."""
    cell_m: float
    origin_w: tuple[float, float]
    """Corner of cell (0, 0) at the smallest x and y, m."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """(H, W) cells with a plane."""
        return np.isfinite(self.height)

    def cell(self, xy_w: ArrayLike) -> tuple[int, int]:
        """Cell (iy, ix) of a point (2,), m; a point outside belongs to the nearest edge cell."""
        x, y = (np.asarray(xy_w, np.float64)[:2] - self.origin_w) / self.cell_m
        rows, columns = self.height.shape
        return int(np.clip(np.floor(y), 0, rows - 1)), int(np.clip(np.floor(x), 0, columns - 1))

    def centre(self, cells: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 2) x, y at the centres of cells (..., 2) iy, ix, m."""
        yx = np.asarray(cells, np.float64)
        return np.asarray(self.origin_w) + (yx[..., ::-1] + 0.5) * self.cell_m


class ElevationMap:
    """Mean and variance of the ground's height per cell, and what stands on it.

    Args:
        bounds: xmin, ymin, xmax, ymax to begin with, m.
        config: cells and rules.

    Raises:
        ValueError: bounds are not in order.
    """

    def __init__(self, bounds: ArrayLike, config: ElevationConfig | None = None) -> None:
        self.config = config or ElevationConfig()
        x0, y0, x1, y1 = (float(b) for b in np.asarray(bounds, np.float64))
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"bounds must be xmin, ymin, xmax, ymax in order, got {bounds!r}")
        cell = self.config.cell_m
        self.origin_w = (x0, y0)
        rows, columns = (int(np.ceil(side / cell - 1e-6)) for side in (y1 - y0, x1 - x0))
        self._moments = np.zeros((len(_LAYERS), rows, columns))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._moments.shape[1], self._moments.shape[2]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(H, W) cells that a point fell into."""
        return np.asarray(self._moments[_WEIGHT] > 0)

    @property
    def stands(self) -> NDArray[np.bool_]:
        """(H, W) cells that hold something upright."""
        return np.asarray(self._moments[_STANDS] >= self.config.stands_scans)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(H, W) mean height, m; nan in cells not seen."""
        weight = self._moments[_WEIGHT]
        out = np.full(self.shape, np.nan)
        np.divide(self._moments[_SUM], weight, where=weight > 0, out=out)
        return out

    @property
    def variance(self) -> NDArray[np.float64]:
        """(H, W) variance of the heights within each cell, m^2; nan in cells not seen."""
        weight, mean = self._moments[_WEIGHT], self.mean
        square = np.divide(self._moments[_SQUARES], weight, where=weight > 0,
                           out=np.full(self.shape, np.nan))  # fmt: skip
        return np.asarray(np.maximum(square - mean**2, 0))

    def cells(self, xy_w: NDArray[np.float64]) -> NDArray[np.int64]:
        """(P, 2) iy, ix of points (P, 2), which may lie outside."""
        at = np.floor((xy_w - self.origin_w) / self.config.cell_m).astype(np.int64)
        return np.asarray(at[:, ::-1])

    def integrate(self, points_w: ArrayLike, sigma_m: ArrayLike) -> NDArray[np.bool_]:
        """Enter the points of one scan, weighted by the inverse of their variance.

        Args:
            points_w: (P, 3) m.
            sigma_m: (P,) standard deviations of their heights, m.

        Returns:
            (P,) points that lie in a cell which holds something upright.

        Raises:
            ValueError: shapes differ, or a sigma is not > 0.
        """
        points, sigma = np.asarray(points_w, np.float64), np.asarray(sigma_m, np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or sigma.shape != (len(points),):
            raise ValueError(
                f"points_w (P, 3) and sigma_m (P,) wanted, got {points.shape}, {sigma.shape}"
            )
        if len(points) == 0:
            return np.zeros(0, np.bool_)
        if not (sigma > 0).all() or not np.isfinite(points).all():
            raise ValueError("sigma_m must be > 0 and points_w finite")
        self._grow(points[:, :2].min(axis=0), points[:, :2].max(axis=0))
        at = self.cells(points[:, :2]) @ np.array([self.shape[1], 1])
        touched, cell = np.unique(at, return_inverse=True)
        low, high = np.full(len(touched), np.inf), np.full(len(touched), -np.inf)
        z, weight = points[:, 2], sigma**-2.0
        np.minimum.at(low, cell, z)
        np.maximum.at(high, cell, z)
        flat = self._moments.reshape(len(_LAYERS), -1)
        for layer, value in ((_WEIGHT, weight), (_SUM, weight * z), (_SQUARES, weight * z * z)):
            flat[layer, touched] += np.bincount(cell, value, minlength=len(touched))
        several = np.bincount(cell, minlength=len(touched)) > 1
        vote = np.where(high - low > self.config.stands_m, 1.0, np.where(several, -0.5, 0.0))
        most = 5.0 * self.config.stands_scans
        flat[_STANDS, touched] = np.clip(flat[_STANDS, touched] + vote, 0.0, most)
        return np.asarray(self.stands.ravel()[at])

    def _grow(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Make room for points within these corners."""
        cell, (rows, columns) = self.config.cell_m, self.shape
        first = np.floor((low - self.origin_w) / cell).astype(int)
        last = np.floor((high - self.origin_w) / cell).astype(int)
        before = np.maximum(-first, 0)
        after = np.maximum(last - (columns - 1, rows - 1), 0)
        if not (before.any() or after.any()):
            return
        # a little more than needed: it is not done at every scan
        before, after = (np.where(side > 0, side + 8, 0) for side in (before, after))
        self._moments = np.pad(
            self._moments, ((0, 0), (before[1], after[1]), (before[0], after[0]))
        )
        x, y = np.asarray(self.origin_w) - before * cell
        self.origin_w = (float(x), float(y))

    def surface(self) -> Surface:
        r"""Fit a plane to the heights around every cell.

        Least squares over the square of side ``plane_m``, all its cells with a height weighing
        alike, from their moments: with offsets :math:`(x, y)` from the cell, the slopes solve
        :math:`\mathrm{Cov}(xy) \, s = \mathrm{Cov}(xy, z)`.
        """
        c = self.config
        stands = self.stands
        ground = self.seen & ~stands
        mask = ground.astype(np.float64)
        z = np.where(ground, self.mean, 0.0)
        half = int(round(c.plane_m / c.cell_m)) // 2
        line = np.arange(-half, half + 1) * c.cell_m
        x, y = np.meshgrid(line, line)
        one = np.ones_like(x)

        def sums(layer: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(cv2.filter2D(layer, cv2.CV_64F, kernel,
                                           borderType=cv2.BORDER_CONSTANT))  # fmt: skip

        n = sums(mask, one)
        n1 = np.maximum(n, 1)
        mx, my, mz = sums(mask, x) / n1, sums(mask, y) / n1, sums(z, one) / n1
        xx = sums(mask, x * x) / n1 - mx * mx
        yy = sums(mask, y * y) / n1 - my * my
        xy = sums(mask, x * y) / n1 - mx * my
        xz, yz = sums(z, x) / n1 - mx * mz, sums(z, y) / n1 - my * mz
        zz = sums(z * z, one) / n1 - mz * mz
        det = xx * yy - xy * xy
        narrow = (xx + yy) / 2 - np.sqrt(np.maximum(((xx - yy) / 2) ** 2 + xy * xy, 0))
        known = (n >= c.plane_cells) & (narrow >= c.plane_spread_m**2)
        safe = np.where(known, det, 1.0)
        sx, sy = (xz * yy - yz * xy) / safe, (yz * xx - xz * xy) / safe
        left = np.sqrt(np.maximum(zz - sx * xz - sy * yz, 0) * n1 / np.maximum(n - 3, 1))
        nan = np.nan
        return Surface(
            np.where(known, mz - sx * mx - sy * my, nan), np.where(known, sx, nan),
            np.where(known, sy, nan), np.where(known, left, nan), stands, c.cell_m, self.origin_w,
        )  # fmt: skip
