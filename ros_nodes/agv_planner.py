"""Drives an AGV to ``goal_pose`` with a policy file or a classical planner, at 20 Hz.

In: ``scan``, ``odom``, ``goal_pose``, optional ``map`` and (a localiser's) ``pose``.
Out: ``cmd_vel_raw`` for the guard, ``~/path``, ``~/state``.
A goal is a position; its heading is ignored.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.observation import ScanSpec
from rnd_agv.policy import CONTROL_DT, AgvPolicy

from . import convert
from .classical import LOCAL, Classical
from .parameters import declare
from .spin import INSTALL, run

try:
    from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Twist, TwistStamped
    from nav_msgs.msg import OccupancyGrid, Odometry, Path
    from rclpy.node import Node
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import LaserScan
    from std_msgs.msg import String
except ImportError:
    raise SystemExit(INSTALL) from None


@dataclass(frozen=True)
class PlannerConfig:
    """What drives, and how it is wired."""

    policy: str = ""
    """Folder of a policy file; or dwa, mppi, pure-pursuit for a classical planner."""
    robot: str = "agv"
    """Robot that a classical planner drives (a policy file says its own)."""
    raw_stamped: bool = True
    """Send cmd_vel_raw as TwistStamped and not Twist."""
    use_map: bool = True
    """Plan on the first map that comes; without one, on a map that grows from scans."""
    use_pose: bool = False
    """Correct odometry by a localiser's poses on the topic pose; no command before the first."""
    stale_s: float = field(default=0.4, metadata={"range": (0.05, 2.0)})
    """No command while scan or odometry is older, s."""


class AgvPlanner(Node):
    """One policy call per control period while a goal is set and the sensors are fresh."""

    def __init__(self) -> None:
        super().__init__("agv_planner")
        self.config = c = declare(self, PlannerConfig)
        if not c.policy:
            raise ValueError(f"policy must be a folder or one of {sorted(LOCAL)}, got nothing")
        self.policy: Any = (
            Classical(c.policy, c.robot) if c.policy in LOCAL else AgvPolicy(c.policy)
        )
        self._warm_up()
        self._odom: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
        self._scan: tuple[float, NDArray[np.float32], ScanSpec, float] | None = None
        self._map_from_odom = None if c.use_pose else np.zeros(3)
        self._goal: NDArray[np.float64] | None = None
        self._new, self._ticks, self._said = False, 0, ""
        latest, sensor = QoSProfile(depth=1), qos_profile_sensor_data
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        raw = TwistStamped if c.raw_stamped else Twist
        self._out = self.create_publisher(raw, "cmd_vel_raw", latest)
        self._path = self.create_publisher(Path, "~/path", kept)
        self._state = self.create_publisher(String, "~/state", kept)
        self.create_subscription(LaserScan, "scan", self._on_scan, sensor)
        self.create_subscription(Odometry, "odom", self._on_odom, sensor)
        self.create_subscription(PoseStamped, "goal_pose", self._on_goal, latest)
        if c.use_map:
            self.create_subscription(OccupancyGrid, "map", self._on_map, kept)
        if c.use_pose:
            self.create_subscription(PoseWithCovarianceStamped, "pose", self._on_pose, latest)
        self.create_timer(CONTROL_DT, self._tick)

    def _warm_up(self) -> None:
        """Compile and load what the first calls would, before anyone waits for a command."""
        spec = ScanSpec(180, -np.pi, np.pi / 90, 0.0, 10.0)
        self.policy.set_goal(np.array([3.0, 0.0]), np.zeros(3))
        for k in range(3):
            self.policy.act(np.zeros(3), np.zeros(2), np.full(180, 5.0, np.float32), spec, 0.1 * k)
        self.policy.guide.path(0, np.zeros(3))
        self.policy.reset()

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self.get_logger().info(line)
            self._state.publish(String(data=line))

    def _on_scan(self, msg: LaserScan) -> None:
        try:
            ranges, spec = convert.scan_from_msg(msg)
            self._scan = time.monotonic(), ranges, spec, convert.seconds(msg.header.stamp)
        except ValueError as error:
            self.get_logger().warning(f"scan: {error}", throttle_duration_sec=5.0)

    def _on_odom(self, msg: Odometry) -> None:
        try:
            self._odom = time.monotonic(), *convert.odometry_from_msg(msg)
        except ValueError as error:
            self.get_logger().warning(f"odom: {error}", throttle_duration_sec=5.0)

    def _on_pose(self, msg: PoseWithCovarianceStamped) -> None:
        try:
            pose = convert.pose_from_msg(msg.pose.pose)
            if self._odom is not None:
                self._map_from_odom = convert.compose(pose, convert.inverse(self._odom[1]))
        except ValueError as error:
            self.get_logger().warning(f"pose: {error}", throttle_duration_sec=5.0)

    def _on_map(self, msg: OccupancyGrid) -> None:
        try:
            self.policy.set_map(convert.grid_from_msg(msg))
            self._new = True  # plan anew, on the map
        except ValueError as error:
            self.get_logger().error(f"map: {error}")

    def _on_goal(self, msg: PoseStamped) -> None:
        try:
            goal = convert.pose_from_msg(msg.pose)[:2]
            if self._goal is None or not np.array_equal(goal, self._goal):
                self._goal, self._new = goal, True
        except ValueError as error:
            self.get_logger().error(f"goal_pose: {error}")

    def _pose(self) -> NDArray[np.float64] | None:
        if self._odom is None or self._map_from_odom is None:
            return None
        return convert.compose(self._map_from_odom, self._odom[1])

    def _tick(self) -> None:
        pose, now = self._pose(), time.monotonic()
        if pose is None or self._scan is None or self._odom is None:
            return self._say("waiting for scan, odometry and pose")
        if self._goal is None:
            return self._say("waiting for a goal")
        if now - min(self._scan[0], self._odom[0]) > self.config.stale_s:
            return self._say("scan or odometry is stale")
        _, ranges, spec, stamp = self._scan
        try:
            if self._new:
                self.policy.set_goal(self._goal, pose)
                self._new, self._ticks = False, 0
            command = self.policy.act(pose, self._odom[2], ranges, spec, stamp)
        except Exception as error:  # a policy that fails must not end the node: the guard holds
            return self._say(f"policy failed: {error!r}")
        stamp_s = 1e-9 * self.get_clock().now().nanoseconds
        self._out.publish(convert.twist_from_command(command, self.config.raw_stamped, stamp_s))
        if self._ticks % 20 == 0:
            self._publish_path(pose, stamp_s)
        self._ticks += 1
        return self._say("reached" if self.policy.reached(pose) else "driving")

    def _publish_path(self, pose: NDArray[np.float64], stamp_s: float) -> None:
        if np.isfinite(self.policy.guide.fields).any():
            path = self.policy.guide.path(0, pose)
            self._path.publish(convert.msg_from_path(path, stamp_s, "odom"))

    def close(self) -> None:
        """Ask for zero once more; the guard's time-out would see to it anyway."""
        self._out.publish(convert.twist_from_command(np.zeros(2), self.config.raw_stamped))


def main() -> int:
    """``python -m ros_nodes.agv_planner``"""
    return run(AgvPlanner)


if __name__ == "__main__":
    raise SystemExit(main())
