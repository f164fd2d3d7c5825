"""uvicorn around the application: JSON logs, socket deadlines, a drain at SIGTERM."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import uvicorn

from ..model import RewardModel
from .app import create_app
from .auth import Keys
from .protocol import guarded
from .service import Service
from .settings import CLOSING_S, Settings

log = logging.getLogger(__name__)
RECEIVE_BYTES = 512 << 10
"""Buffer of a connection: a clip then comes in one piece instead of waiting for us in between."""


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then finishes what was accepted and refuses what is new.

    For ``drain_notice_s`` new requests still get a 503 (a load balancer then knows), after that
    the socket closes. A second signal ends it at once. The process ends ``drain_s`` after the first
    at the latest; if a model then still holds it up, with 1 and the stacks of all threads.
    """

    def __init__(self, models: Sequence[RewardModel], settings: Settings) -> None:
        self.settings = settings
        self.service = Service(models, settings)
        self.gate = create_app(self.service, Keys.load(settings.keys))
        self.stopped_by: int | None = None
        self._drain_since = 0.0
        super().__init__(
            uvicorn.Config(
                self.gate, host=settings.host, port=settings.port, http=guarded(settings),
                ws="websockets-sansio", ws_max_size=settings.image_bytes + 1024,
                ws_ping_interval=10.0, ws_ping_timeout=10.0,
                timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]
                timeout_graceful_shutdown=CLOSING_S / 4,  # type: ignore[arg-type]
                server_header=False, access_log=False, log_config=None, proxy_headers=False,
            )
        )  # fmt: skip

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals start the drain; unlike uvicorn's they are not raised again: we exit with 0."""
        before = {n: signal.signal(n, self.handle_exit) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain; the second time, end."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
        else:  # in C, of a thread of its own: nothing that hangs in Python holds it up
            faulthandler.dump_traceback_later(self.settings.drain_s, exit=True)
        self.stopped_by = self.stopped_by or sig
        self.service.draining = True

    async def startup(self, sockets: object = None) -> None:
        """Listen, and say where."""
        await super().startup()
        if self.started:
            for sock in self.servers[0].sockets:  # what is accepted inherits it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"listening on http://{shown}:{port}", flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is the drain over?"""
        if self.service.draining and not self.should_exit:
            now = asyncio.get_running_loop().time()
            if not self._drain_since:
                self._drain_since = now
                log.info("draining", extra={"under_way": self.gate.under_way})
            took = now - self._drain_since
            late = took > self.settings.drain_s - CLOSING_S
            if late:
                for batcher in self.service.batchers.values():
                    batcher.abandon()
            idle = not self.gate.under_way and took > self.settings.drain_notice_s
            self.should_exit = idle or late
        return await super().on_tick(counter)


def serve(models: Sequence[RewardModel], settings: Settings) -> int | None:
    """Serve until a signal; returns its number. The process must end then, see ``drain_s``.

    Raises:
        SystemExit: the address cannot be bound, or the decoders do not start.
    """
    server = Server(models, settings)
    server.run()
    return server.stopped_by
