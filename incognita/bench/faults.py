"""Faults thrown at the episode store: kills, flipped bits, full disks, hostile files, crowds.

Those thrown at training, T1 to T4, S1 and S2, are in :mod:`.training_faults`, run from here too.

Each check prints one JSON line per case ``{case, seed, injected, survived, lost, worst_ms}`` and
one of totals. ``lost`` counts what must not happen: acknowledged episodes gone, partial ones
visible, damage unnoticed, memory or canaries touched. The same kills and flips are thrown at what
people do instead (``torch.save`` over the old file, a Zarr ZipStore, Zarr with default zstd): these
controls must lose, or the harness proves nothing.

Full sizes: E1 200 kills, E2 1000 flips, E3 50 offsets, E4 30+ files, E5 60 s, E6 50 interrupts;
T1 100 kills, T2 5 stops, T3 5 seeds, T4 5 runs stopped once and twice, S1 and S2 every case.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import multiprocessing as mp
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from episodes import (
    DamagedEpisodeError,
    EpisodeError,
    EpisodeReader,
    EpisodeWriter,
    RefusedEpisodeError,
    StoreFullError,
    verify,
)
from episodes.format import MANIFEST

from .hostile_episodes import UNSPOILT, hostile_cases, remake_manifest

Emit = Callable[[dict[str, Any]], None]


def print_line(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


@dataclass
class Record:
    """Lines of one check and their totals."""

    check: str
    seed: int
    emit: Emit = print_line
    cases: int = 0
    survived: int = 0
    lost: int = 0
    worst_ms: float = 0.0
    problems: list[str] = field(default_factory=list)

    def case(
        self, injected: str, survived: int, problems: list[str], ms: float, **extra: Any
    ) -> None:
        """One case: what was done, how many things came through, and what was lost by name."""
        line = {
            "case": f"{self.check}-{self.cases:04d}",
            "seed": self.seed,
            "injected": injected,
            "survived": survived,
            "lost": len(problems),
            "worst_ms": round(ms, 2),
        }
        self.emit(line | extra | ({"problems": problems[:3]} if problems else {}))
        self.cases += 1
        self.survived += survived
        self.lost += len(problems)
        self.worst_ms = max(self.worst_ms, ms)
        self.problems += problems

    def totals(self, **extra: Any) -> dict[str, Any]:
        line = {
            "check": self.check,
            "seed": self.seed,
            "cases": self.cases,
            "survived": self.survived,
            "lost": self.lost,
            "worst_ms": round(self.worst_ms, 2),
            "passed": self.lost == 0 and self.cases > 0,
            **extra,
        }
        self.emit(line)
        return line


# What is written, and how each kind of store writes it.


def payload(seed: int, n: int) -> dict[str, Any]:
    """Arrays and frames of episode n, the same in every process; crc tells them apart."""
    rng = np.random.default_rng([seed, n])
    steps = int(rng.integers(5, 30))
    obs = rng.normal(size=(steps, 720)).astype(np.float32)
    frames = rng.integers(0, 255, (steps, 32, 32, 3), dtype=np.uint8)
    return {
        "obs": obs,
        "action": obs[:, :2].copy(),
        "frames": frames,
        "crc": zlib.crc32(obs.tobytes()),
    }


class Target(Protocol):
    """A way to store episodes."""

    def __init__(self, store: Path) -> None: ...

    def write(self, seed: int, n: int) -> str:
        """Store an episode; when this returns its id, it is acknowledged."""
        ...

    @staticmethod
    def read(store: Path, skip: set[str]) -> dict[str, bool]:
        """Id of every visible episode that is not to be skipped: is it whole?"""
        ...


class Store:
    """Ours."""

    def __init__(self, store: Path) -> None:
        self.writer = EpisodeWriter(store)

    def write(self, seed: int, n: int) -> str:
        data = payload(seed, n)
        with self.writer.episode("fault", attrs={"crc": data["crc"]}) as episode:
            for obs, action, frame in zip(data["obs"], data["action"], data["frames"], strict=True):
                episode.append({"obs": obs, "action": action}, {"front": frame})
            return episode.finish("done")

    @staticmethod
    def read(store: Path, skip: set[str]) -> dict[str, bool]:
        reader = EpisodeReader(store)
        return {id: whole(reader, id) for id in reader.ids() if id not in skip}


def whole(reader: EpisodeReader, id: str) -> bool:
    """Does the episode open, with the observations that were written and all of its images?"""
    try:
        episode = reader.open(id)
        episode.frames("front")
    except EpisodeError:
        return False
    return bool(zlib.crc32(episode.arrays["obs"].tobytes()) == episode.attrs["attrs"]["crc"])


class TorchSave:
    """Negative control: all episodes in one file, saved over the old one."""

    def __init__(self, store: Path) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.file = store / "all.pt"
        self.all: dict[str, Any] = {}

    def write(self, seed: int, n: int) -> str:
        self.all[str(n)] = self.torch.from_numpy(np.tile(payload(seed, n)["obs"], (50, 1)))
        self.torch.save(self.all, self.file)
        return str(n)

    @staticmethod
    def read(store: Path, skip: set[str]) -> dict[str, bool]:
        import torch

        try:
            return {id: True for id in torch.load(store / "all.pt", weights_only=True)}
        except Exception:  # whatever a broken file raises, nothing in it is readable
            return {}


class Zip:
    """Negative control: one Zarr ZipStore."""

    def __init__(self, store: Path) -> None:
        import zarr

        self.root: Any = zarr.open_group(
            zarr.storage.ZipStore(store / "all.zip", mode="w"), mode="w"
        )

    def write(self, seed: int, n: int) -> str:
        data = payload(seed, n)
        group = self.root.create_group(str(n))
        group.create_array("obs", data=data["obs"])
        return str(n)

    @staticmethod
    def read(store: Path, skip: set[str]) -> dict[str, bool]:
        import zarr

        try:
            root: Any = zarr.open_group(
                zarr.storage.ZipStore(store / "all.zip", mode="r"), mode="r"
            )
            return {id: bool(root[f"{id}/obs"][:].size) for id in root.group_keys()}
        except Exception:  # no central directory
            return {}


TARGETS: dict[str, type[Target]] = {"store": Store, "torch-save": TorchSave, "zip-store": Zip}


def _write_forever(kind: str, store: Path, acks: Connection, seed: int) -> None:
    """Body of a writer process: acknowledgements go through a pipe of their own."""
    try:
        target = TARGETS[kind](store)
        acks.send_bytes(b"ready")
        n = 0
        while True:
            acks.send_bytes(target.write(seed, n).encode())
            n += 1
    except KeyboardInterrupt:
        os._exit(130)


def start(target: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """A process forked from a clean server that has this module and torch imported."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(
        ["incognita.bench.training_faults", "numcodecs.zstd", "simplejpeg", "filelock"]
    )
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*args[:2], there, *args[2:]), daemon=True)
    process.start()
    there.close()
    return process, here


