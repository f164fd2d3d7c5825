"""Warehouses that change: a new layout per episode, people, other AGVs and dropped pallets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.guide import GuideConfig
from rnd_agv.observation import ObservationConfig

from .. import movers, worlds
from ..movers import Mover
from .agv import AgvConfig, AgvTask, Placement, free_walk

TEST_LAYOUTS = 100_000
"""Layouts from this number on are for tests alone; training never sees them."""
KEEP_AWAY_M = 2.5
"""Movers start at least this far from the robot and the goal."""
WALKS = 24
"""Walks prepared per layout, from which an episode's movers are drawn."""


class AgvWarehouse(AgvTask):
    """Drive to a random point of a warehouse.

    The floor plan is given (or built from scans); who moves in it is not.
    """

    name = "agv-warehouse"

    def __init__(
        self,
        layouts: int = 256,
        first_layout: int = 0,
        people: int = 5,
        vehicles: int = 2,
        **overrides: Any,
    ) -> None:
        if min(layouts, 1) < 1 or min(people, vehicles) < 0:
            raise ValueError(
                f"layouts >= 1 and movers >= 0 wanted, got {layouts}, {people}, {vehicles}"
            )
        base = AgvConfig(
            observation=ObservationConfig(
                sectors=48, max_range=6.0, frames=3, closing=True, proximity_m=1.0, guide=True
            ), max_steps=1200,
            goal_radius_m=0.5, guide="known", guide_config=GuideConfig(resolution=0.1),
            max_movers=people + vehicles,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.layouts, self.first_layout, self.people, self.vehicles = (
            layouts,
            first_layout,
            people,
            vehicles,
        )
        self._made: dict[int, tuple[worlds.World, list[tuple[NDArray[Any], NDArray[Any]]]]] = {}

    def layout(self, number: int) -> tuple[worlds.World, list[tuple[NDArray[Any], NDArray[Any]]]]:
        """A warehouse and walks in it, made at their first use."""
        if number not in self._made:
            world = worlds.warehouse(number)
            rng = np.random.default_rng([number, 7])
            walks = [free_walk(world, rng, 0.5, 3.0, 10.0) for _ in range(WALKS)]
            self._made[number] = world, [walk for walk in walks if walk is not None]
        return self._made[number]

    def place(self, rng: np.random.Generator) -> Placement:
        """Random layout, start, goal and movers."""
        number = self.first_layout + int(rng.integers(self.layouts))
        world, walks = self.layout(number)
        points = world.free_points(rng, 12, self.robot.circumscribed_m + 0.1)
        gaps = np.hypot(*(points - points[0]).T)
        far = np.flatnonzero(gaps >= min(6.0, gaps.max()))
        goal = points[far[0]]
        start = np.array([*points[0], rng.uniform(-np.pi, np.pi)])
        crowd: list[Mover] = []
        people = int(rng.integers(self.people + 1)) if self.people else 0
        vehicles = int(rng.integers(self.vehicles + 1)) if self.vehicles else 0
        for k in rng.permutation(len(walks)):
            if len(crowd) >= people + vehicles:
                break
            a, b = walks[k]
            if min(np.hypot(*(a - start[:2])), np.hypot(*(a - goal))) < KEEP_AWAY_M:
                continue
            if len(crowd) < people:
                kind = movers.PERSON if rng.random() < 0.8 else movers.CONSTANT
                crowd.append(Mover(kind, 0.3, rng.uniform(0.4, 1.2), tuple(a), tuple(b)))
            else:
                crowd.append(Mover(movers.VEHICLE, 0.45, rng.uniform(0.4, 1.0), tuple(a), tuple(b)))
        return Placement(world, start, goal, layout=number, movers=crowd)
