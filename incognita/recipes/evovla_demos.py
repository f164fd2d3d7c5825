"""Demonstrations of a long task: played by the scripted expert, kept in an episode store, read.

A demonstration that another robot or person gave can stand in the same store: what is needed are
the arrays "obs" and "action" of every step, and rewards by term for the critic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes import EpisodeReader, EpisodeWriter
from sim.manipulation.batch import ArmBatch
from sim.manipulation.expert import Expert, ExpertConfig
from sim.manipulation.randomization import ArmRandomization
from sim.manipulation.task import ArmTask

from ..stage_env import Judge, StageEnv, StageEnvConfig

MOST_ROUNDS = 10
"""Times that as many episodes as are wanted are played until so many have succeeded."""


@dataclass(frozen=True)
class Demonstrations:
    """Steps of all demonstrations, B in all."""

    obs: Tensor
    """(B, obs_dim) float32, the believed stage in them."""
    action: Tensor
    """(B, A) float32, what the expert wanted."""
    returns: Tensor
    """(B,) discounted rewards from here to the end."""
    length: Tensor
    """(E,) int64 steps of each demonstration."""


def record(
    store: Path, task: ArmTask, judge: Judge, config: StageEnvConfig, count: int, *, seed: int,
    noise: float = 0.0, randomization: ArmRandomization,
) -> None:  # fmt: skip
    """Add successes of the expert to a store until it holds ``count``.

    Args:
        noise: standard deviation of what is added to the actions that are carried out but not to
            those that are recorded (Laskey et al. 2017, arXiv:1703.09327): so recoveries are shown.

    Raises:
        RuntimeError: the expert fails too often.
    """
    rng = np.random.default_rng(seed)
    with EpisodeWriter(store) as writer:
        for k in range(MOST_ROUNDS):
            missing = count - len(EpisodeReader(store).ids())
            if missing <= 0:
                return
            batch = ArmBatch(task, count, seed, randomization, first_row=k * count)
            env = StageEnv(batch, judge, config)
            _play(writer, env, noise, rng, missing)
    raise RuntimeError(f"the expert must succeed {count} times, it fails too often at {task.name}")


def _play(
    writer: EpisodeWriter, env: StageEnv, noise: float, rng: np.random.Generator, most: int
) -> None:
    """One episode of every row; up to ``most`` successes are written."""
    batch, n = env.batch, env.spec.num_envs
    expert = Expert(batch, ExpertConfig(), seed=int(rng.integers(2**31)))
    steps: list[list[dict[str, NDArray[np.float32]]]] = [[] for _ in range(n)]
    obs, running, kept = env.reset(), np.ones(n, bool), 0
    while running.any():
        action = expert.act()
        sent = action + noise * rng.standard_normal(action.shape)
        step = env.step(np.clip(sent, -1, 1).astype(np.float32))
        assert env.told is not None
        terms = {k: v for k, v in step.terms.items() if k.startswith("reward/")}
        for i in np.flatnonzero(running):
            line = {"obs": obs[i], "action": action[i]}
            line |= {name: np.float32(value[i]) for name, value in terms.items()}
            steps[i].append(line | {"stage": batch.final_tracker.stage[i]})
        ended = running & (step.terminated | step.truncated)
        for i in np.flatnonzero(ended & step.terms["success"]):
            if kept < most:
                about = {"seed": batch.seed, "row": batch.first_row + int(i), "expert": "scripted"}
                with writer.episode(batch.task.name, batch.task.description, about) as episode:
                    for line in steps[i]:
                        episode.append(line)
                    episode.finish({"success": True})
                kept += 1
        running &= ~ended
        obs = step.obs


def load(store: Path, gamma: float) -> Demonstrations:
    """Every step of every episode in a store.

    Raises:
        FileNotFoundError: no such folder, or no episode in it.
    """
    reader = EpisodeReader(store)
    found = [reader.open(name).arrays for name in reader.ids()]
    if not found:
        raise FileNotFoundError(f"store must hold episodes, got none in {store}")
    returns = []
    for arrays in found:
        paid = np.sum([v for k, v in arrays.items() if k.startswith("reward/")], axis=0)
        togo = np.zeros(len(paid) + 1)
        for t in range(len(paid) - 1, -1, -1):
            togo[t] = paid[t] + gamma * togo[t + 1]
        returns.append(togo[:-1])
    obs, action = (np.concatenate([a[name] for a in found]) for name in ("obs", "action"))
    told = np.concatenate(returns).astype(np.float32)
    length = np.array([len(r) for r in returns])
    return Demonstrations(*(torch.from_numpy(np.asarray(x)) for x in (obs, action, told, length)))
