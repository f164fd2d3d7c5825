"""Frontiers: where known free floor borders on the unknown (Yamauchi 1997), in clusters.

A cell is a frontier if it is free, can be reached, and one of its four neighbours is unknown.
Frontier cells that touch form a cluster; a long one is cut into pieces, each a candidate of its
own. A piece is driven to at one of its own cells or at a cell near it, so that a target can always
be reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._jit import njit

PIECE_CELLS = 24
"""Longer frontiers are cut, about this long."""


@dataclass(frozen=True)
class Frontiers:
    """K pieces of frontier on an (H, W) grid."""

    cell: NDArray[np.int64]
    """(K, 2) iy, ix: the member nearest to the middle of the piece."""
    lookout: NDArray[np.int64]
    """(K, 2) where the robot drives to see it: ``cell``, or near it where that is too narrow."""
    size: NDArray[np.int64]
    """(K,) cells in the piece."""
    gain: NDArray[np.float32]
    """(K,) unknown cells that a sensor at ``cell`` may see, if nothing unknown stood in its way."""

    def __len__(self) -> int:
        return len(self.size)

    def where(self, kept: NDArray[np.bool_]) -> Frontiers:
        """Those of a mask (K,)."""
        return Frontiers(self.cell[kept], self.lookout[kept], self.size[kept], self.gain[kept])


def find(
    grid: NDArray[np.int8],
    reachable: NDArray[np.bool_],
    sensor_cells: float,
    piece_cells: int = PIECE_CELLS,
    min_cells: int = 1,
) -> Frontiers:
    """The frontiers of a map.

    Args:
        grid: (H, W) -1 unknown, 0 free, 100 occupied.
        reachable: (H, W) cells at which a frontier counts.
        sensor_cells: range of the sensor, cells.
        piece_cells: longer clusters are cut, about this long.
        min_cells: smaller clusters are left out.
    """
    edge = edges(grid, reachable)
    cell, size = pieces(edge, piece_cells, min_cells)
    gain = np.zeros(len(cell), np.float32)
    _gains(grid, cell, float(sensor_cells), gain)
    return Frontiers(cell, cell, size, gain)


@njit(cache=True, nogil=True)
def edges(grid, reachable):  # type: ignore[no-untyped-def]
    """(H, W) uint8, 1 at frontier cells."""
    height, width = grid.shape
    out = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            if reachable[y, x] and grid[y, x] == 0:
                out[y, x] = (
                    (y > 0 and grid[y - 1, x] < 0) or (y + 1 < height and grid[y + 1, x] < 0)
                    or (x > 0 and grid[y, x - 1] < 0) or (x + 1 < width and grid[y, x + 1] < 0)
                )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def pieces(edge, length, least):  # type: ignore[no-untyped-def]
    """Middle cells (K, 2) and sizes (K,) of the clusters, long ones cut across their long axis.

    ``edge`` (H, W) uint8 as of :func:`edges` is used up; ``length`` and ``least`` in cells.
    """
    height, width = edge.shape
    n = 0
    for y in range(height):
        for x in range(width):
            n += edge[y, x]
    cells, sizes = np.empty((n, 2), np.int64), np.empty(n, np.int64)
    stack, count = np.empty((n, 2), np.int64), 0
    for y0 in range(height):
        for x0 in range(width):
            if not edge[y0, x0]:
                continue
            stack[0, 0], stack[0, 1], edge[y0, x0] = y0, x0, 0
            found, done = 1, 0  # the stack keeps what was taken off it: the cluster
            while done < found:
                y, x = stack[done]
                done += 1
                for j in range(max(y - 1, 0), min(y + 2, height)):
                    for i in range(max(x - 1, 0), min(x + 2, width)):
                        if edge[j, i]:
                            stack[found, 0], stack[found, 1], edge[j, i] = j, i, 0
                            found += 1
            if found < least:
                continue
            parts = max(1, int(np.round(found / length)))
            cluster = stack[:found].astype(np.float64)
            my, mx = cluster[:, 0].mean(), cluster[:, 1].mean()
            dy, dx = cluster[:, 0] - my, cluster[:, 1] - mx
            angle = 0.5 * np.arctan2(2 * (dx * dy).sum(), (dx * dx).sum() - (dy * dy).sum())
            order = np.argsort(dx * np.cos(angle) + dy * np.sin(angle), kind="mergesort")
            for p in range(parts):
                lo, hi = p * found // parts, (p + 1) * found // parts
                py, px = 0.0, 0.0
                for k in order[lo:hi]:
                    py += cluster[k, 0] / (hi - lo)
                    px += cluster[k, 1] / (hi - lo)
                best, at = 1e30, 0
                for k in order[lo:hi]:
                    d = (cluster[k, 0] - py) ** 2 + (cluster[k, 1] - px) ** 2
                    if d < best - 1e-9:
                        best, at = d, k
                cells[count, 0], cells[count, 1], sizes[count] = stack[at, 0], stack[at, 1], hi - lo
                count += 1
    return cells[:count].copy(), sizes[:count].copy()


@njit(cache=True, nogil=True)
def _gains(grid, cells, reach, out):  # type: ignore[no-untyped-def]
    """Unknown cells in view of each cell: rays that stop at what is occupied."""
    height, width = grid.shape
    side = 2 * int(reach) + 3
    rays = max(int(2 * np.pi * reach), 8)
    seen = np.full((side, side), -1, np.int32)
    for k in range(len(cells)):
        cy, cx = cells[k, 0], cells[k, 1]
        count = 0
        for b in range(rays):
            angle = 2 * np.pi * b / rays
            dy, dx = np.sin(angle), np.cos(angle)
            for t in range(1, int(reach) + 1):
                y, x = int(np.floor(cy + 0.5 + t * dy)), int(np.floor(cx + 0.5 + t * dx))
                if not (0 <= y < height and 0 <= x < width) or grid[y, x] >= 65:
                    break
                j, i = y - cy + side // 2, x - cx + side // 2
                if grid[y, x] < 0 and seen[j, i] != k:
                    seen[j, i] = k
                    count += 1
        out[k] = count
