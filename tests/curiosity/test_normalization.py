"""The running statistics against plain float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curiosity import DiscountedReturnStd, RunningMeanStd


def _returns(rewards, gamma, done=None):
    """Reference: a loop over environments, then over time."""
    out = np.zeros_like(rewards)
    for n in range(rewards.shape[1]):
        running = 0.0
        for t in range(rewards.shape[0]):
            running = gamma * running + rewards[t, n]
            out[t, n] = running
            if done is not None and done[t, n]:
                running = 0.0
    return out


def _rewards(steps=40, envs=6, seed=0):
    """Rewards whose order in time matters: a slow wave with noise, another phase per row."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(steps)[:, None] / 5 + np.arange(envs))
    return wave + 1.5 + 0.1 * rng.standard_normal((steps, envs))


def test_batches_add_up_to_the_whole():
    x = np.random.default_rng(0).normal(3e5, 2.0, (500, 3))
    stat = RunningMeanStd((3,))
    for part in np.split(x, [1, 7, 60, 300]):
        stat.update(torch.from_numpy(part))
    np.testing.assert_allclose(stat.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stat.var, x.var(0), rtol=1e-7)
    assert float(stat.count) == 500


def test_two_numbers_by_hand():
    stat = RunningMeanStd()
    assert float(stat.std) == pytest.approx(1.0) and not stat.fitted
    stat.update(torch.tensor([1.0]))
    stat.update(torch.tensor([3.0]))
    assert (float(stat.mean), float(stat.var)) == (2.0, 1.0)
    stat.update(torch.empty(0))
    assert float(stat.count) == 2


def test_returns_by_hand():
    """gamma .5, rewards 1, 1, 1: returns 1, 1.5, 1.75 with variance .0972222."""
    scale = DiscountedReturnStd(0.5, 1)
    scale.update(torch.ones(3, 1))
    assert float(scale.returns) == 1.75
    assert float(scale.stat.mean) == pytest.approx(17 / 12)
    assert float(scale.stat.var) == pytest.approx(7 / 72)


def test_filter_equals_a_float64_loop_over_rollouts():
    rewards = _rewards()
    want = _returns(rewards, 0.99)
    scale = DiscountedReturnStd(0.99, 6)
    for part in np.split(rewards, [8, 24]):
        scale.update(torch.from_numpy(part).float())
    np.testing.assert_allclose(float(scale.stat.std), want.std(), rtol=1e-5)
    np.testing.assert_allclose(scale.returns, want[-1], rtol=1e-5)


def test_swapping_time_and_environments_is_noticed():
    """A square rollout, whose shape betrays nothing: only the right axis gives the reference."""
    rewards = _rewards(16, 16)
    want = _returns(rewards, 0.9).std()
    right, wrong = DiscountedReturnStd(0.9, 16), DiscountedReturnStd(0.9, 16)
    right.update(torch.from_numpy(rewards))
    wrong.update(torch.from_numpy(rewards.T.copy()))
    assert float(right.stat.std) == pytest.approx(want, rel=1e-6)
    assert abs(float(wrong.stat.std) - want) > 0.05 * want
    with pytest.raises(ValueError, match=r"rewards must be \(T, 16\), got \(16, 40\)"):
        right.update(torch.zeros(16, 40))


def test_only_an_episodic_stream_forgets_at_the_end():
    rewards = _rewards()
    done = np.random.default_rng(1).random(rewards.shape) < 0.1
    lifelong = DiscountedReturnStd(0.9, 6)
    episodic = DiscountedReturnStd(0.9, 6, episodic=True)
    for stream in (lifelong, episodic):
        stream.update(torch.from_numpy(rewards), torch.from_numpy(done))
    without, within = _returns(rewards, 0.9), _returns(rewards, 0.9, done)
    assert float(lifelong.stat.std) == pytest.approx(without.std(), rel=1e-6)
    assert float(episodic.stat.std) == pytest.approx(within.std(), rel=1e-6)
    assert abs(without.std() - within.std()) > 1e-3
    with pytest.raises(ValueError, match="done must be given"):
        episodic.update(torch.from_numpy(rewards))


def test_rewards_are_scaled_and_never_centred():
    rewards = torch.from_numpy(_rewards()).float()
    scale = DiscountedReturnStd(0.9, 6)
    out = scale(rewards)
    assert out.dtype == torch.float32
    ratio = rewards / out
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(scale.stat.std)))
    scale.reset()
    assert float(scale.returns.abs().max()) == 0 and scale.stat.fitted


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="gamma must be in"):
        DiscountedReturnStd(1.0, 4)
    with pytest.raises(ValueError, match="num_envs must be >= 1"):
        DiscountedReturnStd(0.9, 0)
