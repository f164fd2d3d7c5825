"""``Idempotency-Key``: one key and body are worked on once, and answered the same to the byte."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .problems import Refused


@dataclass
class _Entry:
    fingerprint: bytes
    task: asyncio.Task[bytes]
    until: float


class Once:
    """Answers kept by key, a bounded number for a bounded time."""

    def __init__(self, size: int, seconds: float) -> None:
        self.size, self.seconds = size, seconds
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def answer(
        self, key: tuple[str, str], fingerprint: bytes, make: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """The answer, and whether it is an earlier one.

        A duplicate that comes while the first is at work waits for it. Only answers are kept: if
        the first was refused, the next one tries. The work goes on when its client goes away,
        because such a client comes back.

        Args:
            key: name of the bearer key, and the idempotency key.
            fingerprint: digest of the route and body.

        Raises:
            Refused: 422, the key came with another body before.
        """
        while (entry := self._entries.get(key)) is not None and entry.until > time.monotonic():
            if entry.fingerprint != fingerprint:
                raise Refused(422, "idempotency_key", "this Idempotency-Key had another body")
            await asyncio.wait([entry.task])
            if not entry.task.cancelled() and entry.task.exception() is None:
                return entry.task.result(), True
            if self._entries.get(key) is entry:
                del self._entries[key]
        task = asyncio.ensure_future(make())
        assert isinstance(task, asyncio.Task)
        until = time.monotonic() + self.seconds
        self._entries[key] = entry = _Entry(fingerprint, task, until)
        self._entries.move_to_end(key)
        self._evict()
        try:
            return await asyncio.shield(task), False
        except Exception:
            if self._entries.get(key) is entry:
                del self._entries[key]
            raise

    def _evict(self) -> None:
        now = time.monotonic()
        for key, entry in list(self._entries.items()):
            if len(self._entries) <= self.size and entry.until > now:
                return  # the oldest is first: those behind it are younger
            if entry.task.done():
                del self._entries[key]
