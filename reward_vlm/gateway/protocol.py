"""HTTP connections that do not wait for ever: uvicorn has no deadline for headers and bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import Settings

LOOK_S = 0.25
"""How often a connection is looked at."""


def guarded(settings: Settings) -> type[H11Protocol]:
    """uvicorn's protocol for these settings.

    A connection is closed if a request's header is not there ``header_s`` after its first byte (or
    after connecting), if a body takes longer than ``body_s`` and is slower than ``body_rate``, and
    at once if there are ``connections`` already. A closed connection's request is cancelled.
    """

    class Guarded(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._since: float | None = self.loop.time()
            self._got = 0
            self._receiving = False
            if len(self.connections) > settings.connections:
                transport.abort()
                return
            self._look_later()

        def data_received(self, data: bytes) -> None:
            self._got += len(data)
            super().data_received(data)

        def _look_later(self) -> None:
            self.loop.call_later(LOOK_S, self._look)

        def _look(self) -> None:
            transport: Any = self.transport
            if transport.is_closing() or transport.get_protocol() is not self:
                return  # closed, or a WebSocket by now
            state, now = self.conn.their_state, self.loop.time()
            idle = state is h11.IDLE and self.timeout_keep_alive_task is not None
            if state not in (h11.IDLE, h11.SEND_BODY) or idle:
                self._since = None  # a request is answered, or a connection kept alive
            elif self._since is None or self._receiving != (state is h11.SEND_BODY):
                self._since, self._got = now, 0
            elif now - self._since > self._allowed_s(state):
                transport.abort()
                return
            self._receiving = state is h11.SEND_BODY
            self._look_later()

        def _allowed_s(self, state: Any) -> float:
            if state is h11.IDLE:
                return settings.header_s
            return settings.body_s + self._got / settings.body_rate

    return Guarded
