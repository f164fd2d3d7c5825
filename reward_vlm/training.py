"""The reward service in a training: a Gymnasium wrapper, and a callback for Stable-Baselines3.

    env = DummyVecEnv([lambda: FrameRecorder(make_env()) for _ in range(8)])
    callback = RewardCallback(RewardClient(url), ScoringConfig(mode="dense", gamma=0.99))
    PPO("MlpPolicy", env).learn(1_000_000, callback=callback)

The callback is the better one of the two for PPO and A2C: it scores all episodes of a rollout at
once, and where a reward is missing the step says nothing to the learner. The wrapper suits any
learner, one episode at a time.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gym_wrapper import FIRST_FRAME, FRAME, TASK, FrameRecorder, VLMRewardWrapper
from .results import Scores
from .scoring import HACKED, EpisodeScorer, Recording, ScoringConfig, Tally, Verdict, shaping

try:
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
except ImportError as error:
    raise ImportError(f"{error.name} is missing: pip install 'incognita[train]'") from error

__all__ = [
    "FrameRecorder", "Judged", "RewardCallback", "ScoringConfig", "VLMRewardWrapper",
]  # fmt: skip
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """What a callback logs of one episode."""

    timestep: int
    """Of the training, at the end of the rollout."""
    env: int
    length: int
    verdict: Verdict
    success: bool | None
    """The environment's own ``is_success``; None: it has none."""

    @property
    def hacked(self) -> bool:
        """It truly failed and was scored as good."""
        return self.success is False and getattr(self.verdict.result, "expected", 0) >= HACKED


@dataclass
class _Running:
    """The open episode of one environment."""

    recording: Recording
    task: str = ""
    step: int = 0
    shaped: int = 0
    """Steps of it that are in earlier rollouts ..."""
    held: float = 0.0
    """... and the potential that was taken after them."""


@dataclass
class _Ended:
    """An episode that ended in this rollout."""

    env: int
    row: int
    """Of its last step in the rollout."""
    episode: _Running
    success: bool | None


