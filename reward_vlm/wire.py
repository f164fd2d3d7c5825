"""What goes over HTTP: requests and answers as JSON, frames as mp4 or npz. Never a pickle or a URL.

``POST /v1/rewards`` is multipart: the part ``request`` holds a :class:`RewardRequest` as JSON, and
each camera view comes as a file part of its own, named as the view: ``video/mp4``, or
``application/x-npz`` with one array ``frames``, uint8 (T, H, W, 3). The same request as one JSON
body carries the files in base64 (:class:`Media`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

MAX_TASK = 2000
"""Characters of a task."""
MAX_VIEWS = 4
MAX_BATCH = 64
"""Requests in one batch."""
MP4, NPZ = "video/mp4", "application/x-npz"
MEDIA = (MP4, NPZ)

Task = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TASK)]
ViewName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Want = Literal["score", "progress", "success", "probes"]


class Wire(BaseModel):
    """Unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Media(Wire):
    """One camera view inside a JSON body."""

    type: Literal["video/mp4", "application/x-npz"]
    data: str
    """Base64, standard alphabet, padded."""

    def content(self) -> bytes:
        """The bytes.

        Raises:
            ValueError: not base64.
        """
        try:
            return base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"data must be base64: {error}") from None


class RewardRequest(Wire):
    """Judge one clip."""

    task: Task
    """What the robot was told to do."""
    model: str | None = Field(default=None, max_length=200)
    """One of ``GET /v1/models``; the server's default where it is left out."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    """Frames a second; needed with npz, and with mp4 the container's own where left out."""
    want: list[Want] = Field(default=["score"], min_length=1, max_length=4)
    """What to answer besides the score, which always comes."""
    views: dict[ViewName, Media] | None = Field(default=None, min_length=1, max_length=MAX_VIEWS)
    """Camera views, in a JSON body only; in multipart they are parts of their own."""

    @field_validator("task")
    @classmethod
    def _printable(cls, task: str) -> str:
        if any(ord(c) < 32 and c not in "\n\t" for c in task):
            raise ValueError("must have no control characters but newline and tab")
        return task


class BatchRequest(Wire):
    """Judge several clips; each is answered or refused on its own."""

    requests: list[RewardRequest] = Field(min_length=1, max_length=MAX_BATCH)


class PreferenceRequest(Wire):
    """Which of two clips did the task better?"""

    task: Task
    model: str | None = Field(default=None, max_length=200)
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    first: dict[ViewName, Media] | None = Field(default=None, min_length=1, max_length=MAX_VIEWS)
    second: dict[ViewName, Media] | None = Field(default=None, min_length=1, max_length=MAX_VIEWS)
    """In multipart, parts named ``first.VIEW`` and ``second.VIEW``."""


class ModelCard(Wire):
    """One model that the service has."""

    name: str
    backend: str
    revision: str
    preprocess_sha: str
    prompt_version: str
    domain: str
    """What it was trained on, in words."""
    heads: list[str]
    frames: int | None
    """Frames that it looks at, where that is fixed."""
    default: bool


class ModelList(Wire):
    """Answer of ``GET /v1/models``."""

    models: list[ModelCard]


class Timing(Wire):
    """Milliseconds that each stage took."""

    decode: float
    queue: float
    model: float
    total: float


class RewardAnswer(Wire):
    """A judgement."""

    id: str
    """That of the request, from ``X-Request-Id`` or made here."""
    score: int = Field(ge=1, le=5)
    """Median of ``probs``."""
    expected: float = Field(ge=1, le=5)
    """Mean of ``probs``."""
    reward: Share
    """(expected - 1) / 4."""
    probs: list[Share] = Field(min_length=5, max_length=5)
    """Probability of each score 1..5."""
    entropy: Share
    """Of ``probs``, over the largest there is."""
    lost_mass: Share
    """Probability that the model gave to no digit."""
    abstain: Literal["ood", "entropy", "lost_mass"] | None
    """Why the model says "I do not know"; null if it knows. The score then means little."""
    ood: Share | None
    p_success: Share | None
    progress: list[Share] | None
    """After each frame looked at."""
    probes: dict[str, Share] | None
    frame_indices: list[int]
    """Frames of the video that were looked at."""
    model: str
    revision: str
    prompt_version: str
    preprocess_sha: str
    cached: bool
    timing_ms: Timing


class Problem(BaseModel):
    """An error, RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    """Short and stable, for programs."""
    id: str
    """That of the request."""


class BatchItem(Wire):
    """One of a batch: an answer or a problem."""

    answer: RewardAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(Wire):
    """In the order of the requests."""

    results: list[BatchItem]


class PreferenceAnswer(Wire):
    """Which clip did better."""

    id: str
    p_first: Share
    """Probability that the first did better."""
    first: RewardAnswer
    second: RewardAnswer


class StreamOpen(Wire):
    """First message of ``WS /v1/streams``, as text; the answer is a :class:`StreamOpened`."""

    task: Task
    model: str | None = Field(default=None, max_length=200)
    fps: Annotated[float, Field(gt=0, le=240)]
    view: ViewName = "front"
    every: int = Field(default=1, ge=1, le=1000)
    """Judge after so many new frames."""


class StreamOpened(Wire):
    """The stream takes frames now: each as one binary message, a JPEG or PNG image.

    The text message ``{"end": true}`` asks for the final judgement and ends the stream.
    """

    id: str
    model: str


class StreamAnswer(Wire):
    """A judgement of all frames so far."""

    frames: int
    final: bool
    answer: RewardAnswer
