"""What callers hand in and get back: queries, and scores that are there or typed as missing.

A reward that is late or missing is never 0: :class:`Missing` has no ``reward``, and its float is
NaN.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator

from .rubric import reward
from .wire import MAX_VIEWS, MP4, NPZ, RewardAnswer, Want

Footage = NDArray[np.uint8] | bytes | str | os.PathLike[str]
"""One camera view: (T, H, W, 3) uint8 RGB, or an mp4 or npz file, as bytes or as its path."""
Reason = Literal["timeout", "refused", "overloaded", "breaker_open", "bad_answer"]
VIEW = "front"
"""Name of the view where only one is given."""


class Scored(RewardAnswer):
    """A judgement. Its float is the reward. Fields that a newer service adds are passed over."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    missing: ClassVar[Literal[False]] = False

    @model_validator(mode="after")
    def _consistent(self) -> Scored:
        mean = sum(k * p for k, p in enumerate(self.probs, 1))
        if abs(sum(self.probs) - 1) > 0.01 or abs(mean - self.expected) > 0.05:
            raise ValueError("probs must sum to 1 and expected be their mean")
        if abs(float(reward(self.expected)) - self.reward) > 1e-3:
            raise ValueError("reward must be (expected - 1) / 4")
        if self.progress is not None and len(self.progress) != len(self.frame_indices):
            raise ValueError("progress must have a value for each of frame_indices")
        return self

    def __float__(self) -> float:
        return self.reward


@dataclass(frozen=True)
class Missing:
    """There is no score, and why. It has no ``reward`` on purpose; its float is NaN."""

    reason: Reason
    """``timeout``: the deadline passed. ``refused``: no connection, or it broke. ``overloaded``:
    429 or 503 until the deadline. ``breaker_open``: the service failed several times in a row and
    was not asked. ``bad_answer``: what came is no judgement."""
    detail: str = ""
    missing: ClassVar[Literal[True]] = True

    def __float__(self) -> float:
        return math.nan


class RewardRequestError(ValueError):
    """The service says that the request is wrong: asking again is useless."""

    def __init__(self, status: int, code: str, detail: str, id: str = "") -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail, self.id = status, code, detail, id


@dataclass(frozen=True, eq=False)
class Query:
    """One clip to be scored."""

    task: str
    """What the robot was told to do."""
    frames: Footage | Mapping[str, Footage]
    """One view, or several by name."""
    fps: float | None = None
    """Frames a second; needed for arrays and npz."""
    want: Sequence[Want] = ("score",)
    """Of score, progress, success, probes."""
    model: str | None = None
    """The service's default where it is left out."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.views) <= MAX_VIEWS:
            raise ValueError(f"frames must be 1 to {MAX_VIEWS} views, got {len(self.views)}")

    @property
    def views(self) -> Mapping[str, Footage]:
        """View -> footage."""
        return self.frames if isinstance(self.frames, Mapping) else {VIEW: self.frames}


class Scores(Protocol):
    """Who scores: a :class:`reward_vlm.client.RewardClient`, or a model in this process."""

    def score_many(
        self, queries: Sequence[Query], *, deadline_s: float | None = None
    ) -> list[Scored | Missing]:
        """One result a query, in order.

        Raises:
            RewardRequestError: a query is wrong.
        """
        ...


def packed(footage: Footage, compress: bool = False) -> tuple[str, bytes]:
    """Media type and bytes that go over the wire.

    Args:
        footage: an array, or a file that is passed on as it is.
        compress: deflate arrays; slower than a local network is.

    Raises:
        ValueError: not (T, H, W, 3) uint8, or a file that is neither mp4 nor npz.
        OSError: the file cannot be read.
    """
    if isinstance(footage, np.ndarray):
        shape = footage.shape
        if footage.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ValueError(f"frames must be uint8 (T, H, W, 3), got {footage.dtype} {shape}")
        file = io.BytesIO()
        save: Any = np.savez_compressed if compress else np.savez
        save(file, frames=np.ascontiguousarray(footage))
        return NPZ, file.getvalue()
    data = footage if isinstance(footage, bytes) else Path(footage).read_bytes()
    if data[:4] == b"PK\x03\x04":
        return NPZ, data
    if data[4:8] == b"ftyp":
        return MP4, data
    raise ValueError("frames must be an array, an mp4 or an npz file, got another file")
