"""What the wheels say: odometry that drifts and that nothing pulls back.

Unlike :class:`sim.batch.BatchEnv`, whose seen pose is pulled to the truth as a localiser would,
this is for tests of a localiser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Odometer:
    """Drifting odometry of one robot.

    Every step's way and turn are off by a fixed share, drawn to be ``drift`` too much or too
    little, each by itself, and by noise that grows as the root of the way: a standard deviation of
    ``drift`` metres (of the way) and radians (of the heading) after one metre.

    Args:
        pose_w: (3,) true pose at the start, which is also what odometry says.
        drift: share, at least 0.
        rng: source of randomness.
    """

    def __init__(self, pose_w: ArrayLike, drift: float, rng: np.random.Generator) -> None:
        if not drift >= 0:
            raise ValueError(f"drift must be >= 0, got {drift}")
        self.drift, self.rng = drift, rng
        self.scale = 1 + drift * rng.choice([-1.0, 1.0], 2)
        """(2,) of way and turn."""
        self._true_w = np.array(pose_w, np.float64)
        self.pose: NDArray[np.float64] = self._true_w.copy()
        """(3,) in the odometry frame, m and rad."""

    def step(self, pose_w: ArrayLike) -> NDArray[np.float64]:
        """Odometry after the robot has driven to a true pose (3,)."""
        to = np.asarray(pose_w, np.float64)
        dx, dy = (to - self._true_w)[:2]
        turn = (to[2] - self._true_w[2] + np.pi) % (2 * np.pi) - np.pi
        c, s = np.cos(self._true_w[2]), np.sin(self._true_w[2])
        way, off = self.drift * np.sqrt(np.hypot(dx, dy)) * self.rng.standard_normal(2)
        ahead = self.scale[0] * (c * dx + s * dy) + way
        side = self.scale[0] * (c * dy - s * dx)
        yaw = self.pose[2]
        self.pose = self.pose + (
            np.cos(yaw) * ahead - np.sin(yaw) * side,
            np.sin(yaw) * ahead + np.cos(yaw) * side,
            self.scale[1] * turn + off,
        )
        self._true_w = to.copy()
        return self.pose.copy()

    def carried(self, pose_w: ArrayLike) -> None:
        """The robot has been put elsewhere: to the wheels nothing has happened."""
        self._true_w = np.array(pose_w, np.float64)
