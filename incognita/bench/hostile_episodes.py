"""Episodes made by somebody who means harm, each with a manifest that is right."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from episodes.format import (
    MANIFEST,
    ArrayMeta,
    array_json,
    dump_json,
    encode_chunk,
    manifest_json,
)

UNSPOILT = "nothing: a copy with a manifest made anew"


class Pickled:
    """Touches the canary when unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.canary),)


def zstd_frame(size: int, checksum: bool = True) -> bytes:
    """Zeros as one zstd frame."""
    from numcodecs import zstd

    return bytes(zstd.compress(bytes(size), 1, checksum))


def hostile_cases(canary: Path) -> dict[str, Callable[[Path], None]]:
    """Name to a function that spoils an episode folder; the manifest is then made anew.

    The canary is touched by code that runs, and is the file that links and paths lead to.
    """
    secret = canary.parent / "secret"
    evil = pickle.dumps(Pickled(str(canary)))

    def meta(**changes: Any) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            file = e / "obs/zarr.json"
            file.write_bytes(json.dumps(json.loads(file.read_bytes()) | changes).encode())

        return spoil

    def codecs(*chain: dict[str, Any], chunk: bytes | None = None) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            meta(codecs=list(chain))(e)
            if chunk is not None:
                (e / "obs/c/0/0").write_bytes(chunk)

        return spoil

    def write(path: str, raw: bytes) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            (e / path).parent.mkdir(parents=True, exist_ok=True)
            (e / path).write_bytes(raw)

        return spoil

    def link(path: str, to: Path) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            file = e / path
            shutil.rmtree(file) if file.is_dir() else file.unlink()
            file.symlink_to(to)

        return spoil

    def listed(path: str) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            body = json.loads((e / MANIFEST).read_bytes())["body"]
            body["files"][path] = {"bytes": 6, "sha256": _sha(secret.read_bytes())}
            _write_manifest(e, body)

        return spoil

    def shape(*sizes: Any) -> Callable[[Path], None]:
        chunk_grid = {"name": "regular", "configuration": {"chunk_shape": list(sizes)}}
        return meta(shape=list(sizes), chunk_grid=chunk_grid)

    def framed(chunk: Callable[[int], bytes]) -> Callable[[Path], None]:
        """An array of one float per step over a chunk that is not that."""

        def spoil(e: Path) -> None:
            steps = json.loads((e / "obs/zarr.json").read_bytes())["shape"][0]
            shape(steps)(e)
            shutil.rmtree(e / "obs/c")
            write("obs/c/0", chunk(4 * steps))(e)

        return spoil

    def fifo(e: Path) -> None:
        (e / "obs/c/0/0").unlink()
        os.mkfifo(e / "obs/c/0/0")

    def camera(**changes: Any) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            file = e / "frames/front/zarr.json"
            node = json.loads(file.read_bytes())
            node["attributes"] |= changes
            file.write_bytes(json.dumps(node).encode())

        return spoil

    def blob(data: bytes, codec: str) -> Callable[[Path], None]:
        """Replace all images by one at every step."""

        def spoil(e: Path) -> None:
            offsets = json.loads((e / "frames/front/offsets/zarr.json").read_bytes())["shape"][0]
            ends = np.arange(offsets, dtype=np.int64) * len(data)
            pixels = np.frombuffer(data * (offsets - 1), np.uint8)
            for name, array in (("offsets", ends), ("data", pixels)):
                node = e / "frames/front" / name
                (node / "zarr.json").write_bytes(
                    array_json(ArrayMeta(array.shape, array.dtype.name))
                )
                (node / "c/0").write_bytes(encode_chunk(array))
            camera(codec=codec)(e)

        return spoil

    def offsets(change: Callable[[Any], Any]) -> Callable[[Path], None]:
        def spoil(e: Path) -> None:
            node = e / "frames/front/offsets"
            count = json.loads((node / "zarr.json").read_bytes())["shape"][0]
            ends = np.arange(count, dtype=np.int64)
            total = json.loads((e / "frames/front/data/zarr.json").read_bytes())["shape"][0]
            ends[-1] = total
            changed = change(ends).astype(np.int64)
            assert ArrayMeta(changed.shape, "int64").shape == (count,)
            (node / "c/0").write_bytes(encode_chunk(changed))

        return spoil

    def rise(ends: Any) -> Any:
        ends[2] = ends[-1] + (1 << 40)
        return ends

    def many_files(e: Path) -> None:
        for n in range(5000):
            (e / f"obs/{n}").touch()

    def deep(e: Path) -> None:
        (e / ("d/" * 60)).mkdir(parents=True)
        (e / ("d/" * 60) / "zarr.json").write_bytes(b"{}")

    def heavy_arrays(e: Path) -> None:
        for n in range(12):
            shutil.copytree(e / "obs", e / f"heavy{n}")
            shape_of = json.loads((e / "obs/zarr.json").read_bytes())
            shape_of["shape"] = [shape_of["shape"][0], 1 << 21]
            shape_of["chunk_grid"]["configuration"]["chunk_shape"] = shape_of["shape"]
            (e / f"heavy{n}/zarr.json").write_bytes(json.dumps(shape_of).encode())

    def v2(e: Path) -> None:
        (e / "obs/zarr.json").unlink()
        array = {
            "zarr_format": 2,
            "shape": [1],
            "chunks": [1],
            "dtype": "|O",
            "order": "C",
            "fill_value": None,
        }
        array |= {"compressor": None, "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]}
        (e / "obs/.zarray").write_bytes(json.dumps(array).encode())
        (e / "obs/0").write_bytes(evil)

    raw_bytes = {"name": "bytes", "configuration": {"endian": "little"}}
    zstd_plain = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    shard = {
        "chunk_shape": [1, 720],
        "codecs": [raw_bytes],
        "index_codecs": [raw_bytes],
        "index_location": "end",
    }
    bomb = gzip.compress(bytes(64 << 20))
    png = b"\x89PNG\r\n\x1a\n" + _png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", 16384, 16384, 8, 2, 0, 0, 0)
    )
    png += _png_chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + _png_chunk(b"IEND", b"")
    import simplejpeg

    jpeg = bytearray(simplejpeg.encode_jpeg(np.zeros((32, 32, 3), np.uint8)))
    start_of_frame = jpeg.index(b"\xff\xc0")
    jpeg[start_of_frame + 5 : start_of_frame + 9] = struct.pack(">HH", 30000, 30000)
    unknown = b"\x28\xb5\x2f\xfd\x04\x58" + zstd_frame(64 << 20)[6:]
    nan = b'{"zarr_format":3,"node_type":"group","attributes":{"steps":NaN}}'
    return {
        "chunk is a link to a file outside": link("obs/c/0/0", secret),
        "zarr.json is a link to a file outside": link("obs/zarr.json", secret),
        "manifest is a link to a file outside": link(MANIFEST, secret),
        "array folder is a link to a folder outside": link("obs", secret.parent),
        "chunk is a link to another chunk inside": link("obs/c/0/0", Path("../../../action/c/0/0")),
        "chunk is a FIFO": fifo,
        "manifest lists ../secret": listed("../../outside/secret"),
        "manifest lists an absolute path": listed(str(secret)),
        "manifest lists obs/../../secret": listed("obs/../../../outside/secret"),
        "manifest lists a NUL in a path": listed("obs/\0/zarr.json"),
        "manifest of 2 MiB": write(MANIFEST, b" " * (2 << 20)),
        "file that no manifest lists": write("notes.pkl", evil),
        "Zarr v2 array of objects with pickle": v2,
        "pickle codec": codecs({"name": "numcodecs.pickle", "configuration": {}}, chunk=evil),
        "vlen-utf8 then pickle": codecs({"name": "vlen-utf8"}, {"name": "pickle"}, chunk=evil),
        "data type object": meta(data_type="object"),
        "data type struct": meta(data_type={"name": "struct", "configuration": {"fields": []}}),
        "gzip bomb": codecs(raw_bytes, {"name": "gzip", "configuration": {"level": 9}}, chunk=bomb),
        "blosc codec": codecs(raw_bytes, {"name": "blosc", "configuration": {}}),
        "shards": codecs({"name": "sharding_indexed", "configuration": shard}),
        "zstd without checksum": codecs(raw_bytes, zstd_plain),
        "zstd frame without checksum": write("obs/c/0/0", zstd_frame(720 * 4, checksum=False)),
        "zstd bomb": framed(lambda size: zstd_frame(256 << 20)),
        "zstd bomb behind a good frame": framed(
            lambda size: zstd_frame(size) + zstd_frame(256 << 20)
        ),
        "zstd frame of unknown size": framed(lambda size: unknown),
        "truncated zstd frame": framed(lambda size: zstd_frame(size)[:-3]),
        "shape of 2^39 bytes": shape(1 << 19, 1 << 18),
        "twelve arrays that add up": heavy_arrays,
        "negative shape": shape(-1, 720),
        "shape of booleans": shape(True, 720),
        "shape over 64 bits": shape(1 << 70, 720),
        "storage transformer": meta(storage_transformers=[{"name": "manifest"}]),
        "JSON nested 100,000 deep": write("obs/zarr.json", b"[" * 100_000),
        "JSON of 4 MiB": write("obs/zarr.json", b" " * (4 << 20) + b"{}"),
        "NaN in the attributes": write("zarr.json", nan),
        "5000 files": many_files,
        "folders nested 60 deep": deep,
        "image offsets that fall": offsets(lambda ends: ends[::-1]),
        "image offsets past the end": offsets(rise),
        "negative image offsets": offsets(lambda ends: ends - 5),
        "image of 2^40 pixels in the metadata": camera(shape=[1 << 20, 1 << 20, 3]),
        "image codec pickle": camera(codec="pickle"),
        "16k x 16k PNG": blob(png, "png"),
        "30k x 30k JPEG": blob(bytes(jpeg), "jpeg"),
    }  # fmt: skip


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _write_manifest(episode: Path, body: dict[str, Any]) -> None:
    whole_file = {"body": body, "sha256": _sha(dump_json(body))}
    (episode / MANIFEST).write_bytes(dump_json(whole_file))


def remake_manifest(episode: Path) -> None:
    """As the attacker would: every plain file, with its true hash."""
    files = {}
    for path in sorted(episode.rglob("*")):
        name = path.relative_to(episode).as_posix()
        if name == MANIFEST or (path.is_dir() and not path.is_symlink()):
            continue
        files[name] = path.read_bytes() if path.is_file() else b"secret"
    (episode / MANIFEST).write_bytes(manifest_json(episode.name, files))
