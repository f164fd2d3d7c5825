"""Floors that change: doors close and open between episodes, and goals come one after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.guide import GuideConfig
from rnd_agv.observation import ObservationConfig

from .. import worlds
from .agv import AgvConfig, AgvTask, Placement, State

SIZE_M = (24.0, 16.0)
"""Inner floor of a layout."""
LOOPS = 0.5
"""Share of walls with a second door: a floor with one way only has no way around a shut door."""
VARIANTS = 4
"""States of the doors that a layout has; a worker keeps no more worlds than this per layout."""


def floor(number: int, size_m: tuple[float, float] = SIZE_M) -> worlds.World:
    """Rooms with all doors open."""
    return worlds.rooms(number, size_m, loop_factor=LOOPS)


class Lifelong(AgvTask):
    """Rooms in which a fifth of the doors is shut, others in each episode; the goal is reachable.

    The guide point comes from a map that begins anew with each episode; what an agent remembers of
    earlier ones is its own.

    Args:
        layouts: number of floors.
        first_layout: seed of the first one.
        shut: share of the doors that are shut.
        size_m: of the inner floor.
    """

    name = "lifelong"

    def __init__(
        self, layouts: int = 64, first_layout: int = 0, shut: float = 0.2,
        size_m: tuple[float, float] = SIZE_M, **overrides: Any,
    ) -> None:  # fmt: skip
        if layouts < 1 or first_layout < 0 or not 0 <= shut <= 1:
            raise ValueError(
                "layouts >= 1, first_layout >= 0 and shut in [0, 1] wanted, "
                f"got {layouts}, {first_layout}, {shut}"
            )
        base = AgvConfig(
            robot="jackal",
            observation=ObservationConfig(sectors=48, max_range=6.0, frames=3, guide=True),
            max_steps=2400, guide="built", guide_config=GuideConfig(resolution=0.1),
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.layouts, self.first_layout, self.share = layouts, first_layout, shut
        self.size_m = size_m
        self._floors: dict[int, worlds.World] = {}
        self._states: dict[tuple[int, int], worlds.World] = {}

    def state(self, number: int, variant: int) -> worlds.World:
        """A layout with the doors of a variant shut; made at its first use, then kept."""
        if number not in self._floors:
            self._floors[number] = floor(number, self.size_m)
        plan = self._floors[number]
        if (number, variant) not in self._states:
            rng = np.random.default_rng([number, variant, 5])
            hub = plan.free_points(rng, 1, self.robot.circumscribed_m + 0.1)
            self._states[number, variant] = plan.shut_some(rng, self.share, hub)[0]
        return self._states[number, variant]

    def place(self, rng: np.random.Generator) -> Placement:
        """Random layout, doors, start, and a goal that can be driven to."""
        number = self.first_layout + int(rng.integers(self.layouts))
        world = self.state(number, int(rng.integers(VARIANTS)))
        points = world.free_points(rng, 12, self.robot.circumscribed_m + 0.1)
        gaps = np.hypot(*(points - points[0]).T)
        goal = points[np.flatnonzero(gaps >= min(6.0, gaps.max()))[0]]
        start = np.array([*points[0], rng.uniform(-np.pi, np.pi)])
        return Placement(world, start, goal, layout=number)


class Patrol(Lifelong):
    """A round of stations in rooms: each that is reached is paid, and the next one is the goal.

    A layout has one round for each state of its doors. The episode is a success at the last one.

    Args:
        stations: length of a round.
        shut: see :class:`Lifelong`; so the others.
    """

    name = "patrol"

    def __init__(self, stations: int = 4, shut: float = 0.0, **overrides: Any) -> None:
        if stations < 1:
            raise ValueError(f"stations must be >= 1, got {stations}")
        super().__init__(**({"shut": shut, "max_steps": 6000} | overrides))
        if self.config.progress_reward:
            raise ValueError("progress_reward must be 0: its potential knows one goal an episode")
        self.stations = stations
        self._rounds: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._next: dict[tuple[float, float], NDArray[np.float64]] = {}

    def round(self, number: int, variant: int) -> NDArray[np.float64]:
        """(stations, 2) of a layout, m, in order, each at least 3 m from the one before if it can
        be."""
        if (number, variant) not in self._rounds:
            world, rng = self.state(number, variant), np.random.default_rng([number, variant, 6])
            margin = self.robot.circumscribed_m + 0.1
            points = [world.free_points(rng, 1, margin)[0]]
            while len(points) < self.stations:
                drawn = world.free_points(rng, 12, margin, from_xy=points[0])
                far = np.hypot(*(drawn - points[-1]).T)
                points.append(drawn[np.flatnonzero(far >= min(3.0, far.max()))[0]])
            self._rounds[number, variant] = np.array(points)
            for at, to in zip(points[:-1], points[1:], strict=True):
                self._next[float(at[0]), float(at[1])] = to
        return self._rounds[number, variant]

    def place(self, rng: np.random.Generator) -> Placement:
        """Random layout, doors and start; the goal is the first station."""
        number = self.first_layout + int(rng.integers(self.layouts))
        variant = int(rng.integers(VARIANTS))
        world, stations = self.state(number, variant), self.round(number, variant)
        margin = self.robot.circumscribed_m + 0.1
        at = world.free_points(rng, 1, margin, from_xy=stations[0])[0]
        start = np.array([*at, rng.uniform(-np.pi, np.pi)])
        return Placement(world, start, stations[0].copy(), layout=number)

    def done(self, state: State) -> tuple[NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """As of every task, at the last station; at others the next one becomes the goal."""
        for row in np.flatnonzero(self.goal_distance(state) < self.config.goal_radius_m):
            following = self._next.get((float(state.goal_w[row, 0]), float(state.goal_w[row, 1])))
            if following is not None:
                state.goal_w[row] = following
        return super().done(state)
