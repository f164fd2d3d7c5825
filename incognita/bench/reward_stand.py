"""A reward model of known speed and with faults on demand, and a real service around it.

The service is the one that ships, in a process of its own; only the model stands in, so that what
the service adds can be told apart from what a model costs. Run as
``python -m incognita.bench.reward_stand --keys FILE`` it serves on a free port.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from reward_vlm.gateway.auth import add_key
from reward_vlm.gateway.settings import Settings
from reward_vlm.model import (
    BadOutput,
    Clip,
    EngineUnavailable,
    Judgement,
    ModelInfo,
    ModelOutOfMemory,
    RewardModel,
    Sampling,
)


class BrightnessModel:
    """The brighter the last frame, the higher the score. Takes as long as it is told to.

    A task that begins with ``fault:`` makes it fail as named after the colon.
    """

    def __init__(
        self,
        delay_s: float = 0.0,
        *,
        clip_s: float = 0.0,
        burn: bool = False,
        name: str = "brightness",
        max_batch: int = 16,
        workers: int = 1,
        side: int | None = None,
    ) -> None:
        """A call takes ``delay_s + clip_s * clips``: asleep, or on the processor if ``burn``."""
        self.delay_s, self.clip_s, self.burn = delay_s, clip_s, burn
        self.calls = 0
        self.batches: list[int] = []
        self.info = ModelInfo(
            name=name, backend="small", revision="stand-1",
            sampling=Sampling(count=8, side=side), preprocess={"mean": "all"},
            domain="brightness of anything", heads=("score", "progress", "success"),
            max_batch=max_batch, workers=workers,
        )  # fmt: skip

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """See :class:`reward_vlm.model.RewardModel`."""
        self.calls += 1
        if len(self.batches) < 100_000:
            self.batches.append(len(clips))
        self._take(self.delay_s + self.clip_s * len(clips))
        return [self._one(clip, len(clips)) for clip in clips]

    def ready(self) -> None:
        """As the interface has it: the model's own clip."""
        self._take(self.delay_s)
        self._one(Clip("ready", {"front": np.zeros((2, 8, 8, 3), np.uint8)}, 1.0), 1)

    def close(self) -> None:
        """Nothing to free."""

    def _take(self, seconds: float) -> None:
        if not self.burn:
            time.sleep(seconds)
            return
        until = time.thread_time() + seconds
        block = np.ones(200_000, np.float32)
        while time.thread_time() < until:
            np.sqrt(block, out=block)  # outside the interpreter's lock, as a real model

    def _one(self, clip: Clip, batch: int) -> Judgement:
        _, is_fault, fault = clip.task.partition("fault:")
        if is_fault:
            broken = _fault(fault.strip(), batch)
            if broken is not None:
                return cast(Judgement, broken)
        view = np.concatenate(list(clip.views.values()), axis=2)
        light = view.reshape(clip.length, -1).mean(axis=1) / 255  # (T,) 0..1
        level = 1 + 4 * light[-1]
        weight = np.maximum(0, 1 - np.abs(np.arange(1, 6) - level))
        return Judgement(weight / weight.sum(), progress=light, p_success=float(light[-1]))


def _fault(name: str, batch: int) -> object | None:
    """What a broken model does; None for a fault that this batch size does not show."""
    if name == "nan":
        return Judgement(np.full(5, np.nan))
    if name == "inf":
        return Judgement(np.array([np.inf, 0, 0, 0, 0]))
    if name == "range":
        return Judgement(np.array([0, 0, 0, 0, 6.0]))
    if name == "progress":
        return Judgement(np.full(5, 0.2), progress=np.zeros(1))
    if name == "prose":
        return "I would say it went rather well"
    if name == "long":
        return "5" * 10_000_000
    if name == "number":
        return 4.9
    if name == "oom":
        raise ModelOutOfMemory("no memory")
    if name == "oom-batch" and batch > 1:
        raise ModelOutOfMemory("no memory for more than one")
    if name == "crash":
        raise RuntimeError("the task is secret-task-text")
    if name == "gone":
        raise EngineUnavailable("connection refused")
    if name == "bad":
        raise BadOutput("prose")
    if name.startswith("sleep"):
        time.sleep(float(name.removeprefix("sleep")))
    return None


