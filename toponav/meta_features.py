"""What the meta-controller is told of each candidate: numbers and a picture of the map around it.

All lengths are in ranges of the sensor and all areas in discs of it, so that what is learned on
one scale holds on another.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import geodesic
from ._jit import njit
from .explorers import tour
from .snapshot import Snapshot

PATCH = 32
"""Cells to a side of a picture."""
PATCH_RANGES = 3.2
"""Side of a candidate's picture, ranges; the robot's is twice as wide."""
NAMES = (
    "distance", "size", "gain", "claim", "tour_excess", "turn", "held", "nearest", "spread",
    "others", "score_behind", "detour", "known",
)  # fmt: skip
"""What the numbers are, see :func:`features`."""


@dataclass(frozen=True)
class Features:
    """K candidates and the robot, which comes first."""

    numbers: NDArray[np.float32]
    """(1 + K, len(NAMES)); the robot's row holds what is the same for all."""
    pictures: NDArray[np.uint8]
    """(1 + K, 2, PATCH, PATCH) share of each cell that is free, and occupied, 0 to 255."""


def features(view: Snapshot, score: NDArray[np.float32]) -> Features:
    """Describe the candidates of a snapshot.

    * distance: way to it; size: of the frontier; gain: unknown area in view of it.
    * claim: unknown area nearer to it than to any other candidate, up to two ranges away.
    * tour_excess: how much longer the tour of all candidates gets if this one is first.
    * turn: cosine between where the robot comes from, onwards, and the way's first half range.
    * held: is it where the robot has been driving to?
    * nearest, spread: way to the nearest other candidate, mean way to the others.
    * others: log of the number of candidates; known: free area known, in tens of discs.
    * score_behind: how far its classical score lies behind the best.
    * detour: straight line by way.

    Args:
        view: with at least one frontier.
        score: (K,) of the classical explorer that is built on.
    """
    f, s = view.frontiers, view.sensor_cells
    k, disc = len(f), np.pi * s * s
    d, between = view.distance / s, view.between / s
    others = between + np.where(np.eye(k, dtype=bool), np.inf, 0.0)
    held = np.arange(k) == (-1 if view.held is None else view.held)
    straight = np.hypot(*(f.lookout - np.array(view.at)).T) / s
    known = np.count_nonzero(view.grid == 0) / disc / 10
    alike = np.ones(k)
    numbers = np.zeros((1 + k, len(NAMES)), np.float32)
    numbers[1:] = np.stack([
        d, f.size / s, f.gain / disc,
        claims(view.grid, f.cell, 2 * s) / disc,
        np.minimum(excess(view.distance, view.between) / s, 5.0), _turn(view), held,
        np.minimum(others.min(axis=1), 4.0), np.minimum(between.sum(axis=1) / max(k - 1, 1), 6.0),
        np.log(k) * alike, np.minimum(score.max() - score, 5.0),
        straight / np.maximum(d, 1e-6), known * alike,
    ], axis=1)  # fmt: skip
    numbers[0, NAMES.index("others")], numbers[0, NAMES.index("known")] = np.log(k), known
    near = pictures(view.grid, f.cell, PATCH_RANGES * s / PATCH)
    wide = pictures(view.grid, [view.at], 2 * PATCH_RANGES * s / PATCH)
    return Features(numbers, np.concatenate([wide, near]))


def pictures(grid: NDArray[np.int8], cells: ArrayLike, side: float) -> NDArray[np.uint8]:
    """(K, 2, PATCH, PATCH) of the map around cells; what lies outside is unknown.

    Args:
        grid: (H, W) -1 unknown, 0 free, 100 occupied.
        cells: (K, 2) iy, ix in the middle.
        side: of a picture's cell, cells of the grid.
    """
    middle = np.asarray(cells, np.float64).reshape(-1, 2, 1) + 0.5
    edge = np.rint((np.arange(PATCH + 1) - PATCH / 2) * side + middle).astype(np.int64)
    y, x = (np.clip(edge[:, a], 0, grid.shape[a]) for a in (0, 1))
    out = np.empty((len(middle), 2, PATCH, PATCH), np.uint8)
    for channel, kind in enumerate((grid == 0, grid == 100)):
        total = cv2.integral(kind.astype(np.uint8))[y[:, :, None], x[:, None, :]]
        count = np.diff(np.diff(total, axis=1), axis=2)
        out[:, channel] = np.minimum(count * (255 / side**2), 255)
    return out


def excess(first: NDArray[np.float32], between: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K,) by how much each is worse as first stop of the tour of all than the best is, as ways.

    Args:
        first: (K,) ways from the robot; between: (K, K) ways.
    """
    k = len(first)
    length = np.empty(k, np.float32)
    for j in range(k):
        rest = np.delete(np.arange(k), j)
        length[j] = first[j]
        if k > 1:
            order = rest[tour(between[j, rest], between[np.ix_(rest, rest)])]
            length[j] += between[j, order[0]] + between[order[:-1], order[1:]].sum()
    return np.asarray(length - length.min())


def _turn(view: Snapshot) -> NDArray[np.float64]:
    """(K,) cosine between where the robot has been heading and the way to each."""
    if view.came_from is None or view.came_from == view.at:
        return np.zeros(len(view.frontiers))
    ahead = np.array(view.at, float) - view.came_from
    out = np.zeros(len(view.frontiers))
    for j, (y, x) in enumerate(view.frontiers.lookout):
        way = geodesic.path(view.cost, (int(y), int(x)))
        step = way[min(len(way) - 1, int(view.sensor_cells / 2))] - np.array(view.at)
        out[j] = step @ ahead / max(np.hypot(*step) * np.hypot(*ahead), 1e-9)
    return out


def claims(grid: NDArray[np.int8], cells: NDArray[np.int64], reach: float) -> NDArray[np.float64]:
    """(K,) unknown cells that can be got to from each through the unknown before from any other.

    Args:
        grid: (H, W) -1 unknown, 0 free, 100 occupied.
        cells: (K, 2) iy, ix of the frontiers.
        reach: they spread this far, cells.
    """
    found: NDArray[np.float64] = _claims(grid, cells, int(reach))
    return found


@njit(cache=True, nogil=True)
def _claims(grid, cells, reach):  # type: ignore[no-untyped-def]
    """Breadth first, four neighbours, all candidates at once."""
    height, width = grid.shape
    owner = np.full((height, width), -1, np.int32)
    queue, far = np.empty((height * width, 2), np.int32), np.empty(height * width, np.int32)
    out, done, used = np.zeros(len(cells)), 0, len(cells)
    for k in range(len(cells)):
        queue[k, 0], queue[k, 1], far[k] = cells[k, 0], cells[k, 1], 0
        owner[cells[k, 0], cells[k, 1]] = k
    while done < used:
        y, x, steps = queue[done, 0], queue[done, 1], far[done]
        k = owner[y, x]
        done += 1
        if steps >= reach:
            continue
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            j, i = y + dy, x + dx
            if 0 <= j < height and 0 <= i < width and grid[j, i] < 0 and owner[j, i] < 0:
                owner[j, i] = k
                out[k] += 1
                queue[used, 0], queue[used, 1], far[used] = j, i, steps + 1
                used += 1
    return out
