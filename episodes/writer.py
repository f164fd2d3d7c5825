"""Writing episodes so that one that was acknowledged is there after a crash, and no other is."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import images
from .errors import EpisodeError, EpisodeTooLargeError, StoreFullError
from .format import (
    DTYPES,
    MANIFEST,
    MAX_JSON,
    NAME,
    ArrayMeta,
    array_json,
    encode_chunk,
    group_json,
    manifest_json,
)

BYTE_BUDGET = 1 << 30
"""Most bytes of one episode, decoded arrays plus compressed images; reader and writer agree."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMP, _LOCK = ".tmp-", ".writer-"


class EpisodeWriter:
    """Adds episodes to a store; any number of writers may work on one store at once.

    An episode is kept in memory until :meth:`EpisodeBuilder.finish`, then written to a hidden
    folder, flushed to disk and renamed into place. Every writer holds a lock file of its own; what
    a dead writer left behind is swept by the next one that starts.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        lossless: bool = False,
        jpeg_quality: int = 90,
        byte_budget: int = BYTE_BUDGET,
    ) -> None:
        """Open a store, making the folder if need be.

        Args:
            store: folder of the episodes, on a local file system.
            lossless: store RGB frames as PNG in place of JPEG.
            jpeg_quality: 1 to 100.
            byte_budget: most bytes of one episode; readers have the same limit.

        Raises:
            ValueError: jpeg_quality out of range.
            StoreFullError: no room for a lock file.
        """
        if not 1 <= jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be in 1..100, got {jpeg_quality}")
        filelock = _filelock()
        self.store = Path(store).absolute()
        self.lossless = lossless
        self.jpeg_quality = jpeg_quality
        self.byte_budget = byte_budget
        self.identity = secrets.token_hex(4)
        self._count = 0
        self._count_lock = threading.Lock()
        self._closed = False
        try:
            if not self.store.is_dir():
                self.store.mkdir(parents=True, exist_ok=True)
                _sync_folder(self.store.parent)
            # A sweep must not see the lock file of a writer that has yet to lock it.
            with filelock.FileLock(self.store / ".lock", timeout=60):
                self._sweep()
                self._lock = _own_lock(self.store, self.identity)
                self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise EpisodeError(f"another writer has held {self.store}/.lock for 60 s") from None
        except OSError as error:
            raise _typed(error, self.store) from error

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. Episodes that were not finished are dropped."""
        if not self._closed:
            self._closed = True
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def episode(
        self,
        task: str,
        instruction: str = "",
        attrs: Mapping[str, Any] | None = None,
        rate_hz: float = 20.0,
    ) -> EpisodeBuilder:
        """Begin an episode.

        Args:
            task: id of the task.
            instruction: what the robot was asked to do, in words.
            attrs: anything else that JSON holds: seeds, versions, randomization.
            rate_hz: steps per second.

        Raises:
            ValueError: the writer is closed, rate_hz is not > 0 or attrs are not JSON.
        """
        if self._closed:
            raise ValueError("the writer is closed")
        return EpisodeBuilder(self, task, instruction, dict(attrs or {}), rate_hz)

    def _sweep(self) -> None:
        """Remove the temporary folders of writers that hold no lock any more."""
        with os.scandir(self.store) as entries:
            names = [entry.name for entry in entries]
        dead = {name[len(_TEMP) :].split("-")[0] for name in names if name.startswith(_TEMP)}
        dead |= {name[len(_LOCK) :].split(".")[0] for name in names if name.startswith(_LOCK)}
        for identity in dead:
            lock = _own_lock(self.store, identity)
            try:
                lock.acquire(timeout=0)
            except _filelock().Timeout:
                continue  # alive
            for name in names:
                if name.startswith(f"{_TEMP}{identity}-"):
                    shutil.rmtree(self.store / name)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _commit(self, files: dict[str, bytes]) -> str:
        """Write, flush, rename, flush: returns the id of an episode that a power cut leaves."""
        if self._closed:
            raise ValueError("the writer is closed")
        with self._count_lock:
            self._count += 1
            number = self._count
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        episode = f"{stamp}-{self.identity}-{number:06d}"
        files = {**files, MANIFEST: manifest_json(episode, files)}
        temp = self.store / f"{_TEMP}{self.identity}-{number:06d}"
        try:
            folders = {temp}
            for path, raw in files.items():
                file = temp / path
                if file.parent not in folders:
                    folders |= set(file.parents) - set(temp.parents)
                file.parent.mkdir(parents=True, exist_ok=True)
                _write_synced(file, raw)
            for folder in sorted(folders, reverse=True):
                _sync_folder(folder)
            os.rename(temp, self.store / episode)
        except BaseException as error:
            shutil.rmtree(temp, ignore_errors=True)
            if isinstance(error, OSError):
                raise _typed(error, self.store) from error
            raise
        _sync_folder(self.store)
        return episode


