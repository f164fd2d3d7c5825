"""The bytes of an episode on disk: strict Zarr v3, one zstd chunk with checksum per array.

An episode is a folder that any Zarr v3 library opens::

    <id>/zarr.json                     group; attributes: task, instruction, outcome, versions, ...
    <id>/<name>/zarr.json, c/0/...     one (T, ...) array per quantity, one chunk
    <id>/frames/<camera>/zarr.json     group; attributes: codec ("jpeg" or "png"), shape, dtype
    <id>/frames/<camera>/data          all images of the camera, end to end, uint8
    <id>/frames/<camera>/offsets       (T + 1,) int64; image i is data[offsets[i]:offsets[i + 1]]
    <id>/manifest.json                 length and sha256 of every file above, and its own sha256

We write this one subset and read nothing else. Metadata and chunk are handled here and not by
zarr-python: it costs 1.6 ms an array, has codecs that run code (pickle), allocates what the
metadata claims, reads a missing chunk as zeros, and would have to be installed on every robot that
records. The tests hold both ways against zarr-python.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import RefusedEpisodeError

DTYPES = tuple(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
"""Data types that an episode may hold. No objects, no strings."""
ZSTD_LEVEL = 1
"""Level 1: scans and JPEG hardly shrink further, and the writer may run on a robot."""
MAX_JSON = 1 << 20
"""Longest metadata file, bytes."""
MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}-[0-9]{6}", re.ASCII)
"""Start in UTC, writer, number: sorts by time."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}", re.ASCII)


@dataclass(frozen=True)
class ArrayMeta:
    """What a chunk must decode to."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk_key(self) -> str:
        return "/".join(["c", *("0" for _ in self.shape)])


def dump_json(value: object) -> bytes:
    """JSON as we write it; raises ValueError for NaN and TypeError for what JSON cannot hold."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def load_json(raw: bytes, name: str) -> dict[str, Any]:
    """Parse an object; raises RefusedEpisodeError for anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(raw, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RefusedEpisodeError(f"{name} must be JSON, got {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise RefusedEpisodeError(f"{name} must hold an object, got {type(value).__name__}")
    return value


def group_json(attributes: dict[str, Any]) -> bytes:
    return dump_json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def parse_node(raw: bytes, name: str) -> ArrayMeta | dict[str, Any]:
    """Read a zarr.json: what an array decodes to, or the attributes of a group.

    Raises:
        RefusedEpisodeError: it is not, key for key, what we write: another format version, codec,
            chunk grid, key encoding or transformer, or no JSON.
    """
    value = load_json(raw, name)
    return _array(value, name) if value.get("node_type") == "array" else _group(value, name)


def _group(value: dict[str, Any], name: str) -> dict[str, Any]:
    attributes = value.get("attributes")
    want = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if value != want or not isinstance(attributes, dict):
        raise RefusedEpisodeError(f"{name} must be a plain Zarr v3 group, got keys {sorted(value)}")
    return attributes


def _array_dict(meta: ArrayMeta) -> dict[str, Any]:
    dtype = np.dtype(meta.dtype)
    fill: bool | int | float = {"b": False, "f": 0.0}.get(dtype.kind, 0)
    to_bytes: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        to_bytes["configuration"] = {"endian": "little"}
    shape = list(meta.shape)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": meta.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [
            to_bytes,
            {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": True}},
        ],
        "attributes": {},
        "storage_transformers": [],
    }


@lru_cache(maxsize=256)
def array_json(meta: ArrayMeta) -> bytes:
    return dump_json(_array_dict(meta))


def _array(value: dict[str, Any], name: str) -> ArrayMeta:
    shape, dtype = value.get("shape"), value.get("data_type")
    if dtype not in DTYPES:
        raise RefusedEpisodeError(f"{name}: data_type must be one of {DTYPES}, got {dtype!r:.60}")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 8
        or not all(type(n) is int and 1 <= n < 1 << 40 for n in shape)
    ):
        raise RefusedEpisodeError(f"{name}: shape must be 1 to 8 sizes >= 1, got {shape!r:.60}")
    meta = ArrayMeta(tuple(shape), dtype)
    want = _array_dict(meta)
    for key in sorted(want.keys() | value.keys()):
        if key not in want or key not in value or value[key] != want[key]:
            got = repr(value.get(key, "nothing"))[:80]
            raise RefusedEpisodeError(
                f"{name}: {key} must be {want.get(key, 'absent')!r:.120}, got {got}"
            )
    return meta


def encode_chunk(array: NDArray[Any]) -> bytes:
    """One zstd frame with content size and checksum."""
    data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return bytes(_zstd().compress(data, ZSTD_LEVEL, True))


def decode_chunk(chunk: bytes, meta: ArrayMeta, name: str) -> NDArray[Any]:
    """Decode into a fresh array of exactly the declared size.

    Raises:
        RefusedEpisodeError: the frame has no checksum, or says another size than the metadata.
        ValueError, RuntimeError: the frame does not decode.
    """
    size = _frame_size(chunk)
    if size != meta.nbytes:
        raise RefusedEpisodeError(f"{name}: chunk must hold {meta.nbytes} bytes, says {size}")
    out = np.empty(meta.shape, np.dtype(meta.dtype).newbyteorder("<"))
    _zstd().decompress(chunk, out)
    return out.astype(meta.dtype, copy=False)


def _zstd() -> Any:
    try:
        from numcodecs import zstd
    except ImportError as error:
        raise ImportError("episodes need numcodecs: pip install 'incognita[train]'") from error
    return zstd


def _frame_size(chunk: bytes) -> int | None:
    """Content size of a zstd frame with checksum and no dictionary, else None (RFC 8878, 3.1.1)."""
    if len(chunk) < 14 or chunk[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = chunk[4]
    single, checksum, reserved_or_dict = flags & 0x20, flags & 0x04, flags & 0x0B
    width = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if not checksum or reserved_or_dict or not width:
        return None
    start = 5 if single else 6
    size = int.from_bytes(chunk[start : start + width], "little")
    return size + 256 if width == 2 else size


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def manifest_json(episode: str, files: dict[str, bytes]) -> bytes:
    listed = {path: {"bytes": len(raw), "sha256": sha256(raw)} for path, raw in files.items()}
    body = {"version": MANIFEST_VERSION, "episode": episode, "files": listed}
    return dump_json({"body": body, "sha256": sha256(dump_json(body))})


def parse_manifest(raw: bytes, episode: str) -> dict[str, tuple[int, str]] | str:
    """{path: (bytes, sha256)} of every file, or what is wrong with these bytes."""
    try:
        value = load_json(raw, MANIFEST)
        body = value["body"]
        if value["sha256"] != sha256(dump_json(body)) or dump_json(value) != raw:
            return "its sha256 does not match"
        if body["version"] != MANIFEST_VERSION:
            return f"version must be {MANIFEST_VERSION}, got {body['version']!r:.40}"
        if body["episode"] != episode:
            return f"it belongs to episode {body['episode']!r:.60}"
        files = {
            path: (int(entry["bytes"]), str(entry["sha256"]))
            for path, entry in cast(dict[str, Any], body["files"]).items()
        }
        if any(size < 0 for size, _ in files.values()):
            return "negative size"
    except (RefusedEpisodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        return f"not a manifest ({type(error).__name__})"
    return files
