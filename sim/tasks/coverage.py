"""See all of a floor that nobody has mapped: reward for what is new in view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.guide import GuideConfig
from rnd_agv.observation import ObservationConfig

from .. import worlds
from ..worlds import World
from .agv import AgvConfig, AgvTask, Placement, State

FLOORS: dict[str, Callable[..., World]] = {
    "rooms": worlds.rooms, "maze": worlds.maze, "cave": worlds.cave
}  # fmt: skip


class Coverage(AgvTask):
    """See all of an unknown floor; paid for each share of it that comes into view.

    The goal of the observation is where the robot started, so that it knows the way it has come. A
    success is having seen ``share`` of the floor; where the robot is then does not matter.

    Args:
        kind: of floor: rooms, maze or cave.
        layouts: how many are drawn from, starting with ``first_layout``.
        share: of the floor to be seen.
        new_reward: for all of the floor, paid as it is seen.
    """

    name = "coverage"

    def __init__(
        self, kind: str = "rooms", layouts: int = 64, first_layout: int = 0, share: float = 0.95,
        new_reward: float = 10.0, **overrides: Any,
    ) -> None:  # fmt: skip
        if kind not in FLOORS:
            raise ValueError(f"kind must be one of {sorted(FLOORS)}, got {kind!r}")
        if layouts < 1 or first_layout < 0 or not 0 < share <= 1:
            raise ValueError(
                "layouts >= 1, first_layout >= 0 and 0 < share <= 1 wanted, got "
                f"{layouts}, {first_layout}, {share}"
            )
        base = AgvConfig(
            robot="jackal", observation=ObservationConfig(sectors=36, max_range=8.0, guide=True),
            scan_range_m=8.0, max_steps=6000, guide="built", coverage=True,
            guide_config=GuideConfig(resolution=0.2), goal_radius_m=1e-9,
            goal_reward=0.0,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.kind, self.layouts, self.first_layout = kind, layouts, first_layout
        self.share, self.new_reward = share, new_reward
        self._made: dict[int, World] = {}

    def place(self, rng: np.random.Generator) -> Placement:
        """Random layout, start and heading."""
        number = self.first_layout + int(rng.integers(self.layouts))
        if number not in self._made:
            self._made[number] = FLOORS[self.kind](seed=number)
        world = self._made[number]
        point = world.free_points(rng, 1, self.robot.circumscribed_m + 0.1)[0]
        start = np.array([*point, rng.uniform(-np.pi, np.pi)])
        return Placement(world, start, point + 0.01, layout=number)

    def reward(self, state: State) -> dict[str, NDArray[Any]]:
        """The terms of every task, and what is new in view; nothing for being at the start."""
        new = np.maximum(state.seen_share - state.last_seen_share, 0)
        return {**super().reward(state), "new": self.new_reward * new}

    def done(self, state: State) -> tuple[NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Over when enough has been seen."""
        terminated, truncated, outcomes = super().done(state)
        success = state.seen_share >= self.share
        return terminated | success, truncated & ~success, {**outcomes, "success": success}
