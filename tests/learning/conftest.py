"""A point that is driven to a goal: the smallest environment with all that learning relies on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from learning.vec_env import EnvSpec, Step


class PointEnv:
    """A point in the plane, moved by up to 0.2 m a step; success within 0.2 m of the goal.

    ``missing`` is the share of rewards that come as NaN. Leaving the 2 m square terminates.
    """

    def __init__(self, num_envs: int = 32, seed: int = 0, missing: float = 0.0) -> None:
        self.spec = EnvSpec(num_envs, 4, 2, 6, 0.05, 40)
        self.rng = np.random.default_rng(seed)
        self.missing = missing
        self.pos = np.zeros((num_envs, 2))
        self.goal = np.zeros((num_envs, 2))
        self.t = np.zeros(num_envs, np.int64)

    def reset(self) -> np.ndarray:
        self._renew(np.ones(self.spec.num_envs, bool))
        return self._obs()

    def _renew(self, rows: np.ndarray) -> None:
        k = int(rows.sum())
        self.pos[rows] = self.rng.uniform(-1, 1, (k, 2))
        self.goal[rows] = self.rng.uniform(-1, 1, (k, 2))
        self.t[rows] = 0

    def _obs(self) -> np.ndarray:
        return np.concatenate([self.pos, self.goal - self.pos], axis=1).astype(np.float32)

    def explore(self) -> np.ndarray:
        zeros = np.zeros((self.spec.num_envs, 1))
        return np.concatenate([self.pos, zeros, self.goal, zeros], axis=1).astype(np.float32)

    def step(self, action: np.ndarray) -> Step:
        assert action.dtype == np.float32 and np.abs(action).max() <= 1
        before = np.linalg.norm(self.goal - self.pos, axis=1)
        self.pos = self.pos + 0.2 * action
        self.t += 1
        distance = np.linalg.norm(self.goal - self.pos, axis=1)
        success, left = distance < 0.2, np.abs(self.pos).max(axis=1) > 2
        reward = (before - distance + success - 1.0 * left).astype(np.float32)
        if self.missing:
            reward[self.rng.random(len(reward)) < self.missing] = np.nan
        terminated = success | left
        truncated = ~terminated & (self.t >= self.spec.max_episode_steps)
        final, explore, done = self._obs(), self.explore(), terminated | truncated
        if done.any():
            self._renew(done)
        terms = {"reward/progress": before - distance, "success": success, "collision": left}
        return Step(self._obs(), reward, terminated, truncated, final, explore, terms)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": self.rng.bit_generator.state,
            "pos": self.pos.copy(), "goal": self.goal.copy(), "t": self.t.copy(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.pos, self.goal, self.t = (state[k].copy() for k in ("pos", "goal", "t"))


@pytest.fixture
def point_env() -> Callable[..., PointEnv]:
    """Builds a :class:`PointEnv`."""
    return PointEnv