class EpisodeBuilder:
    """One episode being recorded. Leaving the ``with`` block without finish() drops it."""

    def __init__(
        self,
        writer: EpisodeWriter,
        task: str,
        instruction: str,
        attrs: dict[str, Any],
        rate_hz: float,
    ) -> None:
        if not (np.isfinite(rate_hz) and rate_hz > 0):
            raise ValueError(f"rate_hz must be > 0, got {rate_hz}")
        self._writer = writer
        self._attributes: dict[str, Any] = {
            "task": task,
            "instruction": instruction,
            "rate_hz": float(rate_hz),
            "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "attrs": attrs,
        }
        self._check_attributes()
        self._steps: dict[str, list[NDArray[Any]]] = {}
        self._cameras: dict[str, tuple[images.ImageSpec, list[bytes]]] = {}
        self._length = 0
        self._bytes = 0
        self._over = False

    def __enter__(self) -> EpisodeBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True

    def __len__(self) -> int:
        return self._length

    def append(
        self,
        step: Mapping[str, ArrayLike],
        frames: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Add one step; nothing is kept of a step that raises.

        Args:
            step: name ("obs", "action", "reward/goal", ...) to number or array; the same names,
                shapes and types at every step.
            frames: camera to (H, W, 3) uint8 RGB, or (H, W) uint8 labels or uint16 depth. A camera
                slower than the control rate leaves steps out: its last frame holds. The first step
                must have a frame of every camera.

        Raises:
            ValueError: a name, shape or type is not that of the first step, or not storable.
            EpisodeTooLargeError: the episode would be over the byte budget.
        """
        if self._over:
            raise ValueError("the episode is over")
        values = {name: np.array(value) for name, value in step.items()}
        frames = frames or {}
        if self._length == 0:
            self._begin(values, frames)
        if values.keys() != self._steps.keys():
            raise ValueError(f"step must hold {sorted(self._steps)}, got {sorted(values)}")
        for name, value in values.items():
            first = self._steps[name][0] if self._length else value
            if value.shape != first.shape or value.dtype != first.dtype:
                raise ValueError(
                    f"{name} must be {first.shape} {first.dtype}, got {value.shape} {value.dtype}"
                )
        blobs = {camera: self._encode(camera, image) for camera, image in frames.items()}
        size = sum(value.nbytes for value in values.values())
        size += sum(map(len, blobs.values())) + 8 * len(self._cameras)
        if self._bytes + size > self._writer.byte_budget:
            raise EpisodeTooLargeError(
                f"episode must stay under {self._writer.byte_budget} bytes, "
                f"step {self._length} takes it to {self._bytes + size}"
            )
        self._bytes += size
        self._length += 1
        for name, value in values.items():
            self._steps[name].append(value)
        for camera, (_, stored) in self._cameras.items():
            stored.append(blobs.get(camera, b""))

    def finish(self, outcome: Mapping[str, Any] | str) -> str:
        """Store the episode and return its id: from then on it survives a crash.

        After an error nothing is stored and finish() may be called again.

        Raises:
            ValueError: no steps, or outcome is not JSON.
            StoreFullError: no room on the disk.
        """
        if self._over:
            raise ValueError("the episode is over")
        if self._length == 0:
            raise ValueError("an episode must have at least one step, got 0")
        self._attributes["outcome"] = outcome if isinstance(outcome, str) else dict(outcome)
        self._attributes["steps"] = self._length
        self._check_attributes()
        files = {"zarr.json": group_json(self._attributes)}
        for name, values in self._steps.items():
            _add_array(files, name, np.stack(values))
        for camera, (spec, blobs) in self._cameras.items():
            folder = f"frames/{camera}"
            _add_groups(files, f"{folder}/data")
            files[f"{folder}/zarr.json"] = group_json(
                {"codec": spec.codec, "shape": list(spec.shape), "dtype": spec.dtype}
            )
            offsets = np.cumsum([0, *map(len, blobs)], dtype=np.int64)
            _add_array(files, f"{folder}/data", np.frombuffer(b"".join(blobs), np.uint8))
            _add_array(files, f"{folder}/offsets", offsets)
        episode = self._writer._commit(files)
        self._over = True
        return episode

    def _begin(self, values: dict[str, NDArray[Any]], frames: Mapping[str, NDArray[Any]]) -> None:
        for name, value in values.items():
            if not NAME.fullmatch(name) or name.split("/")[0] == "frames":
                raise ValueError(f"name must match {NAME.pattern}, not frames/..., got {name!r}")
            if any(other.startswith(f"{name}/") for other in values):
                raise ValueError(f"{name!r} is an array and cannot hold others")
            if value.dtype.name not in DTYPES or value.size == 0 or value.ndim > 7:
                raise ValueError(
                    f"{name} must be non-empty with one of {DTYPES}, "
                    f"got {value.shape} {value.dtype}"
                )
        cameras = {}
        for camera, image in frames.items():
            if not NAME.fullmatch(camera) or "/" in camera:
                raise ValueError(f"camera must match [A-Za-z0-9_-]+, got {camera!r}")
            jpeg = image.ndim == 3 and not self._writer.lossless
            spec = images.ImageSpec("jpeg" if jpeg else "png", image.shape, image.dtype.name)
            cameras[camera] = (spec, list[bytes]())
        if not values and not cameras:
            raise ValueError("step must hold something, got nothing")
        self._steps = {name: [] for name in values}
        self._cameras = cameras

    def _encode(self, camera: str, image: NDArray[Any]) -> bytes:
        if camera not in self._cameras:
            raise ValueError(f"camera must be one of {sorted(self._cameras)}, got {camera!r}")
        spec = self._cameras[camera][0]
        if image.shape != spec.shape or image.dtype != spec.dtype:
            raise ValueError(
                f"frame of {camera} must be {spec.shape} {spec.dtype}, "
                f"got {image.shape} {image.dtype}"
            )
        return images.encode(image, spec, self._writer.jpeg_quality)

    def _check_attributes(self) -> None:
        try:
            size = len(group_json(self._attributes))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"attributes must be JSON: {error}") from None
        if size > MAX_JSON:
            raise ValueError(f"attributes must be at most {MAX_JSON} bytes of JSON, got {size}")


def _add_groups(files: dict[str, bytes], name: str) -> None:
    """Zarr v3 has no implicit groups: write one for every folder above the array."""
    parts = name.split("/")
    for depth in range(1, len(parts)):
        files.setdefault("/".join([*parts[:depth], "zarr.json"]), group_json({}))


def _add_array(files: dict[str, bytes], name: str, array: NDArray[Any]) -> None:
    _add_groups(files, name)
    meta = ArrayMeta(array.shape, array.dtype.name)
    files[f"{name}/zarr.json"] = array_json(meta)
    files[f"{name}/{meta.chunk_key}"] = encode_chunk(array)


def _filelock() -> Any:
    try:
        import filelock
    except ImportError as error:
        raise ImportError("writing needs filelock: pip install 'incognita[train]'") from error
    return filelock


def _own_lock(store: Path, identity: str) -> Any:
    return _filelock().FileLock(store / f"{_LOCK}{identity}.lock", thread_local=False)


def _write_synced(file: Path, raw: bytes) -> None:
    with open(file, "xb", buffering=0) as out:
        view = memoryview(raw)
        while view:
            view = view[out.write(view) :]
        os.fsync(out.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _typed(error: OSError, store: Path) -> OSError:
    if error.errno not in _FULL:
        return error
    return StoreFullError(error.errno, f"no room in the store ({os.strerror(error.errno)})", store)
