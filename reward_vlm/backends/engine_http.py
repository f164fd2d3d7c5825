"""Calls to a model engine over HTTP that end in time, whatever the engine does."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from ..breaker import Breaker, BreakerConfig
from ..model import BadOutput, EngineUnavailable

MISUSE = (401, 403, 404, 405)
"""Statuses that no second try changes: the operator must."""
CONNECT_S = 3.0


@dataclass(frozen=True)
class Patience:
    """How long and how often an engine is asked."""

    budget_s: float = 20.0
    """All tries of one call, with the waits between them."""
    tries: int = 3
    wait_s: float = 0.2
    """Longest wait before the second try, twice that before the third; drawn evenly from 0."""
    answer_bytes: int = 1 << 20
    """Reading stops, and the answer is refused, above this."""
    breaker: BreakerConfig = BreakerConfig()
    """When an engine that keeps failing is left alone, without asking it."""

    def __post_init__(self) -> None:
        if min(self.tries, self.answer_bytes) < 1:
            raise ValueError(f"tries and answer_bytes must be >= 1, got {self}")
        if not (self.budget_s > 0 and self.wait_s >= 0):
            raise ValueError(f"budget_s must be > 0 and wait_s >= 0, got {self}")


class _Retry(Exception):
    """This try failed in a way that the next one need not."""


class EngineHTTP:
    """One path of one engine. Threads may share it."""

    def __init__(
        self, base: str, path: str, patience: Patience, key: str | None, connections: int
    ) -> None:
        """Connect at the first call.

        Args:
            base: of the operator's configuration: ``http://HOST:PORT``, with ``/v1`` or without.
            key: sent as a bearer token, and nowhere else.

        Raises:
            ValueError: base is no such URL, or has a password in it.
        """
        parts = urlsplit(base)
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError("the engine's URL must be http(s)://HOST[:PORT], with no password")
        self._url = base.rstrip("/").removesuffix("/v1") + path
        self.patience = patience
        self.breaker = Breaker(patience.breaker)
        self._jitter = random.Random()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            headers=headers,
            follow_redirects=False,
            trust_env=False,  # no proxy between us and the engine, no .netrc
            limits=httpx.Limits(max_connections=connections),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, body: dict[str, Any]) -> Any:
        """The engine's JSON answer.

        Raises:
            EngineUnavailable: no answer after :attr:`Patience.tries` or within the budget, or the
                engine rests.
            BadOutput: an answer that is no JSON, too long, or says that the request is wrong.
        """
        if not self.breaker.allow():
            raise EngineUnavailable("the engine failed several calls and is left alone for now")
        return self._counted(body, self.patience.tries, self.patience.budget_s)

    def probe(self, body: dict[str, Any], budget_s: float) -> Any:
        """One try, at an engine that rests too; ends the rest if it is good. See :meth:`post`."""
        return self._counted(body, 1, budget_s)

    def _counted(self, body: dict[str, Any], tries: int, budget_s: float) -> Any:
        try:
            answer = self._tried(body, tries, time.monotonic() + budget_s)
        except BadOutput:  # it answers, only not well
            self.breaker.success()
            raise
        except BaseException:
            self.breaker.failure()
            raise
        self.breaker.success()
        return answer

    def _tried(self, body: dict[str, Any], tries: int, end: float) -> Any:
        content = json.dumps(body, allow_nan=False).encode()
        for n in range(tries):
            try:
                return self._once(content, end)
            except _Retry as error:
                reason = str(error)
            wait = self._jitter.uniform(0, self.patience.wait_s * 2**n)
            if n + 1 == tries or time.monotonic() + wait >= end:
                raise EngineUnavailable(f"the engine does not answer: {reason}, try {n + 1}")
            time.sleep(wait)
        raise AssertionError("tries >= 1")

    def _once(self, content: bytes, end: float) -> Any:
        left = end - time.monotonic()
        if left <= 0:
            raise _Retry("out of time")
        timeout = httpx.Timeout(left, connect=min(left, CONNECT_S))
        try:
            with self._client.stream(
                "POST", self._url, content=content, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    _refuse(response.status_code)
                return _parsed(self._read(response, end))
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise _Retry(type(error).__name__) from None

    def _read(self, response: httpx.Response, end: float) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadOutput("the engine's answer is compressed, which was not asked for")
        most = self.patience.answer_bytes
        data = b""
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > most:
                raise BadOutput(f"the engine's answer has more than {most} bytes")
            if time.monotonic() > end:  # a timeout of httpx is for one chunk
                raise _Retry("answers too slowly")
        return data


def _refuse(status: int) -> NoReturn:
    if status in (408, 429) or status >= 500:
        raise _Retry(f"status {status}")
    if status in MISUSE or status < 400:  # a redirect too: nothing is followed
        raise EngineUnavailable(f"the engine is not set up for this: status {status}")
    raise BadOutput(f"the engine refuses the request: status {status}")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_constant)
    except (ValueError, RecursionError):
        raise BadOutput("the engine's answer is no JSON") from None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
