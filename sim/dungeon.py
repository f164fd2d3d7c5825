"""Exploration of grid maps by a point robot with a range sensor: the protocol of ARiADNE.

A map is an image whose grey values say what is floor (194), wall (127) and start (203 to 208). The
sensor sees 80 px in 720 directions; a map is finished once at most 250 px of floor are unseen, and
what counts is the distance driven (Cao et al. 2023, arXiv 2301.11575, and its public code).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv._jit import njit
from toponav.occupancy import OccupancyMap, coarsen

WALL_GREY = 127
START_GREYS = (203, 208)
SENSOR_PX = 80.0
RAYS = 720
UNSEEN_PX = 250
LATTICE_PX = 16
CELL_PX = 4
"""Side of the cells that paths are planned on."""


@dataclass(frozen=True, eq=False)
class DungeonMap:
    """A map to explore."""

    name: str
    wall: NDArray[np.bool_]
    """(H, W), row 0 at the top of the image."""
    start: tuple[float, float]
    """x, y of the start, px."""


def load(path: str | Path) -> DungeonMap:
    """A map from its image.

    Raises:
        ValueError: no image, or it has no start.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"path must be an image, got {path}")
    at = np.argwhere((image >= START_GREYS[0]) & (image <= START_GREYS[1]))
    if len(at) == 0:
        raise ValueError(f"{path} must have a start, grey {START_GREYS[0]} to {START_GREYS[1]}")
    y, x = at.mean(axis=0) + 0.5
    return DungeonMap(Path(path).stem, image <= WALL_GREY, (float(x), float(y)))


def draw(seed: int) -> DungeonMap:
    """A map of the same kind: rooms on a lattice of 16 px, L-shaped corridors of two cells.

    Same seed, same map.
    """
    rng = np.random.default_rng([seed, 20_402])
    rows, columns = 30, 40
    while True:
        floor = np.zeros((rows, columns), bool)
        wanted, rooms = int(rng.integers(5, 13)), list[tuple[int, int, int, int]]()
        for _ in range(60):
            width, height = int(rng.integers(2, 9)), int(rng.integers(2, 8))
            x = int(rng.integers(1, columns - width - 1))
            y = int(rng.integers(1, rows - height - 1))
            apart = all(
                x > i + w or i > x + width or y > j + h or j > y + height for i, j, w, h in rooms
            )
            if apart:
                rooms.append((x, y, width, height))
                floor[y : y + height, x : x + width] = True
            if len(rooms) == wanted:
                break
        links = [(k, k + 1) for k in range(len(rooms) - 1)]
        links += [tuple(rng.integers(len(rooms), size=2)) for _ in range(int(rng.integers(3)))]
        for a, b in links:
            (x0, y0), (x1, y1) = ((x + w // 2, y + h // 2) for x, y, w, h in (rooms[a], rooms[b]))
            y, x = (y0, x1) if rng.random() < 0.5 else (y1, x0)
            floor[y - 1 : y + 1, min(x0, x1) - 1 : max(x0, x1) + 1] = True
            floor[min(y0, y1) - 1 : max(y0, y1) + 1, x - 1 : x + 1] = True
        floor[[0, -1]] = floor[:, [0, -1]] = False
        if 120 <= floor.sum() <= 400:
            break
    y, x = rng.permutation(np.argwhere(floor))[0]
    wall = ~np.kron(floor, np.ones((LATTICE_PX, LATTICE_PX), bool))
    start = (x + 0.5) * LATTICE_PX, (y + 0.5) * LATTICE_PX
    return DungeonMap(f"drawn-{seed}", wall, (float(start[0]), float(start[1])))


_ANGLES = 2 * np.pi * np.arange(RAYS) / RAYS
_RAYS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


@dataclass(eq=False)
class DungeonRun:
    """One robot in one map."""

    map: DungeonMap
    sensor_px: float = SENSOR_PX
    belief: OccupancyMap = field(init=False)
    grid: NDArray[np.int8] = field(init=False)
    """(H // CELL_PX, W // CELL_PX) the belief in cells that paths are planned on."""
    at: NDArray[np.int64] = field(init=False)
    """(2,) cell iy, ix of the robot, cells of CELL_PX."""
    driven_px: float = 0.0
    unseen_px: int = field(init=False)
    """Floor not yet seen, px."""

    def __post_init__(self) -> None:
        self.grid = np.full([side // CELL_PX for side in self.map.wall.shape], -1, np.int8)
        self.belief = OccupancyMap(np.full(self.map.wall.shape, -1, np.int8), 1.0)
        x, y = self.map.start
        self.at = np.array([y, x], np.int64) // CELL_PX
        self.unseen_px = int((~self.map.wall).sum())
        self.sense()

    @property
    def finished(self) -> bool:
        """Is so little unseen that the map counts as explored?"""
        return self.unseen_px <= UNSEEN_PX

    def sense(self) -> None:
        """Take a scan where the robot is."""
        y, x = (self.at + 0.5) * CELL_PX
        self.unseen_px -= _look(self.map.wall, self.belief.data, x, y, _RAYS, self.sensor_px)
        reach, (height, width) = int(self.sensor_px) // CELL_PX + 2, self.grid.shape
        iy, ix = self.at
        coarsen(
            self.belief.data, CELL_PX, self.grid, max(iy - reach, 0),
            min(iy + reach + 1, height), max(ix - reach, 0), min(ix + reach + 1, width),
        )  # fmt: skip

    def step(self, cell: ArrayLike) -> None:
        """Drive to a neighbouring cell and take a scan.

        Raises:
            ValueError: it is no neighbour, or there is a wall.
        """
        to = np.asarray(cell, np.int64)
        move = to - self.at
        y, x = to * CELL_PX
        if np.abs(move).max() != 1 or self.map.wall[y : y + CELL_PX, x : x + CELL_PX].any():
            raise ValueError(f"cell must be a free neighbour of {self.at}, got {to}")
        self.at = to
        self.driven_px += float(np.hypot(*move)) * CELL_PX
        self.sense()


@njit(cache=True, nogil=True)
def _look(wall, seen, x, y, rays, limit):  # type: ignore[no-untyped-def]
    """Enter what rays from a point show into ``seen``; return how much floor is new, px.

    The mapper of a robot would enter the same from exact ranges (Amanatides & Woo 1987).
    """
    height, width = wall.shape
    new = 0
    for b in range(len(rays)):
        c, s = rays[b, 0], rays[b, 1]
        ix, iy = int(x), int(y)
        step_x, step_y = (1 if c > 0 else -1), (1 if s > 0 else -1)
        every_x = abs(1 / c) if abs(c) > 1e-12 else 1e12
        every_y = abs(1 / s) if abs(s) > 1e-12 else 1e12
        next_x = ((ix + 1 - x) if c > 0 else (x - ix)) * every_x
        next_y = ((iy + 1 - y) if s > 0 else (y - iy)) * every_y
        while True:
            if seen[iy, ix] < 0:
                seen[iy, ix] = 0
                new += 1
            if next_x < next_y:
                if next_x >= limit:
                    break
                ix += step_x
                next_x += every_x
            else:
                if next_y >= limit:
                    break
                iy += step_y
                next_y += every_y
            if not (0 <= ix < width and 0 <= iy < height):
                break
            if wall[iy, ix]:
                seen[iy, ix] = 100
                break
    return new
