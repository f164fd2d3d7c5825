"""Explore a grid map with any explorer, and the tour of one who knows it all."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.dungeon import CELL_PX, LATTICE_PX, UNSEEN_PX, DungeonMap, DungeonRun
from toponav import geodesic
from toponav.explorers import Explorer, tour
from toponav.snapshot import Snapshot

REPLAN_PX = 24
"""A new decision is taken after this distance, or as soon as the target is no frontier any more."""
LIMIT_PX = 20_000
"""An exploration that has driven so far is given up."""


@dataclass
class Exploration:
    """How one exploration went."""

    finished: bool
    driven_px: float
    decision_s: list[float] = field(default_factory=list)
    """Time that each decision took, mapping excluded."""
    curve: list[tuple[float, int]] = field(default_factory=list)
    """Distance and floor unseen at each decision, px."""


def explore(
    run: DungeonRun, explorer: Explorer, replan_px: float = REPLAN_PX, limit_px: float = LIMIT_PX
) -> Exploration:
    """Drive until the map is finished, nothing is left to drive to, or ``limit_px`` is used up."""
    out = Exploration(False, 0.0)
    came_from = target = None
    while not run.finished and run.driven_px < limit_px:
        begun = time.perf_counter()
        view = Snapshot(run.grid.copy(), (int(run.at[0]), int(run.at[1])),
                        run.sensor_px / CELL_PX, came_from, target)  # fmt: skip
        if len(view.frontiers) == 0:
            break
        y, x = view.frontiers.cell[explorer.choose(view)]
        target = int(y), int(x)
        out.decision_s.append(time.perf_counter() - begun)
        out.curve.append((run.driven_px, run.unseen_px))
        way = geodesic.path(view.cost, target)
        came_from, from_px = view.at, run.driven_px
        for cell in way[1:]:
            run.step(cell)
            if run.finished or run.driven_px - from_px >= replan_px or not _open(run, target):
                break
    out.finished, out.driven_px = run.finished, run.driven_px
    out.curve.append((run.driven_px, run.unseen_px))
    return out


def _open(run: DungeonRun, cell: tuple[int, int]) -> bool:
    """Is there still something unknown beside the cell?"""
    y, x = cell
    cross = run.grid[max(y - 1, 0) : y + 2, x], run.grid[y, max(x - 1, 0) : x + 2]
    return bool((cross[0] < 0).any() or (cross[1] < 0).any())


def omniscient(world: DungeonMap) -> float:
    """Length of a good tour that sees the map, for one who knows it, px: what to measure against.

    Lookouts on the lattice by greedy set cover until at most UNSEEN_PX are unseen, toured in the
    order of :func:`toponav.explorers.tour`, whose 2-opt is good and not proven shortest.
    """
    run = DungeonRun(world)
    free = ~world.wall
    cells = np.array([
        (y, x) for y in range(LATTICE_PX // 2, free.shape[0], LATTICE_PX)
        for x in range(LATTICE_PX // 2, free.shape[1], LATTICE_PX) if free[y, x]
    ]) // CELL_PX  # fmt: skip
    cells = np.concatenate([run.at[None], cells])
    seen = np.array([_seen(world, cell) for cell in cells])
    chosen = [0]
    left = free.reshape(-1, CELL_PX, free.shape[1] // CELL_PX, CELL_PX)[:, 0, :, 0].ravel()
    left = left & ~seen[0]
    while left.sum() * CELL_PX**2 > UNSEEN_PX:
        best = int((seen & left).sum(axis=1).argmax())
        chosen.append(best)
        left &= ~seen[best]
    walk = free[::CELL_PX, ::CELL_PX]
    at = cells[chosen]
    costs = np.array([geodesic.costs(walk, (int(y), int(x)))[at[:, 0], at[:, 1]] for y, x in at])
    ways: NDArray[np.float32] = costs.astype(np.float32) * np.float32(CELL_PX / geodesic.STRAIGHT)
    if len(chosen) == 1:
        return 0.0
    order = 1 + tour(ways[0, 1:], ways[1:, 1:])
    return float(ways[np.concatenate([[0], order[:-1]]), order].sum())


def _seen(world: DungeonMap, cell: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(cells,) what is known to be free after one look from a cell."""
    y, x = (cell + 0.5) * CELL_PX
    run = DungeonRun(DungeonMap(world.name, world.wall, (float(x), float(y))))
    return np.asarray(run.grid == 0).ravel()
