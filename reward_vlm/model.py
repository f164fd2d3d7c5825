"""What a reward model is: clips in, judgements out. Every backend and every caller meets here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .rubric import LEVELS, PROMPT_VERSION, reward

PROBES = ("contact", "progress", "safety", "success", "smoothness", "instruction")
"""Dimensions that a model may be asked for besides the score."""


class ModelError(Exception):
    """A model could not judge a clip."""


class ModelOutOfMemory(ModelError):
    """Not enough memory for this batch; a smaller one may do."""


class BadOutput(ModelError):
    """The model answered with something that is no judgement (NaN, prose, out of range)."""


class EngineUnavailable(ModelError):
    """The engine behind the model does not answer."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video a model looks at. Part of what its preprocessing hash covers."""

    count: int | None = None
    """So many frames, evenly from the first to the last; or ..."""
    fps: float | None = None
    """... so many a second."""
    least: int = 1
    most: int = 64
    side: int | None = None
    """The longer side is scaled down to this, pixels; None leaves frames as they are."""

    def __post_init__(self) -> None:
        if (self.count is None) == (self.fps is None):
            raise ValueError(f"one of count and fps wanted, got {self}")
        if not 1 <= self.least <= self.most or (self.count or 1) < 1 or (self.side or 16) < 16:
            raise ValueError(f"1 <= least <= most, count >= 1 and side >= 16 wanted, got {self}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be > 0, got {self.fps}")

    def indices(self, total: int, fps: float) -> NDArray[np.int64]:
        """(n,) frame numbers to look at, rising, from a video of ``total`` frames at ``fps``.

        The last frame is always among them (the rubric judges the final state), the first too
        where there are two. A short video gives each of its frames once.
        """
        if total < 1 or not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"total >= 1 and fps > 0 wanted, got {total}, {fps}")
        if self.count is not None:
            wanted = self.count
        else:
            wanted = round((total - 1) / fps * float(self.fps or 0)) + 1
        wanted = min(max(wanted, self.least), self.most, total)
        if wanted == 1:
            return np.array([total - 1])
        return np.unique(np.rint(np.linspace(0, total - 1, wanted)).astype(np.int64))


@dataclass(frozen=True)
class Clip:
    """One episode, or the beginning of one: a task and what cameras saw."""

    task: str
    views: Mapping[str, NDArray[np.uint8]]
    """Camera -> (T, H, W, 3) RGB; T is the same in all."""
    fps: float
    """Frames a second of the whole video."""
    indices: NDArray[np.int64] | None = None
    """(T,) which frames of the video these are; None: all of it."""

    def __post_init__(self) -> None:
        if not self.task.strip():
            raise ValueError("task must say something, got an empty text")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be finite and > 0, got {self.fps}")
        lengths = set()
        for name, frames in self.views.items():
            shape = frames.shape
            if frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
                raise ValueError(
                    f"views[{name!r}] must be uint8 (T, H, W, 3), got {frames.dtype} {shape}"
                )
            lengths.add(shape[0])
        if len(lengths) != 1:
            raise ValueError(f"views must be at least one, of equal length, got {sorted(lengths)}")
        if self.indices is not None and self.indices.shape != (self.length,):
            raise ValueError(f"indices must be ({self.length},), got {self.indices.shape}")

    @property
    def length(self) -> int:
        """Frames in each view."""
        return len(next(iter(self.views.values())))

    @property
    def frame_indices(self) -> NDArray[np.int64]:
        """(T,) which frames of the video these are."""
        return np.arange(self.length) if self.indices is None else self.indices

    def sampled(self, sampling: Sampling) -> Clip:
        """The frames that a model looks at; a clip that was sampled before stays as it is.

        Scaling to :attr:`Sampling.side` is the decoder's (and the backend's), not done here.
        """
        if self.indices is not None:
            return self
        keep = sampling.indices(self.length, self.fps)
        return replace(self, views={k: v[keep] for k, v in self.views.items()}, indices=keep)


