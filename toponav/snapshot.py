"""What a decision sees: the map, where the robot is, and the frontiers within reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import geodesic
from .frontier import PIECE_CELLS, Frontiers, find

HELD_CELLS = 2
"""A frontier moves by this much while it is driven to and is still the same."""


@dataclass(eq=False)
class Snapshot:
    """One moment of an exploration, on the grid that is planned on."""

    grid: NDArray[np.int8]
    """(H, W) -1 unknown, 0 free, 100 occupied."""
    at: tuple[int, int]
    """Cell (iy, ix) of the robot."""
    sensor_cells: float
    """Range of the sensor, cells."""
    came_from: tuple[int, int] | None = None
    """Cell that it was in a little while ago."""
    target: tuple[int, int] | None = None
    """Cell of the frontier that it has been driving to."""
    walk: NDArray[np.bool_] | None = None
    """(H, W) cells that the robot fits into; None: all that are free."""
    view_cells: float = 0.0
    """A frontier that the robot does not fit to is seen from this near, along free cells."""
    piece_cells: int = PIECE_CELLS
    """Longer frontiers are cut, about this long."""
    hope: NDArray[np.bool_] | None = None
    """(H, W) cells that the robot fits into or may, once they are seen; None: all not occupied."""
    goal: tuple[int, int] | None = None
    """Cell of the goal, where it is known."""
    visits: NDArray[np.int64] | None = None
    """(K,) visits of the place nearest to each frontier; None: none."""
    fails: NDArray[np.int64] | None = None
    """(K,) failures near each frontier; None: none."""
    left: int = 0
    """Targets left for others while they stood, less those seen through since."""

    @cached_property
    def cost(self) -> NDArray[np.int32]:
        """(H, W) of :func:`geodesic.costs` from the robot."""
        return geodesic.costs(self._open, self.at)

    @property
    def _open(self) -> NDArray[np.bool_]:
        return self.grid == 0 if self.walk is None else self.walk

    @cached_property
    def frontiers(self) -> Frontiers:
        """Those that can be reached, or seen from where the robot gets to."""
        if self.walk is None:
            return find(self.grid, self.cost >= 0, self.sensor_cells, self.piece_cells)
        off = geodesic.costs_from(self.grid == 0, np.argwhere(self.cost >= 0))
        near = (off >= 0) & (off <= self.view_cells * geodesic.STRAIGHT)
        found = find(self.grid, near, self.sensor_cells, self.piece_cells)
        lookout = [geodesic.path(off, (int(y), int(x)))[0] for y, x in found.cell]
        return replace(found, lookout=np.array(lookout, np.int64).reshape(-1, 2))

    @cached_property
    def distance(self) -> NDArray[np.float32]:
        """(K,) way to each lookout, cells."""
        cell = self.frontiers.lookout
        return np.float32(1 / geodesic.STRAIGHT) * self.cost[cell[:, 0], cell[:, 1]].astype(
            np.float32
        )

    @property
    def held(self) -> int | None:
        """Number of the frontier that the robot has been driving to, where it still is."""
        if self.target is None or len(self.frontiers) == 0:
            return None
        off = np.abs(self.frontiers.cell - np.array(self.target)).max(axis=1)
        nearest = int(off.argmin())
        return nearest if off[nearest] <= HELD_CELLS else None

    @cached_property
    def between(self) -> NDArray[np.float32]:
        """(K, K) way between lookouts, cells."""
        cell, free = self.frontiers.lookout, self._open
        out = np.zeros((len(cell), len(cell)), np.float32)
        for k in range(len(cell) - 1):
            cost = geodesic.costs(free, (int(cell[k, 0]), int(cell[k, 1])))
            out[k, k + 1 :] = cost[cell[k + 1 :, 0], cell[k + 1 :, 1]] / geodesic.STRAIGHT
        return out + out.T