def drain(pipe: Connection) -> list[str]:
    """Whole messages left in a pipe whose writer is dead."""
    got = []
    with contextlib.suppress(EOFError, OSError):
        while True:
            got.append(pipe.recv_bytes().decode())
    return got


def answer(pipe: Connection) -> Any:
    """The next JSON that a process sends; None if it dies or says nothing for 60 s."""
    try:
        return json.loads(pipe.recv_bytes()) if pipe.poll(60) else None
    except EOFError:
        return None


# E1 and E6: kill a writer at a random time.


def kills(
    count: int,
    seed: int,
    folder: Path,
    *,
    kind: str = "store",
    sig: signal.Signals = signal.SIGKILL,
    emit: Emit = print_line,
) -> dict[str, Any]:
    """Signal a busy writer at a random time, then open the store and look for every ack."""
    name = {signal.SIGKILL: "E1", signal.SIGINT: "E6"}[sig]
    record = Record(name if kind == "store" else f"{name}-{kind}", seed, emit)
    rng = random.Random(seed)
    known: set[str] = set()
    for case in range(count):
        store = folder / (kind if kind == "store" else f"{kind}-{case}")
        store.mkdir(parents=True, exist_ok=True)
        process, acks = start(_write_forever, kind, store, seed + case)
        if not acks.poll(60) or acks.recv_bytes() != b"ready":
            raise RuntimeError(f"the writer of case {case} did not start")
        after = rng.uniform(0.0, 0.2)
        time.sleep(after)
        assert process.pid is not None
        sent = time.perf_counter()
        os.kill(process.pid, sig)
        acked = drain(acks)
        process.join(30)
        ended = (time.perf_counter() - sent) * 1e3
        problems = []
        if sig == signal.SIGINT and (process.exitcode != 130 or ended > 3000):
            problems.append(f"exit code {process.exitcode} after {ended:.0f} ms")
        opened = time.perf_counter()
        if kind == "store":
            EpisodeWriter(store).close()  # sweeps
        found = TARGETS[kind].read(store, known)
        ms = (time.perf_counter() - opened) * 1e3
        problems += [f"acknowledged and gone: {id}" for id in acked if id not in found]
        problems += [f"visible and not whole: {id}" for id, ok in found.items() if not ok]
        if kind == "store":
            problems += [f"left behind: {p.name}" for p in store.iterdir() if _is_litter(p)]
            known |= found.keys()
        record.case(f"{sig.name} at {after * 1e3:.0f} ms", len(found), problems, ms)
    if kind == "store":
        remaining = verify(folder / kind)
        totals = record.totals(episodes=len(known), damage_at_end=len(remaining))
        totals["passed"] &= bool(known) and not remaining  # no episodes: nothing was tested
        return totals
    return record.totals()


