"""Reach a goal in a place that nobody has mapped: +1 there, and nothing else, ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rnd_agv.observation import ObservationConfig

from .. import worlds
from ..worlds import World
from .agv import AgvConfig, AgvTask, Placement

KINDS = ("maze", "rooms")


class GoalReaching(AgvTask):
    """Find the way to a goal in unseen mazes and room plans; sparse reward, no map.

    The observation has the goal's position relative to the robot, as is usual in goal-reaching.

    Args:
        kinds: worlds to draw from, of :data:`KINDS`; layout k is of kind k modulo their number.
        layouts: how many layouts are drawn from, starting with ``first_layout``.
        least_m: straight distance from start to goal at least, m; less only where a world has no
            two points so far apart among those that were drawn.
    """

    name = "goal"

    def __init__(
        self, kinds: tuple[str, ...] = KINDS, layouts: int = 256, first_layout: int = 0,
        least_m: float = 8.0, **overrides: Any,
    ) -> None:  # fmt: skip
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds must be some of {KINDS}, got {kinds}")
        if layouts < 1 or first_layout < 0 or not least_m > 0:
            raise ValueError(
                f"layouts >= 1, first_layout >= 0 and least_m > 0 wanted, got {layouts}, "
                f"{first_layout}, {least_m}"
            )
        base = AgvConfig(
            robot="jackal", observation=ObservationConfig(sectors=36, max_range=8.0),
            scan_range_m=8.0, max_steps=4000, goal_reward=1.0, contact_reward=0.0,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.kinds, self.layouts, self.first_layout = tuple(kinds), layouts, first_layout
        self.least_m = least_m
        self._made: dict[int, World] = {}

    def layout(self, number: int) -> World:
        """A world, made at its first use."""
        if number not in self._made:
            maze = self.kinds[number % len(self.kinds)] == "maze"
            self._made[number] = worlds.maze(seed=number) if maze else worlds.rooms(number)
        return self._made[number]

    def place(self, rng: np.random.Generator) -> Placement:
        """Random layout; random start, heading and goal."""
        number = self.first_layout + int(rng.integers(self.layouts))
        return self.place_in(number, rng)

    def place_in(self, number: int, rng: np.random.Generator) -> Placement:
        """Random start, heading and goal in this layout."""
        world = self.layout(number)
        points = world.free_points(rng, 24, self.robot.circumscribed_m + 0.1)
        gaps = np.hypot(*(points - points[0]).T)
        goal = points[np.flatnonzero(gaps >= min(self.least_m, gaps.max()))[0]]
        start = np.array([*points[0], rng.uniform(-np.pi, np.pi)])
        return Placement(world, start, goal, layout=number)
