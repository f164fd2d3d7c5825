"""ICM's equation, and the surprise that it pays for."""

from __future__ import annotations

import pytest
import torch

from curiosity import ICM, ICMConfig, Transition, make


def _system(g, gain=1.0):
    """x' = x + gain * a."""
    obs = torch.randn(16, 32, 2, generator=g)
    action = 2 * torch.rand(16, 32, 2, generator=g) - 1
    flag = torch.zeros(16, 32, dtype=torch.bool)
    return Transition(obs, action, obs + gain * action, flag, flag)


def test_bonus_is_half_the_squared_error_in_embedding():
    icm = ICM(ICMConfig(2, 2, scale=3.0))
    tr = _system(torch.Generator().manual_seed(0))
    icm.update(tr)
    phi = icm.inverse.encoder(icm.features(tr.obs))
    then = icm.inverse.encoder(icm.features(tr.next_obs))
    guess = icm.predict(torch.cat((phi, tr.action), -1))
    want = 3.0 * 0.5 * ((guess - then) ** 2).sum(-1)
    torch.testing.assert_close(icm.compute(tr), want, rtol=1e-5, atol=1e-6)


def test_surprise_by_hand():
    """Forward model set to the first embedding column: errors (1, -2) give 2.5."""
    icm = ICM(ICMConfig(2, 1, embed_dim=2, hidden=2))
    with torch.no_grad():
        icm.predict[0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        icm.predict[2].weight.copy_(torch.eye(2))
    phi, action = torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1)
    assert icm.surprise(phi, action, torch.tensor([[2.0, 3.0]])).item() == 2.5


def test_a_learned_law_becomes_dull_and_its_breach_surprises():
    """Trained on x' = x + a: the bonus falls; under x' = x - a it is many times higher."""
    g = torch.Generator().manual_seed(0)
    icm = make("icm", 2, 2, lr=1e-3)
    icm.update(_system(g))
    first = float(icm.compute(_system(g)).mean())
    for _ in range(80):
        log = icm.update(_system(g))
    lawful = float(icm.compute(_system(g)).mean())
    assert lawful < 0.3 * first
    assert float(icm.compute(_system(g, gain=-1.0)).mean()) > 5 * lawful
    assert log["inverse_loss"] < 0.1 < 2 / 3, "must beat guessing no action"


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\]"):
        make("icm", 2, 2, beta=1.5)
    with pytest.raises(ValueError, match="lr and scale must be > 0"):
        make("icm", 2, 2, lr=0.0)
