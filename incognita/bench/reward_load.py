"""Load on a reward service: raw HTTP over kept connections, so that the generator costs little."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .hostile_requests import multipart
from .reward_stand import Stand, clip_frames, npz

NUMBER = b"clip 00000000"
"""In the task: another number, another clip for the cache."""


@dataclass
class Reply:
    """One answered request."""

    status: int
    at: float
    """When it was sent, seconds since the start."""
    seconds: float
    retry_after: str | None
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """All replies of one run."""

    replies: list[Reply]
    seconds: float
    cpu_s: float
    """Of the generator itself."""
    lost: int = 0
    """Requests without an answer: connections that broke."""

    def of(self, status: int) -> list[Reply]:
        return [reply for reply in self.replies if reply.status == status]

    def rate(self, status: int = 200) -> float:
        """Answers of that status a second, by the time that they came."""
        within = [r for r in self.of(status) if r.at + r.seconds <= self.seconds]
        return len(within) / self.seconds

    def quantile(self, q: float, status: int = 200) -> float:
        """Milliseconds."""
        taken = [reply.seconds * 1e3 for reply in self.of(status)]
        return float(np.quantile(taken, q)) if taken else float("nan")

    def summary(self) -> dict[str, Any]:
        statuses = Counter(str(reply.status) for reply in self.replies)
        return {
            "seconds": round(self.seconds, 2), "statuses": dict(statuses), "lost": self.lost,
            "goodput_per_s": round(self.rate(), 2),
            "p50_ms": round(self.quantile(0.5), 2), "p95_ms": round(self.quantile(0.95), 2),
            "p99_ms": round(self.quantile(0.99), 2),
            "refused_p99_ms": round(self.quantile(0.99, 429), 2),
            "generator_cpu_share": round(self.cpu_s / self.seconds, 3),
        }  # fmt: skip


def request_bytes(stand: Stand, side: int = 16, count: int = 8) -> bytes:
    """A whole request with :data:`NUMBER` in its task."""
    asked = json.dumps({"task": NUMBER.decode(), "fps": 10}).encode()
    headers, body = multipart(
        [
            ("request", "r", "application/json", asked),
            ("front", "f", "application/x-npz", npz(clip_frames(0, count, side))),
        ]
    )
    lines = {"Host": "bench", "Content-Length": str(len(body))} | headers | stand.headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /v1/rewards HTTP/1.1\r\n{head}\r\n".encode() + body


class Load:
    """Sends one request again and again, each with a number of its own."""

    def __init__(self, stand: Stand, request: bytes) -> None:
        host, _, port = stand.url.removeprefix("http://").partition(":")
        self.address = (host, int(port))
        before, _, after = request.partition(NUMBER)
        self._before, self._after = before, after
        self._sent = int(time.time() * 1e3) % 50_000_000
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.replies: list[Reply] = []
        self.lost = 0

    def closed_loop(self, clients: int, seconds: float) -> Outcome:
        """So many clients, each asking as soon as it is answered."""
        return asyncio.run(self._run(seconds, clients, None))

    def open_loop(self, rate: float, seconds: float) -> Outcome:
        """So many requests a second at random times, whatever becomes of them."""
        return asyncio.run(self._run(seconds, 0, rate))

    async def _run(self, seconds: float, clients: int, rate: float | None) -> Outcome:
        self.replies, self.lost, self._free = [], 0, []
        cpu, begun = time.process_time(), time.monotonic()
        self._begun = begun
        if rate is None:
            await asyncio.gather(*(self._client(begun + seconds) for _ in range(clients)))
        else:
            await self._arrivals(rate, begun + seconds)
        took = min(time.monotonic() - begun, seconds)
        for _, writer in self._free:
            writer.close()
        return Outcome(self.replies, took, time.process_time() - cpu, self.lost)

    async def _client(self, until: float) -> None:
        while time.monotonic() < until:
            await self._ask()

    async def _arrivals(self, rate: float, until: float) -> None:
        rng = np.random.default_rng(0)
        tasks = set()
        due = time.monotonic()
        while due < until:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            task = asyncio.create_task(self._ask())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += rng.exponential(1 / rate)
        await asyncio.gather(*tasks)

    async def _ask(self) -> None:
        self._sent += 1
        number = b"clip %08d" % self._sent
        begun = time.monotonic()
        try:
            reader, writer = (
                self._free.pop() if self._free else await asyncio.open_connection(*self.address)
            )
            writer.write(b"".join((self._before, number, self._after)))
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            body = await reader.readexactly(int(fields["content-length"]))
        except (OSError, asyncio.IncompleteReadError):
            self.lost += 1
            return
        took = time.monotonic() - begun
        status = int(lines[0].split()[1])
        answer = json.loads(body) if status == 200 else {}
        at = begun - self._begun
        self.replies.append(Reply(status, at, took, fields.get("retry-after"), answer))
        if fields.get("connection") == "close":
            writer.close()
        else:
            self._free.append((reader, writer))


def refusal_problems(outcome: Outcome) -> list[str]:
    """What must not be in an overloaded service's answers."""
    problems = [f"status {s}" for s in {r.status for r in outcome.replies} - {200, 429}]
    bare = [r for r in outcome.of(429) if not (r.retry_after or "").isdigit()]
    problems += [f"{len(bare)} refusals without a whole Retry-After"] * bool(bare)
    return problems + [f"{outcome.lost} requests without an answer"] * bool(outcome.lost)
