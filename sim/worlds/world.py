"""A planar world: axis-aligned boxes and discs of one height, what every tier and sensor reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.grid import OccupancyGrid
from rnd_agv.planner import astar, nearest_free

LABELS = (
    "wall", "shelf", "pallet", "crate", "pillar", "rock", "person", "agv",
    "desk", "printer", "plant", "table", "fridge", "sink", "toilet", "extinguisher", "workbench",
    "cabinet",
)  # fmt: skip
"""Class names of obstacles; a label is an index into them, -1 is no obstacle."""
WALL, SHELF, PALLET, CRATE, PILLAR, ROCK, PERSON, AGV_LABEL = range(8)
WALL_M = 0.2
"""Thickness of outer walls; they lie inside ``World.bounds``."""
ROBOT_RADIUS_M = 0.42
"""Generated worlds are accepted if a disc of this radius gets about (the AGV, with a margin)."""
GRID_M = 0.1
"""Resolution at which worlds are accepted and points drawn, m."""


@dataclass(frozen=True, eq=False)
class World:
    """Static obstacles. Immutable: the arrays are made read-only."""

    name: str
    seed: int
    bounds: tuple[float, float, float, float]
    """xmin, ymin, xmax, ymax, m, outer walls included."""
    boxes: NDArray[np.float32]
    """(K, 4) [cx, cy, hx, hy], m."""
    box_labels: NDArray[np.int8]
    """(K,) index into LABELS."""
    discs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(D, 3) [x, y, r], m."""
    disc_labels: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    """(D,) index into LABELS."""
    height_m: float = 1.0
    """Height of every obstacle."""
    map_from_world: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Pose x, y, yaw of the world in the map frame; identity unless an imported map is turned."""
    docks: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """(P, 3) poses x, y, yaw at which a vehicle is docked."""
    unknown: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(U, 4) unmapped boxes: a lidar looks through them, no robot is placed or sent there."""
    doors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(Q, 4) [cx, cy, hx, hy] of openings that can be shut, see :meth:`shut`; open here."""
    _grids: dict[float, OccupancyGrid] = field(default_factory=dict, init=False, repr=False)
    _free: dict[tuple[float, ...], tuple[NDArray[np.bool_], NDArray[np.int32]]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        shapes = {"boxes": 4, "discs": 3, "docks": 3, "unknown": 4, "doors": 4}
        for name, columns in shapes.items():
            array = getattr(self, name)
            if array.ndim != 2 or array.shape[1] != columns or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite (n, {columns}), got {array.shape}")
            if name != "docks" and len(array) and array[:, 2:].min() <= 0:
                raise ValueError(f"{name} must have sizes > 0, got {array[:, 2:].min()}")
            array.flags.writeable = False
        for name, rows in (("box_labels", len(self.boxes)), ("disc_labels", len(self.discs))):
            labels = getattr(self, name)
            if labels.shape != (rows,) or (
                rows and not 0 <= labels.min() <= labels.max() < len(LABELS)
            ):
                raise ValueError(
                    f"{name} must be ({rows},) in [0, {len(LABELS)}), got {labels.shape}"
                )
            labels.flags.writeable = False
        xmin, ymin, xmax, ymax = self.bounds
        if not (xmin < xmax and ymin < ymax and self.height_m > 0):
            raise ValueError(
                f"bounds in order and height_m > 0 wanted, got {self.bounds}, {self.height_m}"
            )

    def grid(self, resolution: float = GRID_M) -> OccupancyGrid:
        """The floor in cells of ``resolution`` m, unknown ones -1. A copy: the caller's."""
        made = self._grids.get(resolution)
        if made is None:
            made = OccupancyGrid.from_obstacles(self.boxes, self.discs, self.bounds, resolution)
            if len(self.unknown):
                none = np.zeros((0, 3))
                hidden = OccupancyGrid.from_obstacles(self.unknown, none, self.bounds, resolution)
                made.data[(hidden.data == 100) & (made.data == 0)] = -1
            self._grids[resolution] = made
        return OccupancyGrid(made.data.copy(), made.resolution, made.origin_w)

    def clearance(self, xy_w: ArrayLike) -> NDArray[np.float64]:
        """(k,) exact distance of points (k, 2) to the nearest obstacle or unknown box, m; >= 0."""
        xy = np.asarray(xy_w, dtype=np.float64).reshape(-1, 2)
        nearest = np.full(len(xy), np.inf)
        for boxes in (self.boxes, self.unknown):
            for cx, cy, hx, hy in _near(boxes, xy):
                gap = np.maximum(np.abs(xy - (cx, cy)) - (hx, hy), 0)
                np.minimum(nearest, np.hypot(gap[:, 0], gap[:, 1]), out=nearest)
        for x, y, r in self.discs.astype(np.float64):
            gap_m = np.maximum(np.hypot(xy[:, 0] - x, xy[:, 1] - y) - r, 0)
            np.minimum(nearest, gap_m, out=nearest)
        return nearest

    def free_points(
        self,
        rng: np.random.Generator,
        k: int,
        clearance_m: float,
        from_xy: ArrayLike | None = None,
        radius_m: float = ROBOT_RADIUS_M,
    ) -> NDArray[np.float64]:
        """Draw points that a robot can drive between.

        Args:
            rng: source of randomness.
            k: number of points.
            clearance_m: exact distance that each keeps from obstacles, unknown space and bounds.
            from_xy: (2,) m; points are reachable from here. None: from the largest free region.
            radius_m: the robot is a disc of this radius for what reachable means (or of
                clearance_m, if that is less).

        Returns:
            (k, 2) float64, m, uniform over the free floor.

        Raises:
            ValueError: there is no such point, or ``from_xy`` is not free.
        """
        blocked, region = self._regions(min(radius_m, clearance_m))
        if from_xy is None:
            # label 0 is what is blocked
            sizes = np.bincount(region.ravel(), minlength=2)
            sizes[0] = 0
            wanted = int(sizes.argmax())
        else:
            grid = self._grids[GRID_M]
            cell = nearest_free(blocked, grid.cell(from_xy), int(np.ceil(0.5 / GRID_M)))
            wanted = 0 if cell is None else int(region[cell])
            if wanted == 0:
                raise ValueError(
                    f"from_xy must be free for a disc of {radius_m:g} m, got {from_xy}"
                )
        grid = self._grids[GRID_M]
        key = (clearance_m, wanted, radius_m)
        if key not in self._free:
            clear = ~grid.inflate(max(clearance_m - 0.75 * GRID_M, 0.0), unknown=True)
            self._free[key] = blocked, np.argwhere(clear & (region == wanted)).astype(np.int32)
        cells = self._free[key][1]
        xmin, ymin, xmax, ymax = self.bounds
        out = np.zeros((0, 2))
        for _ in range(50):
            if len(out) >= k or len(cells) == 0:
                break
            pick = cells[rng.integers(len(cells), size=max(2 * (k - len(out)), 8))]
            xy = (
                grid.centre(pick[:, 0], pick[:, 1])
                + rng.uniform(-0.5, 0.5, (len(pick), 2)) * GRID_M
            )
            edge = np.minimum(xy - (xmin, ymin), (xmax, ymax) - xy).min(axis=1)
            out = np.concatenate([out, xy[np.minimum(self.clearance(xy), edge) >= clearance_m]])
        if len(out) < k:
            raise ValueError(
                f"clearance_m must leave free floor in {self.name} (seed {self.seed}), "
                f"got {clearance_m}"
            )
        return out[:k]

    def _regions(self, radius_m: float) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """(H, W) blocked cells for a disc, and each cell's region (0: blocked)."""
        key = (radius_m,)
        if key not in self._free:
            blocked = self.grid(GRID_M).inflate(radius_m, unknown=True)
            _, region = cv2.connectedComponents((~blocked).astype(np.uint8), connectivity=4)
            self._free[key] = blocked, np.asarray(region, np.int32)
        return self._free[key]

    def connects(self, points_w: ArrayLike, radius_m: float = ROBOT_RADIUS_M) -> bool:
        """Whether A* leads a disc of ``radius_m`` from the first of (k, 2+) points to all."""
        blocked, _ = self._regions(radius_m)
        grid = self._grids[GRID_M]
        cells = [
            grid.cell(np.asarray(point)[:2]) for point in np.asarray(points_w, dtype=np.float64)
        ]
        return all(not blocked[cell] for cell in cells) and all(
            len(astar(blocked, cells[0], cell)) > 0 for cell in cells[1:]
        )

    def reachable_share(self, radius_m: float = ROBOT_RADIUS_M) -> float:
        """Share of a disc's free space that its largest connected region has, in [0, 1]."""
        _, region = self._regions(radius_m)
        sizes = np.bincount(region.ravel(), minlength=2)[1:]
        return float(sizes.max() / max(sizes.sum(), 1))

    def shut(self, which: Iterable[int]) -> World:
        """This world with some doors shut: each is a piece of wall, and still known as a door.

        Args:
            which: rows of ``doors``.
        """
        rows = sorted(set(which))
        labels = np.full(len(rows), WALL, np.int8)
        return replace(
            self, boxes=np.concatenate([self.boxes, self.doors[rows]]),
            box_labels=np.concatenate([self.box_labels, labels]),
        )  # fmt: skip

    def shut_some(
        self, rng: np.random.Generator, share: float, joined_w: ArrayLike,
        radius_m: float = ROBOT_RADIUS_M,
    ) -> tuple[World, list[int]]:  # fmt: skip
        """This world with a share of its doors shut, and which: drawn among those that may be.

        Args:
            rng: source of randomness.
            share: in [0, 1]; fewer are shut if more would part the points.
            joined_w: (k, 2+) points between which a disc must still get about.
            radius_m: of the disc.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}")
        wanted, which, world = round(share * len(self.doors)), list[int](), self
        for door in rng.permutation(len(self.doors)):
            if len(which) == wanted:
                break
            tried = self.shut([*which, int(door)])
            if tried.connects(joined_w, radius_m):
                which, world = [*which, int(door)], tried
        return world, sorted(which)

    def to_map(self, pose_w: ArrayLike) -> NDArray[np.float64]:
        """World poses (..., 3) [x, y, yaw] in the frame of the imported map."""
        pose = np.asarray(pose_w, dtype=np.float64)
        x, y, yaw = self.map_from_world
        c, s = np.cos(yaw), np.sin(yaw)
        px, py = pose[..., 0], pose[..., 1]
        return np.stack([x + c * px - s * py, y + s * px + c * py, pose[..., 2] + yaw], axis=-1)

    def from_map(self, pose_m: ArrayLike) -> NDArray[np.float64]:
        """Poses (..., 3) of the imported map's frame in the world; inverse of :meth:`to_map`."""
        pose = np.asarray(pose_m, dtype=np.float64)
        x, y, yaw = self.map_from_world
        c, s = np.cos(yaw), np.sin(yaw)
        px, py = pose[..., 0] - x, pose[..., 1] - y
        return np.stack([c * px + s * py, -s * px + c * py, pose[..., 2] - yaw], axis=-1)


