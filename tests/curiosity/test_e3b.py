"""The elliptical bonus against numbers by hand and a float64 solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curiosity import E3B, E3BConfig, Transition, make


def _raw(dim, num_envs=1, **options):
    """E3B on the states as they are."""
    return E3B(E3BConfig(dim, num_envs=num_envs, embedding="raw", embed_dim=dim, **options))


def test_one_hot_states_are_counted(path):
    """phi one-hot: exactly 1 / (ridge + visits before)."""
    visits = [0, 0, 1, 0, 2, 1, 0]
    reward = _raw(3).compute(path(torch.eye(3)[visits][:, None]))
    before = [visits[:t].count(v) for t, v in enumerate(visits)]
    want = [1 / (0.1 + n) for n in before]
    np.testing.assert_allclose(reward[:, 0].numpy(), want, atol=1e-5)


def test_two_steps_by_hand(path):
    """ridge 1, phi (1, 1) then (1, 0): 2, then C = [[2, 1], [1, 2]] gives 2/3."""
    reward = _raw(2, ridge=1.0).compute(path([[[1.0, 1.0]], [[1.0, 0.0]]]))
    np.testing.assert_allclose(reward[:, 0].numpy(), [2, 2 / 3], rtol=1e-6)


def test_stays_with_a_float64_solve_for_500_steps(path):
    """Carried over rollouts of 50 steps; relative and absolute error under 1e-4."""
    phi = np.random.default_rng(0).standard_normal((500, 3, 16)).astype(np.float32)
    e3b = _raw(16, num_envs=3)
    got = []
    for part in np.split(phi, 10):
        got.append(e3b.compute(path(part)).numpy())
        e3b.update(path(part))
    cov = np.tile(0.1 * np.eye(16), (3, 1, 1))
    want = np.zeros((500, 3))
    for t, step in enumerate(phi.astype(np.float64)):
        want[t] = np.einsum("nd,nd->n", step, np.linalg.solve(cov, step[..., None])[..., 0])
        cov += step[:, :, None] * step[:, None, :]
    got = np.concatenate(got)
    assert np.abs(got - want)[16:].max() < 1e-4
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_long_episode_stays_positive(path):
    """4000 steps, the longest cap of our tasks, on strongly correlated embeddings."""
    phi = 1 + 0.05 * np.random.default_rng(0).standard_normal((4000, 2, 8)).astype(np.float32)
    reward = _raw(8, num_envs=2).compute(path(phi))
    assert bool((reward > 0).all()) and bool(torch.isfinite(reward).all())


def test_a_finished_row_starts_anew_and_the_other_does_not(path):
    e3b = _raw(2, num_envs=2, ridge=1.0)
    same = torch.tensor([1.0, 0.0]).expand(4, 2, 2)
    reward = e3b.compute(path(same, [[0, 0], [1, 0], [0, 0], [0, 0]]))
    want = [[1, 1], [1 / 2, 1 / 2], [1, 1 / 3], [1 / 2, 1 / 4]]
    np.testing.assert_allclose(reward.numpy(), want, rtol=1e-5)


def test_the_encoder_learns_what_the_action_changes():
    """States (x, noise): the action moves x. The inverse loss falls well below guessing 0."""
    g = torch.Generator().manual_seed(0)
    e3b = make("e3b", 2, 1, num_envs=32, lr=1e-3)
    losses = []
    for _ in range(40):
        obs = torch.randn(32, 32, 2, generator=g)
        action = 2 * torch.rand(32, 32, 1, generator=g) - 1
        after = torch.randn(32, 32, 2, generator=g)
        after[..., :1] = obs[..., :1] + action
        flag = torch.zeros(32, 32, dtype=torch.bool)
        losses.append(e3b.update(Transition(obs, action, after, flag, flag))["inverse_loss"])
    assert losses[-1] < 0.1 < 1 / 3, losses[-1]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="ridge, lr, scale must be > 0"):
        _raw(2, ridge=0.0)
    with pytest.raises(ValueError, match="embedding must be"):
        make("e3b", 2, 1, embedding="pixels")
