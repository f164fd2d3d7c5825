"""Score a policy on a long task: strict and weak success, and how far its stages can be believed.

Each row runs one episode, so short episodes count no more than long ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evovla.actor import Actor, OnnxVLA
from evovla.stage_reward import StageRewardConfig
from learning.policy_file import OnnxPolicy, verify_policy
from sim.manipulation.batch import ArmBatch
from sim.manipulation.randomization import ARM_NOMINAL, ArmRandomization
from sim.manipulation.task import ArmTask
from sim.tasks import make_arm

from .stage_env import Judge, StageEnv, StageEnvConfig, open_judge
from .stats import share_interval, wilson

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, D) observations -> (N, 5) actions in [-1, 1]. One that remembers has a ``reset(N)``, which is
called before the episodes of N rows begin."""
BATCH = 50
"""Episodes side by side."""
TEST_SEED, VALIDATION_SEED = 1_000_000, 2_000_000
"""Of the episodes of an evaluation, and of those that a training is watched by."""


@dataclass
class StageOutcome:
    """k episodes, one array entry each. Steps are counted until the end of their episode."""

    success: NDArray[np.bool_]
    """Strict: in order, released, stable."""
    weak: NDArray[np.bool_]
    """By the weak predicate of the public benchmark."""
    lost: NDArray[np.bool_]
    """A piece fell off the table."""
    steps: NDArray[np.int64]
    furthest: NDArray[np.int64]
    """Highest true stage, 0..K."""
    claimed: NDArray[np.int64]
    """Steps whose running score is above the stage's threshold ..."""
    hallucinated: NDArray[np.int64]
    """... of them, those whose stage is truly not done,"""
    raw_claimed: NDArray[np.int64]
    """... and the same of the scores of single frames."""
    raw_hallucinated: NDArray[np.int64]
    done: NDArray[np.int64]
    """Steps whose active stage is truly done ..."""
    found: NDArray[np.int64]
    """... of them, those that are claimed."""
    exact: NDArray[np.int64]
    """Steps whose believed stage is the true one,"""
    near: NDArray[np.int64]
    """... or next to it."""
    stages: int
    """K."""

    def summary(self) -> dict[str, Any]:
        """Rates with 95 % intervals: Wilson's over episodes; for rates over steps, which are not
        independent, bootstrapped over episodes."""
        n, total = len(self.success), int(self.steps.sum())
        ok = self.success
        return {
            "episodes": n,
            "success": float(ok.mean()), "success_95": wilson(int(ok.sum()), n),
            "weak_success": float(self.weak.mean()), "weak_95": wilson(int(self.weak.sum()), n),
            "lost": float(self.lost.mean()),
            "stage_share": float(self.furthest.mean() / self.stages),
            "stopped_at": np.bincount(self.furthest[~ok], minlength=self.stages + 1).tolist(),
            "mean_steps": float(self.steps[ok].mean()) if ok.any() else None,
            "hallucination": _share(self.hallucinated, self.claimed),
            "hallucination_95": share_interval(self.hallucinated, self.claimed),
            "hallucination_frame": _share(self.raw_hallucinated, self.raw_claimed),
            "claims": int(self.claimed.sum()),
            "recall": _share(self.found, self.done),
            "stage_exact": int(self.exact.sum()) / total,
            "stage_within_one": int(self.near.sum()) / total,
        }  # fmt: skip


def evaluate_stages(
    task: ArmTask, policy: Policy, judge: Judge, episodes: int, *,
    config: StageEnvConfig | None = None, seed: int = TEST_SEED,
    randomization: ArmRandomization = ARM_NOMINAL, progress: Callable[[int], None] | None = None,
) -> StageOutcome:  # fmt: skip
    """Run ``episodes`` episodes; row i is the same episode for every policy.

    Args:
        judge: whose scores the believed stage comes from.
        progress: called with the number of episodes that were done.
    """
    parts = []
    for first in range(0, episodes, BATCH):
        n = min(BATCH, episodes - first)
        batch = ArmBatch(task, n, seed, randomization, first_row=first)
        if hasattr(policy, "reset"):
            policy.reset(n)
        parts.append(_episodes(StageEnv(batch, judge, config), policy))
        if progress is not None:
            progress(n)
    names = [f.name for f in fields(StageOutcome) if f.name != "stages"]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return StageOutcome(**joined, stages=task.plan.stages)


def _episodes(env: StageEnv, policy: Policy) -> dict[str, NDArray[Any]]:
    """One episode of every row."""
    n = env.spec.num_envs
    out: dict[str, NDArray[Any]] = {k: np.zeros(n, bool) for k in ("success", "weak", "lost")}
    out |= {
        f.name: np.zeros(n, np.int64) for f in fields(StageOutcome)
        if f.name != "stages" and f.name not in out
    }  # fmt: skip
    obs, running = env.reset(), np.ones(n, bool)
    while running.any():
        step = env.step(policy(obs))
        for name, value in _counts(env).items():
            out[name] += value * running
        true = env.batch.final_tracker.stage
        out["furthest"] = np.maximum(out["furthest"], true * running)
        ended = running & (step.terminated | step.truncated)
        for name, key in (("success", "success"), ("weak", "weak_success"), ("lost", "lost")):
            out[name][ended] = step.terms[key][ended]
        running &= ~ended
        obs = step.obs
    return out


def _counts(env: StageEnv) -> dict[str, NDArray[np.bool_]]:
    """What to add up for the step that was just taken, (N,) each."""
    told, true = env.told, env.batch.final_tracker.stage
    assert told is not None
    limit, done = env.tracker.theta[told.active], env.active_done
    claimed, raw = told.score > limit, told.raw > limit
    off = np.abs(told.stage - true)
    return {
        "steps": np.ones(len(true), np.bool_), "claimed": claimed, "hallucinated": claimed & ~done,
        "raw_claimed": raw, "raw_hallucinated": raw & ~done, "done": done, "found": claimed & done,
        "exact": off == 0, "near": off <= 1,
    }  # fmt: skip


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float | None:
    return int(part.sum()) / int(whole.sum()) if whole.any() else None


def evaluate_file(folder: Path, episodes: int, seed: int) -> dict[str, Any]:
    """Score a policy file, as a robot would run it, with the task, scorer and tracker of training.

    Raises:
        FileNotFoundError: the scorer's folder is gone.
    """
    manifest = verify_policy(folder)
    settings = manifest["recipe"]["settings"]
    task = make_arm(settings["task"])
    env = dict(settings["env"])
    config = StageEnvConfig(**env | {"tracker": StageRewardConfig(**env["tracker"])})
    judge = open_judge(task, settings["scorer"], settings["hard"])
    act = _OnnxActing(folder) if manifest["network"].get("kind") == "vla" else OnnxPolicy(folder)
    try:
        found = evaluate_stages(task, act, judge, episodes, config=config, seed=seed)
    finally:
        judge.close()
    return {"task": task.name, "scorer": settings["scorer"], **found.summary()}


class _OnnxActing:
    """A vision-language-action policy file that carries its memory."""

    def __init__(self, folder: Path) -> None:
        self.net = OnnxVLA(folder)
        self._actor = Actor(self.net, 1, self.net.execute)

    def reset(self, num_envs: int) -> None:
        """Episodes of so many rows begin."""
        self._actor = Actor(self.net, num_envs, self.net.execute)

    def __call__(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._actor(obs)