def _is_litter(path: Path) -> bool:
    return path.name.startswith((".tmp-", ".writer-"))


# E2: flip bits, delete and swap files.


def flips(count: int, seed: int, folder: Path, *, emit: Emit = print_line) -> dict[str, Any]:
    """Damage one file at a time: reading must say so, name it, and read the other episodes."""
    record = Record("E2", seed, emit)
    rng = random.Random(seed)
    store = folder / "flips"
    target = Store(store)
    ids = [target.write(seed, n) for n in range(3)]
    target.writer.close()
    reader = EpisodeReader(store)
    files = sorted(p for id in ids for p in (store / id).rglob("*") if p.is_file())

    def judge(injected: str, hurt: list[Path], every: bool) -> None:
        started = time.perf_counter()
        problems = []
        for file in hurt:
            id, _, path = file.relative_to(store).as_posix().partition("/")
            named = [(d.file, d.array) for d in verify(store, id)]
            array = path.removesuffix("zarr.json").partition("/c/")[0].rstrip("/")
            want = (path, "" if path == MANIFEST else array)
            if want not in named:
                problems.append(f"silent: {id}/{path}, named {named}")
            if whole(reader, id):
                problems.append(f"reads as whole: {id}/{path}")
        ms = (time.perf_counter() - started) * 1e3
        healthy = [id for id in ids if not any(store / id in file.parents for file in hurt)]
        if every:
            problems += [f"others unreadable: {id}" for id in healthy if not whole(reader, id)]
        record.case(injected, len(healthy), problems, ms)

    for n in range(count):
        file = rng.choice(files)
        raw = file.read_bytes()
        bit = rng.randrange(8 * len(raw))
        file.write_bytes(flip(raw, bit))
        judge(f"bit {bit} of {file.relative_to(store)}", [file], every=n % 10 == 0)
        file.write_bytes(raw)
    for file in files:
        raw = file.read_bytes()
        file.unlink()
        judge(f"deleted {file.relative_to(store)}", [file], every=True)
        file.write_bytes(raw)
    chunks = [p for p in files if "/c/" in p.as_posix()]
    for one, other in zip(chunks, chunks[1:] + chunks[:1], strict=True):
        first, second = one.read_bytes(), other.read_bytes()
        if first == second:  # two cameras with frames of equal size: nothing changes
            continue
        one.write_bytes(second)
        other.write_bytes(first)
        judge(
            f"swapped {one.relative_to(store)} and {other.relative_to(store)}", [one, other], True
        )
        one.write_bytes(first)
        other.write_bytes(second)
    left = verify(store)
    return record.totals(damage_at_end=len(left))


