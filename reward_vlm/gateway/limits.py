"""What every request passes first: id, key, drain, sizes, deadline; and what it leaves: a log line.

An ASGI middleware. It decides by the header alone, before a byte of the body is read.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .auth import Keys
from .logs import place
from .metrics import Metrics
from .problems import Refused
from .settings import Settings

log = logging.getLogger(__name__)
OPEN = ("/healthz",)
"""Routes that need no key. ``/readyz`` and ``/metrics`` need one: the first costs a forward pass,
the second tells what the service does."""
ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MAX_DEADLINE_MS = 600_000


class Budget:
    """Bytes that all requests together may hold."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.most, self.held, self._metrics = most, 0, metrics

    def change(self, by: int) -> None:
        """Take or give back.

        Raises:
            Refused: 429, more than there is.
        """
        if by > 0 and self.held + by > self.most:
            raise Refused(429, "memory_full", "too much is being worked on", 1)
        self.held += by
        self._metrics.held.set(self.held)


@dataclass
class Call:
    """What is known of a request besides its body."""

    id: str
    budget: Budget
    key: str = ""
    """Name of its bearer key."""
    deadline: float = 0.0
    """Monotonic seconds."""
    begun: float = field(default_factory=time.monotonic)
    held: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    """For the log line."""

    def hold(self, size: int) -> None:
        """Count bytes that live until the request is answered.

        Raises:
            Refused: 429.
        """
        self.budget.change(size)
        self.held += size


class Gate:
    """The middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        keys: Keys,
        metrics: Metrics,
        draining: Callable[[], bool],
    ) -> None:
        self.app, self.settings, self.keys = app, settings, keys
        self.metrics, self.draining = metrics, draining
        self.budget = Budget(settings.held_bytes, metrics)
        self.under_way = 0
        """Requests and streams not yet answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        call = Call(given if ID.fullmatch(given) else uuid.uuid4().hex, self.budget)
        scope.setdefault("state", {})["call"] = call
        status = [0]
        sent = _Sent(send, call.id, status)
        self.under_way += 1
        try:
            try:
                self._pass(scope, headers, call)
            except Refused as refused:
                self.metrics.rejects.labels(refused.code).inc()
                await _refuse(scope, receive, sent, refused, call.id)
                return
            await self.app(scope, receive, sent)
        except Exception as error:  # answered with a 500 by now, as far as that is possible
            log.error("internal error", extra={"id": call.id, "error": place(error)})
        finally:
            self.under_way -= 1
            call.budget.change(-call.held)
            self._record(scope, call, status[0])

    def _pass(self, scope: Scope, headers: Headers, call: Call) -> None:
        if scope["path"] in OPEN:
            return
        name = self.keys.name_of(headers.get("authorization"))
        if name is None:
            raise Refused(401, "unauthorized", "wanted a bearer key that this service knows")
        call.key = name
        if self.draining() and scope["path"] not in ("/metrics", "/readyz"):
            raise Refused(503, "draining", "the service is shutting down", 5)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "content_encoding", "bodies must not be compressed")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, "content_length", "Content-Length must be a number")
        if len(length) > 15 or int(length) > self.settings.body_bytes:
            most = self.settings.body_bytes
            raise Refused(413, "body_too_large", f"a body has at most {most} bytes")
        call.deadline = call.begun + self._allowed_s(headers)

    def _allowed_s(self, headers: Headers) -> float:
        text = headers.get("x-deadline-ms")
        if text is None:
            return self.settings.answer_s
        if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_DEADLINE_MS:
            raise Refused(400, "deadline", f"X-Deadline-Ms must be 1 to {MAX_DEADLINE_MS}")
        return int(text) / 1e3

    def _record(self, scope: Scope, call: Call, status: int) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(route, str(status)).inc()
        line: dict[str, Any] = {
            "id": call.id,
            "route": route,
            "method": scope.get("method", "WEBSOCKET"),
            "status": status,
            "key": call.key,
            "ms": round((time.monotonic() - call.begun) * 1e3, 2),
        }
        log.info("request", extra=line | call.notes)


class _Sent:
    """``send`` that stamps the request id and remembers the status."""

    def __init__(self, send: Send, id: str, status: list[int]) -> None:
        self.send, self.id, self.status = send, id, status

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status[0] = message["status"]
            stamp(message, self.id)
        elif kind == "websocket.accept":
            self.status[0] = 101
            stamp(message, self.id)
        await self.send(message)


def stamp(message: MutableMapping[str, Any], id: str) -> None:
    """Headers that every response has."""
    message.setdefault("headers", [])
    headers = MutableHeaders(scope=message)
    headers["x-request-id"] = id
    headers["cache-control"] = "no-store"
    headers["x-content-type-options"] = "nosniff"


async def _refuse(scope: Scope, receive: Receive, send: Send, refused: Refused, id: str) -> None:
    response = refused.response(id)
    if scope["type"] == "http":
        return await response(scope, receive, send)
    await receive()  # websocket.connect
    await response(scope, receive, send)
