"""The bounded queue before a model, and the worker threads that judge it in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..model import BadOutput, Clip, Judgement, ModelError, ModelOutOfMemory, RewardModel
from .logs import place
from .metrics import Metrics
from .problems import Refused

log = logging.getLogger(__name__)
Result = Judgement | Exception
SMOOTH = 0.2
"""Weight of the newest batch in the running mean of the service time."""
MARGIN = 0.9
"""Of the longest wait, what is admitted: an estimate that is somewhat low does no harm."""


@dataclass(frozen=True)
class Judged:
    """A judgement and what it took, seconds."""

    judgement: Judgement
    queue_s: float
    model_s: float


@dataclass(eq=False)
class _Job:
    clip: Clip
    future: asyncio.Future[Judged]
    since: float


class Batcher:
    """One model's queue. All but the worker threads runs in the event loop: no locks.

    A batch leaves as soon as a worker is free, with all that waits by then up to the model's
    ``max_batch``: alone a clip never waits for company, under load batches fill by themselves.
    """

    def __init__(self, model: RewardModel, size: int, longest_s: float, metrics: Metrics) -> None:
        self.model, self.size, self.longest_s = model, size, longest_s
        self.admitted = 0
        """Clips let in and not yet answered."""
        self.last_good = -1e9
        """When the model last judged, monotonic seconds."""
        self._metrics, self._name = metrics, model.info.name
        self._waiting: deque[_Job] = deque()
        self._jobs: set[_Job] = set()
        self._free = model.info.workers
        self._abandoned = False
        self._clip_s = 0.0
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        for n in range(model.info.workers):  # daemons: a hung engine must not hold up the exit
            name = f"judge-{self._name}-{n}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def expected_s(self) -> float:
        """How long a clip that came now would wait and be judged, from the rate so far."""
        return self.admitted * self._clip_s

    @contextlib.contextmanager
    def slot(self, deadline: float) -> Iterator[None]:
        """A place for one clip, from its decoding to its answer.

        Args:
            deadline: monotonic seconds.

        Raises:
            Refused: 429 the queue is full, 504 the deadline cannot be met.
        """
        self.check(deadline)
        self.admitted += 1
        depth = self._metrics.queue.labels(self._name)
        depth.set(self.admitted)
        try:
            yield
        finally:
            self.admitted -= 1
            depth.set(self.admitted)

    def check(self, deadline: float) -> None:
        """What :meth:`slot` raises, without taking a place."""
        expected = self.expected_s
        if self.admitted >= self.size or expected > MARGIN * self.longest_s:
            raise _full(expected)
        if time.monotonic() + expected > deadline:
            raise Refused(504, "deadline", "the deadline cannot be met")

    async def judge(self, clip: Clip, deadline: float) -> Judged:
        """Judge a clip that has a slot. It is not begun after its deadline.

        Raises:
            Refused: 504, or 503 the service ends.
            ModelError: what the model raised.
        """
        if self._abandoned:
            raise _ending()
        job = _Job(clip, self._loop.create_future(), time.monotonic())
        self._waiting.append(job)
        self._jobs.add(job)
        self._loop.call_soon(self._send)  # what came in the same turn of the loop goes together
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await job.future
        except TimeoutError:
            raise Refused(504, "deadline", "the deadline has passed") from None
        finally:
            self._jobs.discard(job)

    def abandon(self) -> None:
        """Refuse all that is still here or comes: the service ends now."""
        self._abandoned = True
        for job in self._jobs:
            _settle(job.future, None, _ending())

    async def ready(self) -> None:
        """The model's own forward pass, in a worker thread, after what is at work there.

        Raises:
            ModelError: it cannot judge.
        """
        future: asyncio.Future[None] = self._loop.create_future()

        def run() -> None:
            error: Exception | None = None
            try:
                self.model.ready()
            except Exception as raised:
                error = raised
            self._call(_settle, future, None, error)

        self._tasks.put(run)
        await future
        self.last_good = time.monotonic()

    def close(self) -> None:
        """Stop the workers after what they are at, and the model."""
        for _ in range(self.model.info.workers):
            self._tasks.put(None)
        self.model.close()

    def _send(self) -> None:
        while self._free and self._waiting:
            batch: list[_Job] = []
            now = time.monotonic()
            while self._waiting and len(batch) < self.model.info.max_batch:
                job = self._waiting.popleft()
                if now - job.since > self.longest_s:  # slower than expected: none waits longer
                    _settle(job.future, None, _full(self.expected_s))
                elif not job.future.done():  # else its client is gone or its deadline has passed
                    batch.append(job)
            if batch:
                self._free -= 1
                self._metrics.batch.labels(self._name).observe(len(batch))
                self._tasks.put(partial(self._run, batch, now))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _run(self, batch: list[_Job], sent: float) -> None:
        begun = time.monotonic()
        results = judge_all(self.model, [job.clip for job in batch])
        self._call(self._done, batch, results, sent, begun, time.monotonic())

    def _call(self, *what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(*what)  # type: ignore[arg-type]

    def _done(
        self, batch: list[_Job], results: list[Result], sent: float, begun: float, ended: float
    ) -> None:
        self._free += 1
        per_clip = (time.monotonic() - sent) / len(batch) / self.model.info.workers
        self._clip_s += (per_clip - self._clip_s) * (SMOOTH if self._clip_s else 1.0)
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, Judgement):
                self.last_good = ended
                judged = Judged(result, begun - job.since, ended - begun)
                _settle(job.future, judged, None)
            else:
                _settle(job.future, None, result)
        self._send()


def _full(expected_s: float) -> Refused:
    return Refused(429, "queue_full", "too many clips are waiting", expected_s)


def _ending() -> Refused:
    return Refused(503, "draining", "the service is shutting down", 5)


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def judge_all(model: RewardModel, clips: Sequence[Clip]) -> list[Result]:
    """Judge a batch; one bad clip does not spoil the others.

    Out of memory, the batch is halved, and the halves again, down to single clips. Where the answer
    of several is broken each is judged alone.
    """
    try:
        results = model.judge(clips)
        if len(results) != len(clips) or not all(isinstance(r, Judgement) for r in results):
            raise BadOutput(f"wanted {len(clips)} judgements")
        return list(results)
    except ModelOutOfMemory as error:
        if len(clips) == 1:
            return [error]
        parts = [clips[: len(clips) // 2], clips[len(clips) // 2 :]]
    except BadOutput as error:
        if len(clips) == 1:
            return [error]
        parts = [[clip] for clip in clips]
    except ModelError as error:
        return [error] * len(clips)
    except Exception as error:  # its text may hold the task: not for the log
        log.error("model failed", extra={"model": model.info.name, "error": place(error)})
        return [ModelError(type(error).__name__)] * len(clips)
    return [result for part in parts for result in judge_all(model, part)]
