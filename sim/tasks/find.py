"""Find a thing of a class, "a fire extinguisher", in a furnished floor that nobody has mapped.

Success is something of the class in view within a metre of the lidar, whichever it is; +1 there,
and nothing else, ever. Where it is nobody tells: until one has been in view, the observation's
goal is where the robot is, afterwards where it was last seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.observation import ObservationConfig, build

from ..worlds import LABELS
from ..worlds.furnished import SIZE_M, Building, furnished
from .agv import AgvConfig, AgvTask, Placement, State


class Find(AgvTask):
    """Feature-based navigation by semantic class, sparse.

    For the ``GoalEnv`` face a goal is the position of the thing nearest to the start, seen or not:
    there relabelling knows nothing of view.

    Args:
        wanted: class, one that furnished floors have.
        layouts: how many floors are drawn from, starting with ``first_layout``; floors without
            such a thing are passed over.
        least_m: straight distance from the start to the nearest such thing at least, m; less only
            where a floor has no such start among those that were drawn.
    """

    name = "find"

    def __init__(
        self, wanted: str = "extinguisher", layouts: int = 256, first_layout: int = 0,
        least_m: float = 6.0, **overrides: Any,
    ) -> None:  # fmt: skip
        if wanted not in SIZE_M:
            raise ValueError(f"wanted must be one of {', '.join(SIZE_M)}, got {wanted!r}")
        if layouts < 1 or first_layout < 0 or not least_m > 0:
            raise ValueError(
                f"layouts >= 1, first_layout >= 0 and least_m > 0 wanted, got {layouts}, "
                f"{first_layout}, {least_m}"
            )
        base = AgvConfig(
            robot="jackal", observation=ObservationConfig(sectors=36, max_range=6.0), beams=360,
            scan_range_m=6.0, max_steps=6000, goal_radius_m=1.0, goal_reward=1.0,
            contact_reward=0.0, labels=True,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        if not self.config.labels:
            raise ValueError("labels must be True: the class is known by the beams' labels")
        self.wanted, self.layouts, self.first_layout = wanted, layouts, first_layout
        self.least_m = least_m
        self._made: dict[int, Building] = {}

    def building(self, number: int) -> Building:
        """The first floor from this number on that has such a thing, made at its first use."""
        if number not in self._made:
            made = next(
                floor for k in range(1000)
                if len((floor := furnished(number + k)).boxes_of(self.wanted))
            )  # fmt: skip
            self._made[number] = made
        return self._made[number]

    def place(self, rng: np.random.Generator) -> Placement:
        """Random floor, start and heading."""
        number = self.first_layout + int(rng.integers(self.layouts))
        building = self.building(number)
        points = building.world.free_points(rng, 16, self.robot.circumscribed_m + 0.1)
        boxes = building.boxes_of(self.wanted)
        gaps = np.hypot(*(points[:, None] - boxes[None, :, :2]).transpose(2, 0, 1))
        nearest = gaps.min(axis=1)
        k = int(np.flatnonzero(nearest >= min(self.least_m, nearest.max()))[0])
        start = np.array([*points[k], rng.uniform(-np.pi, np.pi)])
        goal = boxes[int(gaps[k].argmin()), :2]
        return Placement(building.world, start, goal, number, wanted=LABELS.index(self.wanted))

    def goal_distance(self, state: State) -> NDArray[np.float64]:
        """(N,) range of the nearest such thing in view, m; inf if none is."""
        return state.wanted_m

    def observe(self, state: State) -> NDArray[np.float32]:
        """(N, obs_dim) float32; the goal is where such a thing was last seen, see the module."""
        seen = np.isfinite(state.wanted_w)
        goal_w = np.where(seen, state.wanted_w, state.seen_pose_w[:, :2])
        return build(
            self.config.observation, self.robot.limits, sectors=state.frames,
            pose_w=state.seen_pose_w, goal_w=goal_w, vel_b=state.vel_b,
            last_command=state.last_command, guide_w=state.guide_w,
        )  # fmt: skip