def _near(boxes: NDArray[np.float32], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boxes that decide the points' clearance: all of a few, else each point's nearest."""
    if len(boxes) < 256 or len(xy) == 0:
        return np.asarray(boxes, np.float64)
    # one matrix of squared gaps is cheaper than a Python loop over thousands of boxes
    gap = np.maximum(np.abs(xy[:, None] - boxes[None, :, :2]) - boxes[None, :, 2:], 0)
    nearest = np.unique(np.square(gap).sum(axis=2).argmin(axis=1))
    return np.asarray(boxes[nearest], np.float64)


class Draft:
    """Boxes gathered corner by corner, in a walled rectangle around the origin."""

    def __init__(self, width_m: float, depth_m: float) -> None:
        """An inner floor of (width, depth) m between four outer walls."""
        self.x, self.y = width_m / 2, depth_m / 2
        outer_x, outer_y = self.x + WALL_M, self.y + WALL_M
        self.bounds = (-outer_x, -outer_y, outer_x, outer_y)
        self.rows: list[tuple[float, float, float, float]] = []
        self.labels: list[int] = []
        self.doors: list[tuple[float, float, float, float]] = []
        self.add(WALL, -outer_x, -outer_y, outer_x, -self.y)
        self.add(WALL, -outer_x, self.y, outer_x, outer_y)
        self.add(WALL, -outer_x, -self.y, -self.x, self.y)
        self.add(WALL, self.x, -self.y, outer_x, self.y)

    def add(self, label: int, x0: float, y0: float, x1: float, y1: float) -> None:
        """Add the box from (x0, y0) to (x1, y1)."""
        self.rows.append(((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2))
        self.labels.append(label)

    def door(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Note that the opening from (x0, y0) to (x1, y1) can be shut."""
        self.doors.append((x0, y0, x1, y1))

    def drop(self) -> None:
        """Take the last box away."""
        self.rows.pop()
        self.labels.pop()

    def world(self, name: str, seed: int, docks: Sequence[Sequence[float]] = ()) -> World:
        """The boxes so far as a world."""
        return World(
            name, seed, self.bounds, np.array(self.rows, np.float32),
            np.array(self.labels, np.int8), docks=np.array(docks, np.float64).reshape(-1, 3),
            doors=boxes_from_corners(self.doors),
        )  # fmt: skip


def first_accepted(
    name: str, seed: int, draw: Callable[[np.random.Generator], World | None], tries: int = 50
) -> World:
    """The first world that ``draw`` accepts (does not return None); equal seeds give equal worlds.

    Raises:
        ValueError: none was accepted.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    for attempt in range(tries):
        world = draw(np.random.default_rng([seed, attempt]))
        if world is not None:
            return world
    raise ValueError(
        f"{name}: no passable world in {tries} draws of seed {seed}; ask for wider passages"
    )


def boxes_from_corners(corners: Iterable[Sequence[float]]) -> NDArray[np.float32]:
    """(K, 4) [cx, cy, hx, hy] of boxes given as (x0, y0, x1, y1)."""
    c = np.array(list(corners), np.float64).reshape(-1, 4)
    return np.concatenate([(c[:, :2] + c[:, 2:]) / 2, (c[:, 2:] - c[:, :2]) / 2], axis=1).astype(
        np.float32
    )
