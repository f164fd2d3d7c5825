"""Behaviour cloning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learning.cloning import clone, cloning_share
from learning.ppo import PPO, ActorCritic, PPOConfig


def test_a_cloned_expert_drives_and_ppo_goes_on_from_it(point_env):
    obs = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4000, 4)).astype(np.float32))
    action = (obs[:, 2:] / 0.2).clamp(-1, 1)
    returns = -obs[:, 2:].norm(dim=1)
    net = ActorCritic(4, 2, (32, 32))
    losses = clone(net, obs, action, returns, epochs=40, minibatch=256, lr=3e-3)
    assert losses["actor"] < 0.02 and losses["critic"] < 0.02
    assert net.log_std.tolist() == [-1, -1]
    seen = []
    PPO(point_env(), PPOConfig(num_steps=32), net=net).learn(4096, lambda m: seen.append(m))
    assert seen[-1]["success"] > 0.95


def test_without_returns_the_critic_is_left_alone():
    net = ActorCritic(4, 2, (8,))
    before = net.critic[0].weight.detach().clone()
    clone(net, torch.randn(50, 4), torch.zeros(50, 2), epochs=1, log_std=None)
    assert torch.equal(net.critic[0].weight.detach(), before)


@pytest.mark.parametrize(
    ("obs", "action", "returns", "words"),
    [
        (torch.zeros(5, 3), torch.zeros(5, 2), None, r"obs must be \(B, 4\)"),
        (torch.zeros(5, 4), torch.zeros(4, 2), None, r"action must be \(5, 2\)"),
        (torch.zeros(5, 4), torch.zeros(5, 2), torch.zeros(5, 1), "returns must be"),
        (torch.full((5, 4), torch.nan), torch.zeros(5, 2), None, "obs must be finite"),
    ],
)
def test_bad_demonstrations_are_refused(obs, action, returns, words):
    with pytest.raises(ValueError, match=words):
        clone(ActorCritic(4, 2, (8,)), obs, action, returns)


def test_the_share_of_cloning_falls_as_episodes_succeed():
    assert cloning_share([]) == 1.0 == cloning_share([0, 0])
    assert cloning_share([1, 0, 0, 1]) == 0.5 and cloning_share([1.0, 1.0]) == 0.0
