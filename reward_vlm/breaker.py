"""A circuit breaker: after several failures in a row nobody waits for a dead service any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True)
class BreakerConfig:
    """When it opens and for how long."""

    failures: int = 5
    """So many in a row open it."""
    open_s: float = 5.0
    """After so long one call is let through: it closes the breaker or opens it again."""

    def __post_init__(self) -> None:
        if self.failures < 1 or not self.open_s > 0:
            raise ValueError(f"failures >= 1 and open_s > 0 wanted, got {self}")


class Breaker:
    """Closed: calls pass. Open: none does. Half-open: one does, the others not.

    One breaker may serve several clients of a service, in several threads.
    """

    def __init__(
        self,
        config: BreakerConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or BreakerConfig()
        self._clock, self._lock = clock, threading.Lock()
        self._failures = 0
        self._opened: float | None = None
        self._trial: float | None = None

    @property
    def state(self) -> State:
        """Where it is now."""
        with self._lock:
            if self._opened is None:
                return "closed"
            return "open" if self._wait() > 0 else "half-open"

    def allow(self) -> bool:
        """May a call be made? Whoever gets True tells how it went."""
        with self._lock:
            if self._opened is None:
                return True
            now = self._clock()
            lost = self._trial is not None and now - self._trial > self.config.open_s
            if self._wait() > 0 or (self._trial is not None and not lost):
                return False
            self._trial = now
            return True

    def success(self) -> None:
        """The service answered: close."""
        with self._lock:
            self._failures, self._opened, self._trial = 0, None, None

    def failure(self) -> None:
        """It did not."""
        with self._lock:
            self._failures += 1
            if self._trial is not None or self._failures >= self.config.failures:
                self._opened, self._trial = self._clock(), None

    def _wait(self) -> float:
        """Seconds until a call is let through; the lock is held."""
        assert self._opened is not None
        return self._opened + self.config.open_s - self._clock()
