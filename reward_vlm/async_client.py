"""The client of the reward service for asyncio; :mod:`reward_vlm.client` has the one without.

One deadline covers all tries of a call. What may help is tried again, with jitter and honouring
``Retry-After``, under one ``Idempotency-Key``: the service works once, however often it is asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import re
import ssl
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

try:
    import httpx
    from pydantic import BaseModel

    from .replies import Failure, content, parsed
    from .results import Footage, Missing, Query, RewardRequestError, Scored, packed
    from .wire import ModelList, PreferenceAnswer, PreferenceRequest, RewardRequest, Want
except ImportError as _error:
    raise ImportError(f"{_error.name} is missing: pip install 'incognita[client]'") from _error

from .breaker import Breaker

log = logging.getLogger(__name__)
KEY = "INCOGNITA_REWARD_KEY"
"""Environment variable of the key."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class ClientConfig:
    """How long and how often a client tries."""

    deadline_s: float = 10.0
    """For all tries of a call together, where the call says nothing else."""
    tries: int = 3
    """At most."""
    try_s: float | None = None
    """Longest that one try may take; None: all that is left. A second try joins the work that the
    service does for the first."""
    connect_s: float = 2.0
    """Longest that connecting may take."""
    backoff_s: float = 0.2
    """Wait after the first try, doubled after each, times a random factor of 0.5 to 1.5."""
    connections: int = 16
    """At once, and so the most clips of :meth:`RewardClient.score_many` under way."""
    answer_bytes: int = 1 << 20
    """A longer answer is none of ours."""
    compress: bool = False
    """Deflate arrays: for slow links."""
    ca_file: str = ""
    """PEM file of the authority that signed the service's certificate; empty: the public ones."""

    def __post_init__(self) -> None:
        times = [self.deadline_s, self.connect_s, self.backoff_s, self.try_s or 1.0]
        if not all(math.isfinite(t) and t > 0 for t in times):
            raise ValueError(f"times must be > 0 and finite, got {self}")
        if min(self.tries, self.connections, self.answer_bytes) < 1:
            raise ValueError(f"tries, connections and answer_bytes must be >= 1, got {self}")


