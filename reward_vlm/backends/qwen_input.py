"""A video as Qwen3-VL takes it: scaled, cut into patches, its times written between them.

transformers does this in ``Qwen3VLProcessor``. We do it here, because that class

* needs torchvision, which must match the build of torch,
* changed what it writes: from 5.12 on it leaves a ``<|vision_start|>``, ``<|vision_end|>`` pair
  around the whole video (vLLM issue 46817), which neither 4.57, with which the published
  checkpoints were trained and measured, nor vLLM has there,
* changes its default for ``cap_pixels_per_frame``.

A test holds the patches to those recorded from transformers 5.24.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model import BadOutput

BICUBIC = 3
"""Of the resampling filters as Pillow numbers them."""


@dataclass(frozen=True)
class VideoFormat:
    """The numbers of the checkpoint's video processor."""

    min_pixels: int
    """T * H * W of a video is at least this ..."""
    max_pixels: int
    """... and at most this, but for rounding to whole patches."""
    patch: int = 16
    """Side of a patch, pixels."""
    frames: int = 2
    """Frames in a patch."""
    merge: int = 2
    """Patches along each side that become one token."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    frame_tokens: int | None = None
    """Most tokens a frame may cost (``cap_pixels_per_frame``); None: only the whole video counts,
    as in transformers 4.57 and where an engine is not told otherwise."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise ValueError(f"1 <= min_pixels <= max_pixels wanted, got {self}")
        if min(self.patch, self.frames, self.merge, self.frame_tokens or 1) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std must be 3 numbers, std > 0, got {self}")

    @property
    def unit(self) -> int:
        """Side of what becomes one token, pixels."""
        return self.patch * self.merge

    def size(self, count: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) that ``count`` frames are scaled to: whole tokens, within the budget.

        Raises:
            BadOutput: one side is over 200 times the other; no other clip is to blame.
        """
        unit = self.unit
        if min(height, width) < unit:
            scale = max(unit / height, unit / width)
            height, width = int(height * scale), int(width * scale)
        if max(height, width) > 200 * min(height, width):
            raise BadOutput(
                f"frames must be at most 200 times as long as wide, got {height, width}"
            )
        most = self.max_pixels
        if self.frame_tokens is not None:
            share = min(self.frame_tokens * unit**2, most // count)
            most = max(share, int(self.min_pixels * 1.05)) * count
        tall, wide = round(height / unit) * unit, round(width / unit) * unit
        volume = round(count / self.frames) * self.frames * tall * wide
        if volume > most:
            shrink = math.sqrt(count * height * width / most)
            tall = max(unit, math.floor(height / shrink / unit) * unit)
            wide = max(unit, math.floor(width / shrink / unit) * unit)
        elif volume < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (count * height * width))
            tall = math.ceil(height * grow / unit) * unit
            wide = math.ceil(width * grow / unit) * unit
        return tall, wide


def read_format(folder: Path, cap_frames: bool) -> VideoFormat:
    """The video format of a checkpoint, from either style of processor files.

    Args:
        folder: holds ``processor_config.json`` (5.x) or ``video_preprocessor_config.json``.
        cap_frames: as the processor's ``cap_pixels_per_frame``.

    Raises:
        ValueError: neither file, or a setting that we do not follow.
    """
    found = _processor_config(folder)
    size = found.get("size", {})
    if not {"shortest_edge", "longest_edge"} <= set(size):
        raise ValueError(f"the video processor needs a size with two edges, got {size}")
    other = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": BICUBIC}
    off = {k: found[k] for k, v in other.items() if found.get(k, v) != v}
    if off:
        raise ValueError(f"the video processor must resize (bicubic) and normalize, got {off}")
    return VideoFormat(
        min_pixels=int(size["shortest_edge"]),
        max_pixels=int(size["longest_edge"]),
        patch=int(found.get("patch_size", 16)),
        frames=int(found.get("temporal_patch_size", 2)),
        merge=int(found.get("merge_size", 2)),
        mean=tuple(map(float, found.get("image_mean", (0.5, 0.5, 0.5)))),
        std=tuple(map(float, found.get("image_std", (0.5, 0.5, 0.5)))),
        frame_tokens=int(found.get("max_video_tokens", 768)) if cap_frames else None,
    )


def _processor_config(folder: Path) -> Mapping[str, Any]:
    for name, key in (("processor_config.json", "video_processor"),
                      ("video_preprocessor_config.json", None)):  # fmt: skip
        path = folder / name
        if path.is_file():
            content = json.loads(path.read_text("utf-8"))
            content = content.get(key) if key else content
            if isinstance(content, dict):
                return content
    raise ValueError(
        "a checkpoint needs processor_config.json or video_preprocessor_config.json, "
        f"got neither in {folder.name}"
    )


def patches(frames: NDArray[np.uint8], form: VideoFormat) -> tuple[Tensor, tuple[int, int, int]]:
    """Patches of one video.

    Args:
        frames: (T, H, W, 3) RGB, T a multiple of ``form.frames``.

    Returns:
        (N, 3 * frames * patch * patch) float32, normalized, in the order of the tokens; and the
        grid (t, h, w) of patches, t * h * w = N.
    """
    count, height, width = frames.shape[:3]
    tall, wide = form.size(count, height, width)
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if (tall, wide) != (height, width):
        # In 8 bits, as Pillow and torchvision do on a CPU: both passes clamp to 0..255, so that
        # in floating point hard edges would come out otherwise by up to 14 of 255.
        video = torch.nn.functional.interpolate(
            video, (tall, wide), mode="bicubic", antialias=True, align_corners=False
        )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (form.mean, form.std))
    video = (video.float() - mean) / std
    side, merge = form.patch, form.merge
    t, h, w = count // form.frames, tall // side, wide // side
    cut = video.reshape(t, form.frames, 3, h // merge, merge, side, w // merge, merge, side)
    cut = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return cut.reshape(t * h * w, 3 * form.frames * side * side), (t, h, w)


def spelled(seconds: Sequence[float], grid: tuple[int, int, int], form: VideoFormat) -> str:
    """What stands for a video in the prompt: each group of frames after its mean time."""
    t, h, w = grid
    tokens = "<|video_pad|>" * (h * w // form.merge**2)
    groups = (seconds[i * form.frames : (i + 1) * form.frames] for i in range(t))
    return "".join(
        f"<{(group[0] + group[-1]) / 2:.1f} seconds><|vision_start|>{tokens}<|vision_end|>"
        for group in groups
    )
