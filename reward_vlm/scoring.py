"""From frames of running episodes to rewards: recorded, scored in batches, misses counted.

Learners meet this in :mod:`reward_vlm.training`; whoever has a batch of environments of his own
uses :class:`Recording` and :class:`EpisodeScorer` directly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import rubric
from .results import Missing, Query, Scored, Scores
from .wire import Want

HACKED = 4.5
"""An expected score from here on for an episode that truly failed counts as reward hacking."""


@dataclass(frozen=True)
class ScoringConfig:
    """How episodes are recorded and what their scores are worth."""

    mode: Literal["terminal", "dense"] = "terminal"
    """``terminal``: a reward at the episode's end. ``dense``: besides, progress as potential-based
    shaping, which telescopes: it moves credit, not the optimum."""
    reward: Literal["expected", "score", "success"] = "expected"
    """``expected``: (E - 1) / 4. ``score``: the same of the median score. ``success``: 1 where the
    probability of success is at least ``success_at``, else 0."""
    success_at: float = 0.5
    scale: float = 1.0
    """Factor of the terminal reward."""
    shaping: float = 1.0
    """Factor of the progress that is the potential."""
    gamma: float = 0.99
    """Of the shaping; that of the learner."""
    step_s: float = 0.1
    """Time between two steps of the environment, s."""
    every: int = 1
    """Record the frame of every so many steps; first and last are always recorded."""
    most: int = 32
    """Frames kept of an episode: beyond, every second one is dropped, and so on."""
    trust_doubt: bool = False
    """Take scores of which the model says "I do not know"; else they are missing."""
    deadline_s: float = 30.0
    """For one batch of episodes."""
    window: int = 100
    """Episodes over which the missing share is taken."""

    def __post_init__(self) -> None:
        if min(self.every, self.window) < 1 or self.most < 2:
            raise ValueError(f"every, window >= 1 and most >= 2 wanted, got {self}")
        if self.mode not in ("terminal", "dense"):
            raise ValueError(f"mode must be terminal or dense, got {self.mode!r}")
        if self.reward not in ("expected", "score", "success"):
            raise ValueError(f"reward must be expected, score or success, got {self.reward!r}")
        if not (0 <= self.success_at <= 1 and 0 <= self.gamma <= 1):
            raise ValueError(f"success_at and gamma must be in [0, 1], got {self}")
        numbers = (self.scale, self.shaping, self.step_s, self.deadline_s)
        if not all(map(math.isfinite, numbers)) or min(self.step_s, self.deadline_s) <= 0:
            raise ValueError(f"step_s and deadline_s must be > 0, all finite, got {self}")

    @property
    def want(self) -> list[Want]:
        """What the service is asked for."""
        wanted: list[Want] = ["score"]
        wanted += ["progress"] if self.mode == "dense" else []
        return wanted + (["success"] if self.reward == "success" else [])


class Recording:
    """Frames of one episode from its reset on, thinned to a bounded number."""

    def __init__(self, first: NDArray[np.uint8], every: int = 1, most: int = 32) -> None:
        """Args:
        first: (H, W, 3) what is seen before the first step.
        """
        self.every, self.most = every, most
        self.steps = [0]
        """Step after which each frame was seen."""
        self._frames = [np.array(first)]
        self._last = (0, self._frames[0])

    def wants(self, step: int) -> bool:
        """Is the frame after this step one to keep?"""
        return step % self.every == 0

    def add(self, step: int, frame: NDArray[np.uint8]) -> None:
        """The frame after a step, 1 for the first; the newest one is kept in any case.

        Raises:
            ValueError: the step is not after the one before, or the frame is of another size.
        """
        if step <= self._last[0] or frame.shape != self._frames[0].shape:
            raise ValueError(
                f"step must be > {self._last[0]} and frame {self._frames[0].shape}, "
                f"got {step} and {frame.shape}"
            )
        self._last = (step, np.array(frame))
        if self.wants(step):
            self.steps.append(step)
            self._frames.append(self._last[1])
            if len(self.steps) >= self.most:  # leaves room for the last one
                self.every *= 2
                keep = [k for k, s in enumerate(self.steps) if self.wants(s)]
                self.steps = [self.steps[k] for k in keep]
                self._frames = [self._frames[k] for k in keep]

    def clip(self) -> tuple[NDArray[np.uint8], list[int]]:
        """(T, H, W, 3) frames with the newest as the last, and the step of each."""
        step, frame = self._last
        more = step > self.steps[-1]
        frames = [*self._frames, frame] if more else self._frames
        return np.stack(frames), [*self.steps, step] if more else list(self.steps)

    def query(self, task: str, config: ScoringConfig) -> Query:
        """What the service is asked about the episode so far."""
        frames, steps = self.clip()
        apart = (steps[-1] - steps[0]) / max(len(steps) - 1, 1)  # steps between two frames
        fps = min(1 / (max(apart, 1) * config.step_s), 240.0)
        return Query(task, frames, fps, config.want)


@dataclass(frozen=True)
class Verdict:
    """What came of one episode."""

    result: Scored | Missing
    reward: float
    """Terminal reward, scaled; NaN where it is missing."""
    potential: NDArray[np.float64]
    """(L + 1,) scaled progress before the first step and after each; zeros where it is missing or
    was not asked for."""

    @property
    def missing(self) -> str | None:
        """Why there is no reward; None if there is."""
        if not math.isnan(self.reward):
            return None
        return self.result.reason if isinstance(self.result, Missing) else "abstained"


@dataclass
class Tally:
    """How many rewards were missing."""

    window: int
    scored: int = 0
    missing: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    recent: deque[bool] = field(default_factory=deque)

    def count(self, reason: str | None) -> None:
        """One more episode, None if it has a reward."""
        self.recent.append(reason is not None)
        while len(self.recent) > self.window:
            self.recent.popleft()
        if reason is None:
            self.scored += 1
        else:
            self.missing += 1
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    @property
    def share(self) -> float:
        """Missing share of the last ``window`` episodes, 0 before the first."""
        return sum(self.recent) / max(len(self.recent), 1)


class EpisodeScorer:
    """Scores recordings in batches.

    >>> scorer = EpisodeScorer(RewardClient(url), ScoringConfig())
    >>> verdicts = scorer.judge([recording_1, recording_2], ["push the cube", "lift the ball"])
    """

    def __init__(self, scores: Scores, config: ScoringConfig | None = None) -> None:
        self.scores, self.config = scores, config or ScoringConfig()
        self.tally = Tally(self.config.window)

    def judge(
        self, recordings: Sequence[Recording], tasks: Sequence[str], count: bool = True
    ) -> list[Verdict]:
        """One verdict for each episode, in order.

        Args:
            count: they count for the missing share; False for episodes that go on.

        Raises:
            RewardRequestError: the service says that a request is wrong.
        """
        c = self.config
        queries = [r.query(task, c) for r, task in zip(recordings, tasks, strict=True)]
        results = self.scores.score_many(queries, deadline_s=c.deadline_s) if queries else []
        verdicts = [self._verdict(*pair) for pair in zip(results, recordings, strict=True)]
        for verdict in verdicts if count else ():
            self.tally.count(verdict.missing)
        return verdicts

    def _verdict(self, result: Scored | Missing, recording: Recording) -> Verdict:
        c, (_, steps) = self.config, recording.clip()
        potential = np.zeros(steps[-1] + 1)
        if isinstance(result, Scored) and not set(result.frame_indices) <= set(range(len(steps))):
            result = Missing("bad_answer", "frame_indices must be of the frames that were sent")
        if isinstance(result, Missing) or (result.abstain is not None and not c.trust_doubt):
            return Verdict(result, math.nan, potential)
        if c.mode == "dense":
            if result.progress is None:
                raise ValueError(f"mode must be terminal: model {result.model} gives no progress")
            seen = np.asarray(steps)[result.frame_indices]
            potential = c.shaping * np.interp(np.arange(len(potential)), seen, result.progress)
        if c.reward == "success":
            if result.p_success is None:
                raise ValueError(f"reward must be expected: model {result.model} has no success")
            worth = float(result.p_success >= c.success_at)
        else:
            worth = result.reward if c.reward == "expected" else float(rubric.reward(result.score))
        return Verdict(result, c.scale * worth, potential)


def shaping(
    potential: NDArray[np.float64], gamma: float, *, begin: int = 0, held: float = 0.0, done: bool
) -> NDArray[np.float64]:
    """Shaping of the steps ``begin`` .. L - 1 of an episode.

    Args:
        potential: (L + 1,) of the whole episode so far.
        begin: steps before were shaped already, when ...
        held: ... this was taken for the potential after them: so the sum telescopes though the
            potential is another one now.
        done: the episode is over.

    Returns:
        (L - begin,)
    """
    phi = np.array(potential[begin:], np.float64)
    if begin:
        phi[0] = held
    return rubric.shaped(phi, gamma, done)