@dataclass(frozen=True)
class Judgement:
    """What a model thinks of one clip."""

    probs: NDArray[np.float64]
    """(5,) probability of each score 1..5; they sum to 1."""
    progress: NDArray[np.float64] | None = None
    """(T,) 0..1 after each frame looked at."""
    p_success: float | None = None
    """Probability that the task is done at the end; None: the model has no head for it."""
    lost_mass: float = 0.0
    """Probability that the model gave to anything but the five digits."""
    ood: float | None = None
    """0 as in training .. 1 unlike anything there; None: the model does not know."""
    probes: Mapping[str, float] = field(default_factory=dict)
    """Of :data:`PROBES`, 0..1 each."""

    def __post_init__(self) -> None:
        p = self.probs
        if p.shape != (LEVELS,) or not np.isfinite(p).all() or (p < 0).any():
            raise BadOutput(f"probs must be 5 finite numbers >= 0, got {p!r:.200}")
        if abs(p.sum() - 1) > 1e-3:
            raise BadOutput(f"probs must sum to 1, got {p.sum():.6f}")
        single = [self.p_success, self.lost_mass, self.ood, *self.probes.values()]
        shares = np.array([v for v in single if v is not None], np.float64)
        if self.progress is not None:
            shares = np.append(shares, self.progress)
        if not np.isfinite(shares).all() or (shares < 0).any() or (shares > 1).any():
            raise BadOutput("p_success, lost_mass, ood, probes and progress must be in [0, 1]")

    @property
    def score(self) -> int:
        """1..5, the median of the distribution: it has the least expected absolute error."""
        return int(np.searchsorted(np.cumsum(self.probs), 0.5 - 1e-9)) + 1

    @property
    def expected(self) -> float:
        """1..5, the mean of the distribution."""
        return float(self.probs @ np.arange(1, LEVELS + 1))

    @property
    def reward(self) -> float:
        """(expected - 1) / 4, in 0..1."""
        return float(reward(self.expected))

    @property
    def entropy(self) -> float:
        """Of the distribution, over its largest: 0 sure .. 1 no idea."""
        p = self.probs[self.probs > 0]
        return float(-(p * np.log(p)).sum() / math.log(LEVELS)) + 0.0

    @property
    def success(self) -> float:
        """``p_success``, or where the model has no head for it the probability of a 5."""
        return float(self.probs[-1]) if self.p_success is None else self.p_success


@dataclass(frozen=True)
class Doubt:
    """When a model says that it does not know."""

    entropy: float = 0.9
    """Above this the distribution says nothing."""
    ood: float = 0.99
    lost_mass: float = 0.5

    def reason(self, judgement: Judgement) -> str | None:
        """``ood``, ``entropy`` or ``lost_mass``; None if the judgement stands."""
        if judgement.ood is not None and judgement.ood > self.ood:
            return "ood"
        if judgement.lost_mass > self.lost_mass:
            return "lost_mass"
        return "entropy" if judgement.entropy > self.entropy else None


@dataclass(frozen=True)
class ModelInfo:
    """Which model this is. All of it is stamped on every answer or published."""

    name: str
    backend: str
    """small, transformers or openai."""
    revision: str
    """Digest of the weights, or the revision of the checkpoint."""
    sampling: Sampling
    preprocess: Mapping[str, Any]
    """All that turns a clip into the model's input, as JSON has it."""
    domain: str
    """What it was trained on, in words."""
    doubt: Doubt = Doubt()
    heads: tuple[str, ...] = ("score",)
    """Of score, progress, success and :data:`PROBES`."""
    max_batch: int = 16
    """Clips in one call of :meth:`RewardModel.judge`."""
    workers: int = 1
    """Calls that may run at once."""
    prompt_version: str = PROMPT_VERSION

    @property
    def preprocess_sha(self) -> str:
        """16 hex digits over sampling, preprocessing and prompt version."""
        what = [asdict(self.sampling), dict(self.preprocess), self.prompt_version]
        text = json.dumps(what, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class RewardModel(Protocol):
    """A backend. Its calls block; the gateway makes them from worker threads."""

    info: ModelInfo

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """Judge up to ``info.max_batch`` clips; each as if it came alone.

        Raises:
            ModelOutOfMemory, BadOutput, EngineUnavailable: see there. Nothing is made up instead.
        """
        ...

    def ready(self) -> None:
        """One real forward pass on a clip of its own.

        Raises:
            ModelError: it cannot judge now.
        """
        ...

    def close(self) -> None:
        """Free what it holds; twice is once."""
        ...


def digit_distribution(logprobs: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Distribution over the scores from the log-probabilities of the tokens of 1..5.

    Args:
        logprobs: (5,) over the whole vocabulary.

    Returns:
        (5,) renormalized, and the mass that went elsewhere.

    Raises:
        BadOutput: not 5 numbers, or no digit has any mass.
    """
    log = np.asarray(logprobs, np.float64)
    if log.shape != (LEVELS,) or np.isnan(log).any() or (log > 1e-3).any():
        raise BadOutput(f"logprobs must be 5 numbers <= 0, got {log!r:.200}")
    top = float(log.max())
    if top == -math.inf:
        raise BadOutput("no digit 1..5 among the likely tokens")
    mass = np.exp(log - top)
    lost = 1 - math.exp(top) * float(mass.sum())
    return np.asarray(mass / mass.sum(), np.float64), min(max(lost, 0.0), 1.0)


def preference(first: Judgement, second: Judgement) -> float:
    """Probability that the first clip did better: of drawing a higher score, ties by half."""
    joint = np.outer(first.probs, second.probs)
    return float(np.tril(joint, -1).sum() + np.trace(joint) / 2)
