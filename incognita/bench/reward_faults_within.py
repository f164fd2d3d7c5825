"""Faults from within: the reward service's model, its cache, its engine, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reward_vlm.gateway.answers import clip_key
from reward_vlm.model import Clip

from .faults import Emit, Record
from .reward_load import Load, request_bytes
from .reward_probe import Client, not_ok, timed, unlike
from .reward_stand import BrightnessModel, clip_frames, standing


def garbage(_: int, seed: int, folder: Path, *, emit: Emit) -> dict[str, Any]:
    """R8: whatever a model returns that is no judgement is a 502, never a reward."""
    record = Record("R8", seed, emit)
    faults = ("nan", "inf", "range", "prose", "long", "number", "bad", "progress", "crash")
    with standing(folder=folder) as stand, Client(stand) as client:
        for fault in faults:
            response, ms = timed(partial(client.judge, f"fault:{fault}"))
            record.case(fault, 1, unlike(response, 502), ms)
            record.case(f"after {fault}", 1, not_ok(client.judge(f"after {fault}")), 0)
        told = "secret-task-text" in stand.log.read_text()
        record.case("task in the log", 1, ["it is there"] * told, 0)
    return record.totals()


def cache_keys(pairs: int, seed: int, folder: Path, *, emit: Emit) -> dict[str, Any]:
    """R9: the same bytes with another shape, task, count, rate or model never share a judgement."""
    record = Record("R9", seed, emit)
    rng = np.random.default_rng(seed)
    infos = [BrightnessModel(name=name, side=side).info for name in "ab" for side in (None, 32)]
    same = 0
    for _ in range(pairs):
        count, height, width = (int(2**n) for n in rng.integers(1, 4, 3))
        frames = rng.integers(0, 2, (count, height, width, 3), dtype=np.uint8)
        clip, other = Clip("go", {"front": frames}, 10.0), None
        match int(rng.integers(5)):
            case 0:
                other = Clip("go", {"front": frames.reshape(count, width * 2, -1, 3)}, 10.0)
                other = other if other.views["front"].shape != frames.shape else None
            case 1:
                other = Clip("go ahead", {"front": frames}, 10.0)
            case 2:
                other = Clip("go", {"front": frames.reshape(count // 2, height * 2, -1, 3)}, 10.0)
            case 3:
                other = Clip("go", {"side": frames}, 10.0)
        info = infos[int(rng.integers(4))]
        if other is None:
            far = infos[(infos.index(info) + 1) % 4]
            same += clip_key(clip, info) == clip_key(clip, far)
        else:
            same += clip_key(clip, info) == clip_key(other, info)
        same += clip_key(clip, info) != clip_key(Clip("go", {"front": frames.copy()}, 10.0), info)
    record.case(f"{pairs} pairs of keys", pairs - same, [f"{same} wrong"] * bool(same), 0)
    with standing(folder=folder) as stand, Client(stand) as client:
        frames = clip_frames(seed, 4, 8)
        shapes = [frames, frames.reshape(4, 4, 16, 3), frames.reshape(2, 16, 8, 3), frames[:3]]
        for n, each in enumerate(shapes * 2):
            answer = client.judge("key", each).json()
            wrong = [f"cached: {answer['cached']}"] * (answer["cached"] != (n >= len(shapes)))
            record.case(f"shape {each.shape}, time {n // 4 + 1}", 1, wrong, 0)
    return record.totals()


def engine_faults(_: int, seed: int, folder: Path, *, emit: Emit) -> dict[str, Any]:
    """R10: an engine killed or frozen: not ready in 5 s, ready again without a restart."""
    record = Record("R10", seed, emit)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        pid_file = folder / "engine.pid"
        with standing("--engine", str(pid_file), folder=folder) as stand, Client(stand) as client:
            first = not_ok(client.get("/readyz")) + not_ok(client.judge("before"))
            record.case(f"before {number.name}", 1, first, 0)
            pid = int(pid_file.read_text())
            os.kill(pid, number)
            begun = time.monotonic()
            response = client.get("/readyz")
            while response.status_code == 200 and time.monotonic() - begun < 10:
                time.sleep(0.1)
                response = client.get("/readyz")
            took = time.monotonic() - begun
            problems = unlike(response, 503) + [f"ready for {took:.1f} s"] * (took > 5)
            record.case(f"{number.name}: not ready", 1, problems, took * 1e3)
            refused = client.judge("while it is away", **{"X-Deadline-Ms": "1000"})
            if number == signal.SIGSTOP:
                record.case("a request meanwhile", 1, unlike(refused, 504, 503), 0)
                os.kill(pid, signal.SIGCONT)
            begun = time.monotonic()
            while time.monotonic() - begun < 10 and client.get("/readyz").status_code != 200:
                time.sleep(0.1)
            took = time.monotonic() - begun
            problems = [f"not ready for {took:.1f} s"] * (took > 5) + not_ok(client.judge("again"))
            record.case(f"{number.name}: ready again", 1, problems, took * 1e3)
    return record.totals()


def out_of_memory(_: int, seed: int, folder: Path, *, emit: Emit) -> dict[str, Any]:
    """R11: out of memory on one clip: 503, and the next twenty are served."""
    record = Record("R11", seed, emit)
    with standing(folder=folder) as stand, Client(stand) as client:
        response, ms = timed(partial(client.judge, "fault:oom"))
        record.case("out of memory", 1, unlike(response, 503), ms)
        for n in range(20):
            response, ms = timed(partial(client.judge, f"after {n}"))
            record.case(f"request {n} after it", 1, not_ok(response), ms)
    return record.totals()


def drained(rounds: int, seed: int, folder: Path, *, emit: Emit) -> dict[str, Any]:
    """R12: SIGTERM under load: what was accepted is answered, new ones 503, exit 0 in 10 s."""
    record = Record("R12", seed, emit)
    for n in range(rounds):
        with standing("--delay-ms", "200", "--max-batch", "4", folder=folder) as stand:
            load = Load(stand, request_bytes(stand))
            found: list[Any] = []
            run = threading.Thread(target=lambda: found.append(load.closed_loop(12, 3)))  # noqa: B023
            run.start()
            time.sleep(1.0 + 0.1 * n)
            stopped = time.monotonic()
            stand.process.send_signal(signal.SIGTERM)
            try:
                code: int | None = stand.process.wait(12)
            except subprocess.TimeoutExpired:
                code = None
            took = time.monotonic() - stopped
            run.join()
            outcome = found[0]
            at = stopped - load._begun
            cut = [r for r in outcome.replies if r.status not in (200, 503)]
            problems = [f"exit code {code} after {took:.1f} s"] * (code != 0 or took > 10)
            problems += [f"statuses {sorted({r.status for r in cut})}"] * bool(cut)
            early = [r for r in outcome.of(503) if r.at < at - 0.05]
            problems += [f"{len(early)} accepted ones refused"] * bool(early)
            bare = [r for r in outcome.of(503) if not (r.retry_after or "").isdigit()]
            problems += ["503 without a whole Retry-After"] * bool(bare)
            problems += ["no request was refused"] * (not outcome.of(503))
            record.case(f"SIGTERM {n}", len(outcome.of(200)), problems, took * 1e3)
    return record.totals()
