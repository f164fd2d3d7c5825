"""The physics under a task: tier K (kinematic) and tier M (MuJoCo) behind one small contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .worlds import World

PHYSICS_DT = 0.005
CONTROL_DT = 0.05
SCAN_EVERY = 2
"""Control periods per scan: 20 Hz control, 10 Hz scan, held between scans."""


@dataclass
class Dynamics:
    """Physical parameters of k environments, one row each; the defaults are the nominal robot."""

    slip: NDArray[np.float64]
    """(k, 2) left and right wheel efficiency, 1 = no slip."""
    motor_lag_s: NDArray[np.float64]
    """(k,) time constant of the wheel velocity loop."""
    friction: NDArray[np.float64]
    """(k,) sliding friction of wheels on the floor."""
    payload_kg: NDArray[np.float64]
    """(k,) mass added to the base."""

    @classmethod
    def nominal(cls, k: int) -> Dynamics:
        """The robot as it is drawn."""
        return cls(np.ones((k, 2)), np.full(k, 0.08), np.full(k, 0.8), np.zeros(k))


class Backend(Protocol):
    """N robots in N worlds. Poses are base_link in the world frame, float64."""

    num_envs: int
    pose_w: NDArray[np.float64]
    """(N, 3) x, y, yaw after the last step or reset."""
    vel_b: NDArray[np.float64]
    """(N, 2) measured forward speed and turn rate."""

    def reset(
        self,
        ids: NDArray[np.int64],
        worlds: list[World],
        pose_w: NDArray[np.float64],
        dynamics: Dynamics,
    ) -> None:
        """Put robots ``ids`` at rest at (k, 3) poses in their k worlds."""
        ...

    def step(self, command: NDArray[np.float64], movers: NDArray[np.float64]) -> None:
        """Advance all by one control period under (N, 2) commands and (N, M, 3) movers [x, y, r].

        Movers are given where they are at the end of the period; unused rows have r = 0.
        """
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
