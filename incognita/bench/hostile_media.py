"""Files made by somebody who means harm to the reward service: videos, arrays, images.

Bombs are built small: what they would become is larger than any limit, the file is not.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hostile_episodes import Pickled
from .reward_stand import clip_frames, mp4, npz

MP4, NPZ = "video/mp4", "application/x-npz"

# Video.


def repeated(frame: NDArray[np.uint8], count: int, codec: str = "mpeg4") -> bytes:
    """A video of one key frame, ``count`` times, without encoding it so often."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        packets = list(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        data = bytes((packets + list(stream.encode()))[0])
        for n in range(count):
            copy = av.Packet(data)
            copy.stream, copy.is_keyframe = stream, True
            copy.pts = copy.dts = n
            copy.time_base = Fraction(1, 30)
            copy.duration = 1
            container.mux(copy)
    return out.getvalue()


def _encoded(count: int = 20, side: int = 64, **options: str) -> bytes:
    """As :func:`mp4`, with options of the container."""
    import av

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # faststart writes it twice
        with av.open(file.name, "w", options=options) as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height = stream.width = side
            stream.pix_fmt = "yuv420p"
            for frame in clip_frames(1, count, side):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()


def _audio_only() -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def _two_streams() -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream in streams:
            stream.height = stream.width = 32
            stream.pix_fmt = "yuv420p"
        for stream in streams:
            for frame in clip_frames(1, 4, 32):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return out.getvalue()


