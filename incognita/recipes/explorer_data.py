"""What the explorer's meta-controller learns from: every candidate tried on the true map.

At states on the way of a classical explorer that now and then drives elsewhere, each candidate
frontier is driven to for one decision and the classical explorer goes on to the end. The distance
is the Q-value of that candidate under the classical explorer, one map's worth of it. Nothing of
the true map is in what the network is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnd_agv._jit import njit
from sim.dungeon import CELL_PX, SENSOR_PX, UNSEEN_PX, DungeonMap, DungeonRun, sense
from toponav.explorers import Utility
from toponav.frontier import edges, pieces
from toponav.geodesic import STRAIGHT, descend, field_from
from toponav.meta_features import NAMES, PATCH, Features, features

from ..explore import LIMIT_PX, REPLAN_PX, WHOLE, drive_to, snapshot

NOTHING = Features(
    np.zeros((0, len(NAMES)), np.float32), np.zeros((0, 2, PATCH, PATCH), np.uint8)
)  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """A state and what each candidate costs."""

    features: Features
    cost: NDArray[np.float32]
    """(K,) ranges of the sensor."""


def labelled(
    world: DungeonMap, base: Utility, rng: np.random.Generator, share: float, stray: float
) -> list[Labelled]:
    """States of one exploration of ``base``, with the cost of each candidate.

    Args:
        world: the map.
        base: the classical explorer.
        share: of the states, at random, that are labelled.
        stray: probability of driving to another candidate for 1 to 7 decisions.
    """
    run, view, out = DungeonRun(world), None, []
    on = 0
    while not run.finished and run.driven_px < LIMIT_PX:
        view = snapshot(run, view)
        count = len(view.frontiers)
        if count == 0:
            break
        score = base.scores(view)
        chosen = int(score.argmax())
        if count > 1 and rng.random() < share:
            cost = np.array([try_first(run, base, cell) for cell in view.frontiers.cell])
            out.append(Labelled(features(view, score), (cost / SENSOR_PX).astype(np.float32)))
        if view.held is not None and on > 0:
            chosen, on = view.held, on - 1
        elif rng.random() < stray:
            chosen, on = int(rng.integers(count)), int(rng.integers(1, 8))
        drive_to(run, view, chosen)
    return out


def try_first(run: DungeonRun, base: Utility, cell: NDArray[np.int64]) -> float:
    """Distance to the end if the next decision is for ``cell`` and ``base`` takes the rest, px.

    The run itself is left as it is.
    """
    scale = base.scale * SENSOR_PX / CELL_PX
    return float(_rollout(  # type: ignore[call-arg]
        *run.map.views.arrays(), run.seen.copy(), run.grid.copy(), run.at[0], run.at[1],
        run.unseen_px, cell[0], cell[1], scale, base.power,
    ))  # fmt: skip


@njit(cache=True, nogil=True)
def _rollout(  # type: ignore[no-untyped-def]
    wall, wall_bits, number, masks, used, limit, seen, grid, iy, ix, unseen, ty, tx, scale, power
):  # fmt: skip
    """``explore`` with ``Utility``, all of it compiled, after a first decision for (ty, tx)."""
    height, width = grid.shape
    driven, first = 0.0, True
    free = np.zeros((height + 2, width + 2), np.bool_)
    while unseen > UNSEEN_PX and driven < LIMIT_PX:
        free[1:-1, 1:-1] = grid == 0
        free[iy + 1, ix + 1] = True
        cost = field_from(free, np.array([[iy + 1, ix + 1]]))[1:-1, 1:-1].copy()
        if not first:
            cell, size = pieces(edges(grid, cost >= 0), WHOLE, 1)
            best = -np.inf
            for k in range(len(cell)):
                y, x = cell[k]
                score = power * np.log(size[k]) - cost[y, x] / (STRAIGHT * scale)
                if score > best:
                    best, ty, tx = score, y, x
            if best == -np.inf:
                return LIMIT_PX
        first = False
        way, begun = descend(cost, ty, tx), driven
        for j in range(len(way) - 2, -1, -1):
            y, x = way[j]
            driven += CELL_PX * np.sqrt((y - iy) ** 2 + (x - ix) ** 2)
            iy, ix = y, x
            unseen -= sense(wall, wall_bits, number, masks, used, limit, seen, grid, iy, ix)
            if unseen <= UNSEEN_PX or driven - begun >= REPLAN_PX - 1e-6:
                break
        if driven == begun:  # stands on the cell and sees no more
            return LIMIT_PX
    return driven


def save(path: Path, states: list[Labelled]) -> None:
    """Write states, whole or not at all."""
    aside = path.with_suffix(".new.npz")
    np.savez(
        aside, count=np.array([len(s.cost) for s in states], np.int64),
        numbers=np.concatenate([NOTHING.numbers, *(s.features.numbers for s in states)]),
        pictures=np.concatenate([NOTHING.pictures, *(s.features.pictures for s in states)]),
        cost=np.concatenate([np.zeros(0, np.float32), *(s.cost for s in states)]),
    )  # fmt: skip
    aside.replace(path)


def load(path: Path) -> list[Labelled]:
    """Read what :func:`save` wrote."""
    with np.load(path) as file:
        count, numbers, pictures, cost = (
            file[name] for name in ("count", "numbers", "pictures", "cost")
        )
    out, c, r = [], 0, 0
    for k in count:
        rows = slice(r, r + k + 1)
        out.append(Labelled(Features(numbers[rows], pictures[rows]), cost[c : c + k]))
        c, r = c + k, r + k + 1
    return out
