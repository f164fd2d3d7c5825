"""Media to frames: mp4, npz and single JPEG or PNG images, under limits.

The gateway calls this in a child process that can be killed, see :mod:`.gateway.decoder`; in one's
own process it is for files that one trusts.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .model import Sampling

Kind = Literal["mp4", "npz", "image"]
CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4")
"""Video codecs taken, of the hundreds that FFmpeg has."""


class MediaError(Exception):
    """A file that is refused: broken, too large, or not what it says it is."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        """Of HTTP, 4xx."""
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """What a file may cost."""

    file_bytes: int = 32 << 20
    frames: int = 10_000
    """Decoded frames of one video, whatever its header says."""
    pixels: int = 4096 * 2304
    """Of one frame."""
    video_pixels: int = 1_000_000_000
    """Of all frames together: about 2 s of H.264 on one core."""
    kept_bytes: int = 64 << 20
    """Of the frames that are looked at, after scaling."""
    memory_bytes: int = 320 << 20
    """Address space of the child above what it has after its imports."""
    wall_s: float = 5.0
    """The child is killed after this."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be > 0, got {value}")


@dataclass(frozen=True)
class Decoded:
    """The frames that a model looks at."""

    frames: NDArray[np.uint8]
    """(n, H, W, 3) RGB."""
    indices: NDArray[np.int64]
    """(n,) which frames of the video these are."""
    total: int
    """Frames in the video."""
    fps: float
    """Frames a second of the video."""


def decode(
    kind: Kind, data: bytes, sampling: Sampling, fps: float | None, limits: Limits
) -> Decoded:
    """The frames of a file that ``sampling`` asks for.

    Args:
        fps: frames a second; None takes the container's own (mp4 alone has one).

    Raises:
        MediaError: see there.
    """
    if len(data) > limits.file_bytes:
        raise MediaError(413, "file_too_large", f"at most {limits.file_bytes} bytes")
    if not data:
        raise MediaError(422, "empty_file", "the file has no bytes")
    try:
        if kind == "npz":
            return _npz(data, sampling, fps, limits)
        return (
            _mp4(data, sampling, fps, limits) if kind == "mp4" else _image(data, sampling, limits)
        )
    except MemoryError:
        raise MediaError(413, "memory", "decoding takes too much memory") from None


class _Keep:
    """Collects the wanted frames, scaled."""

    def __init__(self, indices: NDArray[np.int64], sampling: Sampling, limits: Limits) -> None:
        self.wanted = {int(index): n for n, index in enumerate(indices)}
        self.side, self.limits = sampling.side, limits
        self.frames: NDArray[np.uint8] | None = None

    def offer(self, index: int, frame: NDArray[np.uint8]) -> None:
        frame = scaled(frame, self.side)
        if self.frames is None:
            shape = (len(self.wanted), *frame.shape)
            if math.prod(shape) > self.limits.kept_bytes:
                most = self.limits.kept_bytes
                raise MediaError(413, "too_many_pixels", f"frames looked at: at most {most} bytes")
            self.frames = np.empty(shape, np.uint8)
        self.frames[self.wanted[index]] = frame


