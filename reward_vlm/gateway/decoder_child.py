"""The process that the gateway decodes in: limits on memory and time, no secrets, no files.

Bytes go through memory that both sides map: the file at its start, the frames behind
``Limits.file_bytes``. What is small goes through a socket, as a length and a JSON object. Nothing
is ever unpickled, on either side.
"""

from __future__ import annotations

import json
import math
import mmap
import resource
import socket
import struct
import sys
from typing import Any

import numpy as np

from ..decode import Limits, MediaError, decode, quiet
from ..model import Sampling

LENGTH = struct.Struct(">I")
"""Bytes of JSON that follow."""


def packed(head: dict[str, Any]) -> bytes:
    """A message of the socket."""
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)) + text


def _receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer at the end of the stream."""
    got = b""
    while len(got) < size and (more := sock.recv(size - len(got))):
        got += more
    return got


def _confine(limits: Limits) -> None:
    """No files, no cores, no more memory than allowed."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    top = now + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (top, top))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _job(job: dict[str, Any], arena: mmap.mmap, limits: Limits) -> dict[str, Any]:
    """Decode what lies in the arena and say what was found."""
    try:
        data = arena[: job["bytes"]]
        found = decode(job["kind"], data, Sampling(**job["sampling"]), job["fps"], limits)
    except MediaError as error:
        return {"error": [error.status, error.code, error.detail]}
    except MemoryError:
        return {"error": [413, "memory", "the file takes too much memory"]}
    out = np.frombuffer(arena, np.uint8, found.frames.size, limits.file_bytes)
    out[:] = found.frames.ravel()
    said: dict[str, Any] = {"shape": found.frames.shape, "indices": found.indices.tolist()}
    return said | {"total": found.total, "fps": found.fps}


def main() -> None:
    """Arguments: socket and arena as file descriptors, :class:`Limits` as JSON."""
    quiet()
    limits = Limits(**json.loads(sys.argv[3]))
    arena = mmap.mmap(int(sys.argv[2]), limits.file_bytes + limits.kept_bytes)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        _confine(limits)
        sock.sendall(packed({"ready": True}))
        while len(prefix := _receive(sock, LENGTH.size)) == LENGTH.size:
            job = json.loads(_receive(sock, LENGTH.unpack(prefix)[0]))
            usage = resource.getrusage(resource.RUSAGE_SELF)
            used = math.ceil(usage.ru_utime + usage.ru_stime + limits.wall_s)
            resource.setrlimit(resource.RLIMIT_CPU, (used, hard))
            sock.sendall(packed(_job(job, arena, limits)))


if __name__ == "__main__":
    main()
