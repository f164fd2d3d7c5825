"""The guard: the only publisher of ``cmd_vel``; :mod:`ros_nodes.guard_core` decides.

In: ``cmd_vel_raw``, ``scan``, ``odom``, ``e_stop`` (Bool). Out: ``cmd_vel`` at 50 Hz, ``~/state``
(String), ``diagnostics`` at 1 Hz. Services: ``~/arm`` (SetBool), ``~/reset`` (Trigger).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import convert
from .guard_core import ARMED, DISARMED, STOPPED, ZERO, GuardConfig, GuardCore
from .parameters import declare
from .spin import INSTALL, run

try:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from geometry_msgs.msg import Twist, TwistStamped
    from nav_msgs.msg import Odometry
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import LaserScan
    from std_msgs.msg import Bool, String
    from std_srvs.srv import SetBool, Trigger
except ImportError:
    raise SystemExit(INSTALL) from None


@dataclass(frozen=True)
class GuardNodeConfig(GuardConfig):
    """The guard's limits and how it is wired."""

    cmd_vel_stamped: bool = True
    """Send cmd_vel as TwistStamped (ros2_controllers, Clearpath on Jazzy) and not Twist."""
    raw_stamped: bool = True
    """Take cmd_vel_raw as TwistStamped, whose stamp is checked, and not Twist."""
    autoarm: bool = False
    """Arm by itself, once, as soon as all is well. For simulation only."""

    def __post_init__(self) -> None:
        GuardConfig(**{name: getattr(self, name) for name in GuardConfig.__dataclass_fields__})


class Guard(Node):
    """Passes the planner's command on to the base while all is well, zeros otherwise."""

    def __init__(self) -> None:
        super().__init__("guard")
        self.config = declare(self, GuardNodeConfig)
        self.core = GuardCore(self.config)
        self._wait_to_arm = self.config.autoarm
        self._line = ""
        latest, sensor = QoSProfile(depth=1), qos_profile_sensor_data
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        twist = TwistStamped if self.config.cmd_vel_stamped else Twist
        raw = TwistStamped if self.config.raw_stamped else Twist
        self._out = self.create_publisher(twist, "cmd_vel", latest)
        self._state = self.create_publisher(String, "~/state", kept)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", 10)
        # best effort: after a lost message a reliable reader waits for it, and holds up newer ones
        self.create_subscription(raw, "cmd_vel_raw", self._on_command, sensor)
        self.create_subscription(LaserScan, "scan", self._on_scan, sensor)
        self.create_subscription(Odometry, "odom", self._on_odom, sensor)
        for qos in (latest, sensor):  # reliable where the button is, any button otherwise
            self.create_subscription(Bool, "e_stop", lambda msg: self.core.press(msg.data), qos)
        self.create_service(SetBool, "~/arm", self._arm)
        self.create_service(Trigger, "~/reset", self._reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # goes on when simulated time stands still
        self.create_timer(0.02, self._tick, clock=steady)
        self.create_timer(0.2, self._look_for_rivals, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)

    def _ros_now(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _on_command(self, msg: Any) -> None:
        off = (
            convert.seconds(msg.header.stamp) - self._ros_now() if self.config.raw_stamped else 0.0
        )
        if abs(off) <= self.config.stamp_skew_s:  # an old one is no command: it times out
            self.core.on_command(convert.command_from_twist(msg), time.monotonic())

    def _on_scan(self, msg: LaserScan) -> None:
        try:
            ranges, scan = convert.scan_from_msg(msg)
        except ValueError as error:
            return self.core.bad_scan(str(error))
        stamp = convert.seconds(msg.header.stamp)
        return self.core.on_scan(ranges, scan, stamp, time.monotonic(), self._ros_now())

    def _on_odom(self, msg: Odometry) -> None:
        try:
            pose, _ = convert.odometry_from_msg(msg)
        except ValueError as error:
            return self.core.bad_odom(str(error))
        stamp = convert.seconds(msg.header.stamp)
        return self.core.on_odom(pose, stamp, time.monotonic(), self._ros_now())

    def _arm(self, request: Any, response: Any) -> Any:
        response.success, response.message = self.core.arm(request.data, time.monotonic())
        self._wait_to_arm = False
        return response

    def _reset(self, _: Any, response: Any) -> Any:
        response.success, response.message = self.core.reset()
        return response

    def _tick(self) -> None:
        now = time.monotonic()
        if self._wait_to_arm and self.core.state == DISARMED:
            self._wait_to_arm = not self.core.arm(True, now)[0]
        self._send(self.core.tick(now))
        if (line := self.core.status(now).partition(" (")[0]) != self._line:
            self._line = line
            self.get_logger().info(self.core.status(now))
            self._state.publish(String(data=self.core.status(now)))

    def _send(self, command: np.ndarray) -> None:
        self._out.publish(
            convert.twist_from_command(command, self.config.cmd_vel_stamped, self._ros_now())
        )

    def _look_for_rivals(self) -> None:
        others = list(self.get_publishers_info_by_topic(self._out.topic_name))
        mine = (self.get_name(), self.get_namespace())
        own = next((o for o in others if (o.node_name, o.node_namespace) == mine), None)
        if own is not None:  # one of that name is us; a second guard of our name is a rival
            others.remove(own)
        self.core.on_rivals([f"{o.node_namespace.rstrip('/')}/{o.node_name}" for o in others])

    def _diagnose(self) -> None:
        core, line = self.core, self.core.status(time.monotonic())
        level = DiagnosticStatus.WARN
        if core.state == STOPPED or core.rivals:
            level = DiagnosticStatus.ERROR
        elif core.state == ARMED and (line == ARMED or line.endswith("no command")):
            level = DiagnosticStatus.OK
        status = DiagnosticStatus(level=level, name=self.get_fully_qualified_name(), message=line)
        status.hardware_id = "base"
        status.values = [KeyValue(key=k, value=str(v)) for k, v in core.counts.items()]
        msg = DiagnosticArray(status=[status])
        msg.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(msg)

    def close(self) -> None:
        """Leave the base standing: three zeros, spaced so that none is lost with the others."""
        for _ in range(3):
            self._send(ZERO)
            time.sleep(0.02)


def main() -> int:
    """``python -m ros_nodes.guard``"""
    return run(Guard)


if __name__ == "__main__":
    raise SystemExit(main())
