"""Open ground as a height field: hills, ridges, rough patches and trees.

A cell of the field is two triangles, as MuJoCo has them: they share the diagonal from the corner
at least x and y to the one at most. Heights between the grid's points lie on those triangles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.grid import distance_m

ATTEMPTS = 200


@dataclass(frozen=True)
class TerrainConfig:
    """Ranges that a terrain is drawn from. Pairs are the least and the most."""

    side_m: float = 32.0
    """Side of the square."""
    cell_m: float = 0.2
    """Distance between the points of the height field."""
    hills: tuple[int, int] = (8, 14)
    """How many round hills."""
    hill_m: tuple[float, float] = (0.5, 2.2)
    """Their heights."""
    hill_slope: tuple[float, float] = (0.2, 0.5)
    """Their steepest slope, rise over run."""
    ridges: tuple[int, int] = (2, 4)
    """How many long ridges, each with a pass."""
    ridge_m: tuple[float, float] = (0.8, 1.8)
    """Their heights."""
    patches: tuple[int, int] = (4, 8)
    """How many rough patches, 2 to 4 m in radius."""
    rough_m: tuple[float, float] = (0.02, 0.05)
    """Standard deviation of their bumps, which are about half a metre wide."""
    trees: tuple[int, int] = (25, 50)
    """How many trees."""
    tree_radius_m: tuple[float, float] = (0.08, 0.25)
    """Radius of their trunks."""
    distance_m: tuple[float, float] = (22.0, 28.0)
    """Straight line from start to goal."""
    safe_slope: float = 0.32
    """A way whose ground is nowhere steeper, rise over run, leads from start to goal."""
    safe_m: float = 0.6
    """That way keeps this distance from the trees' axes (their radius on top) and the rim."""

    def __post_init__(self) -> None:
        for name in ("hills", "hill_m", "hill_slope", "ridges", "ridge_m", "patches", "rough_m",
                     "trees", "tree_radius_m", "distance_m"):  # fmt: skip
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be 0 <= least <= most, got {(low, high)}")
        if not 0 < self.cell_m <= 0.5 or not 10 <= self.side_m <= 200:
            raise ValueError(
                f"cell_m in (0, 0.5] and side_m in [10, 200] wanted, got {self.cell_m}, "
                f"{self.side_m}"
            )
        if not (0 < self.safe_slope and 0 < self.safe_m and self.hill_slope[0] > 0):
            raise ValueError(f"safe_slope, safe_m and hill_slope must be > 0, got {self}")
        if self.distance_m[1] > 1.2 * self.side_m:
            raise ValueError(f"distance_m must fit into side_m, got {self.distance_m}")


