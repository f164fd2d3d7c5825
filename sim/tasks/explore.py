"""A robot in a world that nobody has mapped for it: what an exploration drives.

The goal is whatever sub-goal the exploration sets in ``state.goal_w``; reaching it ends nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnd_agv.observation import ObservationConfig

from ..worlds import World
from .agv import AgvConfig, AgvTask, Placement


class Explore(AgvTask):
    """One world; the episode ends at ``max_steps`` only.

    Args:
        world: where.
        start_w: (3,) x, y, yaw of the start, m and rad; a random free pose if None.
    """

    name = "explore"

    def __init__(self, world: World, start_w: ArrayLike | None = None, **overrides: Any) -> None:
        base = AgvConfig(
            robot="jackal", observation=ObservationConfig(sectors=36, guide=True), guide="built",
            max_steps=10**9, goal_radius_m=1e-9,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.world = world
        self.start_w = None if start_w is None else np.asarray(start_w, np.float64)

    def place(self, rng: np.random.Generator) -> Placement:
        """The start; the first sub-goal is just beside it."""
        start = self.start_w
        if start is None:
            point = self.world.free_points(rng, 1, self.robot.circumscribed_m + 0.1)[0]
            start = np.array([*point, rng.uniform(-np.pi, np.pi)])
        return Placement(self.world, start, start[:2] + 0.01)