def scaled(frame: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """(H, W, 3) with its longer side at most ``side``, by area."""
    height, width = frame.shape[:2]
    if side is None or max(height, width) <= side:
        return frame
    import cv2

    ratio = side / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _check_size(width: int, height: int, limits: Limits) -> None:
    if min(width, height) < 1:
        raise MediaError(422, "no_pixels", "a frame has no pixels")
    if width * height > limits.pixels:
        raise MediaError(413, "frame_too_large", f"a frame has at most {limits.pixels} pixels")


def _check_count(count: int, pixels: int, limits: Limits) -> None:
    if count < 1:
        raise MediaError(422, "no_frames", "no frames in the file")
    if count > limits.frames:
        raise MediaError(413, "too_many_frames", f"at most {limits.frames} frames")
    if count * pixels > limits.video_pixels:
        most = limits.video_pixels
        raise MediaError(413, "video_too_large", f"at most {most} pixels in all frames together")


def _npz(data: bytes, sampling: Sampling, fps: float | None, limits: Limits) -> Decoded:
    if fps is None:
        raise MediaError(422, "fps_missing", "npz frames need fps in the request")
    if data[:4] != b"PK\x03\x04" or data[-22:-18] != b"PK\x05\x06" or data[-2:] != b"\0\0":
        raise MediaError(422, "not_npz", "not an npz file")
    if struct.unpack("<H", data[-12:-10])[0] != 1:  # before zipfile reads the directory
        raise MediaError(422, "not_npz", "wanted one array named frames")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (member,) = archive.infolist()
            if member.filename != "frames.npy":
                raise MediaError(422, "not_npz", "wanted one array named frames")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise MediaError(422, "not_npz", "compression must be none or deflate")
            if member.flag_bits & 1:
                raise MediaError(422, "not_npz", "encrypted")
            with archive.open(member) as file:
                return _npy(file, member.file_size, sampling, fps, limits)
    except (zipfile.BadZipFile, EOFError, ValueError, OverflowError, NotImplementedError):
        raise MediaError(422, "damaged", "the npz file is damaged") from None
    except Exception as error:  # zlib.error, struct.error: zipfile lets several through
        if isinstance(error, MediaError | MemoryError):
            raise
        raise MediaError(422, "damaged", "the npz file is damaged") from None


def _npy(file: Any, size: int, sampling: Sampling, fps: float, limits: Limits) -> Decoded:
    """Frames of an npy stream, one at a time: no more memory than what is kept."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise MediaError(422, "not_npz", "wanted npy version 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=1000)
    if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3:
        raise MediaError(422, "wrong_array", "frames must be uint8 (T, H, W, 3) in C order")
    count, height, width, _ = (int(n) for n in shape)
    _check_size(width, height, limits)
    _check_count(count, height * width, limits)
    if file.tell() + count * height * width * 3 != size:
        raise MediaError(422, "frame_count", "the array is not as long as its header says")
    indices = sampling.indices(count, fps)
    keep = _Keep(indices, sampling, limits)
    for index in range(count):
        raw = file.read(height * width * 3)
        if len(raw) != height * width * 3:
            raise MediaError(422, "damaged", "the npz file is damaged")
        if index in keep.wanted:
            keep.offer(index, np.frombuffer(raw, np.uint8).reshape(height, width, 3))
    file.read(1)  # the end: here zipfile compares its checksum
    assert keep.frames is not None
    return Decoded(keep.frames, indices, count, fps)


def _mp4(data: bytes, sampling: Sampling, fps: float | None, limits: Limits) -> Decoded:
    import av

    if data[4:8] != b"ftyp":
        raise MediaError(422, "not_mp4", "not an mp4 file")
    try:
        with _opened(data, limits) as (container, stream):
            rate = fps or float(stream.average_rate or 0)
            if not (math.isfinite(rate) and 0 < rate <= 1000):
                raise MediaError(422, "fps_missing", "the video has no frame rate: give fps")
            size = (stream.codec_context.width, stream.codec_context.height)
            _check_size(*size, limits)
            packets = hidden = 0
            for packet in container.demux(stream):
                packets += packet.size > 0
                hidden += packet.size > 0 and packet.is_discard
                _check_count(max(packets, 1), size[0] * size[1], limits)
            if stream.frames and stream.frames != packets:
                said = f"its header says {stream.frames} frames, it has {packets}"
                raise MediaError(422, "frame_count", said)
            total = packets - hidden
            _check_count(total, size[0] * size[1], limits)
        indices = sampling.indices(total, rate)
        return Decoded(_decoded(data, size, total, indices, sampling, limits), indices, total, rate)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        raise MediaError(422, "damaged", "the video is damaged") from None
    except (ValueError, OverflowError, IndexError):
        raise MediaError(422, "damaged", "the video is damaged") from None


@contextlib.contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[tuple[Any, Any]]:
    """Container and its only video stream. No file but this one is ever opened."""
    import av

    with av.open(io.BytesIO(data), format="mp4", options={"enable_drefs": "0"}) as container:
        if len(container.streams.video) != 1:
            raise MediaError(422, "not_mp4", "wanted one video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None or context.name not in (*CODECS, "libdav1d"):
            raise MediaError(415, "codec", f"the codec must be one of {', '.join(CODECS)}")
        context.thread_count = 1
        context.options = {"max_pixels": str(limits.pixels)}
        yield container, stream


def _decoded(
    data: bytes,
    size: tuple[int, int],
    total: int,
    indices: NDArray[np.int64],
    sampling: Sampling,
    limits: Limits,
) -> NDArray[np.uint8]:
    """One pass over the video that keeps the wanted frames."""
    from av.video.reformatter import VideoReformatter

    to_rgb = VideoReformatter()  # kept, with one thread: to_ndarray alone starts threads each time
    keep = _Keep(indices, sampling, limits)
    count = 0
    with _opened(data, limits) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise MediaError(422, "damaged", "the video is damaged")
            if (frame.width, frame.height) != size:
                raise MediaError(422, "size_changes", "its frames are not of one size")
            if count in keep.wanted:
                rgb = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
                keep.offer(count, np.asarray(rgb, np.uint8))
            count += 1
            if count > total:
                break
    if count != total or keep.frames is None:
        raise MediaError(422, "frame_count", f"it has {total} frames, {count} can be decoded")
    return keep.frames


def _image(data: bytes, sampling: Sampling, limits: Limits) -> Decoded:
    import cv2

    width, height = image_size(data)
    _check_size(width, height, limits)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != (height, width):
        raise MediaError(422, "damaged", "the image is damaged")
    rgb = scaled(np.ascontiguousarray(image[..., ::-1]), sampling.side)
    return Decoded(rgb[None], np.zeros(1, np.int64), 1, 1.0)


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header of a JPEG or PNG that has its end too.

    Raises:
        MediaError: neither of the two, or cut short.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        if data[-8:-4] != b"IEND":
            raise MediaError(422, "damaged", "the image is cut short")
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data[:3] != b"\xff\xd8\xff":
        raise MediaError(422, "not_image", "not a JPEG or PNG image")
    if data[-2:] != b"\xff\xd9":
        raise MediaError(422, "damaged", "the image is cut short")
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + max(length, 2)
    raise MediaError(422, "damaged", "the image has no size")


def quiet() -> None:
    """One thread, and no word of what FFmpeg thinks of a file: for a process that only decodes."""
    import av
    import cv2

    av.logging.set_level(None)
    cv2.setNumThreads(1)
