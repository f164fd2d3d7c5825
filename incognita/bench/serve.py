"""What the reward service adds to a model, and how it bears overload.

Overhead is paired: each clip goes to the service and, next to it in time, through the same decoding
and an equal model in this process. Models of a known speed stand in where the claim is a ratio; the
rest of the service, its process and its sockets are those that ship.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from reward_vlm.decode import Kind, Limits, decode
from reward_vlm.model import Clip, RewardModel

from ..recipes.train import machine
from .hostile_media import MP4, NPZ
from .hostile_requests import GOOD, multipart
from .reward_load import Load, refusal_problems, request_bytes
from .reward_stand import BrightnessModel, Stand, clip_frames, mp4, npz, standing

MIB = 1 << 20
TIMED_MS = 50.0
QUEUE_S = 1.0
"""Longest wait in the overload run."""


def direct(model: RewardModel, kind: Kind, data: bytes, task: str) -> None:
    """What a user without a service does: decode and judge."""
    found = decode(kind, data, model.info.sampling, 10.0, Limits())
    model.judge([Clip(task, {"front": found.frames}, found.fps, found.indices)])


def overhead(model: RewardModel, arguments: list[str], pairs: int, side: int) -> dict[str, Any]:
    """Latency at concurrency 1 beside the direct call, mp4 and npz."""
    result: dict[str, Any] = {}
    frames = clip_frames(0, 20, side)
    with standing(*arguments) as stand, httpx.Client(headers=stand.headers, timeout=30) as client:
        files: list[tuple[Kind, str, bytes]] = [
            ("mp4", MP4, mp4(frames)),
            ("npz", NPZ, npz(frames)),
        ]
        for kind, media, data in files:
            times: list[tuple[float, float]] = []
            cpu_here, cpu_there = 0.0, stand.cpu_s()
            for n in range(pairs + 5):
                works = [_service(client, stand, media, data, n), _here(model, kind, data, n)]
                took = [0.0, 0.0]
                for which in (0, 1) if n % 2 else (1, 0):  # neither always goes first
                    begun, cpu = time.perf_counter(), time.process_time()
                    works[which]()
                    took[which] = (time.perf_counter() - begun) * 1e3
                    cpu_here += (time.process_time() - cpu) * which
                if n >= 5:  # the first warm both up
                    times.append((took[0], took[1]))
            result[kind] = _paired(np.array(times)) | {
                "service_cpu_ms": round((stand.cpu_s() - cpu_there) * 1e3 / (pairs + 5), 2),
                "direct_cpu_ms": round(cpu_here * 1e3 / (pairs + 5), 2),
            }
    return result


def _service(
    client: httpx.Client, stand: Stand, media: str, data: bytes, n: int
) -> Callable[[], None]:
    asked = json.dumps(GOOD | {"task": f"clip {n}"}).encode()
    headers, body = multipart(
        [("request", "r", "application/json", asked), ("front", "f", media, data)]
    )

    def work() -> None:
        response = client.post(f"{stand.url}/v1/rewards", content=body, headers=headers)
        response.raise_for_status()

    return work


def _here(model: RewardModel, kind: Kind, data: bytes, n: int) -> Callable[[], None]:
    return lambda: direct(model, kind, data, f"clip {n}")


def _paired(times: Any) -> dict[str, float]:
    """(n, 2) milliseconds, service and direct."""
    service, alone = times.T
    found = {
        "pairs": len(times),
        "service_p50_ms": np.median(service), "direct_p50_ms": np.median(alone),
        "service_p99_ms": np.quantile(service, 0.99), "direct_p99_ms": np.quantile(alone, 0.99),
        "added_p50_ms": np.median(service - alone),
        "p50_ratio": np.median(service) / np.median(alone),
        "p99_ratio": np.quantile(service, 0.99) / np.quantile(alone, 0.99),
    }  # fmt: skip
    return {name: round(float(value), 3) for name, value in found.items()}


def throughput(
    model: RewardModel, arguments: list[str], single: list[str], seconds: float, side: int
) -> dict[str, float]:
    """Clips a second: a batch loop without a service, the service, the service without batches."""
    size = model.info.max_batch
    data = npz(clip_frames(0, 8, side))
    offline = 0.0
    rates = {}
    for name, given in (("unbatched", single), ("batched", arguments)):
        with standing("--set", "queue=256", *given) as stand:
            load = Load(stand, request_bytes(stand, side))
            load.closed_loop(size, 1.0)
            if name == "batched":  # in one window of time with what it is compared with
                offline = _offline(model, data, size, seconds / 2)
            rates[name] = load.closed_loop(3 * size, seconds).rate()
            if name == "batched":
                offline = (offline + _offline(model, data, size, seconds / 2)) / 2
    found = {"max_batch": size, "offline_per_s": offline, "service_per_s": rates["batched"]}
    found |= {"unbatched_per_s": rates["unbatched"]}
    found |= {"of_offline": rates["batched"] / offline}
    found |= {"of_unbatched": rates["batched"] / rates["unbatched"]}
    return {name: round(float(value), 3) for name, value in found.items()}


def _offline(model: RewardModel, data: bytes, size: int, seconds: float) -> float:
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        clips = []
        for n in range(size):
            found = decode("npz", data, model.info.sampling, 10.0, Limits())
            clips.append(Clip(f"clip {n}", {"front": found.frames}, 10.0, found.indices))
        model.judge(clips)
        done += size
    return done / (time.perf_counter() - begun)


def overload(seconds: float) -> dict[str, Any]:
    """Four times the capacity, then a look at how soon it is over."""
    settings = ["--set", f"queue_s={QUEUE_S}", "queue=256"]
    with standing("--delay-ms", str(TIMED_MS), "--max-batch", "1", *settings) as stand:
        load = Load(stand, request_bytes(stand))
        peak = load.closed_loop(4, min(10, seconds / 3)).rate()
        memory: list[float] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(seconds / 60):
                memory.append(stand.rss() / MIB)

        watching = threading.Thread(target=watch)
        watching.start()
        outcome = load.open_loop(4 * peak, seconds)
        ended = time.monotonic()
        stop.set()
        watching.join()
        recovery = _recovered(stand, ended)
    warm = memory[len(memory) // 6 :]
    found: dict[str, Any] = outcome.summary() | {
        "peak_per_s": round(peak, 2), "offered_per_s": round(4 * peak, 2),
        "goodput_of_peak": round(outcome.rate() / peak, 3),
        "p99_limit_ms": 1e3 * QUEUE_S + 2 * TIMED_MS,
        "rss_mib": {"begin": round(warm[0], 1), "end": round(warm[-1], 1)},
        "recovery_s": round(recovery, 3), "problems": refusal_problems(outcome),
    }  # fmt: skip
    return found


def _recovered(stand: Stand, since: float) -> float:
    """Seconds from the end of the load (its last answer is in) to a request at its usual speed."""
    with httpx.Client(headers=stand.headers, timeout=10) as client:
        n = 0
        while True:
            begun = time.monotonic()
            data = npz(clip_frames(n, 4, 8))
            _service(client, stand, NPZ, data, 10_000 + n)()
            if time.monotonic() - begun < 3 * TIMED_MS / 1e3 or n > 100:
                return time.monotonic() - since
            n += 1


def measure(smoke: bool, small: str) -> dict[str, Any]:
    """All of it, with targets."""
    pairs, seconds = (20, 4.0) if smoke else (300, 60.0)
    timed = BrightnessModel(TIMED_MS / 1e3)
    timed_args = ["--delay-ms", str(TIMED_MS)]
    batch = BrightnessModel(TIMED_MS / 1e3, clip_s=0.01, max_batch=8)
    batch_args = ["--delay-ms", str(TIMED_MS), "--clip-ms", "10"]
    result: dict[str, Any] = {
        "overhead_free": overhead(BrightnessModel(), [], pairs, 64),
        "overhead_timed": overhead(timed, timed_args, pairs, 64),
        "throughput_timed": throughput(
            batch, [*batch_args, "--max-batch", "8"], [*batch_args, "--max-batch", "1"],
            seconds / 4, 32,
        ),
    }  # fmt: skip
    if small:
        from reward_vlm.backends import open_model

        model = open_model(small)
        asked = ["--model", small]
        result["overhead_small"] = overhead(model, asked, pairs, 96)
        single = [*asked, "--max-batch", "1"]
        result["throughput_small"] = throughput(model, asked, single, seconds / 4, 96)
    result["overload"] = overload(seconds if not smoke else 6.0)
    return result


def targets(result: dict[str, Any]) -> dict[str, bool]:
    """Name -> met."""
    timed, load = result["overhead_timed"], result["overload"]
    met = {
        "at most 4 ms added to a model that takes none": max(
            t["added_p50_ms"] for t in result["overhead_free"].values()
        )
        <= 4,
        "p50 at most 1.15x of a 50 ms model": all(t["p50_ratio"] <= 1.15 for t in timed.values()),
        "p99 at most 1.5x of a 50 ms model": all(t["p99_ratio"] <= 1.5 for t in timed.values()),
        "batched at least 0.9x of offline": result["throughput_timed"]["of_offline"] >= 0.9,
        "batched at least 1.5x of unbatched": result["throughput_timed"]["of_unbatched"] >= 1.5,
        "overload: only 200 and 429 with Retry-After": not load["problems"],
        "overload: p99 within the queue budget": load["p99_ms"] <= load["p99_limit_ms"],
        "overload: goodput at least 0.9 of the peak": load["goodput_of_peak"] >= 0.9,
        "overload: memory flat": load["rss_mib"]["end"] - load["rss_mib"]["begin"] <= 16,
        "overload: recovered in 2 s": load["recovery_s"] <= 2,
    }
    if "overhead_small" in result:
        added = [t["added_p50_ms"] for t in result["overhead_small"].values()]
        met["small model: at most 4 ms added"] = max(added) <= 4
        rates = result["throughput_small"]
        met["small model: batched at least 0.9x of offline"] = rates["of_offline"] >= 0.9
        met["small model: batched at least 1.5x of unbatched"] = rates["of_unbatched"] >= 1.5
    return met


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "incognita bench serve", description="Overhead, throughput and overload of the service."
    )
    parser.add_argument("--smoke", action="store_true", help="small sizes; targets do not count")
    parser.add_argument("--small", default="small", help="model of its own rows; '' for none")
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args(argv)
    result = measure(args.smoke, args.small)
    met = targets(result)
    result |= {"targets": met, "passed": all(met.values()), "smoke": args.smoke}
    result |= {"command": "bench serve", "machine": machine()}
    result |= {"load_average": os.getloadavg()}
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0 if args.smoke or result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
