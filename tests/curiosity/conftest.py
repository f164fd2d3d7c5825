"""Rollouts of a random walk in the six columns that our simulators hand to bonuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from curiosity import Transition

torch.set_num_threads(1)


@pytest.fixture
def walk() -> Callable[..., Transition]:
    """A function (steps, envs, seed, done_rate) -> Transition with leading shape (T, N)."""

    def make_walk(
        steps: int, envs: int, seed: int = 0, done_rate: float = 0.05, stride_m: float = 0.4
    ) -> Transition:
        g = torch.Generator().manual_seed(seed)
        state = torch.zeros(steps + 1, envs, 6)
        state[..., :3] = (stride_m * torch.randn(steps + 1, envs, 3, generator=g)).cumsum(0)
        state[..., 3:5] = 8.0
        state[..., 5] = 2.0
        action = 2 * torch.rand(steps, envs, 2, generator=g) - 1
        ended = torch.rand(steps, envs, generator=g) < done_rate
        cut = torch.rand(steps, envs, generator=g) < done_rate
        return Transition(state[:-1], action, state[1:], ended, cut & ~ended)

    return make_walk


@pytest.fixture
def path() -> Callable[..., Transition]:
    """A function (positions (T, N, 2) or (T, N, E), done (T, N)) -> Transition."""

    def make_path(positions: object, done: object = None) -> Transition:
        next_obs = torch.as_tensor(positions, dtype=torch.float32)
        lead = next_obs.shape[:-1]
        if done is None:
            ended = torch.zeros(lead, dtype=torch.bool)
        else:
            ended = torch.as_tensor(done).bool()
        zeros = torch.zeros_like(next_obs)
        return Transition(zeros, torch.zeros(*lead, 1), next_obs, ended, torch.zeros_like(ended))

    return make_path