@dataclass(frozen=True, eq=False)
class Terrain:
    """One terrain with a start and a goal. Immutable: the arrays are made read-only."""

    name: str
    seed: int
    heights: NDArray[np.float32]
    """(H, W) m at the grid's points; row 0 at the smallest y, column 0 at the smallest x."""
    cell_m: float
    """Distance between points."""
    origin_w: tuple[float, float]
    """x and y of point (0, 0), m."""
    trees: NDArray[np.float64]
    """(D, 3) x, y, radius of upright trunks, m."""
    start_w: NDArray[np.float64]
    """(3,) x, y, yaw, m and rad."""
    goal_w: NDArray[np.float64]
    """(2,) m."""
    tree_m: float = 2.5
    """Height of the trunks above the ground at their axes."""
    foot_w: NDArray[np.float64] = field(init=False, repr=False)
    """(D,) height of the ground at the trunks' axes, m."""

    def __post_init__(self) -> None:
        h = self.heights
        if h.ndim != 2 or min(h.shape) < 2 or h.dtype != np.float32 or not np.isfinite(h).all():
            raise ValueError(f"heights must be finite (H, W) float32, got {h.shape} {h.dtype}")
        if self.trees.ndim != 2 or self.trees.shape[1] != 3 or (self.trees[:, 2] <= 0).any():
            raise ValueError(f"trees must be (D, 3) with radii > 0, got {self.trees.shape}")
        if self.start_w.shape != (3,) or self.goal_w.shape != (2,):
            raise ValueError(
                f"start_w (3,) and goal_w (2,) wanted, got {self.start_w.shape}, "
                f"{self.goal_w.shape}"
            )
        if not (self.cell_m > 0 and self.tree_m > 0):
            raise ValueError(f"cell_m and tree_m must be > 0, got {self.cell_m}, {self.tree_m}")
        object.__setattr__(self, "foot_w", self.height(self.trees[:, :2]))
        for array in (h, self.trees, self.start_w, self.goal_w, self.foot_w):
            array.flags.writeable = False

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """xmin, ymin, xmax, ymax of the height field, m."""
        (x, y), (rows, columns) = self.origin_w, self.heights.shape
        return x, y, x + (columns - 1) * self.cell_m, y + (rows - 1) * self.cell_m

    def height(self, xy_w: ArrayLike) -> NDArray[np.float64]:
        """(...) height of the ground at points (..., 2), m; outside, that of the rim."""
        xy = np.asarray(xy_w, np.float64)
        rows, columns = self.heights.shape
        at = (xy - self.origin_w) / self.cell_m
        x, y = np.clip(at[..., 0], 0, columns - 1), np.clip(at[..., 1], 0, rows - 1)
        ix = np.minimum(x.astype(np.int64), columns - 2)
        iy = np.minimum(y.astype(np.int64), rows - 2)
        u, v = x - ix, y - iy
        h = self.heights.astype(np.float64)
        h00, h10 = h[iy, ix], h[iy, ix + 1]
        h01, h11 = h[iy + 1, ix], h[iy + 1, ix + 1]
        below = h00 + u * (h10 - h00) + v * (h11 - h10)
        above = h00 + v * (h01 - h00) + u * (h11 - h01)
        return np.asarray(np.where(u >= v, below, above))

    def slope(self, over_m: float = 0.6) -> NDArray[np.float64]:
        """(H, W) rise over run of the ground, averaged over a square of side ``over_m``."""
        size = max(round(over_m / self.cell_m), 1)
        smooth = cv2.blur(self.heights, (size, size), borderType=cv2.BORDER_REPLICATE)
        gy, gx = np.gradient(smooth.astype(np.float64), self.cell_m)
        return np.asarray(np.hypot(gx, gy))

    def safe(self, slope: float, clearance_m: float) -> NDArray[np.bool_]:
        """(H, W) points no steeper than ``slope`` and ``clearance_m`` off trunks and rim."""
        clear = self.slope() <= slope
        rows, columns = self.heights.shape
        x = self.origin_w[0] + np.arange(columns) * self.cell_m
        y = self.origin_w[1] + np.arange(rows)[:, None] * self.cell_m
        for tx, ty, r in self.trees:
            clear &= (x - tx) ** 2 + (y - ty) ** 2 > (r + clearance_m) ** 2
        edge = int(np.ceil(clearance_m / self.cell_m))
        clear[:edge] = clear[-edge:] = False
        clear[:, :edge] = clear[:, -edge:] = False
        return clear