class EngineModel(BrightnessModel):
    """The same behind a process of its own, which can be killed, frozen and continued.

    A dead one is started again after a while, as a supervisor would.
    """

    AWAY_S = 3.0

    def __init__(self, delay_s: float, pid_file: Path) -> None:
        super().__init__(delay_s, name="engine")
        self.pid_file = pid_file
        self._lock = threading.Lock()
        self._engine: subprocess.Popen[bytes] | None = None
        self._died = 0.0

    def _take(self, seconds: float) -> None:
        with self._lock:
            if self._engine is not None and self._engine.poll() is not None:
                self._died = self._died or time.monotonic()
                if time.monotonic() - self._died < self.AWAY_S:
                    raise EngineUnavailable("the engine has ended")
                self._engine, self._died = None, 0.0
            if self._engine is None:
                self._engine = subprocess.Popen(
                    ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                self.pid_file.write_text(str(self._engine.pid))
            engine = self._engine
            assert engine.stdin is not None and engine.stdout is not None
            try:
                engine.stdin.write(b"?\n")
                engine.stdin.flush()
                if engine.stdout.readline() != b"?\n":
                    raise EngineUnavailable("the engine has ended")
            except BrokenPipeError:
                engine.wait()
                raise EngineUnavailable("the engine has ended") from None
        super()._take(seconds)

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._engine.kill()
            self._engine.wait()


def npz(frames: NDArray[Any], **others: Any) -> bytes:
    """Frames as the service takes them."""
    out = io.BytesIO()
    np.savez(out, frames=frames, **others)
    return out.getvalue()


def mp4(frames: NDArray[np.uint8], fps: int = 10) -> bytes:
    """(T, H, W, 3) as H.264."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def clip_frames(seed: int, count: int = 20, side: int = 64) -> NDArray[np.uint8]:
    """(count, side, side, 3): even light that changes from frame to frame."""
    light = np.random.default_rng(seed).integers(0, 255, (count, 1, 1, 3))
    return np.asarray(np.broadcast_to(light, (count, side, side, 3)), np.uint8)


@dataclass
class Stand:
    """A running service."""

    url: str
    key: str
    process: subprocess.Popen[str]
    log: Path
    """What it wrote to stderr."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def rss(self) -> int:
        """Resident bytes of the service and its children."""
        return sum(_rss(pid) for pid in family(self.process.pid))

    def cpu_s(self) -> float:
        """Processor seconds of the service and its children so far."""
        ticks = 0
        for pid in family(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all below it."""
    pids = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += family(int(child))
    return pids


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def standing(*arguments: str, folder: Path | None = None) -> Iterator[Stand]:
    """Start a service with these arguments of :func:`main`, on a free port; end it afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        keys, log = Path(temp) / "keys.json", Path(temp) / "log.jsonl"
        key = add_key(keys, "bench")
        with log.open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "incognita.bench.reward_stand", "--keys", str(keys),
                 *arguments], stdout=subprocess.PIPE, stderr=err, text=True,
            )  # fmt: skip
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"listening on (\S+)", line):
                    yield Stand(found.group(1), key, process, log)
                    break
            else:
                raise RuntimeError(f"the service does not start: {log.read_text()[-2000:]}")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(12)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            assert process.stdout is not None
            process.stdout.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A reward service with a model that stands in.")
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="of one call")
    parser.add_argument("--clip-ms", type=float, default=0.0, help="of each clip in a call")
    parser.add_argument("--burn", action="store_true", help="compute instead of sleep")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--model", default="", help="a real one instead, such as small")
    parser.add_argument("--engine", type=Path, help="judge behind a process; its id goes here")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of Settings")
    args = parser.parse_args(argv)
    from reward_vlm.gateway.logs import to_stderr
    from reward_vlm.gateway.server import serve

    to_stderr()
    settings = Settings(keys=args.keys, port=0)
    for pair in args.set:
        name, _, value = pair.partition("=")
        number = type(getattr(settings, name))(float(value))
        settings = dataclasses.replace(settings, **{name: number})
    if args.model:
        from reward_vlm.backends import open_model

        model: RewardModel = open_model(args.model)
    elif args.engine is not None:
        model = EngineModel(args.delay_ms / 1e3, args.engine)
    else:
        model = BrightnessModel(
            args.delay_ms / 1e3, clip_s=args.clip_ms / 1e3, burn=args.burn,
            max_batch=args.max_batch,
        )  # fmt: skip
    serve([model], settings)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
