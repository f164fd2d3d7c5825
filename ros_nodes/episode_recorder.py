"""Records episodes from topics into the Zarr store; the command recorded is the one *sent*.

In: ``scan``, ``odom``, ``goal_pose``, ``cmd_vel`` (the guard's), ``camera/image_raw/compressed``,
``instruction`` (String), ``outcome`` (String; ends the episode), ``episode`` (Bool: true begins
one, false ends it). Services (Trigger): ``~/start``, ``~/end``.
Out: ``~/stored`` (String, JSON of what was stored), ``diagnostics`` at 1 Hz.

A step is the newest of every topic at each tick of the node's clock; an episode's first is the
first tick at which scan, odometry and camera have come. Callbacks only keep messages;
:mod:`ros_nodes.recording` does all that takes time. A signal stores the episode that runs, as
"interrupted".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from episodes import EpisodeWriter

from .parameters import declare
from .recording import Begin, End, Recording, Step
from .spin import INSTALL, run

try:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
    from nav_msgs.msg import Odometry
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage, LaserScan
    from std_msgs.msg import Bool, String
    from std_srvs.srv import Trigger
except ImportError:
    raise SystemExit(INSTALL) from None


@dataclass(frozen=True)
class RecorderConfig:
    """What is recorded, and how much of it."""

    episodes: str = "episodes"
    """Folder of the episode store."""
    task: str = "recorded"
    """Name of the task, for the store."""
    instruction: str = ""
    """What the robot is told to do, until the topic instruction says something else."""
    camera: str = "front"
    """Name that the camera has in the store; empty records no camera."""
    autostart: bool = False
    """Begin one episode as soon as all topics have come."""
    cmd_vel_stamped: bool = True
    """Take cmd_vel as TwistStamped and not Twist."""
    rate_hz: float = field(default=20.0, metadata={"range": (1.0, 100.0)})
    """Steps a second of the node's clock."""
    most_mib: int = field(default=256, metadata={"range": (1, 1024)})
    """Largest episode; a longer one is cut here and says so."""
    frame_bytes: int = field(default=8_388_608, metadata={"range": (1024, 67_108_864)})
    """A larger camera message is dropped."""
    queue_size: int = field(default=64, metadata={"range": (2, 1024)})
    """Steps that wait for the writer; one more is dropped and counted."""