def terrain(seed: int, config: TerrainConfig | None = None) -> Terrain:
    """The first terrain of this seed on which a safe way leads from start to goal.

    Raises:
        ValueError: seed is negative, or there is none in ``ATTEMPTS`` draws.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    c = config or TerrainConfig()
    for attempt in range(ATTEMPTS):
        found = _draw(np.random.default_rng([seed, attempt]), seed, c)
        if found is not None:
            return found
    raise ValueError(f"no passable terrain in {ATTEMPTS} draws of seed {seed}; ask for less slope")


def _draw(rng: np.random.Generator, seed: int, c: TerrainConfig) -> Terrain | None:
    """One terrain, or None if no safe way leads from its start to its goal."""
    count, half = round(c.side_m / c.cell_m) + 1, c.side_m / 2
    line = np.linspace(-half, half, count)
    heights = _ground(rng, line, c)
    trees = np.column_stack([
        rng.uniform(-half + 1, half - 1, (n := rng.integers(c.trees[0], c.trees[1] + 1), 2)),
        rng.uniform(*c.tree_radius_m, n),
    ])  # fmt: skip
    nobody, origin = np.zeros(3), (-half, -half)
    bare = Terrain("terrain", seed, heights, c.cell_m, origin, trees, nobody, nobody[:2])
    safe = bare.safe(c.safe_slope, c.safe_m)
    _, region = cv2.connectedComponents(safe.astype(np.uint8), connectivity=4)
    # robots start and end on even ground with room around it
    room = distance_m(~(safe & (bare.slope() < 0.5 * c.safe_slope)), c.cell_m) > 0.8
    cells = np.argwhere(room)
    if len(cells) == 0:
        return None
    for iy, ix in cells[rng.integers(len(cells), size=20)]:
        off = np.hypot(*(cells - (iy, ix)).T) * c.cell_m
        fits = (off >= c.distance_m[0]) & (off <= c.distance_m[1])
        fits &= region[cells[:, 0], cells[:, 1]] == region[iy, ix]
        if not fits.any():
            continue
        gy, gx = cells[rng.choice(np.flatnonzero(fits))]
        goal = np.array([line[gx], line[gy]])
        yaw = np.arctan2(line[gy] - line[iy], line[gx] - line[ix]) + rng.uniform(-0.5, 0.5)
        start = np.array([line[ix], line[iy], yaw])
        return Terrain("terrain", seed, heights, c.cell_m, origin, trees, start, goal)
    return None


def _ground(
    rng: np.random.Generator, line: NDArray[np.float64], c: TerrainConfig
) -> NDArray[np.float32]:
    """(H, W) heights at the points of a square grid with these coordinates, m."""
    x, y = np.meshgrid(line, line)
    z, half = np.zeros_like(x), line[-1]
    for _ in range(rng.integers(c.hills[0], c.hills[1] + 1)):
        cx, cy = rng.uniform(-half, half, 2)
        top, steepest = rng.uniform(*c.hill_m), rng.uniform(*c.hill_slope)
        sigma = top * np.exp(-0.5) / steepest  # where a Gaussian is steepest
        z += top * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    for _ in range(rng.integers(c.ridges[0], c.ridges[1] + 1)):
        cx, cy = rng.uniform(-0.6 * half, 0.6 * half, 2)
        turn, wide = rng.uniform(0, np.pi), rng.uniform(0.9, 1.6)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        aside = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        aside += rng.uniform(0.5, 1.5) * np.sin(along / rng.uniform(2, 4))
        length = rng.uniform(4.0, 8.0)
        gap = 1 - np.exp(-((along - rng.uniform(-0.5, 0.5) * length) ** 2) / (2 * 1.5**2))
        fall = np.exp(-((np.abs(along) / length) ** 4)) * np.exp(-(aside**2) / (2 * wide**2))
        z += rng.uniform(*c.ridge_m) * fall * gap
    bumps = cv2.GaussianBlur(rng.normal(size=x.shape), (0, 0), 0.2 / c.cell_m)
    bumps = bumps / bumps.std()
    rough = np.zeros_like(x)
    for _ in range(rng.integers(c.patches[0], c.patches[1] + 1)):
        cx, cy = rng.uniform(-half, half, 2)
        off = np.hypot(x - cx, y - cy)
        patch = rng.uniform(*c.rough_m) / (1 + np.exp((off - rng.uniform(2, 4)) / 0.3))
        np.maximum(rough, patch, out=rough)
    return np.asarray(z + rough * bumps, np.float32)
