"""A thread that turns steps of messages into stored episodes, each whole or not at all."""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from episodes import EpisodeBuilder, EpisodeTooLargeError, EpisodeWriter

from . import convert

NOTHING = np.full(2, np.nan)


@dataclass(frozen=True)
class Begin:
    """An episode begins."""

    instruction: str


@dataclass(frozen=True)
class Step:
    """The newest message of every topic at a tick."""

    time_s: float
    scan: Any
    odom: Any
    goal: Any
    """None where none has come, as the command and the frame."""
    command: Any
    frame: Any
    """None where no new one has come since the step before."""


@dataclass(frozen=True)
class End:
    """An episode ends."""

    outcome: str
    """Text, or a JSON object."""
    dropped: int
    """Steps lost to a full queue."""


class Recording:
    """Stores episodes off the caller's thread.

    Arrays of an episode: ``time_s``, ``scan`` (B,) m, ``pose_w`` (3,) as odometry has it, ``vel_b``
    (2,), ``goal_w`` (2,) and ``command`` (2,), the newest sent by then; NaN where there was none.
    The attribute ``scan`` says how the scan is laid out.

    Args:
        writer: of the store; closed by :meth:`close`.
        task: name of the task.
        camera: name of the camera; empty records none.
        rate_hz: steps per second.
        queue_size: steps that wait; one more is dropped.
        warn: is told, from the thread, what went wrong.
    """

    def __init__(
        self, writer: EpisodeWriter, task: str, camera: str, rate_hz: float, queue_size: int,
        warn: Callable[[str], Any],
    ) -> None:  # fmt: skip
        self.writer, self.task, self.camera, self.rate_hz = writer, task, camera, rate_hz
        self.queue_size, self.warn = queue_size, warn
        self.counts: Counter[str] = Counter(stored=0, failed=0, steps_refused=0)
        self.done: deque[dict[str, Any]] = deque(maxlen=1024)
        """What was stored, for the caller to take."""
        self._todo: queue.Queue[Begin | Step | End | None] = queue.Queue()
        self._begun: Begin | None = None
        self._builder: EpisodeBuilder | None = None
        self._full, self._refused = False, 0
        self._thread = threading.Thread(target=self._work, name="storing", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Steps and marks that wait for the thread."""
        return self._todo.qsize()

    def put(self, item: Begin | Step | End) -> bool:
        """Hand over; False for a step or a beginning that finds the queue full."""
        if self.waiting >= self.queue_size and not isinstance(item, End):
            return False
        self._todo.put(item)
        return True

    def close(self, within_s: float) -> bool:
        """Store what was handed over; False if that took longer, and the rest is lost."""
        self._todo.put(None)
        self._thread.join(within_s)
        if done := not self._thread.is_alive():
            self.writer.close()
        return done

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            try:
                self._take(item)
            except Exception as error:  # the thread goes on, whatever one step or episode does
                if isinstance(item, End):
                    self.counts["failed"] += 1
                else:
                    self.counts["steps_refused"] += 1
                    self._refused += 1
                self.warn(f"{type(error).__name__}: {error}"[:400])

    def _take(self, item: Begin | Step | End) -> None:
        if isinstance(item, Begin):
            self._begun, self._builder, self._full, self._refused = item, None, False, 0
        elif self._begun is None:
            raise ValueError("no episode runs")
        elif isinstance(item, End):
            builder, self._builder, self._begun = self._builder, None, None
            if builder is None:
                raise ValueError("the episode had no step that fits")
            self._finish(builder, item)
        elif not self._full:
            try:
                self._append(self._begun, item)
            except EpisodeTooLargeError as error:
                self._full = True
                self.warn(f"the episode is cut: {error}")

    def _append(self, begun: Begin, step: Step) -> None:
        ranges, spec = convert.scan_from_msg(step.scan)
        pose, velocity = convert.odometry_from_msg(step.odom)
        goal = NOTHING if step.goal is None else convert.pose_from_msg(step.goal.pose)[:2]
        command = NOTHING if step.command is None else convert.command_from_twist(step.command)
        frames = {}
        if step.frame is not None and self.camera:
            frames[self.camera] = convert.rgb_from_msg(step.frame)
        values: dict[str, Any] = {
            "time_s": np.float64(step.time_s), "scan": ranges, "pose_w": pose,
            "vel_b": velocity.astype(np.float32), "goal_w": goal,
            "command": command.astype(np.float32),
        }  # fmt: skip
        builder = self._builder
        if builder is None:
            if self.camera and not frames:
                raise ValueError("an episode's first step must have a frame of the camera")
            attrs = {"recorder": "ros", "scan": asdict(spec)}
            builder = self.writer.episode(self.task, begun.instruction, attrs, self.rate_hz)
        builder.append(values, frames)
        self._builder = builder

    def _finish(self, builder: EpisodeBuilder, end: End) -> None:
        try:
            outcome = json.loads(end.outcome)
        except ValueError:
            outcome = end.outcome
        told = outcome if isinstance(outcome, dict) else {"outcome": end.outcome}
        told |= {"cut": self._full, "dropped": end.dropped, "refused": self._refused}
        id = builder.finish(told)
        self.counts["stored"] += 1
        self.done.append({"episode": id, "steps": len(builder)} | told)
