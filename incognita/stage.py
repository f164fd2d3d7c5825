"""A simulated robot with a lidar and drifting odometry, driven by what ``toponav`` decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.command import action_from_command
from rnd_agv.dwa import DWA
from rnd_agv.observation import ObservationConfig
from rnd_agv.robot import RobotSpec
from sim.backend import CONTROL_DT, SCAN_EVERY
from sim.batch import BatchEnv
from sim.kinematic import Kinematic
from sim.odometry import Odometer
from sim.tasks.explore import Explore
from sim.worlds import World
from toponav.exploration import Decision, Exploration, Task
from toponav.localizer import compose

from .explore import in_place

Driver = Any
"""A local planner of ``rnd_agv``: PurePursuit, DWA or MPPI."""
Watch = Callable[["Stage"], bool]
"""Called every step; True ends the run."""


class Stage:
    """One robot in one world of tier K. It knows odometry and scans; the truth is for judging.

    Args:
        world: where.
        start_w: (3,) true pose at the start, m and rad.
        drift: of odometry, see :class:`sim.odometry.Odometer`.
        seed: of all noise.
        drive: makes the local planner.
    """

    def __init__(
        self, world: World, start_w: ArrayLike, drift: float, seed: int, robot: str = "jackal",
        drive: Callable[[RobotSpec], Driver] = DWA,
    ) -> None:  # fmt: skip
        observation = ObservationConfig(sectors=36, guide=False)
        self.task = Explore(world, start_w, robot=robot, guide="none", observation=observation)
        self.env = BatchEnv(self.task, 1, "kinematic", seed)
        self.env.reset()
        self.world = world
        self.driver = drive(self.task.robot)
        rng = np.random.default_rng([seed, 77])
        self.odometer = Odometer(self.pose_w, drift, rng)
        self.lidar_b = np.array([self.task.robot.lidar_x_m, 0.0, 0.0])
        self.t_s, self.driven_m = 0.0, 0.0
        self.touched = 0
        """Steps in contact with anything."""
        self._decided_s = -np.inf

    @property
    def pose_w(self) -> NDArray[np.float64]:
        """(3,) true pose."""
        pose: NDArray[np.float64] = self.env.state.pose_w[0].copy()
        return pose

    def change(self, world: World) -> None:
        """The doors are others from now on; the robot stays where it is."""
        self.world = world
        slot = self.env.bank.add(world)
        assert isinstance(self.env.backend, Kinematic)
        self.env.world[0] = self.env.backend.world[0] = slot

    def kidnap(self, pose_w: ArrayLike) -> None:
        """Put the robot elsewhere, standing; odometry does not notice."""
        assert isinstance(self.env.backend, Kinematic)
        for rows in (self.env.backend.pose_w, self.env.state.pose_w, self.env.state.seen_pose_w):
            rows[0] = pose_w
        self.env.backend.vel_b[0] = self.env.backend.wheels[0] = 0.0
        self.env.state.vel_b[0] = self.env.state.last_command[0] = 0.0
        self.odometer.carried(pose_w)
        self.env._sense(np.array([0]))

    def run(self, mind: Exploration, limit_s: float, watch: Watch | None = None) -> bool:
        """Drive until it is over (True), ``watch`` says so (True), or for ``limit_s`` (False)."""
        end_s, decision = self.t_s + limit_s, Decision(Task.EXPLORE)
        self._decided_s = -np.inf
        while self.t_s < end_s:
            if self.env.state.t[0] % SCAN_EVERY == 0:
                mind.observe(
                    self.t_s, self.odometer.pose, self.env.ranges[0], self.task.scan.angles,
                    self.task.scan.range_max, self.lidar_b,
                )  # fmt: skip
            pose = compose(mind.map_from_odom, self.odometer.pose)
            target = decision.target_w
            near = target is not None and np.hypot(*(target - pose[:2])) < 0.4
            if self.t_s - self._decided_s >= (0.5 if near or mind.lost else 1.0) - 1e-9:
                decision, self._decided_s = mind.decide(self.t_s), self.t_s
            if decision.task == Task.DONE or (watch is not None and watch(self)):
                return True
            self.step(self.command(decision, pose))
        return False

    def command(self, decision: Decision, pose_w: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2,) m/s, rad/s for a decision and a pose (3,), both in the map frame."""
        if decision.path_w is not None and decision.target_w is not None:
            return np.asarray(self.driver.act(
                pose_w, self.env.state.vel_b[0], self.env.ranges[0], self.task.scan,
                decision.path_w, decision.target_w,
            ))  # fmt: skip
        return in_place(decision, pose_w[2])

    def step(self, command: NDArray[np.float64]) -> None:
        """One control period."""
        before = self.pose_w
        self.env.step(action_from_command(command[None], self.task.robot.limits))
        self.odometer.step(self.pose_w)
        self.driven_m += float(np.hypot(*(self.pose_w - before)[:2]))
        self.touched += int(self.env.state.contact[0, 0])
        self.t_s += CONTROL_DT
