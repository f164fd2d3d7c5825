"""Has the reward service score what the camera saw of an episode, off every control thread.

In: ``camera/image_raw/compressed`` or ``camera/image_raw``, ``instruction`` (String), ``episode``
(Bool: true begins one, false ends it). Services (Trigger): ``~/start``, ``~/end``.
Out: ``reward`` (Float32, NaN where it is missing), ``~/result`` (String: the whole answer as JSON,
or ``missing`` and why), ``diagnostics`` at 1 Hz.

No callback waits: episodes go through a bounded queue to a thread that decodes, asks and gives up
at the deadline. A late or missing reward is NaN and never 0.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from reward_vlm.client import ClientConfig, RewardClient, RewardRequestError
except ImportError as _error:
    raise SystemExit(str(_error)) from None

from reward_vlm.decode import scaled

from . import convert
from .parameters import declare
from .spin import INSTALL, run

try:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Bool, Float32, String
    from std_srvs.srv import Trigger
except ImportError:
    raise SystemExit(INSTALL) from None


@dataclass(frozen=True)
class RewardClientConfig:
    """Where the service is, and how much of an episode it gets."""

    server: str = "http://127.0.0.1:8300"
    """URL of the reward service."""
    key_file: str = ""
    """File that holds the service's key; empty takes it from INCOGNITA_REWARD_KEY."""
    model: str = ""
    """Model of the service; empty is its default."""
    instruction: str = ""
    """What the robot is told to do, until the topic instruction says something else."""
    compressed: bool = True
    """Take camera/image_raw/compressed and not camera/image_raw."""
    frame_hz: float = field(default=5.0, metadata={"range": (0.1, 30.0)})
    """Frames a second that are kept at first; long episodes are thinned."""
    most_frames: int = field(default=32, metadata={"range": (2, 256)})
    """Frames of an episode, evenly over it, the newest always among them."""
    frame_bytes: int = field(default=8_388_608, metadata={"range": (1024, 67_108_864)})
    """A larger message is dropped."""
    side_px: int = field(default=320, metadata={"range": (32, 2048)})
    """Frames go out with their longer side scaled down to this."""
    queue_size: int = field(default=4, metadata={"range": (1, 64)})
    """Episodes that wait for the service; one more is missing."""
    deadline_s: float = field(default=10.0, metadata={"range": (0.1, 600.0)})
    """An answer later than this, all tries together, is missing."""


class Frames:
    """Camera messages of one episode: a bounded number, evenly spread, and the newest."""

    def __init__(self, rate_hz: float, most: int) -> None:
        self.period_s, self.most = 1 / rate_hz, most
        self.begun = time.monotonic()
        self._kept: list[tuple[float, Any]] = []
        self._newest: tuple[float, Any] | None = None
        self._slot = -1

    def add(self, msg: Any) -> None:
        """Take a message in; O(1) but for the rare thinning."""
        now = time.monotonic()
        self._newest = (now, msg)
        slot = int((now - self.begun) / self.period_s)
        if slot > self._slot:
            self._slot = slot
            self._kept.append(self._newest)
            if len(self._kept) >= self.most:  # leaves room for the newest
                self._kept, self.period_s = self._kept[::2], 2 * self.period_s
                self._slot = int((now - self.begun) / self.period_s)

    def all(self) -> list[tuple[float, Any]]:
        """(receive time, message), oldest first."""
        if self._newest is None or self._kept[-1] is self._newest:
            return list(self._kept)
        return [*self._kept, self._newest]


@dataclass(frozen=True)
class Episode:
    """One that ended and is to be scored."""

    number: int
    task: str
    frames: list[tuple[float, Any]]


