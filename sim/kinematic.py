"""Tier K: the kinematic model of ``rnd_agv`` in the same worlds, for fast training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.kinematics import advance
from rnd_agv.robot import RobotSpec

from .backend import CONTROL_DT, PHYSICS_DT, Dynamics
from .bank import WorldBank
from .worlds import World

SUBSTEPS = 5
"""Model steps per control period (10 ms each): pose error against 5 ms below 0.1 mm per second."""


class Kinematic:
    """N kinematic robots, see :class:`sim.backend.Backend`."""

    def __init__(self, robot: RobotSpec, num_envs: int, bank: WorldBank) -> None:
        self.robot, self.num_envs, self.bank = robot, num_envs, bank
        self.pose_w = np.zeros((num_envs, 3))
        self.vel_b = np.zeros((num_envs, 2))
        self.wheels = np.zeros((num_envs, 2))
        self.slip = np.ones((num_envs, 2))
        self.lag = np.full(num_envs, 0.08)
        self.world = np.zeros(num_envs, np.int32)
        self._half = np.array(robot.half_extents)
        self._response = np.array(robot.response)

    def reset(
        self,
        ids: NDArray[np.int64],
        worlds: list[World],
        pose_w: NDArray[np.float64],
        dynamics: Dynamics,
    ) -> None:
        """See :meth:`sim.backend.Backend.reset`."""
        self.world[ids] = [self.bank.add(world) for world in worlds]
        self.pose_w[ids] = pose_w
        self.vel_b[ids] = self.wheels[ids] = 0.0
        self.slip[ids], self.lag[ids] = dynamics.slip, dynamics.motor_lag_s

    def step(self, command: NDArray[np.float64], movers: NDArray[np.float64]) -> None:
        """See :meth:`sim.backend.Backend.step`."""
        bank = self.bank
        advance(
            self.pose_w, self.wheels, self.vel_b, command, self.slip, self.lag, self.robot.track_m,
            self._half, self.world, bank.boxes, bank.nboxes, bank.discs, bank.ndiscs, movers,
            CONTROL_DT / SUBSTEPS, SUBSTEPS, self._response,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Arrays the next step depends on; the worlds come back by ``reset`` before loading."""
        names = ("pose_w", "vel_b", "wheels", "slip", "lag")
        return {name: getattr(self, name).copy() for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        for name, value in state.items():
            getattr(self, name)[:] = value


assert PHYSICS_DT <= CONTROL_DT / SUBSTEPS
