"""Drive in the building that the robot will drive in: any map_server map, random start and goal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rnd_agv.guide import GuideConfig
from rnd_agv.observation import ObservationConfig

from .. import movers, worlds
from ..movers import Mover
from .agv import AgvConfig, AgvTask, Placement, free_walk


class AgvRosMap(AgvTask):
    """Random start and goal on an imported map, with people if asked for.

    Args:
        map_yaml: a ROS ``map_server`` YAML, or a world made already.
        people: at most this many walk about.
    """

    name = "agv-ros-map"

    def __init__(
        self, map_yaml: str | Path | worlds.World, people: int = 0, **overrides: Any
    ) -> None:
        base = AgvConfig(
            observation=ObservationConfig(
                sectors=48, max_range=6.0, frames=3, closing=True, proximity_m=1.0, guide=True
            ), max_steps=2400, guide="known",
            guide_config=GuideConfig(resolution=0.1), max_movers=people,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.world = (
            map_yaml if isinstance(map_yaml, worlds.World) else worlds.from_ros_map(map_yaml)
        )
        rng = np.random.default_rng(7)
        walks = [free_walk(self.world, rng, 0.5, 2.0, 8.0) for _ in range(3 * people)]
        self.walks = [walk for walk in walks if walk is not None]

    def place(self, rng: np.random.Generator) -> Placement:
        """Two free points in one room's reach, at least 4 m apart where the map is that large."""
        points = self.world.free_points(rng, 12, self.robot.circumscribed_m + 0.05)
        gaps = np.hypot(*(points - points[0]).T)
        goal = points[np.flatnonzero(gaps >= min(4.0, gaps.max()))[0]]
        start = np.array([*points[0], rng.uniform(-np.pi, np.pi)])
        chosen = rng.permutation(len(self.walks))[: self.config.max_movers]
        crowd = [
            Mover(
                movers.PERSON,
                0.3,
                rng.uniform(0.4, 1.2),
                tuple(self.walks[k][0]),
                tuple(self.walks[k][1]),
            )
            for k in chosen
            if np.hypot(*(self.walks[k][0] - start[:2])) > 2.0
        ]
        return Placement(self.world, start, goal, movers=crowd)
