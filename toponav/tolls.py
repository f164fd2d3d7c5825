"""Cheapest ways over cells that cost differently: known floor little, unknown cells more.

As :mod:`toponav.geodesic`, with a toll on every cell, so that a way through what nobody has seen
can be reckoned dearer than one over known floor, and is still a way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._jit import njit
from .geodesic import DIAGONAL, STRAIGHT

SHARES = 4
"""Tolls are whole quarters of the cost of a known cell."""
SHUT = 0
"""Toll of a cell that cannot be entered."""
_DY = np.array([0, 0, 1, -1, 1, 1, -1, -1])
_DX = np.array([1, -1, 0, 0, 1, -1, 1, -1])


def tolls(hope: NDArray[np.bool_], grid: NDArray[np.int8], unknown: float) -> NDArray[np.int32]:
    """(H, W) toll of each cell in quarters: 4 where known, 4 ``unknown`` where not, 0 if shut.

    Args:
        hope: (H, W) cells that are free or may be.
        grid: (H, W) -1 unknown, 0 free, 100 occupied.
        unknown: cost of an unknown cell in known ones, >= 1; rounded to quarters.

    Raises:
        ValueError: ``unknown`` is below 1, or the shapes differ.
    """
    if not unknown >= 1 or hope.shape != grid.shape:
        raise ValueError(
            f"unknown >= 1 and equal shapes wanted, got {unknown}, {hope.shape}, {grid.shape}"
        )
    dear = np.where(grid < 0, round(SHARES * unknown), SHARES)
    return np.where(hope, dear, SHUT).astype(np.int32)


def distances(toll: NDArray[np.int32], source: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) cost of the cheapest way to each cell from ``source``, in known cells; inf if none.

    A step costs its length times the mean toll of the two cells. Corners are never cut.

    Args:
        toll: (H, W) of :func:`tolls`; the source itself may always be entered.
        source: (iy, ix).

    Raises:
        ValueError: the source lies outside.
    """
    height, width = toll.shape
    if not (0 <= source[0] < height and 0 <= source[1] < width):
        raise ValueError(f"source must be within (0..{height - 1}, 0..{width - 1}), got {source}")
    padded = np.pad(toll, 1)
    at = source[0] + 1, source[1] + 1
    padded[at] = max(int(padded[at]), SHARES)
    cost = _field(padded, *at)[1:-1, 1:-1].astype(np.float32)
    return np.where(cost < 0, np.float32(np.inf), cost / np.float32(2 * SHARES * STRAIGHT))


@njit(cache=True, nogil=True)
def _field(toll, iy, ix):  # type: ignore[no-untyped-def]
    """Costs in shares of twenty-fourths of a cell over a grid with a shut border (Dial 1969)."""
    height, width = toll.shape
    n = height * width
    price, cost = toll.ravel(), np.full(n, -1, np.int64)
    step = np.empty(8, np.int64)
    for k in range(8):
        step[k] = _DY[k] * width + _DX[k]
    buckets = 2 * DIAGONAL * int(price.max()) + 1
    head = np.full(buckets, -1, np.int64)
    cell, following = np.empty(9 * n, np.int32), np.empty(9 * n, np.int32)
    cell[0], following[0], head[0] = iy * width + ix, -1, 0
    cost[iy * width + ix] = 0
    used, waiting, now = 1, 1, 0
    while waiting > 0:
        bucket = now % buckets
        while head[bucket] >= 0:
            entry = head[bucket]
            head[bucket] = following[entry]
            waiting -= 1
            at = cell[entry]
            if cost[at] != now:
                continue
            for k in range(8):
                to = at + step[k]
                if price[to] == 0:
                    continue
                if k >= 4 and (price[at + _DX[k]] == 0 or price[at + _DY[k] * width] == 0):
                    continue
                new = now + (DIAGONAL if k >= 4 else STRAIGHT) * (price[at] + price[to])
                if cost[to] < 0 or new < cost[to]:
                    cost[to] = new
                    slot = new % buckets
                    cell[used], following[used] = to, head[slot]
                    head[slot] = used
                    used += 1
                    waiting += 1
        now += 1
    return cost.reshape(height, width)
