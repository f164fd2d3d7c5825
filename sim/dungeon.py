"""Exploration of grid maps by a point robot with a range sensor: the protocol of ARiADNE.

A map is an image whose grey values say what is floor (194), wall (127) and start (203 to 208). The
sensor sees 80 px in 720 directions; a map is finished once at most 250 px of floor are unseen, and
what counts is the distance driven (Cao et al. 2023, arXiv 2301.11575, and its public code).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv._jit import njit

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

    @cached_property
    def views(self) -> Views:
        """What is seen from each cell."""
        return Views.of(self.wall, SENSOR_PX)


@dataclass(frozen=True, eq=False)
class Views:
    """What a sensor sees from each cell of a map, worked out the first time it is there.

    The CELL_PX x CELL_PX px of a cell are the 16 bits of one number, so that a look is an OR over
    the cells around.
    """

    wall: NDArray[np.bool_]
    """(H, W) px."""
    wall_bits: NDArray[np.uint16]
    """(h, w) of each cell."""
    number: NDArray[np.int32]
    """(h, w) row of ``masks`` for a look from a cell; -1: not yet."""
    masks: NDArray[np.uint16]
    """(free cells, S, S) px seen of the S x S cells around."""
    used: NDArray[np.int64]
    """(1,) rows of ``masks`` in use."""
    limit_px: float

    @classmethod
    def of(cls, wall: NDArray[np.bool_], limit_px: float) -> Views:
        """None yet.

        Args:
            wall: (H, W) of a map.
            limit_px: range of the sensor.
        """
        h, w = (side // CELL_PX for side in wall.shape)
        blocks = wall[: h * CELL_PX, : w * CELL_PX].reshape(h, CELL_PX, w, CELL_PX)
        bits = blocks.transpose(0, 2, 1, 3).reshape(h, w, CELL_PX**2)
        wall_bits = (bits * (1 << np.arange(CELL_PX**2))).sum(axis=2).astype(np.uint16)
        side = 2 * (int(limit_px) // CELL_PX + 2) + 1
        masks = np.zeros((int((wall_bits == 0).sum()) + 1, side, side), np.uint16)
        number = np.full((h, w), -1, np.int32)
        return cls(wall, wall_bits, number, masks, np.zeros(1, np.int64), limit_px)

    def arrays(self) -> tuple[NDArray[np.generic] | float, ...]:
        """As :func:`sense` takes them."""
        return self.wall, self.wall_bits, self.number, self.masks, self.used, self.limit_px


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
    """A map of the same kind: square rooms on a lattice of 16 px, corridors of two cells in an L.

    Same seed, same map. Floor, walls, loops and the length of classical explorations are near those
    of half of the 150 images that came with this project (75 maps: 1520 and 1459 px driven by the
    nearest-frontier explorer).
    """
    rng = np.random.default_rng([seed, 20_402])
    while True:
        floor = np.zeros((30, 40), bool)
        middles = _rooms(rng, floor)
        if len(middles) < 3:
            continue
        links = [(k, k + 1) for k in range(len(middles) - 1)]
        links += [tuple(rng.integers(len(middles), size=2)) for _ in range(int(rng.integers(3)))]
        for a, b in links:
            (x0, y0), (x1, y1) = middles[a], middles[b]
            y, x = (y0, x1) if rng.random() < 0.5 else (y1, x0)
            floor[y : y + 2, min(x0, x1) : max(x0, x1) + 2] = True
            floor[min(y0, y1) : max(y0, y1) + 2, x : x + 2] = True
        for _ in range(int(rng.integers(5))):  # bumps in the walls
            y, x = rng.permutation(np.argwhere(floor))[0] + rng.integers(-2, 2, size=2)
            y, x = int(np.clip(y, 2, 26)), int(np.clip(x, 2, 36))
            floor[y : y + 2, x : x + 2] = True
        pieces = cv2.connectedComponents(floor.astype(np.uint8), connectivity=4)[0] - 1
        if pieces == 1 and 160 <= floor.sum() <= 381:
            break
    x, y = middles[int(rng.integers(len(middles)))]
    wall = ~np.kron(floor, np.ones((LATTICE_PX, LATTICE_PX), bool))
    start = (x + 0.5) * LATTICE_PX, (y + 0.5) * LATTICE_PX
    return DungeonMap(f"drawn-{seed}", wall, start)


def _rooms(rng: np.random.Generator, floor: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Cut rooms that do not overlap into ``floor``; return x, y of their middles, both even."""
    middles = []
    for _ in range(int(rng.integers(8, 13))):
        if rng.random() < 0.55:
            side, x, y = 6, 2 * int(rng.integers(1, 16)), 2 * int(rng.integers(1, 11))
        else:
            side, x, y = 4, int(rng.integers(2, 33)), int(rng.integers(2, 23))
        if not floor[y : y + side, x : x + side].any():
            floor[y : y + side, x : x + side] = True
            middles.append(((x + side // 2) // 2 * 2, (y + side // 2) // 2 * 2))
    return middles


_ANGLES = 2 * np.pi * np.arange(RAYS) / RAYS
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)


@dataclass(eq=False)
class DungeonRun:
    """One robot in one map."""

    map: DungeonMap
    seen: NDArray[np.uint16] = field(init=False)
    """(H // CELL_PX, W // CELL_PX) px seen of each cell, a bit each."""
    grid: NDArray[np.int8] = field(init=False)
    """(H // CELL_PX, W // CELL_PX) -1 unknown, 0 free, 100 occupied: what paths are planned on."""
    at: NDArray[np.int64] = field(init=False)
    """(2,) cell iy, ix of the robot, cells of CELL_PX."""
    driven_px: float = 0.0
    unseen_px: int = field(init=False)
    """Floor not yet seen, px."""

    def __post_init__(self) -> None:
        self.grid = np.full([side // CELL_PX for side in self.map.wall.shape], -1, np.int8)
        self.seen = np.zeros(self.grid.shape, np.uint16)
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
        views, (iy, ix) = self.map.views.arrays(), self.at
        self.unseen_px -= sense(*views, self.seen, self.grid, iy, ix)  # type: ignore[call-arg]

    def step(self, cell: ArrayLike) -> None:
        """Drive to a neighbouring cell and take a scan.

        Raises:
            ValueError: it is no neighbour, or there is a wall.
        """
        to = np.asarray(cell, np.int64)
        move = to - self.at
        if np.abs(move).max() != 1 or self.map.views.wall_bits[to[0], to[1]]:
            raise ValueError(f"cell must be a free neighbour of {self.at}, got {to}")
        self.at = to
        self.driven_px += float(np.hypot(*move)) * CELL_PX
        self.sense()


@njit(cache=True, nogil=True)
def sense(  # type: ignore[no-untyped-def]
    wall, wall_bits, number, masks, used, limit, seen, grid, iy, ix
):  # fmt: skip
    """Enter a look from a cell into ``seen`` and ``grid``; return how much floor is new, px."""
    height, width = grid.shape
    row = number[iy, ix]
    half = masks.shape[1] // 2
    if row < 0:
        row = used[0]
        used[0] += 1
        number[iy, ix] = row
        _look(wall, masks[row], iy, ix, half, limit)
    view, new, every = masks[row], 0, np.uint16(0xFFFF)
    for y in range(max(iy - half, 0), min(iy + half + 1, height)):
        for x in range(max(ix - half, 0), min(ix + half + 1, width)):
            fresh = view[y - iy + half, x - ix + half] & ~seen[y, x]
            if fresh:
                seen[y, x] |= fresh
                bits = fresh & ~wall_bits[y, x]
                while bits:
                    bits &= bits - np.uint16(1)
                    new += 1
                if seen[y, x] & wall_bits[y, x]:
                    grid[y, x] = 100
                elif seen[y, x] == every:
                    grid[y, x] = 0
    return new


@njit(cache=True, nogil=True)
def _look(wall, mask, cy, cx, half, limit):  # type: ignore[no-untyped-def]
    """Enter what rays from the middle of a cell show into ``mask`` (S, S).

    The mapper of a robot would enter the same from exact ranges (Amanatides & Woo 1987).
    """
    height, width = wall.shape
    x, y = (cx + 0.5) * CELL_PX, (cy + 0.5) * CELL_PX
    for b in range(RAYS):
        c, s = _COS[b], _SIN[b]
        ix, iy = int(x), int(y)
        step_x, step_y = (1 if c > 0 else -1), (1 if s > 0 else -1)
        every_x = abs(1 / c) if abs(c) > 1e-12 else 1e12
        every_y = abs(1 / s) if abs(s) > 1e-12 else 1e12
        next_x = ((ix + 1 - x) if c > 0 else (x - ix)) * every_x
        next_y = ((iy + 1 - y) if s > 0 else (y - iy)) * every_y
        while True:
            bit = (iy % CELL_PX) * CELL_PX + ix % CELL_PX
            mask[iy // CELL_PX - cy + half, ix // CELL_PX - cx + half] |= np.uint16(1 << bit)
            if wall[iy, ix]:
                break
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
