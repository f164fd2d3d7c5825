"""The reward service around one Gymnasium environment: frames into infos, or rewards into steps."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from .results import Scores
from .scoring import EpisodeScorer, Recording, ScoringConfig, Tally, Verdict

try:
    import gymnasium
except ImportError as error:
    raise ImportError("gymnasium is missing: pip install 'incognita[train]'") from error

log = logging.getLogger(__name__)
FIRST_FRAME, FRAME = "first_frame", "frame"
"""In the infos of steps, (H, W, 3) uint8: what was seen before the first step of an episode (with
that step), and what is seen after a step; at an episode's end before the reset."""
TASK = "task"
"""In the infos: what the robot was told to do."""


class FrameRecorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Puts frames of an environment with render mode ``rgb_array`` into its infos.

    It goes around each single environment of a vector: once that has reset itself, the last frame
    of the episode is gone.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], every: int = 1) -> None:
        """Args:
            every: a frame each so many steps, and at the end.

        Raises:
            ValueError: another render mode.
        """
        if env.render_mode != "rgb_array":
            raise ValueError(f"render_mode must be rgb_array, got {env.render_mode!r}")
        if every < 1:
            raise ValueError(f"every must be >= 1, got {every}")
        super().__init__(env)
        self.every = every
        self._step, self._first = 0, np.zeros((1, 1, 3), np.uint8)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and look."""
        obs, info = self.env.reset(**options)
        self._step, self._first = 0, _rendered(self.env)
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step, and look if it is time."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        if self._step == 1:
            info[FIRST_FRAME] = self._first
        if self._step % self.every == 0 or terminated or truncated:
            info[FRAME] = _rendered(self.env)
        return obs, reward, terminated, truncated, info


class VLMRewardWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds the service's reward to that of one environment, while its episode runs.

    The last step of an episode waits for the score. With ``dense``, each ``dense_every`` steps the
    episode so far is scored, and the progress found holds until the next time; the shaping of all
    steps telescopes.

    A missing reward cannot be left out of a single step's number. The step gets the mean of the
    last rewards that were not missing (0 before there is one) and no shaping, and the info says
    ``reward_missing``; ``tally.share`` says how many. A learner that can skip such episodes should.

    Infos gain ``reward_service`` (NaN where it is missing), ``reward_env``, ``reward_missing`` and
    at an episode's end ``verdict``.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        scores: Scores,
        config: ScoringConfig | None = None,
        *,
        task: str | None = None,
        env_weight: float = 0.0,
        dense_every: int = 10,
    ) -> None:
        """Args:
            scores: a client, or a model of this process.
            task: what the robot is told to do; None takes ``info["task"]``.
            env_weight: factor of the environment's own reward.

        Raises:
            ValueError: another render mode than ``rgb_array``.
        """
        if env.render_mode != "rgb_array":
            raise ValueError(f"render_mode must be rgb_array, got {env.render_mode!r}")
        if dense_every < 1:
            raise ValueError(f"dense_every must be >= 1, got {dense_every}")
        super().__init__(env)
        self.scorer = EpisodeScorer(scores, config)
        self.task, self.env_weight, self.dense_every = task, env_weight, dense_every
        self._told, self._step, self._phi = task or "", 0, 0.0
        self._recording: Recording | None = None
        self._recent: deque[float] = deque(maxlen=100)

    @property
    def tally(self) -> Tally:
        """How many rewards were missing."""
        return self.scorer.tally

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(**options)
        c = self.scorer.config
        self._recording, self._step = Recording(_rendered(self.env), c.every, c.most), 0
        self._told = self.task or info.get(TASK, "")
        self._phi = 0.0  # of the state before the first step: none yet
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; at the episode's end wait for the score."""
        if self._recording is None:
            raise RuntimeError("reset must be called before step")
        obs, raw, terminated, truncated, info = self.env.step(action)
        self._step += 1
        done, c = terminated or truncated, self.scorer.config
        ask = done or (c.mode == "dense" and self._step % self.dense_every == 0)
        if ask or self._recording.wants(self._step):
            self._recording.add(self._step, _rendered(self.env))
        told = self.task or info.get(TASK, self._told)
        phi, gained, verdict = self._phi, 0.0, None
        if ask:
            verdict = self.scorer.judge([self._recording], [told], count=done)[0]
            phi = phi if verdict.missing else float(verdict.potential[-1])
        if done:
            assert verdict is not None
            phi = 0.0
            gained = self._terminal(verdict)
            info |= {"verdict": verdict, "reward_service": verdict.reward}
        if c.mode == "dense":
            gained += c.gamma * phi - self._phi
        self._phi = phi
        info |= {"reward_env": float(raw), "reward_missing": bool(done and verdict.missing)}  # type: ignore[union-attr]
        return obs, self.env_weight * float(raw) + gained, terminated, truncated, info

    def _terminal(self, verdict: Verdict) -> float:
        if verdict.missing:
            log.warning("reward missing: %s", verdict.missing)
            return float(np.mean(self._recent)) if self._recent else 0.0
        self._recent.append(verdict.reward)
        return verdict.reward


def _rendered(env: gymnasium.Env[Any, Any]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8.

    Raises:
        ValueError: the environment draws something else.
    """
    frame: Any = env.render()
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        raise ValueError(f"render must give (H, W, 3) uint8, got {type(frame).__name__}")
    return frame
