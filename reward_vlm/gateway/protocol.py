"""HTTP connections that do not wait for ever: uvicorn has no deadline for headers and bodies."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .settings import Settings

LOOK_S = 0.25
"""How often a connection is looked at."""
HEADER_BYTES = 16 << 10
"""Of a request's line, headers and trailers; the parser itself has no limit. More is answered 400,
and a line that does not end closes the connection after twice as much, behind a body after what
one read from the socket may bring besides (256 KiB)."""


class Joined:
    """A transport that sends what is written in one turn of the event loop as one piece.

    uvicorn writes the header of an answer and its body apart; on a busy machine a client that wakes
    up for the first takes the processor from us before it gets the second.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """As of a transport."""
        if data:
            if not self._pieces:
                asyncio.get_running_loop().call_soon(self._flush)
            self._pieces.append(data)

    def close(self) -> None:
        """As of a transport: what was written is still sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            data, self._pieces = b"".join(self._pieces), []
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def guarded(settings: Settings) -> type[HttpToolsProtocol]:
    """uvicorn's protocol for these settings.

    A connection is closed if a request's header is not there ``header_s`` after its first byte (or
    after connecting), if a body takes longer than ``body_s`` and is slower than ``body_rate``, and
    at once if there are ``connections`` already. A closed connection's request is cancelled.
    """

    class Guarded(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(Joined(transport))  # type: ignore[arg-type]
            self._awaited = "header"
            """What the client has yet to send: header, body, or nothing."""
            self._head = self._quiet = 0
            """Bytes: of the header so far; since the parser last told us of anything."""
            self._since: float | None = self.loop.time()
            self._got = 0
            self._before = self._awaited
            if len(self.connections) > settings.connections:
                transport.abort()
                return
            self._look_later()

        def data_received(self, data: bytes) -> None:
            self._got += len(data)
            if self._awaited == "nothing" and self.timeout_keep_alive_task is not None:
                self._awaited = "header"  # also where the parser skips what comes, as empty lines
            transport: Any = self.transport
            at = 0
            while at < len(data) and not transport.is_closing():
                if transport.get_protocol() is not self:
                    return  # a WebSocket by now
                piece = data[at:] if self._awaited == "body" else data[at : at + HEADER_BYTES]
                at += len(piece)
                self._quiet += len(piece)
                super().data_received(piece)
                if self._quiet > HEADER_BYTES:  # a line without an end, of the header or a trailer
                    transport.abort()

        def on_message_begin(self) -> None:
            self._awaited, self._head = "header", 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + 4)
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._awaited, self._quiet = "body", 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._quiet = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._awaited, self._quiet = "nothing", 0
            super().on_message_complete()

        def _count(self, size: int) -> None:
            self._head, self._quiet = self._head + size, 0
            if self._head > HEADER_BYTES:
                raise ValueError("the header is too long")  # the parser makes a 400 of it

        def _look_later(self) -> None:
            self.loop.call_later(LOOK_S, self._look)

        def _look(self) -> None:
            transport: Any = self.transport
            if transport.is_closing() or transport.get_protocol() is not self:
                return  # closed, or a WebSocket by now
            now = self.loop.time()
            if self._awaited == "nothing":
                self._since = None  # a request is answered, or a connection kept alive
            elif self._since is None or self._before != self._awaited:
                self._since, self._got = now, 0
            elif now - self._since > self._allowed_s():
                transport.abort()
                return
            self._before = self._awaited
            self._look_later()

        def _allowed_s(self) -> float:
            if self._awaited == "header":
                return settings.header_s
            return settings.body_s + self._got / settings.body_rate

    return Guarded
