"""The classical planners behind the same face as a policy: a guide's path and a local planner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnd_agv.dwa import DWA
from rnd_agv.grid import OccupancyGrid
from rnd_agv.guide import Guide, GuideConfig, layers
from rnd_agv.mppi import MPPI
from rnd_agv.observation import ScanSpec
from rnd_agv.pure_pursuit import PurePursuit
from rnd_agv.robot import ROBOTS

LOCAL = {"dwa": DWA, "mppi": MPPI, "pure-pursuit": PurePursuit}
MARGIN_M = 12.0
"""A map that grows from scans reaches this far around start and goal."""


class Classical:
    """A local planner along the guide's path, with the face of ``rnd_agv.policy.AgvPolicy``.

    Args:
        name: one of :data:`LOCAL`.
        robot: name of the robot.
    """

    goal_radius_m = 0.5

    def __init__(self, name: str, robot: str) -> None:
        if name not in LOCAL or robot not in ROBOTS:
            raise ValueError(
                f"name must be in {sorted(LOCAL)}, robot in {sorted(ROBOTS)}, got {name}, {robot}"
            )
        self.robot = ROBOTS[robot]
        self.limits = self.robot.limits
        self.local = LOCAL[name](self.robot)
        self.map: OccupancyGrid | None = None
        self.reset()

    def reset(self) -> None:
        """Forget goal, path and what was mapped; a map given by :meth:`set_map` stays."""
        self.goal_w: NDArray[np.float64] | None = None
        self.path_w = np.zeros((0, 2))
        self.guide = Guide(GuideConfig(), self.robot)
        self._steps, self._scan_s = 0, -np.inf
        self.local.reset()

    def set_map(self, grid: OccupancyGrid) -> None:
        """Plan on this map from the next goal on."""
        self.map = grid

    def set_goal(
        self, goal_w: NDArray[np.floating], pose_w: NDArray[np.floating] | None = None
    ) -> None:
        """Drive to (2,)."""
        goal = np.asarray(goal_w, dtype=np.float64)
        if goal.shape != (2,) or not np.isfinite(goal).all():
            raise ValueError(f"goal_w must be 2 finite numbers, got {goal_w}")
        self.goal_w, self._steps, self.path_w = goal, 0, np.zeros((0, 2))
        if self.map is not None:
            self.guide = Guide(GuideConfig(resolution=self.map.resolution), self.robot)
            planning = layers(self.map, self.guide.config, self.robot)
            self.guide.reset(0, goal, known=(self.map, planning))
        else:
            here = goal if pose_w is None else np.asarray(pose_w, dtype=np.float64)[:2]
            low, high = np.minimum(here, goal) - MARGIN_M, np.maximum(here, goal) + MARGIN_M
            self.guide.reset(0, goal, bounds=(low[0], low[1], high[0], high[1]))

    def reached(self, pose_w: NDArray[np.floating]) -> bool:
        """Whether the goal is within :attr:`goal_radius_m`."""
        if self.goal_w is None:
            return False
        return bool(np.hypot(*(self.goal_w - np.asarray(pose_w)[:2])) < self.goal_radius_m)

    def act(
        self,
        pose_w: NDArray[np.floating],
        vel_b: NDArray[np.floating],
        ranges: NDArray[np.floating],
        scan: ScanSpec,
        stamp_s: float,
    ) -> NDArray[np.float64]:
        """Command (2,) for the newest pose (3,), velocity (2,) and scan (beams,)."""
        if self.goal_w is None or self.reached(pose_w):
            return np.zeros(2)
        pose = np.asarray(pose_w, dtype=np.float64)
        if self.guide.mapped[0] and stamp_s > self._scan_s:
            self._scan_s = stamp_s
            c, s = np.cos(pose[2]), np.sin(pose[2])
            lidar = pose[None] + np.array([[c, s, 0.0]]) * self.robot.lidar_x_m
            self.guide.integrate(lidar, np.asarray(ranges, dtype=np.float64)[None], scan)
        if self._steps % self.guide.config.replan_steps == 0:
            if self.guide.mapped[0]:
                self.guide.plan(0)
            self.path_w = self.guide.path(0, pose)
        self._steps += 1
        command = self.local.act(pose, vel_b, ranges, scan, self.path_w, self.goal_w)
        return np.asarray(command, dtype=np.float64)
