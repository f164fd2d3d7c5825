"""Every setting of the service."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..decode import Limits

CLOSING_S = 2.0
"""Of ``drain_s``, for the last answers to leave and the process to end."""


@dataclass(frozen=True)
class Settings:
    """Sizes and times. All of it has a default that fits one GPU box and a few robots."""

    keys: Path
    """File of hashed keys, mode 0600; made with one key at the first start."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback, put TLS in front."""
    port: int = 8300
    """0: one that is free."""
    queue: int = 64
    """Clips of one model that are admitted and not yet answered; one more is refused with 429."""
    queue_s: float = 10.0
    """Longest wait of a clip: where more is expected it is refused with 429 at once, and one that
    has waited longer all the same is refused instead of begun."""
    answer_s: float = 30.0
    """Longest that a request without ``X-Deadline-Ms`` may take, seconds; then 504."""
    body_bytes: int = 32 << 20
    """Of one request; more is 413."""
    held_bytes: int = 512 << 20
    """Bodies and decoded frames of all requests together; above it 429."""
    header_s: float = 5.0
    """A connection whose request header is not there by then is closed."""
    body_s: float = 5.0
    """As long a body may take at least; more for what comes faster than ``body_rate``."""
    body_rate: float = 64 << 10
    """Bytes a second that a long body must keep up."""
    keep_alive_s: float = 15.0
    """An idle connection is closed after so long."""
    connections: int = 512
    """Open ones; further ones are closed at once."""
    decoders: int = 2
    """Child processes that decode."""
    limits: Limits = field(default_factory=Limits)
    """What one file may cost."""
    cache: int = 4096
    """Judgements kept by content; 0 keeps none."""
    idempotent: int = 4096
    """Answers kept for their ``Idempotency-Key``."""
    idempotent_s: float = 600.0
    """How long."""
    streams: int = 16
    """Open at once; one more is refused with 429."""
    stream_frames: int = 256
    """Frames kept of one stream, evenly thinned, besides the newest."""
    stream_total: int = 100_000
    """Frames that one stream may send."""
    stream_idle_s: float = 30.0
    """A stream that says nothing for so long is closed."""
    image_bytes: int = 4 << 20
    """Of one frame of a stream."""
    ready_s: float = 3.0
    """``/readyz`` fails if the forward pass takes longer."""
    ready_cache_s: float = 1.0
    """So long a forward pass counts for further ``/readyz``."""
    drain_s: float = 10.0
    """From SIGTERM to the end of the process at most, whatever hangs. Accepted requests have until
    :data:`CLOSING_S` before then; what is not answered by then is answered 503."""
    drain_notice_s: float = 1.0
    """After SIGTERM, new requests are answered 503 at least so long before the socket closes."""

    def __post_init__(self) -> None:
        numbers = {k: v for k, v in asdict(self).items() if isinstance(v, int | float)}
        for name, value in numbers.items():
            least = 0 if name in ("port", "cache", "drain_notice_s") else 1e-3
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f"{name} must be > 0 and finite, got {value}")
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, got {self.port}")
        if self.drain_s < CLOSING_S + self.drain_notice_s:
            least = CLOSING_S + self.drain_notice_s
            raise ValueError(f"drain_s must be >= {least:g}, got {self.drain_s}")
        if self.stream_frames < 2:
            raise ValueError(f"stream_frames must be >= 2, got {self.stream_frames}")
