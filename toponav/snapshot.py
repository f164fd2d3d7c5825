"""What a decision sees: the map, where the robot is, and the frontiers within reach."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import geodesic
from .frontier import Frontiers, find

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
    """Cell that it has been driving to."""

    @cached_property
    def cost(self) -> NDArray[np.int32]:
        """(H, W) of :func:`geodesic.costs` from the robot over free cells."""
        return geodesic.costs(self.grid == 0, self.at)

    @cached_property
    def frontiers(self) -> Frontiers:
        """Those that can be reached."""
        return find(self.grid, self.cost >= 0, self.sensor_cells)

    @cached_property
    def distance(self) -> NDArray[np.float32]:
        """(K,) way to each frontier, cells."""
        cell = self.frontiers.cell
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
        """(K, K) way between frontiers, cells."""
        cell, free = self.frontiers.cell, self.grid == 0
        out = np.zeros((len(cell), len(cell)), np.float32)
        for k in range(len(cell) - 1):
            cost = geodesic.costs(free, (int(cell[k, 0]), int(cell[k, 1])))
            out[k, k + 1 :] = cost[cell[k + 1 :, 0], cell[k + 1 :, 1]] / geodesic.STRAIGHT
        return out + out.T
