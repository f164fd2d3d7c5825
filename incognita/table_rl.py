"""Our PPO at the table: vector environments that a reward model may reward, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.ppo import PPO, PPOConfig
from learning.vec_env import EnvSpec, Step
from reward_vlm.results import Scores
from reward_vlm.scoring import HACKED, EpisodeScorer, Recording, ScoringConfig, Verdict
from sim.tabletop.env import TableEnv

ENVS = 16
EVERY = 3
"""Actions between two frames of an episode."""
Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Task:
    """What is learned, and for how long."""

    family: str
    near: bool
    steps: int
    """Actions in an episode."""
    total: int
    """Actions of a training."""


TASKS = {
    "touch": Task("touch", False, 40, 100_000),
    "push": Task("push", True, 30, 150_000),
}


@dataclass
class Trained:
    """What came of a training."""

    act: Act
    rewards: list[float] = field(default_factory=list)
    """Of every episode that was judged, in order; NaN where it is missing."""
    failed_as_good: int = 0
    """Episodes that truly failed and were scored 4.5 or more ..."""
    failed: int = 0
    """... of so many that truly failed and have a score."""

    def note(self, verdict: Verdict, success: bool) -> None:
        """Take in one episode."""
        self.rewards.append(verdict.reward)
        expected = getattr(verdict.result, "expected", None)
        if expected is not None and not success:
            self.failed += 1
            self.failed_as_good += expected >= HACKED


def table_env(task: Task, rewarded: str) -> TableEnv:
    """One environment of a task."""
    known = "none" if rewarded == "server" else rewarded
    return TableEnv(task.family, known, task.steps, near=task.near)  # type: ignore[arg-type]


class TableVec:
    """Our learner's vector environment over tables that end together; the service may reward them.

    Args:
        scorer: judges the episodes; None takes the environments' own rewards.
    """

    def __init__(
        self, task: Task, rewarded: str, seed: int, scorer: EpisodeScorer | None, out: Trained
    ) -> None:
        self.envs = [table_env(task, rewarded) for _ in range(ENVS)]
        self.scorer, self.out = scorer, out
        self.spec = EnvSpec(ENVS, 19, 4, 1, 0.1, task.steps)
        self._seed, self._count = seed, 0

    def reset(self) -> NDArray[np.float32]:
        """Start all anew."""
        pairs = [e.reset(seed=1000 * self._seed + i) for i, e in enumerate(self.envs)]
        return self._begun(pairs)

    def _begun(self, pairs: list[Any]) -> NDArray[np.float32]:
        self._count, self._tasks = 0, [info["task"] for _, info in pairs]
        if self.scorer is not None:
            self._recordings = [Recording(e.render(), EVERY) for e in self.envs]
        return np.stack([obs for obs, _ in pairs])

    def explore(self) -> NDArray[np.float32]:
        """Nothing: there is no bonus here."""
        return np.zeros((ENVS, 1), np.float32)

    def step(self, action: NDArray[np.float32]) -> Step:
        """Step all; judge them where they end."""
        rows = [e.step(a) for e, a in zip(self.envs, action, strict=True)]
        self._count += 1
        reward = np.array([r[1] for r in rows], np.float32)
        over = np.array([r[2] for r in rows])
        if self.scorer is not None:
            for env, recording in zip(self.envs, self._recordings, strict=True):
                if recording.wants(self._count) or over[0]:
                    recording.add(self._count, env.render())
        final = np.stack([r[0] for r in rows])
        terms: dict[str, NDArray[Any]] = {}
        obs = final
        if over.all():
            terms["success"] = np.array([r[4]["is_success"] for r in rows])
            if self.scorer is not None:
                reward = self._judged(terms["success"])
            obs = self._begun([e.reset() for e in self.envs])
        return Step(obs, reward, over, np.zeros(ENVS, np.bool_), final, self.explore(), terms)

    def _judged(self, success: NDArray[np.bool_]) -> NDArray[np.float32]:
        assert self.scorer is not None
        verdicts = self.scorer.judge(self._recordings, self._tasks)
        for verdict, done in zip(verdicts, success, strict=True):
            self.out.note(verdict, bool(done))
        return np.array([v.reward for v in verdicts], np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Nothing that could be gone on from: trainings here are short and not resumed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""

    def close(self) -> None:
        """Free the GL resources."""
        for env in self.envs:
            env.close()


def train_ours(task: Task, rewarded: str, seed: int, total: int, client: Scores | None) -> Trained:
    """Our PPO. ``client`` is used where the reward is the server's."""
    out = Trained(lambda obs: obs)
    scorer = None
    if rewarded == "server":
        assert client is not None
        scorer = EpisodeScorer(client, scoring(task))
    env = TableVec(task, rewarded, seed, scorer, out)
    config = PPOConfig(num_steps=3 * task.steps, minibatch=480, epochs=10, ent_coef=0.0, lr=3e-4)
    learner = PPO(env, config, seed=seed)
    learner.learn(total)
    env.close()
    net = learner.net
    out.act = lambda obs: np.clip(net.act(obs), -1, 1)
    return out


def scoring(task: Task) -> ScoringConfig:
    """A reward at the end, also where the model says that it does not know this arm's postures."""
    return ScoringConfig(every=EVERY, trust_doubt=True, deadline_s=120.0)


def success_of(act: Act, task: Task, episodes: int) -> float:
    """True successes of a policy on episodes that nobody trained on."""
    env, wins = TableEnv(task.family, "none", task.steps, near=task.near), 0
    for episode in range(episodes):
        obs, _ = env.reset(seed=9_000_000 + episode)
        over = False
        while not over:
            obs, _, over, _, info = env.step(act(obs[None])[0])
        wins += bool(info["is_success"])
    env.close()
    return wins / episodes