def _patched(data: bytes, atom: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite bytes ``offset`` behind the name of an atom."""
    at = data.index(atom) + 4 + offset
    return data[:at] + new + data[at + len(new) :]


def videos() -> dict[str, bytes]:
    """Name -> an mp4 file, or what calls itself one."""
    good, fast = mp4(clip_frames(1)), _encoded(movflags="faststart")
    pieces = _encoded(movflags="frag_keyframe+empty_moov+default_base_moof")
    noise = np.random.default_rng(0).bytes(4096)
    mdat = good.index(b"mdat") + 4
    end = good.index(b"moov") - 4
    dark = np.zeros((1088, 1920, 3), np.uint8)
    nested = b"".join(struct.pack(">I", 8 * n) + b"moov" for n in range(5000, 0, -1))
    path = b"file:///etc/hostname\0"
    dref = _patched(good, b"url ", 0, b"\0\0\0\0")  # not "in this file" any more
    return {
        "mp4: no bytes": b"",
        "mp4: its magic alone": good[:12],
        "mp4: first half": good[: len(good) // 2],
        "mp4: last 200 bytes gone": good[:-200],
        "mp4: index whole, frames cut short": fast[: len(fast) - 400],
        "mp4: fragments cut short": pieces[: len(pieces) // 2],
        "mp4: says 1000 frames more": _patched(good, b"stsz", 8, struct.pack(">I", 1020)),
        "mp4: says 5 frames": _patched(good, b"stsz", 8, struct.pack(">I", 5)),
        "mp4: says 2^32-1 frames": _patched(good, b"stsz", 8, b"\xff" * 4),
        "mp4: frames of zeros": good[:mdat] + bytes(end - mdat) + good[end:],
        "mp4: frames of noise": good[:mdat] + (noise * 9)[: end - mdat] + good[end:],
        "mp4: noise behind the magic": good[:32] + noise,
        "mp4: atoms nested 5000 deep": good[:32] + nested,
        "mp4: atom of 2^32-1 bytes": good[:32] + b"\xff\xff\xff\xffmoov",
        "mp4: 100,000 frames": repeated(np.zeros((16, 16, 3), np.uint8), 100_000),
        "mp4: 36,000 frames": repeated(np.zeros((32, 32, 3), np.uint8), 36_000),
        "mp4: frames of 5120 x 5120": repeated(np.zeros((5120, 5120, 3), np.uint8), 2),
        "mp4: 1000 frames of 1920 x 1088": repeated(dark, 1000),
        "mp4: MJPEG inside": repeated(np.zeros((32, 32, 3), np.uint8), 4, "mjpeg"),
        "mp4: sound alone": _audio_only(),
        "mp4: two videos": _two_streams(),
        "mp4: frames in a file outside": dref.replace(b"url \0\0\0\0", b"url \0\0\0\0" + path, 1),
        "mp4: a GIF": b"GIF89a" + noise,
        "mp4: a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + noise,
        "mp4: an HLS list": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        "mp4: a concat script": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "mp4: an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc"/></svg>',
    }  # fmt: skip


# Arrays.


def npy(shape: str, data: bytes, *, descr: str = "'|u1'", fortran: str = "False") -> bytes:
    """An npy file whose header says what it likes."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def _bomb(size: int, shape: str) -> bytes:
    return zipped(("frames.npy", npy(shape, bytes(size))))


def arrays(canary: Path) -> dict[str, bytes]:
    """Name -> an npz file, or what calls itself one. The canary is touched by code that runs."""
    frames = clip_frames(2, 10, 16)
    good, raw = npz(frames), frames.tobytes()
    evil = pickle.dumps(Pickled(str(canary)))
    hidden = np.empty(1, object)
    hidden[0] = Pickled(str(canary))

    def said(shape: str, data: bytes = raw, **header: str) -> bytes:
        return zipped(("frames.npy", npy(shape, data, **header)))

    def directory(offset: int, new: bytes) -> bytes:
        """The good archive with its central directory changed."""
        return _patched(good, b"PK\x01\x02", offset - 4, new)

    bomb = _bomb(64 << 20, "(20, 1024, 1024, 3)")
    at = bomb.index(b"PK\x01\x02") + 24
    return {
        "npz: no bytes": b"",
        "npz: a pickle": evil,
        "npz: an array of objects with a pickle": npz(hidden),
        "npz: a pickle named frames.npy": zipped(("frames.npy", evil)),
        "npz: bomb of 384 MiB": _bomb(384 << 20, "(32, 2048, 2048, 3)"),
        "npz: bomb that says 100 bytes": bomb[:at] + struct.pack("<I", 100) + bomb[at + 4 :],
        "npz: bomb in a bomb": zipped(("frames.npy", _bomb(64 << 20, "(1, 1, 1, 3)"))),
        "npz: 5000 members": zipped(*((f"{n}.npy", b"") for n in range(5000))),
        "npz: second member": npz(frames, more=frames),
        "npz: hidden second member": _one_entry(npz(frames, more=frames)),
        "npz: member ../../frames.npy": zipped(("../../frames.npy", npy("(1,1,1,3)", b"abc"))),
        "npz: member with another name": zipped(("video.npy", npy("(1, 1, 1, 3)", b"abc"))),
        "npz: encrypted": directory(8, b"\x01\x00"),
        "npz: bzip2": zipped(("frames.npy", npy("(1,1,1,3)", b"abc")), method=zipfile.ZIP_BZIP2),
        "npz: unknown compression": directory(10, b"\x63\x00"),
        "npz: directory elsewhere": good[:-6] + struct.pack("<I", 1 << 30) + good[-2:],
        "npz: wrong checksum": _patched(good, b"\x93NUMPY", 400, b"\x00\x01\x02\x03\x04\x05"),
        "npz: first half": good[: len(good) // 2],
        "npz: 100,000 frames": _bomb(300_000, "(100000, 1, 1, 3)"),
        "npz: says 1000 frames": said("(1000, 16, 16, 3)"),
        "npz: says 5 frames": said("(5, 16, 16, 3)"),
        "npz: says 16384 x 16384": said("(1, 16384, 16384, 3)"),
        "npz: says 2^62 frames": said(f"({1 << 62}, 16, 16, 3)"),
        "npz: says -10 frames": said("(-10, 16, 16, 3)"),
        "npz: says 1e1 frames": said("(1e1, 16, 16, 3)"),
        "npz: says True frames": said("(True, 16, 16, 3)"),
        "npz: no frames": said("(0, 16, 16, 3)", b""),
        "npz: frames without pixels": said("(10, 0, 16, 3)", b""),
        "npz: four channels": said("(10, 16, 12, 4)"),
        "npz: one frame without time": said("(160, 16, 3)"),
        "npz: float32": npz(frames.astype(np.float32)),
        "npz: column order": said("(10, 16, 16, 3)", fortran="True"),
        "npz: records": said("(10, 16, 16, 3)", descr="[('a', '|u1'), ('b', '|O')]"),
        "npz: header that is code": said("__import__('os').system('true')"),
        "npz: header nested deep": said("(" * 5000 + ")" * 5000),
        "npz: npy version 9": zipped(("frames.npy", b"\x93NUMPY\x09\x00" + bytes(100))),
        "npz: a gzip file": gzip.compress(raw),
        "npz: a video": mp4(frames),
    }  # fmt: skip


def _one_entry(archive: bytes) -> bytes:
    """The end of an archive changed to say that it has one member."""
    return archive[:-14] + struct.pack("<HH", 1, 1) + archive[-10:]


# Images, for streams.


def images() -> dict[str, bytes]:
    """Name -> a message that is no image to be taken."""
    import cv2

    good = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    frame = good.index(b"\xff\xc0")
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", 16384, 16384, 8, 2, 0, 0, 0)
    )
    png += png_chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + png_chunk(b"IEND", b"")
    return {
        "image: no bytes": b"",
        "image: 16384 x 16384 PNG": png,
        "image: 30000 x 30000 JPEG": good[: frame + 5]
        + struct.pack(">HH", 30000, 30000)
        + good[frame + 9 :],
        "image: JPEG cut short": good[: len(good) // 2],
        "image: JPEG of noise": good[:200] + np.random.default_rng(0).bytes(300) + b"\xff\xd9",
        "image: PNG without pixels": png[:33] + png_chunk(b"IEND", b""),
        "image: a GIF": b"GIF89a" + bytes(100),
        "image: a BMP": b"BM" + bytes(100),
        "image: a TIFF": b"II*\0" + bytes(100),
        "image: a URL": b"http://127.0.0.1:9/x.png",
    }


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Good files, damaged.


def mutations(count: int, seed: int) -> list[tuple[str, bytes]]:
    """(type, bytes) of good files with bits flipped, bytes moved and ends cut."""
    rng = np.random.default_rng(seed)
    bases: list[tuple[str, bytes]] = [
        (MP4, mp4(clip_frames(4))),
        (MP4, _encoded(movflags="faststart")),
        (NPZ, npz(clip_frames(4, 5, 16))),
        (NPZ, zipped(("frames.npy", npy("(5, 16, 16, 3)", clip_frames(4, 5, 16).tobytes())))),
    ]
    changes: list[Callable[[bytearray], None]] = [_flip(rng), _move(rng), _cut(rng)]
    found = []
    for n in range(count):
        kind, good = bases[n % len(bases)]
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 6))):
            changes[int(rng.integers(len(changes)))](data)
        found.append((kind, bytes(data)))
    return found


def _flip(rng: np.random.Generator) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        for _ in range(8):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))

    return change


def _move(rng: np.random.Generator) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        a, b = (int(n) for n in rng.integers(0, len(data), 2))
        data[a : a + 16], data[b : b + 16] = data[b : b + 16], data[a : a + 16]

    return change


def _cut(rng: np.random.Generator) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        del data[int(rng.integers(len(data) // 2, len(data))) :]

    return change
