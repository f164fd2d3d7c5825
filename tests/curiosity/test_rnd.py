"""The RND equation on nets set by hand, its training, and what it tells apart."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from curiosity import RND, RNDConfig, Transition, make


def _states(x):
    """(T, N, E) next states as a rollout."""
    flag = torch.zeros(x.shape[:-1], dtype=torch.bool)
    return Transition(x, torch.zeros(*x.shape[:-1], 1), x, flag, flag)


def _auc(novel, seen):
    """Probability that a novel state is paid more than a seen one."""
    both = torch.cat((novel, seen))
    rank = both.argsort().argsort().double() + 1
    n, m = len(novel), len(seen)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


def test_bonus_by_hand():
    """Target (2x, -y), predictor (x + 1, y): at (3, 2) the errors are -2 and 4, squared sum 20."""
    rnd = RND(RNDConfig(2, hidden=(2,), predictor_extra=0, embed_dim=2, whiten=False))
    with torch.no_grad():
        for net, diagonal, bias in ((rnd.target, (2, -1), (0, 0)), (rnd.predictor, (1, 1), (1, 0))):
            net[0].weight.copy_(torch.eye(2))
            net[0].bias.zero_()
            net[2].weight.copy_(torch.diag(torch.tensor(diagonal, dtype=torch.float32)))
            net[2].bias.copy_(torch.tensor(bias, dtype=torch.float32))
    reward = rnd.compute(_states(torch.tensor([[[3.0, 2.0]], [[0.0, 0.0]]])))
    assert reward.flatten().tolist() == [20.0, 1.0]
    scaled = RND(RNDConfig(2, hidden=(2,), predictor_extra=0, embed_dim=2, whiten=False, scale=0.5))
    scaled.load_state_dict(rnd.state_dict())
    assert scaled.compute(_states(torch.tensor([[[3.0, 2.0]]]))).item() == 10.0


def test_equals_a_plain_torch_computation_on_whitened_input():
    rnd = RND(RNDConfig(3))
    g = torch.Generator().manual_seed(0)
    seen = torch.randn(8, 4, 3, generator=g) * 3 + 10
    rnd.update(_states(seen))
    x = torch.randn(5, 4, 3, generator=g) * 30
    flat = seen.double().reshape(-1, 3)
    white = ((x - flat.mean(0)) / flat.std(0, correction=0)).clamp(-5, 5).float()
    assert bool((white.abs() == 5).any()), "the case must reach the clip"
    want = (rnd.predictor(white) - rnd.target(white)).pow(2).sum(-1)
    torch.testing.assert_close(rnd.compute(_states(x)), want, rtol=1e-5, atol=1e-5)


def test_training_moves_the_predictor_and_never_the_target(walk):
    rnd = make("rnd", 6, 2)
    target, predictor = copy.deepcopy(rnd.target), copy.deepcopy(rnd.predictor)
    rnd.update(walk(32, 8))
    for now, then in zip(rnd.target.parameters(), target.parameters(), strict=True):
        assert torch.equal(now, then)
    moved = [
        not torch.equal(now, then)
        for now, then in zip(rnd.predictor.parameters(), predictor.parameters(), strict=True)
    ]
    assert all(moved)


def test_a_quarter_of_the_rollout_trains_each_epoch(walk):
    rnd = make("rnd", 6, 2, epochs=3, minibatch=20)
    sizes = [len(rows) for rows in rnd._minibatches(256, 3, 20, torch.device("cpu"), 0.25)]
    assert sizes == [20, 20, 20, 4] * 3
    epoch = torch.cat(list(rnd._minibatches(256, 1, 20, torch.device("cpu"), 0.25)))
    assert len(epoch.unique()) == 64


@pytest.mark.parametrize("options", [{}, {"fourier_length_m": 1.0}], ids=["whitened", "fourier"])
def test_seen_and_unseen_places_are_told_apart(options):
    """Trained on one half of a 10 m hall, paid more in the other: AUC at least .95."""
    g = torch.Generator().manual_seed(0)
    here = torch.rand(64, 64, 2, generator=g) * torch.tensor([5.0, 10.0])
    rnd = make("rnd", 2, 1, **options)
    for _ in range(20):
        rnd.update(_states(here))
    fresh = torch.rand(1, 500, 2, generator=g)
    seen = fresh * torch.tensor([4.5, 10.0])
    unseen = fresh * torch.tensor([3.0, 10.0]) + torch.tensor([7.0, 0.0])
    auc = _auc(rnd.compute(_states(unseen))[0], rnd.compute(_states(seen))[0])
    assert auc >= 0.95, auc


def test_fourier_features_are_a_gaussian_kernel():
    """Inner product over the number of features: exp(-|x - y|^2 / 2 l^2)."""
    rnd = RND(RNDConfig(2, fourier_length_m=2.0, fourier_dim=20_000))
    x = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 2.0], [20.0, 0.0]])
    phi = rnd.features(x)
    want = torch.exp(-torch.cdist(x, x).square() / 8)
    np.testing.assert_allclose((phi @ phi.T / 20_000).numpy(), want.numpy(), atol=0.03)


def test_constant_columns_do_no_harm():
    rnd = RND(RNDConfig(2))
    x = torch.randn(16, 4, 2, generator=torch.Generator().manual_seed(0))
    x[..., 1] = 8.0
    rnd.update(_states(x))
    moved = x.clone()
    moved[..., 1] = 9.0
    assert bool(torch.isfinite(rnd.compute(_states(moved))).all())


def test_the_paper_variant_is_raw_and_asks_for_no_normalization():
    paper = make("rnd-paper", 6, 2)
    assert not paper.normalize and not paper.features.whiten
    assert make("rnd", 6, 2).normalize
    shapes = [tuple(p.shape) for p in paper.predictor.parameters()]
    assert shapes == [tuple(p.shape) for p in paper.target.parameters()]
    x = torch.full((1, 1, 6), 20.0)
    torch.testing.assert_close(paper.features(x), x[..., :5])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sample_fraction": 0.0}, r"sample_fraction must be in \(0, 1\]"),
        ({"fourier_length_m": 0.0}, "fourier_length_m must be > 0 m"),
        ({"columns": (0, 0)}, "columns must be distinct"),
        ({"hidden": ()}, "sizes must be >= 1"),
        ({"lr": -1.0}, "lr and scale must be > 0"),
        ({"activation": "gelu"}, "activation must be in"),
    ],
)
def test_bad_settings_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        make("rnd", 2, 1, **options)
