"""Shortest ways over a grid of free cells, 8-connected, corners never cut (Dijkstra 1959).

Steps have whole costs, 12 straight and 17 diagonal (17/12 is sqrt(2) within 0.2 %), so that the
queue is an array of buckets (Dial 1969) and a field of 20 000 cells takes under a millisecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._jit import njit

STRAIGHT, DIAGONAL = 12, 17
UNREACHED = -1
_DY = np.array([0, 0, 1, -1, 1, 1, -1, -1])
_DX = np.array([1, -1, 0, 0, 1, -1, 1, -1])


def distances(free: NDArray[np.bool_], source: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) length of the shortest way from ``source`` to each free cell, in cells; inf if none.

    Args:
        free: (H, W) cells that may be entered; the source itself always may.
        source: (iy, ix).

    Raises:
        ValueError: the source lies outside.
    """
    return np.where((cost := costs(free, source)) < 0, np.float32(np.inf),
                    cost.astype(np.float32) / np.float32(STRAIGHT))  # fmt: skip


def costs(free: NDArray[np.bool_], source: tuple[int, int]) -> NDArray[np.int32]:
    """As :func:`distances` in twelfths of a cell; -1 where there is no way."""
    height, width = free.shape
    if not (0 <= source[0] < height and 0 <= source[1] < width):
        raise ValueError(f"source must be within (0..{height - 1}, 0..{width - 1}), got {source}")
    return costs_from(free, np.array([source], np.int64))


def costs_from(free: NDArray[np.bool_], sources: NDArray[np.int64]) -> NDArray[np.int32]:
    """As :func:`costs` from the nearest of (S, 2) sources iy, ix, which lie inside."""
    padded = np.pad(free, 1)
    padded[sources[:, 0] + 1, sources[:, 1] + 1] = True
    found: NDArray[np.int32] = field_from(padded, sources + 1)[1:-1, 1:-1]
    return found


@njit(cache=True, nogil=True)
def field_from(free, sources):  # type: ignore[no-untyped-def]
    """(H, W) int32 costs from cells (S, 2) over a grid whose border is not free, -1 where no way
    leads: what :func:`costs_from` gives, for compiled callers."""
    height, width = free.shape
    n = height * width
    open_, cost = free.ravel(), np.full(n, -1, np.int32)
    step = np.empty(8, np.int64)
    for k in range(8):
        step[k] = _DY[k] * width + _DX[k]
    # entries of the 18 buckets in use, as linked lists: a cell is entered again when it gets nearer
    head = np.full(DIAGONAL + 1, -1, np.int64)
    cell, following = np.empty(9 * n, np.int32), np.empty(9 * n, np.int32)
    used, now = 0, 0
    for iy, ix in sources:
        cell[used], following[used], head[0] = iy * width + ix, head[0], used
        cost[cell[used]] = 0
        used += 1
    waiting = used
    while waiting > 0:
        bucket = now % (DIAGONAL + 1)
        while head[bucket] >= 0:
            entry = head[bucket]
            head[bucket] = following[entry]
            waiting -= 1
            at = cell[entry]
            if cost[at] != now:
                continue
            for k in range(8):
                to = at + step[k]
                if not open_[to]:
                    continue
                if k >= 4 and not (open_[at + _DX[k]] and open_[at + _DY[k] * width]):
                    continue
                new = now + (DIAGONAL if k >= 4 else STRAIGHT)
                if cost[to] < 0 or new < cost[to]:
                    cost[to] = new
                    slot = new % (DIAGONAL + 1)
                    cell[used], following[used] = to, head[slot]
                    head[slot] = used
                    used += 1
                    waiting += 1
        now += 1
    return cost.reshape(height, width)


def path(cost: NDArray[np.int32], target: tuple[int, int]) -> NDArray[np.int64]:
    """(L, 2) cells (iy, ix) of the way from the source of :func:`costs` to ``target``, both ends.

    Raises:
        ValueError: the target cannot be reached.
    """
    if cost[target] < 0:
        raise ValueError(f"target must be reachable, got {target}")
    found: NDArray[np.int64] = descend(cost, int(target[0]), int(target[1]))
    return found[::-1]


@njit(cache=True, nogil=True)
def descend(cost: Any, iy: int, ix: int) -> Any:
    """(L, 2) cells from one down to the source of a field of costs, both ends."""
    height, width = cost.shape
    out = np.empty((cost[iy, ix] // STRAIGHT + 1, 2), np.int64)
    out[0, 0], out[0, 1] = iy, ix
    count = 1
    while cost[iy, ix] > 0:
        for k in range(8):
            y, x = iy + _DY[k], ix + _DX[k]
            if not (0 <= y < height and 0 <= x < width) or cost[y, x] < 0:
                continue
            if k >= 4 and (cost[iy, x] < 0 or cost[y, ix] < 0):
                continue
            if cost[y, x] == cost[iy, ix] - (DIAGONAL if k >= 4 else STRAIGHT):
                iy, ix = y, x
                out[count, 0], out[count, 1] = iy, ix
                count += 1
                break
    return out[:count]
