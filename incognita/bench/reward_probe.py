"""What the faults thrown at the reward service are thrown with, and what is seen of it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from .hostile_requests import GOOD, Case
from .reward_stand import Stand, clip_frames, npz

LEAK = re.compile(r"0x[0-9a-f]{4,}|Traceback|File \"|\.py\b|/(home|usr|tmp|root|proc|etc)/")


class Client(httpx.Client):
    """Speaks to a stand."""

    def __init__(self, stand: Stand) -> None:
        super().__init__(base_url=stand.url, headers=stand.headers, timeout=30)

    def judge(self, task: str = "go", frames: Any = None, **headers: str) -> httpx.Response:
        """POST a good clip."""
        data = npz(clip_frames(0, 4, 8) if frames is None else frames)
        return self.send_case(
            Case((("front", "f", "application/x-npz", data),), json.dumps(GOOD | {"task": task})),
            **headers,
        )

    def send_case(self, case: Case, **headers: str) -> httpx.Response:
        given, body = case.encoded()
        return self.post("/v1/rewards", content=body, headers=given | headers)

    def calls(self) -> float:
        """Times that the model was called."""
        found = re.search(r"^reward_batch_size_count\S* (\S+)", self.get("/metrics").text, re.M)
        return float(found.group(1)) if found else 0.0


def timed(work: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    """A response and the milliseconds that it took."""
    begun = time.perf_counter()
    response = work()
    return response, (time.perf_counter() - begun) * 1e3


def unlike(response: httpx.Response, *statuses: int) -> list[str]:
    """What is wrong with a response that should be a problem of one of these statuses."""
    problems = []
    if response.status_code not in statuses:
        problems.append(f"status {response.status_code}, wanted {statuses}")
    if response.headers.get("content-type") != "application/problem+json":
        problems.append(f"type {response.headers.get('content-type')}")
    if LEAK.search(response.text):
        problems.append(f"tells too much: {response.text[:200]}")
    if response.status_code in (429, 503) and not response.headers.get("retry-after", "").isdigit():
        problems.append("no whole Retry-After")
    return problems


def not_ok(response: httpx.Response) -> list[str]:
    """What is wrong with a response that should be an answer."""
    return [] if response.status_code == 200 else [f"status {response.status_code}"]


def address(stand: Stand) -> tuple[str, int]:
    """Host and port."""
    host, _, port = stand.url.removeprefix("http://").partition(":")
    return host, int(port)


def head(stand: Stand) -> str:
    """How a request begins, with a good key and without its end."""
    return f"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n"


class Peak:
    """Watches the memory of a stand from a thread."""

    def __init__(self, stand: Stand) -> None:
        self.stand, self.most = stand, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, self.stand.rss())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