def flips_default_zstd(
    count: int, seed: int, folder: Path, *, emit: Emit = print_line
) -> dict[str, Any]:
    """Negative control: the same flips in chunks of Zarr's default zstd, read by zarr-python."""
    import zarr

    record = Record("E2-default-zstd", seed, emit)
    rng = random.Random(seed)
    store = folder / "default-zstd"
    data = payload(seed, 0)["obs"]
    zarr.open_group(store, mode="w").create_array("obs", data=data, chunks=data.shape)
    chunk = store / "obs/c/0/0"
    raw = chunk.read_bytes()
    for _ in range(count):
        bit = rng.randrange(8 * len(raw))
        chunk.write_bytes(flip(raw, bit))
        started = time.perf_counter()
        try:
            root: Any = zarr.open_group(store, mode="r")
            silent = root["obs"][:].tobytes() != data.tobytes()
        except Exception:  # whatever zarr raises, the damage was noticed
            silent = False
        problems = ["silent: obs/c/0/0"] if silent else []
        record.case(f"bit {bit}", 0, problems, (time.perf_counter() - started) * 1e3)
    return record.totals()


def flip(raw: bytes, bit: int) -> bytes:
    out = bytearray(raw)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


# E3: the disk fills up after so many bytes.


def full_disk(count: int, seed: int, folder: Path, *, emit: Emit = print_line) -> dict[str, Any]:
    """Run out of room at ``count`` offsets of an episode: on a 2 MB tmpfs, else by RLIMIT_FSIZE."""
    record = Record("E3", seed, emit)
    disk = folder / "disk"
    disk.mkdir()
    mounted = _mount_tmpfs(disk)
    try:
        store = disk / "store"
        target = Store(store)
        longest = max(range(20), key=lambda n: len(payload(seed, n)["obs"]))
        old = [target.write(seed, n) for n in (longest + 1, longest)]
        sizes = [p.stat().st_size for p in (store / old[1]).rglob("*") if p.is_file()]
        # tmpfs gives out pages of 4096 bytes, folders are free
        span = sum(-(-size // 4096) * 4096 for size in sizes) if mounted else max(sizes)
        for n in range(count):
            offset = span * n // count
            limit = _ballast(disk, offset) if mounted else _file_limit(offset)
            started = time.perf_counter()
            problems = []
            with limit:
                try:
                    target.write(seed, longest)
                    problems.append("stored without room")
                except StoreFullError:
                    pass
                except Exception as error:
                    problems.append(f"untyped {type(error).__name__}: {error}")
                problems += [f"left behind: {p.name}" for p in store.glob(".tmp-*")]
                found = Store.read(store, set())
                problems += [f"old episode hurt: {id}" for id in old if not found.get(id)]
                if found.keys() != set(old):
                    problems.append(f"{len(found)} episodes visible, {len(old)} stored")
            ms = (time.perf_counter() - started) * 1e3
            again = target.write(seed, longest)
            if not whole(EpisodeReader(store), again):
                problems.append("the next episode is not whole")
            shutil.rmtree(store / again)
            how = "ENOSPC (tmpfs)" if mounted else "EFBIG (RLIMIT_FSIZE)"
            record.case(f"{how} after {offset} of {span} bytes", len(old), problems, ms)
        target.writer.close()
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
    return record.totals(method="tmpfs" if mounted else "RLIMIT_FSIZE")


def _mount_tmpfs(folder: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@contextlib.contextmanager
def _ballast(disk: Path, leave: int) -> Iterator[None]:
    """Fill the file system but for ``leave`` bytes, rounded down to pages."""
    room = os.statvfs(disk)
    size = room.f_bavail * room.f_frsize - leave // 4096 * 4096
    ballast = disk / "ballast"
    try:
        ballast.write_bytes(b"\0" * size)
        yield
    finally:
        ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def _file_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past ``size`` bytes (Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# E4: episodes made by somebody who means harm.


def hostile(
    count: int | None, seed: int, folder: Path, *, emit: Emit = print_line
) -> dict[str, Any]:
    """Open hostile episodes in a process of its own and watch its memory, canary and time."""
    store, outside = folder / "hostile", folder / "outside"
    outside.mkdir(parents=True)
    canary = outside / "canary"
    (outside / "secret").write_bytes(b"secret")
    target = Store(store)
    good = target.write(seed, 0)
    cases = list(hostile_cases(canary).items())
    random.Random(seed).shuffle(cases)
    cases = [(UNSPOILT, lambda e: None), *cases[:count]]  # or the harness itself is refused
    ids = []
    for n, (name, spoil) in enumerate(cases):
        id = f"20260101T000000Z-00000000-{n:06d}"
        shutil.copytree(store / good, store / id)
        if name.startswith("manifest"):
            remake_manifest(store / id)
            spoil(store / id)
        else:
            spoil(store / id)
            remake_manifest(store / id)
        ids.append(id)
    linked = f"20260101T000000Z-00000000-{len(ids):06d}"
    (store / linked).symlink_to(store / good, target_is_directory=True)
    target.writer.close()
    process, pipe = start(_open_all, str(store), good, [*ids, linked])
    names = [*(name for name, _ in cases), "episode folder is a link"]
    record = Record("E4", seed, emit)
    for name in names:
        said = answer(pipe)
        if said is None:
            record.case(name, 0, ["no answer within 60 s, or the reader died"], 60_000.0)
            process.kill()
            break
        verdict, ms, grown = said
        wanted = "opened" if name == UNSPOILT else "refused"
        problems = [] if verdict.startswith(wanted) else [f"{name}: {verdict}"]
        if canary.exists():
            problems.append(f"{name}: code ran")
            canary.unlink()
        if grown > 64:
            problems.append(f"{name}: memory grew by {grown:.0f} MiB")
        record.case(name, 1, problems, ms)
    process.join(30)
    after = verify(store, good)
    if after or linked in EpisodeReader(store).ids():
        record.case("the good episode beside them", 0, [str(after)], 0.0)
    return record.totals()


def _open_all(store: str, good: str, pipe: Connection, ids: list[str]) -> None:
    """Body of the process that reads hostile episodes; the good one is read first to warm up."""
    reader = EpisodeReader(store)
    whole(reader, good)
    for id in ids:
        _trim()
        base, started = _rss(peak=False), time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")  # peak starts anew
        try:
            episode = reader.open(id)
            for camera in episode.cameras:
                episode.frames(camera)
            verdict = "opened"
        except (RefusedEpisodeError, DamagedEpisodeError, KeyError) as error:
            verdict = f"refused: {error}"
        except BaseException as error:
            verdict = f"{type(error).__name__}: {error}"
        ms = (time.perf_counter() - started) * 1e3
        pipe.send_bytes(json.dumps([verdict[:300], ms, _rss(peak=True) - base]).encode())


def _rss(peak: bool) -> float:
    """Resident memory, MiB."""
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def _trim() -> None:
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


# E5: several writers and readers at once.


def crowd(
    seconds: float,
    seed: int,
    folder: Path,
    *,
    writers: int = 2,
    readers: int = 3,
    emit: Emit = print_line,
) -> dict[str, Any]:
    """Writers and readers at work together: no loss, no double id, no failed read."""
    record = Record("E5", seed, emit)
    store = folder / "crowd"
    EpisodeWriter(store).close()
    until = time.time() + seconds
    writing = [start(_write_until, str(store), until, seed + 1000 * n) for n in range(writers)]
    reading = [start(_read_until, str(store), until, seed + n) for n in range(readers)]
    acked: list[str] = []
    while any(process.is_alive() for process, _ in writing):
        for _, pipe in writing:
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll(0.01):
                    acked.append(pipe.recv_bytes().decode())
    for process, pipe in writing:
        acked += drain(pipe)
        process.join(30)
    started = time.perf_counter()
    found = Store.read(store, set())
    ms = (time.perf_counter() - started) * 1e3
    problems = [f"acknowledged and gone: {id}" for id in acked if not found.get(id)]
    problems += [f"never acknowledged: {id}" for id in found.keys() - set(acked)]
    problems += [f"{len(acked) - len(set(acked))} double ids"] * (len(acked) != len(set(acked)))
    problems += [f"a writer ended with {p.exitcode}" for p, _ in writing if p.exitcode]
    record.case(f"{writers} writers for {seconds:g} s", len(acked), problems, ms)
    for n, (process, pipe) in enumerate(reading):
        answers = drain(pipe)
        process.join(30)
        reads, failures, worst = json.loads(answers[-1]) if answers else (0, ["no answer"], 0.0)
        if not reads:
            failures = [*failures, "read nothing"]
        record.case(f"reader {n}", reads, failures, worst)
    return record.totals(episodes=len(acked))


def _write_until(store: str, until: float, acks: Connection, seed: int) -> None:
    target = Store(Path(store))
    n = 0
    while time.time() < until:
        acks.send_bytes(target.write(seed, n).encode())
        n += 1
    target.writer.close()


def _read_until(store: str, until: float, pipe: Connection, seed: int) -> None:
    rng = random.Random(seed)
    reader = EpisodeReader(store)
    reads, failures, worst = 0, [], 0.0
    while time.time() < until:
        ids = reader.ids()
        for id in {*ids[-2:], *rng.sample(ids, min(2, len(ids)))}:
            started = time.perf_counter()
            if not whole(reader, id):
                failures.append(id)
            worst = max(worst, (time.perf_counter() - started) * 1e3)
            reads += 1
        time.sleep(0.001)
    pipe.send_bytes(json.dumps([reads, failures[:10], worst]).encode())


# All of them.

FULL = {
    "E1": 200, "E2": 1000, "E3": 50, "E4": None, "E5": 60, "E6": 50,
    "T1": 100, "T2": 5, "T3": 5, "T4": 5, "S1": None, "S2": None, "controls": 20,
}  # fmt: skip
SMOKE = {
    "E1": 6, "E2": 40, "E3": 6, "E4": None, "E5": 3, "E6": 4,
    "T1": 6, "T2": 2, "T3": 1, "T4": 1, "S1": None, "S2": None, "controls": 3,
}  # fmt: skip


def run(
    checks: list[str] | None = None,
    *,
    smoke: bool = False,
    seed: int = 0,
    folder: Path | None = None,
    emit: Emit = print_line,
) -> dict[str, Any]:
    """Run the checks (default: all) and return {"passed": bool, "skipped": [], "checks": [totals]}.

    Controls pass when they lose something. A check that cannot be made here is skipped: it has not
    passed, and does not fail the rest.

    Raises:
        ValueError: no such check.
    """
    sizes = SMOKE if smoke else FULL
    wanted = list(sizes) if checks is None else checks
    unknown = sorted(set(wanted) - sizes.keys())
    if unknown:
        raise ValueError(f"checks must be among {list(sizes)}, got {unknown}")
    results = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="faults-") as temp:
        for name in wanted:
            place = Path(temp) / name
            place.mkdir()
            results += _run_one(name, sizes[name], seed, place, emit)
    skipped = [r["check"] for r in results if "skipped" in r]
    passed = all(r["passed"] for r in results if "skipped" not in r)
    emit({"total": len(results), "passed": passed, "skipped": skipped})
    return {"passed": passed, "skipped": skipped, "checks": results}


def _run_one(
    name: str, size: int | None, seed: int, place: Path, emit: Emit
) -> list[dict[str, Any]]:
    from . import training_faults  # imports torch

    if name == "controls":
        assert size is not None
        lost = controls(size, seed, place, emit=emit)
        lost += training_faults.controls(size, seed, place, emit=emit)
        return [result | {"control": True, "passed": result["lost"] > 0} for result in lost]
    checks: dict[str, Callable[..., dict[str, Any]]] = {
        "E1": kills,
        "E2": flips,
        "E3": full_disk,
        "E4": hostile,
        "E5": crowd,
        "E6": partial(kills, sig=signal.SIGINT),
        **training_faults.CHECKS,
    }
    return [checks[name](size, seed, place, emit=emit)]


def controls(
    size: int, seed: int, folder: Path, *, emit: Emit = print_line
) -> list[dict[str, Any]]:
    """What people do instead, under the same kills and flips."""
    return [
        kills(size, seed, folder, kind="torch-save", emit=emit),
        kills(size, seed, folder, kind="zip-store", emit=emit),
        flips_default_zstd(10 * size, seed, folder, emit=emit),
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "incognita bench faults",
        description="Faults thrown at the episode store, training and what is loaded: kills, "
        "flipped bits, full disks, bad numbers, hostile files.",
    )
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(FULL)}; all by default")
    parser.add_argument("--smoke", action="store_true", help="small sizes, two minutes")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("INCOGNITA_SEED", "0")))
    parser.add_argument("--folder", type=Path, help="where the stores are made")
    parser.add_argument("--json", type=Path, help="write the totals here")
    args = parser.parse_args(argv)
    result = run(args.checks or None, smoke=args.smoke, seed=args.seed, folder=args.folder)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