class AsyncRewardClient:
    """Client for asyncio. One instance for one event loop; ``async with`` or :meth:`aclose`."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        config: ClientConfig | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """Args:
            url: of the service, ``http://host:8300``; proxies of the environment are not used.
            key: bearer key; by default from the environment, ``INCOGNITA_REWARD_KEY``.
            breaker: shared by the clients of one service; by default of one's own.

        Raises:
            ValueError: no http(s) URL, or one with a user, password, query or fragment.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("url must be http://host:port or https://..., without a password")
        if parts.query or parts.fragment:
            raise ValueError("url must have no query and no fragment")
        self.url, self.config = url.rstrip("/"), config or ClientConfig()
        self.breaker = breaker or Breaker()
        key = os.environ.get(KEY) if key is None else key
        headers = {"Accept-Encoding": "identity", "User-Agent": "incognita-reward-client"}
        if key:
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise ValueError("key must be printable ASCII without spaces")
            headers["Authorization"] = f"Bearer {key}"
            if parts.scheme == "http" and parts.hostname not in LOOPBACK:
                log.warning("the key goes to %s unencrypted; put TLS in front", parts.hostname)
        limits = httpx.Limits(
            max_connections=self.config.connections,
            max_keepalive_connections=self.config.connections,
            keepalive_expiry=10.0,
        )
        ca = self.config.ca_file
        verify: ssl.SSLContext | bool = parts.scheme == "https"  # else there is none to load
        if ca:
            verify = ssl.create_default_context(cafile=ca)
        self._http = httpx.AsyncClient(
            headers=headers, limits=limits, trust_env=False, verify=verify
        )
        self._room = asyncio.Semaphore(self.config.connections)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> AsyncRewardClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self,
        task: str,
        frames: Footage | Mapping[str, Footage],
        *,
        fps: float | None = None,
        want: Sequence[Want] = ("score",),
        model: str | None = None,
        deadline_s: float | None = None,
    ) -> Scored | Missing:
        """Score one clip.

        Args:
            task: what the robot was told to do.
            frames: (T, H, W, 3) uint8, or an mp4 or npz file as path or bytes; or several views by
                name.
            fps: frames a second; needed for arrays and npz.
            want: what to answer besides the score: score, progress, success, probes.
            model: the service's default where it is left out.
            deadline_s: for all tries; the configuration's where it is left out.

        Raises:
            RewardRequestError: the service says that the request is wrong (400, 401, 403, 404, 413,
                415, 422).
            ValueError: frames or request are malformed.
        """
        return await self._score(Query(task, frames, fps, want, model), self._until(deadline_s))

    async def score_many(
        self, queries: Sequence[Query], *, deadline_s: float | None = None
    ) -> list[Scored | Missing]:
        """Score clips at once, one result each, in order; the service puts them into batches.

        Raises:
            RewardRequestError, ValueError: as :meth:`score`, for the first that is wrong.
        """
        until = self._until(deadline_s)
        tasks = [self._score(query, until) for query in queries]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return [result for result in found if not isinstance(result, BaseException)]

    async def prefer(
        self,
        task: str,
        first: Footage | Mapping[str, Footage],
        second: Footage | Mapping[str, Footage],
        *,
        fps: float | None = None,
        model: str | None = None,
        deadline_s: float | None = None,
    ) -> PreferenceAnswer | Missing:
        """Which of two clips did the task better? Raises as :meth:`score`."""
        request = PreferenceRequest(task=task, model=model, fps=fps)
        clips = {"first": Query(task, first).views, "second": Query(task, second).views}
        named = {f"{c}.{name}": view for c, views in clips.items() for name, view in views.items()}
        until = self._until(deadline_s)
        return await self._send("/v1/preferences", request, named, until, PreferenceAnswer)

    async def models(self, *, deadline_s: float | None = None) -> ModelList | Missing:
        """The models that the service has. Raises as :meth:`score`."""
        return await self._call("GET", "/v1/models", self._until(deadline_s), ModelList)

    async def ready(self, *, deadline_s: float = 5.0) -> bool:
        """Does the service answer, and can its models judge? One try. Raises as :meth:`score`."""
        until = time.monotonic() + deadline_s
        got = await self._try("GET", "/readyz", until, None, {})
        return not isinstance(got, Failure)

    async def _score(self, query: Query, until: float) -> Scored | Missing:
        request = RewardRequest(
            task=query.task, model=query.model, fps=query.fps, want=list(query.want)
        )
        return await self._send("/v1/rewards", request, query.views, until, Scored)

    async def _send(
        self, path: str, request: BaseModel, views: Mapping[str, Footage], until: float,
        answer: type[A],
    ) -> A | Missing:  # fmt: skip
        """Call with a body once there is room: of a hundred all bodies would not fit in memory."""
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0.0)):
                await self._room.acquire()
        except TimeoutError:
            return Missing("timeout", "no connection was free before the deadline")
        try:
            body = await asyncio.to_thread(self._body, request, views)
            return await self._call("POST", path, until, answer, body)
        finally:
            self._room.release()

    def _until(self, deadline_s: float | None) -> float:
        seconds = self.config.deadline_s if deadline_s is None else deadline_s
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"deadline_s must be > 0 and finite, got {seconds}")
        return time.monotonic() + seconds

    def _body(self, request: BaseModel, views: Mapping[str, Footage]) -> tuple[str, bytes]:
        """Content type and multipart bytes: the same ones in every try."""
        files: dict[str, Any] = {
            "request": (None, request.model_dump_json(exclude_none=True), "application/json")
        }
        for name, footage in views.items():
            kind, data = packed(footage, self.config.compress)
            files[name] = (name, data, kind)
        made = httpx.Request("POST", self.url, files=files)
        return made.headers["content-type"], made.read()

    async def _call(
        self,
        method: str,
        path: str,
        until: float,
        answer: type[A],
        body: tuple[str, bytes] | None = None,
    ) -> A | Missing:
        """Try until there is an answer, the deadline passes or trying is useless."""
        id = uuid.uuid4().hex
        headers = {"X-Request-Id": id}
        if body is not None:
            headers |= {"Idempotency-Key": id, "Content-Type": body[0]}
        got: A | Failure | None = None
        for n in range(self.config.tries):
            if time.monotonic() >= until:
                return Missing("timeout", "the deadline passed before the request went out")
            if not self.breaker.allow():
                if isinstance(got, Failure):  # it is this call that opened it
                    return got.missing
                return Missing("breaker_open", f"{self.url} failed several times in a row")
            try:
                data = await self._try(method, path, until, body, headers)
            except RewardRequestError:
                self.breaker.success()
                raise
            got = data if isinstance(data, Failure) else parsed(answer, data)
            if not isinstance(got, Failure):
                self.breaker.success()
                return got
            self.breaker.success() if got.alive else self.breaker.failure()
            wait = self.config.backoff_s * 2**n * random.uniform(0.5, 1.5)
            wait = max(wait, got.after_s)
            last = n + 1 == self.config.tries
            if last or not got.again or time.monotonic() + wait >= until:
                return got.missing
            await asyncio.sleep(wait)
        raise AssertionError("a loop of at least one try")

    async def _try(
        self,
        method: str,
        path: str,
        until: float,
        body: tuple[str, bytes] | None,
        headers: dict[str, str],
    ) -> bytes | Failure:
        """One try: the bytes of a 200, or what went wrong.

        Raises:
            RewardRequestError: the request is wrong.
        """
        left = until - time.monotonic()
        limit = min(left, self.config.try_s or left)
        headers = headers | {"X-Deadline-Ms": str(min(max(int(left * 1e3), 1), 600_000))}
        timeout = httpx.Timeout(None, connect=self.config.connect_s)
        try:
            async with asyncio.timeout(limit):
                async with self._http.stream(
                    method, self.url + path, content=body and body[1], headers=headers,
                    timeout=timeout,
                ) as response:  # fmt: skip
                    data = bytearray()
                    async for chunk in response.aiter_raw():
                        data += chunk
                        if len(data) > self.config.answer_bytes:
                            return Failure(Missing("bad_answer", "the answer is too long"), True)
                    return content(response.status_code, response.headers, bytes(data))
        except TimeoutError:
            detail = f"no answer within {limit:.1f} s"
            return Failure(Missing("timeout", detail), again=True)
        except httpx.ConnectTimeout:
            detail = f"no connection within {self.config.connect_s} s"
            return Failure(Missing("timeout", detail), again=True)
        except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
            reason = "refused" if re.search("disconnected|closed", str(error)) else "bad_answer"
            return Failure(Missing(reason, type(error).__name__), again=True)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            return Failure(Missing("refused", type(error).__name__), again=True)
