"""The four scenes of RND-AGV (arXiv 2404.12594): simple and complex, static and moving target.

The paper gives no layout; the halls are our reading. Step caps 2000, 2000, 3000, 4000 are its own.
Reward is sparse: the policy knows its pose in the fixed hall and the goal, and is paid at the goal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rnd_agv.guide import GuideConfig
from rnd_agv.observation import ObservationConfig

from .. import movers, worlds
from ..movers import Mover
from .agv import AgvConfig, AgvTask, Placement

CAPS = {
    ("simple", False): 2000,
    ("simple", True): 2000,
    ("complex", False): 3000,
    ("complex", True): 4000,
}
CORNER_M = 1.2
"""Start and goal lie this far from the walls of two opposite corners."""
NEAREST_M = 2.0
"""A random goal is at least this far away."""
OBSERVATION = ObservationConfig(sectors=24, frames=1, pose=True, pose_scale=10.0, pose_waves=4)
"""In one known hall."""
UNSEEN = ObservationConfig(sectors=36, max_range=6.0, frames=1, proximity_m=1.0, guide=True)
"""Where layouts change: a pose would tell nothing."""


class AgvPaper(AgvTask):
    """One hall, one route: corner to corner, goal static or moving in its corner."""

    def __init__(self, complexity: str = "simple", dynamic: bool = False, **overrides: Any) -> None:
        if (complexity, dynamic) not in CAPS:
            raise ValueError(f'complexity must be "simple" or "complex", got {complexity!r}')
        base = AgvConfig(observation=OBSERVATION, beams=72, max_steps=CAPS[complexity, dynamic])
        super().__init__(replace(base, **overrides))
        self.size_m = 12.0 if complexity == "simple" else 20.0
        self.name = f"agv-{complexity}-{'dynamic' if dynamic else 'static'}"
        self.dynamic = dynamic
        self.world = worlds.hall(self.size_m, complexity)

    def place(self, rng: np.random.Generator) -> Placement:
        """Start in the lower left corner, any heading; the goal in the upper right one."""
        x0, y0, x1, y1 = self.world.bounds
        start = np.array([x0 + CORNER_M, y0 + CORNER_M, rng.uniform(-np.pi, np.pi)])
        goal = np.array([x1 - CORNER_M, y1 - CORNER_M])
        target = None
        if self.dynamic:
            ends = (goal[0], goal[1]), (goal[0], goal[1] - 0.25 * self.size_m)
            flip = int(rng.integers(2))
            target = Mover(movers.LOOP, 0.25, 0.4, ends[flip], ends[1 - flip])
        return Placement(self.world, start, goal, target=target)


class AgvFar(AgvTask):
    """Sparse goals 30 to 40 m away: one fixed layout and route, or a new one every episode.

    In one layout the policy knows its pose and nothing else; where layouts change, it is shown the
    guide point of a map that grows with the scans (or of the floor plan, ``guide="known"``).
    """

    def __init__(
        self, size_m: float = 30.0, layouts: int = 1, first_layout: int = 0, reach: float = 0.6,
        **overrides: Any,
    ) -> None:  # fmt: skip
        if layouts < 1:
            raise ValueError(f"layouts must be >= 1, got {layouts}")
        if not 0 <= reach <= 1:
            raise ValueError(f"reach must be in [0, 1], got {reach}")
        base = AgvConfig(
            observation=replace(OBSERVATION, pose_scale=20.0, pose_waves=5), beams=72,
            max_steps=4000,
        )  # fmt: skip
        if layouts > 1:
            base = replace(
                base, observation=UNSEEN, guide="built", guide_config=GuideConfig(resolution=0.2)
            )
        super().__init__(replace(base, **overrides))
        self.name, self.size_m, self.layouts, self.first_layout = (
            "agv-far",
            size_m,
            layouts,
            first_layout,
        )
        self.reach = reach
        """Random goals are about this share of the largest straight distance away, or farther; with
        0 at all distances, each scale as often as another."""
        self._worlds: dict[int, worlds.World] = {}

    def world(self, layout: int) -> worlds.World:
        """The layout of this number, made at its first use."""
        if layout not in self._worlds:
            self._worlds[layout] = worlds.far(self.size_m, layout)
        return self._worlds[layout]

    def place(self, rng: np.random.Generator) -> Placement:
        """Corner to corner in the one layout; random start and goal where layouts change."""
        if self.layouts == 1:
            world = self.world(self.first_layout)
            x0, y0, x1, y1 = world.bounds
            start = np.array([x0 + CORNER_M, y0 + CORNER_M, rng.uniform(-np.pi, np.pi)])
            return Placement(world, start, np.array([x1 - CORNER_M, y1 - CORNER_M]))
        layout = self.first_layout + int(rng.integers(self.layouts))
        world = self.world(layout)
        points = world.free_points(rng, 16, self.robot.circumscribed_m + 0.1)
        gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
        nearest = max(self.reach * gaps.max(), NEAREST_M)
        wanted = nearest * (gaps.max() / nearest) ** rng.random()
        a, b = np.unravel_index(np.argmin(np.abs(gaps - wanted)), gaps.shape)
        start = np.array([*points[a], rng.uniform(-np.pi, np.pi)])
        return Placement(world, start, points[b], layout=layout)