class EpisodeRecorder(Node):
    """Callbacks keep the newest messages, a timer makes steps of them."""

    def __init__(self) -> None:
        super().__init__("episode_recorder")
        self.config = c = declare(self, RecorderConfig)
        self.counts: Counter[str] = Counter(frames_dropped=0, steps_dropped=0)
        self._recording = Recording(
            EpisodeWriter(c.episodes, byte_budget=c.most_mib << 20, jpeg_quality=95), c.task,
            c.camera, c.rate_hz, c.queue_size,
            lambda line: self.get_logger().warning(line, throttle_duration_sec=5.0),
        )  # fmt: skip
        self._newest: dict[str, Any] = {}
        self._task, self._wait_to_start = c.instruction, c.autostart
        self._running, self._steps, self._dropped, self._last_s = False, 0, 0, float("-inf")
        self._listen()
        self._stored = self.create_publisher(String, "~/stored", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", 10)
        self.create_service(Trigger, "~/start", self._serve(self._start))
        self.create_service(Trigger, "~/end", self._serve(self._end))
        self.create_timer(1 / c.rate_hz, self._tick)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.05, self._publish, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)
        self.get_logger().info(f"records into {c.episodes}, ready")

    def _listen(self) -> None:
        c, latest, sensor = self.config, QoSProfile(depth=1), qos_profile_sensor_data
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        twist = TwistStamped if c.cmd_vel_stamped else Twist
        for kind, topic in (
            (LaserScan, "scan"), (Odometry, "odom"), (twist, "cmd_vel"), (PoseStamped, "goal_pose"),
        ):  # fmt: skip
            self.create_subscription(kind, topic, self._keep(topic), sensor)
        if c.camera:
            topic = "camera/image_raw/compressed"
            self.create_subscription(CompressedImage, topic, self._on_frame, sensor)
        for qos in (latest, kept):  # latched, and any other
            self.create_subscription(String, "instruction", self._on_instruction, qos)
            self.create_subscription(String, "outcome", self._on_outcome, qos)
        self.create_subscription(Bool, "episode", self._on_episode, 10)

    # in

    def _keep(self, topic: str) -> Callable[[Any], None]:
        return lambda msg: self._newest.update({topic: msg})

    def _on_frame(self, msg: Any) -> None:
        if len(msg.data) > self.config.frame_bytes:
            self.counts["frames_dropped"] += 1
        else:
            self._newest["frame"] = msg

    def _on_instruction(self, msg: String) -> None:
        self._task = msg.data[:2000]

    def _on_outcome(self, msg: String) -> None:
        self._end(msg.data[:4000])

    def _on_episode(self, msg: Bool) -> None:
        self._start() if msg.data else self._end()  # told again, nothing changes

    def _serve(self, act: Callable[[], str]) -> Any:
        def serve(_: Any, answer: Any) -> Any:
            answer.message = act()
            answer.success = not answer.message
            return answer

        return serve

    def _start(self) -> str:
        """Begin an episode; why not, or nothing."""
        if self._running:
            return "an episode runs already"
        if not self._recording.put(Begin(self._task)):
            return f"{self._recording.waiting} steps still wait to be stored"
        self._running, self._wait_to_start, self._steps, self._dropped = True, False, 0, 0
        self._newest.pop("frame", None)  # of before the episode
        return ""

    def _end(self, outcome: str = "ended") -> str:
        """End the episode; why not, or nothing."""
        if not self._running:
            return "no episode runs"
        self._running = False
        self._recording.put(End(outcome, self._dropped))
        return ""

    def _tick(self) -> None:
        new, sensed = self._newest, {"scan", "odom"}
        if self.config.camera and not self._steps:
            sensed.add("frame")
        if not sensed <= new.keys():
            return
        if self._wait_to_start and "cmd_vel" in new:
            self._start()
        now = 1e-9 * self.get_clock().now().nanoseconds
        if not (self._running and sensed <= new.keys() and now > self._last_s):
            return
        step = Step(
            now, new["scan"], new["odom"], new.get("goal_pose"), new.get("cmd_vel"),
            new.pop("frame", None),
        )  # fmt: skip
        self._last_s = now
        if self._recording.put(step):
            self._steps += 1
        else:
            self._dropped += 1
            self.counts["steps_dropped"] += 1

    # out

    def _publish(self) -> None:
        while self._recording.done:
            line = json.dumps(self._recording.done.popleft())
            self.get_logger().info(f"stored {line}")
            self._stored.publish(String(data=line))

    def _diagnose(self) -> None:
        counts = self._recording.counts | self.counts
        level, line = DiagnosticStatus.OK, "recording" if self._running else "waiting"
        if lost := counts["steps_dropped"] + counts["steps_refused"]:
            level, line = DiagnosticStatus.WARN, f"{lost} steps lost"
        if counts["failed"]:
            level, line = DiagnosticStatus.ERROR, f"{counts['failed']} episodes were not stored"
        status = DiagnosticStatus(level=level, name=self.get_fully_qualified_name(), message=line)
        status.hardware_id = "episode store"
        values = {**counts, "waiting": self._recording.waiting}
        status.values = [KeyValue(key=k, value=str(v)) for k, v in values.items()]
        msg = DiagnosticArray(status=[status])
        msg.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(msg)

    def close(self) -> None:
        """Store the episode that runs, and what waits, within 2.5 s or not at all."""
        self._end("interrupted")
        if not self._recording.close(2.5):
            self.get_logger().error("the episode is lost: storing it took longer than 2.5 s")
        self._publish()


def main() -> int:
    """``python -m ros_nodes.episode_recorder``"""
    return run(EpisodeRecorder)


if __name__ == "__main__":
    raise SystemExit(main())
