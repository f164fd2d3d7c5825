"""The decoder's side that lives: child processes that decode, watched, killed, replaced."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import math
import mmap
import os
import re
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from ..decode import Decoded, Kind, Limits, MediaError
from ..model import Sampling
from . import decoder_child
from .decoder_child import LENGTH, packed

log = logging.getLogger(__name__)

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")
"""Environment that a child gets; secrets stay here."""
FIXED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "1048576",  # give memory back after a large file
    "MALLOC_MMAP_THRESHOLD_": "1048576",
}
START_S = 30.0
ANSWER_BYTES = 64 << 10
ARENA_KEPT = 4 << 20
"""Bytes of one job above which the shared memory is given back after it."""


class BadChild(Exception):
    """The child died, was late, or says what it never should."""


class _Child:
    """One process. After any exception but MediaError it is of no use and must be killed."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        size = limits.file_bytes + limits.kept_bytes
        arena = os.memfd_create("reward-decode", os.MFD_ALLOW_SEALING)
        self.sock, theirs = socket.socketpair()
        try:
            os.ftruncate(arena, size)
            # A child that has been taken over could else shrink it under our feet.
            fcntl.fcntl(arena, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.arena = mmap.mmap(arena, size)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", decoder_child.__name__, str(theirs.fileno()),
                 str(arena), json.dumps(asdict(limits))],
                pass_fds=[theirs.fileno(), arena], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={k: v for k, v in os.environ.items() if k in PASSED_ON} | FIXED,
                start_new_session=True,  # Ctrl-C is for the server; what it accepted still finishes
            )  # fmt: skip
        finally:
            theirs.close()
            os.close(arena)
        self.sock.setblocking(False)

    async def ready(self) -> None:
        await self._answer()

    async def decode(
        self, kind: Kind, data: bytes, sampling: Sampling, fps: float | None
    ) -> Decoded:
        self.arena[: len(data)] = data
        job = {"kind": kind, "bytes": len(data), "sampling": vars(sampling), "fps": fps}
        await asyncio.get_running_loop().sock_sendall(self.sock, packed(job))
        said = await self._answer()
        if "error" in said:
            raise _media_error(said["error"])
        indices = np.array(said["indices"], np.int64)
        shape = tuple(int(n) for n in said["shape"])
        total, rate = int(said["total"]), float(said["fps"])
        limits = self.limits
        possible = (
            len(shape) == 4 and min(shape) >= 1 and shape[3] == 3
            and shape[1] * shape[2] <= limits.pixels and math.prod(shape) <= limits.kept_bytes
            and indices.shape == shape[:1] and len(indices) <= sampling.most
            and indices[0] >= 0 and (np.diff(indices) > 0).all()
            and indices[-1] < total <= limits.frames and math.isfinite(rate) and rate > 0
        )  # fmt: skip
        if not possible:
            raise BadChild("an answer that cannot be")
        raw = np.frombuffer(self.arena, np.uint8, math.prod(shape), limits.file_bytes)
        found = Decoded(raw.reshape(shape).copy(), indices, total, rate)
        del raw
        if len(data) + found.frames.nbytes > ARENA_KEPT:
            self.arena.madvise(mmap.MADV_REMOVE)  # gives the memory back
        return found

    async def _answer(self) -> dict[str, Any]:
        (length,) = LENGTH.unpack(await self._receive(LENGTH.size))
        if length > ANSWER_BYTES:
            raise BadChild("an answer that cannot be")
        answer = json.loads(await self._receive(length))
        if not isinstance(answer, dict):
            raise BadChild("an answer that cannot be")
        return answer

    async def _receive(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = await asyncio.get_running_loop().sock_recv(self.sock, size - len(got))
            if not more:
                raise BadChild("it died")
            got += more
        return got

    def kill(self) -> None:
        self.sock.close()
        self.process.kill()
        self.process.wait()
        self.arena.close()


def _media_error(told: list[object]) -> MediaError:
    """What the child says is wrong with a file, if it says it as it should."""
    status, code, detail = told
    if status in (413, 415, 422) and re.fullmatch(r"[a-z0-9_]{1,40}", str(code)):
        if re.fullmatch(r"[\w ,.:()/-]{1,200}", str(detail)):
            return MediaError(int(str(status)), str(code), str(detail))
    raise BadChild("an error that cannot be")


class DecoderPool:
    """So many children, each with one job at a time."""

    def __init__(self, size: int, limits: Limits) -> None:
        if size < 1:
            raise ValueError(f"size must be >= 1, got {size}")
        self.size, self.limits = size, limits
        self.replaced = 0
        """Children that had to be killed, or died."""
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """All children, warm.

        Raises:
            RuntimeError: one does not start.
        """
        try:
            await asyncio.gather(*(self._add() for _ in range(self.size)))
        except (BadChild, TimeoutError, OSError) as error:
            self.close()
            raise RuntimeError(f"the decoder process does not start: {error}") from error

    async def _add(self) -> None:
        child = _Child(self.limits)
        try:
            async with asyncio.timeout(START_S):
                await child.ready()
        except BaseException:
            child.kill()
            raise
        self._put_back(child)

    async def decode(
        self, kind: Kind, data: bytes, sampling: Sampling, fps: float | None
    ) -> Decoded:
        """Decode in a child.

        Raises:
            MediaError: the file is refused, took too long, or brought the child down.
        """
        child = await self._idle.get()
        try:
            async with asyncio.timeout(self.limits.wall_s):
                found = await child.decode(kind, data, sampling, fps)
        except MediaError:
            self._put_back(child)
            raise
        except TimeoutError:
            self._replace(child, "too late")
            most = self.limits.wall_s
            raise MediaError(422, "decode_timeout", f"decoding takes over {most:g} s") from None
        except asyncio.CancelledError:
            self._replace(child, "its client went away")
            raise
        except Exception as error:  # whatever it is: the child is not to be trusted any more
            self._replace(child, f"{type(error).__name__}")
            raise MediaError(422, "decode_failed", "the file cannot be decoded") from None
        self._put_back(child)
        return found

    def _put_back(self, child: _Child) -> None:
        if self._closed:
            child.kill()
        else:
            self._idle.put_nowait(child)

    def _replace(self, child: _Child, why: str) -> None:
        child.kill()
        self.replaced += 1
        log.warning("decoder replaced", extra={"why": why})
        if not self._closed:
            task = asyncio.get_running_loop().create_task(self._again())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _again(self) -> None:
        while not self._closed:
            try:
                return await self._add()
            except (BadChild, TimeoutError, OSError):
                log.exception("decoder does not start")
                await asyncio.sleep(1)

    def close(self) -> None:
        """Kill all; twice is once."""
        self._closed = True
        for task in self._starting:
            task.cancel()
        while not self._idle.empty():
            self._idle.get_nowait().kill()
