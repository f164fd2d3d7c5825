"""The client of the reward service: httpx and numpy alone, no torch.

>>> client = RewardClient("http://gpu-box:8300")  # key from INCOGNITA_REWARD_KEY
>>> result = client.score("put the red cube on the plate", frames, fps=10)
>>> result.reason if result.missing else result.reward
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from .async_client import AsyncRewardClient, ClientConfig  # says what to install: it comes first
from .breaker import Breaker, BreakerConfig
from .results import Footage, Missing, Query, RewardRequestError, Scored
from .wire import ModelList, PreferenceAnswer, Want

__all__ = [
    "AsyncRewardClient", "Breaker", "BreakerConfig", "ClientConfig", "Footage", "Missing", "Query",
    "RewardClient", "RewardRequestError", "Scored",
]  # fmt: skip
R = TypeVar("R")


class RewardClient:
    """The same for code without asyncio: an event loop of its own in a thread.

    So a deadline holds for every byte, and many clips go out at once. Any number of threads may
    call; a process that was forked off starts its own loop.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        config: ClientConfig | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """As :class:`AsyncRewardClient`."""
        self._lock = threading.Lock()
        self._make: Callable[[], AsyncRewardClient]
        self._make = lambda: AsyncRewardClient(url, key, config, breaker)
        self._start()

    def _start(self) -> None:
        self._async, self._loop, self._pid = self._make(), asyncio.new_event_loop(), os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="reward", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"RewardClient({self._async.url!r})"

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def breaker(self) -> Breaker:
        """It says how the service does."""
        return self._async.breaker

    def close(self) -> None:
        """Close connections and loop; calls under way raise ConnectionAbortedError."""
        with self._lock:
            if self._loop.is_closed() or os.getpid() != self._pid:
                return
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
            self._loop.close()

    def score(
        self,
        task: str,
        frames: Footage | Mapping[str, Footage],
        *,
        fps: float | None = None,
        want: Sequence[Want] = ("score",),
        model: str | None = None,
        deadline_s: float | None = None,
    ) -> Scored | Missing:
        """See :meth:`AsyncRewardClient.score`."""
        query = Query(task, frames, fps, want, model)
        return self.score_many([query], deadline_s=deadline_s)[0]

    def score_many(
        self, queries: Sequence[Query], *, deadline_s: float | None = None
    ) -> list[Scored | Missing]:
        """See :meth:`AsyncRewardClient.score_many`."""
        return self._run(lambda c: c.score_many(queries, deadline_s=deadline_s))

    def prefer(
        self,
        task: str,
        first: Footage | Mapping[str, Footage],
        second: Footage | Mapping[str, Footage],
        *,
        fps: float | None = None,
        model: str | None = None,
        deadline_s: float | None = None,
    ) -> PreferenceAnswer | Missing:
        """See :meth:`AsyncRewardClient.prefer`."""
        return self._run(
            lambda c: c.prefer(task, first, second, fps=fps, model=model, deadline_s=deadline_s)
        )

    def models(self, *, deadline_s: float | None = None) -> ModelList | Missing:
        """See :meth:`AsyncRewardClient.models`."""
        return self._run(lambda c: c.models(deadline_s=deadline_s))

    def ready(self, *, deadline_s: float = 5.0) -> bool:
        """See :meth:`AsyncRewardClient.ready`."""
        return self._run(lambda c: c.ready(deadline_s=deadline_s))

    async def _end(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._async.aclose()

    def _run(self, call: Callable[[AsyncRewardClient], Coroutine[Any, Any, R]]) -> R:
        with self._lock:
            if os.getpid() != self._pid:
                self._start()
            if self._loop.is_closed():
                raise ValueError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(call(self._async), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ConnectionAbortedError("the client was closed") from None
        finally:
            future.cancel()  # Ctrl-C: nobody waits any more
