"""Mazes: a random spanning tree of square cells, with some walls opened to make loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .world import WALL, Draft, World, first_accepted

THICK_M = 0.2
"""Thickness of inner walls."""


def maze(
    size_m: float = 16.0, cell_m: float = 2.0, loop_factor: float = 0.15, seed: int = 0
) -> World:
    """A square maze, carved depth first.

    Args:
        size_m: side of the inner floor, m; cut down to whole cells.
        cell_m: pitch of the corridors, wall included, at least 1.3 m.
        loop_factor: share of the walls left by the carving that are opened, in [0, 1]; 0 has one
            path between any two cells.
        seed: same seed, same maze.

    Raises:
        ValueError: an argument is off.
    """
    if not 1.3 <= cell_m <= 10 or not 2 * cell_m <= size_m <= 200:
        raise ValueError(
            f"cell_m in [1.3, 10] and size_m in [2 cells, 200] wanted, got {cell_m}, {size_m}"
        )
    if not 0 <= loop_factor <= 1:
        raise ValueError(f"loop_factor must be in [0, 1], got {loop_factor}")
    n = int(size_m / cell_m + 1e-9)

    def draw(rng: np.random.Generator) -> World | None:
        draft = Draft(n * cell_m, n * cell_m)
        east, north = _carve(rng, n)
        for walls in (east, north):
            shut = np.argwhere(walls)
            opened = rng.random(len(shut)) < loop_factor
            walls[tuple(shut[opened].T)] = False
        half = THICK_M / 2
        for along_y, walls in ((True, east.T), (False, north)):
            for k, line in enumerate(walls):  # line k of walls, after cell k
                at = (k + 1) * cell_m - draft.x
                for a, b in _runs(line):
                    low, high = a * cell_m - draft.x - half, b * cell_m - draft.x + half
                    low, high = max(low, -draft.x), min(high, draft.x)
                    box = (
                        (at - half, low, at + half, high)
                        if along_y
                        else (low, at - half, high, at + half)
                    )
                    draft.add(WALL, *box)
        world = draft.world("maze", seed)
        end = draft.x - cell_m / 2
        return world if world.connects([(-end, -end), (end, end)]) else None

    return first_accepted("maze", seed, draw)


def _carve(rng: np.random.Generator, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Walls of a perfect maze: (n, n - 1) to the east of cells, (n - 1, n) to the north."""
    east, north = np.ones((n, n - 1), bool), np.ones((n - 1, n), bool)
    seen = np.zeros((n, n), bool)
    seen[0, 0] = True
    stack = [(0, 0)]
    while stack:
        y, x = stack[-1]
        around = [(y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)]
        fresh = [c for c in around if 0 <= c[0] < n and 0 <= c[1] < n and not seen[c]]
        if not fresh:
            stack.pop()
            continue
        ny, nx = fresh[int(rng.integers(len(fresh)))]
        if ny == y:
            east[y, min(x, nx)] = False
        else:
            north[min(y, ny), x] = False
        seen[ny, nx] = True
        stack.append((ny, nx))
    return east, north


def _runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