class RewardCallback(BaseCallback):
    """Writes the service's rewards into the rollouts of PPO or A2C before they are learned from.

    Around each environment goes a :class:`FrameRecorder` (or an environment of one's own that puts
    :data:`FRAME`, :data:`FIRST_FRAME` and :data:`TASK` into its infos). At the end of a rollout its
    episodes are scored in one go, the rewards in the buffer are replaced, and returns and
    advantages are computed anew: SB3 2.9 has computed them from the environment's rewards when it
    calls ``on_rollout_end``. With ``dense`` the episodes that go on are scored as far as they are,
    and their shaping telescopes over the border.

    An episode that was judged is over, also where a time limit ended it: the value that SB3 adds to
    the reward there is taken out, or the judgement would count for ever.

    **Missing.** The last step of an episode whose reward is missing gets the value that the critic
    expects: its error is then 0, and the episode neither praises nor blames what was done. Is more
    than ``most_missing`` of the last episodes missing, training stops (``stopped`` says why), or
    with ``pause_s`` first waits so long for the service and asks again.

    Logged under ``reward/``: the mean, the missing share, true and judged success, and ``hacked``:
    the share of episodes that truly failed yet were scored 4.5 or more. ``episodes`` has each.
    """

    def __init__(
        self,
        scores: Scores,
        config: ScoringConfig | None = None,
        *,
        task: str | None = None,
        env_weight: float = 0.0,
        most_missing: float = 0.2,
        pause_s: float = 0.0,
        keep: int = 100_000,
    ) -> None:
        """Args:
        scores: a client, or a model of this process.
        task: what the robots are told to do; None takes it from the infos.
        env_weight: factor of the environment's own reward.
        most_missing: share of the last ``config.window`` episodes, of at least 10.
        pause_s: longest wait for a service that is not there, s.
        keep: episodes kept in ``episodes``.
        """
        super().__init__()
        if not (0 <= most_missing <= 1 and math.isfinite(pause_s) and pause_s >= 0):
            raise ValueError(f"most_missing in [0, 1], pause_s >= 0: {most_missing}, {pause_s}")
        self.scorer = EpisodeScorer(scores, config)
        self.task, self.env_weight = task, env_weight
        self.most_missing, self.pause_s = most_missing, pause_s
        self.episodes: deque[Judged] = deque(maxlen=keep)
        self.stopped: str | None = None
        """Why training was stopped; None: it was not."""
        self._running: dict[int, _Running] = {}
        self._ended: list[_Ended] = []
        self._rewards: list[NDArray[np.float32]] = []

    @property
    def tally(self) -> Tally:
        """How many rewards were missing."""
        return self.scorer.tally

    def _on_training_start(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            name = type(self.model).__name__
            raise ValueError(f"the model must learn from rollouts (PPO, A2C), got {name}")
        gamma, c = self.model.gamma, self.scorer.config
        if c.mode == "dense" and gamma != c.gamma:
            raise ValueError(f"gamma must be that of the learner, {gamma}, got {c.gamma}")

    def _on_rollout_start(self) -> None:
        self._rewards, self._ended = [], []
        for episode in self._running.values():
            episode.shaped = episode.step

    def _on_step(self) -> bool:
        """Take frames in; rewards are copied, SB3 adds to them in place."""
        self._rewards.append(np.array(self.locals["rewards"], np.float32))
        row, dones = len(self._rewards) - 1, self.locals["dones"]
        for i, info in enumerate(self.locals["infos"]):
            self._take(i, info)
            if dones[i] and i in self._running:
                episode, success = self._running.pop(i), info.get("is_success")
                truly = None if success is None else bool(success)
                self._ended.append(_Ended(i, row, episode, truly))
        return self.stopped is None

    def _take(self, i: int, info: dict[str, Any]) -> None:
        c = self.scorer.config
        if FIRST_FRAME in info:
            self._running[i] = _Running(Recording(info.pop(FIRST_FRAME), c.every, c.most))
        episode = self._running.get(i)
        if episode is None:
            if FRAME in info or self.num_timesteps > self.training_env.num_envs:
                return  # the rest of an episode that began before this training
            raise ValueError("infos must have frames: put a FrameRecorder around each environment")
        episode.step += 1
        episode.task = self.task or info.get(TASK, episode.task)
        if FRAME in info:
            episode.recording.add(episode.step, info.pop(FRAME))

    def _on_rollout_end(self) -> None:
        buffer: RolloutBuffer = self.locals["rollout_buffer"]
        verdicts = self._judge()
        rewards = self.env_weight * np.stack(self._rewards)  # (T, N)
        for ended, verdict in zip(self._ended, verdicts, strict=True):
            last = verdict.reward
            if verdict.missing:
                last = float(buffer.values[ended.row, ended.env]) - rewards[ended.row, ended.env]
            rewards[ended.row, ended.env] += last
            self._shape(rewards, ended.env, ended.row, ended.episode, verdict, done=True)
        if self.scorer.config.mode == "dense":
            self._shape_running(rewards)
        buffer.rewards[:] = rewards
        buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])
        self._record(verdicts)

    def _judge(self) -> list[Verdict]:
        """Verdicts of the episodes that ended; decides whether training goes on."""
        recordings = [ended.episode.recording for ended in self._ended]
        tasks = [ended.episode.task for ended in self._ended]
        verdicts = self.scorer.judge(recordings, tasks)
        until = time.monotonic() + self.pause_s
        while self._too_many() and time.monotonic() < until:
            log.warning("%.0f %% of rewards missing: waiting", 100 * self.tally.share)
            time.sleep(min(1.0, self.pause_s))
            again = [k for k, verdict in enumerate(verdicts) if verdict.missing]
            if not again:
                break
            found = self.scorer.judge([recordings[k] for k in again], [tasks[k] for k in again])
            for k, verdict in zip(again, found, strict=True):
                verdicts[k] = verdict
        if self._too_many():
            self.stopped = f"{self.tally.share:.0%} of rewards missing: {self.tally.reasons}"
            log.error("training stops: %s", self.stopped)
        return verdicts

    def _too_many(self) -> bool:
        return len(self.tally.recent) >= 10 and self.tally.share > self.most_missing

    def _shape(
        self, rewards: NDArray[Any], i: int, row: int, episode: _Running, verdict: Verdict,
        done: bool,
    ) -> None:  # fmt: skip
        """Add shaping to the steps of an episode up to a row of this rollout."""
        steps = episode.step - episode.shaped
        if self.scorer.config.mode == "dense" and steps:
            extra = shaping(
                verdict.potential, self.scorer.config.gamma,
                begin=episode.shaped, held=episode.held, done=done,
            )  # fmt: skip
            rewards[row + 1 - steps : row + 1, i] += extra

    def _shape_running(self, rewards: NDArray[Any]) -> None:
        """The episodes that go on, as far as they are; what was taken at the border is held."""
        running = [(i, e) for i, e in self._running.items() if e.step > e.shaped]
        verdicts = self.scorer.judge(
            [e.recording for _, e in running], [e.task for _, e in running], count=False
        )
        for (i, episode), verdict in zip(running, verdicts, strict=True):
            potential = np.zeros(episode.step + 1)  # after the last frame progress stands still
            potential[: len(verdict.potential)] = verdict.potential
            potential[len(verdict.potential) :] = verdict.potential[-1]
            verdict = Verdict(verdict.result, verdict.reward, potential)
            self._shape(rewards, i, len(rewards) - 1, episode, verdict, done=False)
            episode.held = float(potential[-1])

    def _record(self, verdicts: list[Verdict]) -> None:
        new = [
            Judged(self.num_timesteps, e.env, e.episode.step, verdict, e.success)
            for e, verdict in zip(self._ended, verdicts, strict=True)
        ]
        self.episodes += new
        shown = {"missing_share": self.tally.share, "missing": self.tally.missing}
        if there := [j.verdict.reward for j in new if not j.verdict.missing]:
            shown["mean"] = float(np.mean(there))
        if known := [j for j in new if j.success is not None]:
            shown["true_success"] = float(np.mean([bool(j.success) for j in known]))
            shown["hacked"] = float(np.mean([j.hacked for j in known]))
        for name, value in shown.items():
            self.logger.record(f"reward/{name}", value)
