"""Camera frames as JPEG or PNG blobs, with the header checked before anything is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import RefusedEpisodeError

MAX_PIXELS = 1 << 24
"""Largest image, 4096 x 4096."""


@dataclass(frozen=True)
class ImageSpec:
    """Kind of every image of one camera."""

    codec: str
    """"jpeg" for lossy RGB; "png" for lossless RGB, labels (uint8) or depth (uint16)."""
    shape: tuple[int, ...]
    """(H, W, 3) or (H, W)."""
    dtype: str
    """"uint8" or "uint16"."""

    def __post_init__(self) -> None:
        ok = (
            self.codec in ("jpeg", "png")
            and len(self.shape) in (2, 3)
            and self.shape[2:] in ((), (3,))
            and all(type(n) is int and n >= 1 for n in self.shape)
            and self.shape[0] * self.shape[1] <= MAX_PIXELS
            and (self.dtype == "uint8" or (self.dtype == "uint16" and len(self.shape) == 2))
            and (self.codec == "png" or len(self.shape) == 3)
        )
        if not ok:
            raise ValueError(
                "image must be (H, W, 3) uint8, or (H, W) uint8 or uint16, of at most "
                f"{MAX_PIXELS} pixels, got {self.codec!r:.20} {self.shape!r:.60} {self.dtype!r:.20}"
            )

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def encode(image: NDArray[Any], spec: ImageSpec, quality: int) -> bytes:
    """Compress one image of the camera's shape."""
    if spec.codec == "jpeg":
        return bytes(
            _simplejpeg().encode_jpeg(
                np.ascontiguousarray(image), quality=quality, colorsubsampling="420"
            )
        )
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, blob = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError(f"image of shape {image.shape} could not be compressed")
    return blob.tobytes()


def decode(blob: bytes, spec: ImageSpec, name: str) -> NDArray[Any]:
    """Decompress one image.

    Raises:
        RefusedEpisodeError: the header shows another kind or size than the camera's, or the
            image does not decode.
    """
    try:
        if spec.codec == "jpeg":
            simplejpeg = _simplejpeg()
            height, width, _, _ = simplejpeg.decode_jpeg_header(blob)
            if (height, width, 3) != spec.shape:
                raise ValueError(f"header says {height} x {width}")
            image: NDArray[Any] | None = simplejpeg.decode_jpeg(blob, "RGB")
        else:
            _check_png(blob, spec)
            image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED)
            if image is not None and image.ndim == 3:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    except (ValueError, cv2.error) as error:
        raise RefusedEpisodeError(f"{name}: bad {spec.codec} image: {error}") from None
    if image is None or image.shape != spec.shape or image.dtype != spec.dtype:
        raise RefusedEpisodeError(f"{name}: {spec.codec} image is not {spec.shape} {spec.dtype}")
    return image


def _check_png(blob: bytes, spec: ImageSpec) -> None:
    if len(blob) < 33 or blob[:8] != b"\x89PNG\r\n\x1a\n" or blob[12:16] != b"IHDR":
        raise ValueError("no PNG header")
    width, height, depth, colour = struct.unpack(">IIBB", blob[16:26])
    want = (
        *spec.shape[:2],
        8 * np.dtype(spec.dtype).itemsize,
        2 if len(spec.shape) == 3 else 0,
    )
    if (height, width, depth, colour) != want:
        raise ValueError(f"header says {height} x {width}, depth {depth}, colour type {colour}")


def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError as error:
        raise ImportError("JPEG frames need simplejpeg: pip install 'incognita[train]'") from error
    return simplejpeg