class RewardNode(Node):
    """Callbacks fill buffers, a timer publishes, a thread does all that takes time."""

    def __init__(self) -> None:
        super().__init__("reward_client")
        self.config = c = declare(self, RewardClientConfig)
        key = Path(c.key_file).read_text().strip() if c.key_file else None
        self.client = RewardClient(c.server, key, ClientConfig(deadline_s=c.deadline_s))
        self.counts: Counter[str] = Counter(episodes=0, scored=0, missing=0, frames_dropped=0)
        self._task, self._last_missing = c.instruction, ""
        self._frames: Frames | None = None
        self._todo: queue.Queue[Episode | None] = queue.Queue(c.queue_size)
        self._done: deque[dict[str, Any]] = deque()
        latest, sensor = QoSProfile(depth=1), qos_profile_sensor_data
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._reward = self.create_publisher(Float32, "reward", 10)
        self._result = self.create_publisher(String, "~/result", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", 10)
        if c.compressed:
            topic, kind = "camera/image_raw/compressed", CompressedImage
        else:
            topic, kind = "camera/image_raw", Image
        self.create_subscription(kind, topic, self._on_frame, sensor)
        for qos in (latest, kept):  # a latched instruction, and any other
            self.create_subscription(String, "instruction", self._on_instruction, qos)
        self.create_subscription(Bool, "episode", self._on_episode, 10)
        self.create_service(Trigger, "~/start", self._serve(self._start, "an episode runs already"))
        self.create_service(Trigger, "~/end", self._serve(self._end, "no episode runs"))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.05, self._publish, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)
        threading.Thread(target=self._work, name="scoring", daemon=True).start()

    # in

    def _on_frame(self, msg: Any) -> None:
        if self._frames is None:
            return
        if len(msg.data) > self.config.frame_bytes:
            self.counts["frames_dropped"] += 1
        else:
            self._frames.add(msg)

    def _on_instruction(self, msg: String) -> None:
        self._task = msg.data[:2000]

    def _on_episode(self, msg: Bool) -> None:
        self._start() if msg.data else self._end()  # told again, nothing changes

    def _serve(self, act: Any, why_not: str) -> Any:
        def serve(_: Any, answer: Any) -> Any:
            answer.success = act()
            answer.message = f"episode {self.counts['episodes']}" if answer.success else why_not
            return answer

        return serve

    def _start(self) -> bool:
        if self._frames is not None:
            return False
        self.counts["episodes"] += 1
        self._frames = Frames(self.config.frame_hz, self.config.most_frames)
        return True

    def _end(self) -> bool:
        if self._frames is None:
            return False
        episode = Episode(self.counts["episodes"], self._task, self._frames.all())
        self._frames = None
        try:
            self._todo.put_nowait(episode)
        except queue.Full:
            self._missing(episode, "queue_full", f"{self._todo.maxsize} episodes wait already")
        return True

    # the thread

    def _work(self) -> None:
        while (episode := self._todo.get()) is not None:
            try:
                self._score(episode)
            except RewardRequestError as error:
                self._missing(episode, "rejected", str(error))
            except Exception as error:  # the thread goes on, whatever one episode does
                self._missing(episode, "error", f"{type(error).__name__}: {error}"[:400])

    def _score(self, episode: Episode) -> None:
        if not episode.task.strip():
            return self._missing(episode, "no_instruction", "topic or parameter instruction")
        times: list[float] = []
        images: list[NDArray[np.uint8]] = []
        for received, msg in episode.frames:
            try:
                image = scaled(convert.rgb_from_msg(msg), self.config.side_px)
            except ValueError as error:
                self.counts["frames_refused"] += 1  # the callbacks count on another key
                self.get_logger().warning(f"camera: {error}", throttle_duration_sec=5.0)
                continue
            if not images or image.shape == images[-1].shape:
                times.append(received)
                images.append(image)
        if not images:
            return self._missing(episode, "no_frames", "no camera frame came during the episode")
        taken_s = times[-1] - times[0]
        fps = min((len(images) - 1) / taken_s, 240.0) if taken_s > 0 else self.config.frame_hz
        result = self.client.score(
            episode.task, np.stack(images), fps=max(fps, 1e-3), model=self.config.model or None,
            want=("score", "progress", "success"),
        )  # fmt: skip
        if result.missing:
            return self._missing(episode, result.reason, result.detail)
        self._done.append({"missing": False, **self._about(episode), **result.model_dump()})

    def _missing(self, episode: Episode, reason: str, detail: str) -> None:
        self._done.append(
            {"missing": True, "reason": reason, "detail": detail, **self._about(episode)}
        )

    def _about(self, episode: Episode) -> dict[str, Any]:
        return {"episode": episode.number, "task": episode.task, "frames": len(episode.frames)}

    # out

    def _publish(self) -> None:
        while self._done:
            found = self._done.popleft()
            self.counts["missing" if found["missing"] else "scored"] += 1
            self._last_missing = found["reason"] if found["missing"] else ""
            if found["missing"]:
                line = f"episode {found['episode']}: {found['reason']} ({found['detail']})"
                self.get_logger().warning(line)
            self._reward.publish(Float32(data=float(found.get("reward", math.nan))))
            self._result.publish(String(data=json.dumps(found, allow_nan=False)))

    def _diagnose(self) -> None:
        level, line = DiagnosticStatus.OK, "waiting" if self._frames is None else "recording"
        if self._last_missing:
            level, line = DiagnosticStatus.WARN, f"last reward missing: {self._last_missing}"
        if self.client.breaker.state != "closed":
            level, line = DiagnosticStatus.ERROR, "the reward service does not answer"
        status = DiagnosticStatus(level=level, name=self.get_fully_qualified_name(), message=line)
        status.hardware_id = "reward service"
        values = {**self.counts, "waiting": self._todo.qsize()}
        status.values = [KeyValue(key=k, value=str(v)) for k, v in values.items()]
        msg = DiagnosticArray(status=[status])
        msg.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(msg)

    def close(self) -> None:
        """Give up what is under way: whoever waits for a reward sees the node go."""
        self.client.close()


def main() -> int:
    """``python -m ros_nodes.reward_client``"""
    return run(RewardNode)


if __name__ == "__main__":
    raise SystemExit(main())
