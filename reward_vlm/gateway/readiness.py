"""Whether a model judges now: a real forward pass, not asked for more often than needed."""

from __future__ import annotations

import asyncio
import time

from ..model import EngineUnavailable, ModelOutOfMemory
from .admission import Batcher


class Readiness:
    """One forward pass at a time, its outcome shared by all who ask within ``cache_s``."""

    def __init__(self, batcher: Batcher, wait_s: float, cache_s: float) -> None:
        self.batcher, self.wait_s, self.cache_s = batcher, wait_s, cache_s
        self._probe: asyncio.Task[str | None] | None = None
        self._begun = self._ended = -1e9
        self._found: str | None = None

    async def why_not(self) -> str | None:
        """None if the model judged a moment ago or does so now; else the reason.

        Waits for ``wait_s`` at most, counted from the start of the forward pass: when an engine
        hangs, later callers hear of it at once.
        """
        now = time.monotonic()
        if now - self.batcher.last_good < self.cache_s:
            return None
        if self._probe is None:
            if now - self._ended < self.cache_s:
                return self._found
            self._begun = now
            self._probe = asyncio.get_running_loop().create_task(self._run())
        left = max(self._begun + self.wait_s - now, 0.0)
        done, _ = await asyncio.wait([self._probe], timeout=left)
        if not done:
            return f"no answer in {self.wait_s:g} s"
        return self._found

    async def _run(self) -> str | None:
        try:
            await self.batcher.ready()
            self._found = None
        except EngineUnavailable:
            self._found = "its engine does not answer"
        except ModelOutOfMemory:
            self._found = "out of memory"
        except Exception as error:
            self._found = f"{type(error).__name__}"
        self._ended, self._probe = time.monotonic(), None
        return self._found
