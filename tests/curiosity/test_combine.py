"""Products, sums and unit spread, from parts whose rewards are known."""

from __future__ import annotations

import pytest
import torch

from curiosity import Normalized, Product, Sum, make


@pytest.fixture
def parts(walk):
    """A lifelong and an episodic count of different cells, and a rollout."""
    lifelong = make("count", 6, 2, num_envs=4, cell_m=2.0)
    episodic = make("count-episodic", 6, 2, num_envs=4, cell_m=0.5)
    return lifelong, episodic, walk(16, 4)


def test_product_multiplies(parts):
    lifelong, episodic, tr = parts
    want = 3.0 * lifelong.compute(tr) * episodic.compute(tr)
    product = Product([lifelong, episodic], scale=3.0)
    torch.testing.assert_close(product.compute(tr), want)
    assert product.horizon == "episodic" and product.rows == 4


def test_sum_adds_weighted_parts_and_logs_their_shares(parts):
    lifelong, episodic, tr = parts
    first, second = lifelong.compute(tr), episodic.compute(tr)
    total = Sum([lifelong, episodic], weights=[2.0, 0.5])
    torch.testing.assert_close(total.compute(tr), 2.0 * first + 0.5 * second)
    assert total.horizon == "lifelong"
    log = total.update(tr)
    assert log["count/mean"] == pytest.approx(float(first.mean()), rel=1e-5)
    assert log["count1/mean"] == pytest.approx(float(second.mean()), rel=1e-5)
    assert log["count/weight"] == 2.0
    assert log["count/share"] + log["count1/share"] == pytest.approx(1.0)
    assert log["count/share"] == pytest.approx(
        float(2 * first.mean() / (2 * first + 0.5 * second).mean()), rel=1e-5
    )


def test_updating_a_product_updates_every_part_once(parts):
    lifelong, episodic, tr = parts
    alone = make("count", 6, 2, num_envs=4, cell_m=2.0)
    alone.update(tr)
    Product([lifelong, episodic]).update(tr)
    assert torch.equal(alone.compute(tr), lifelong.compute(tr))


def test_normalized_has_unit_spread_and_is_not_centred(walk):
    rnd = make("rnd", 6, 2, fourier_length_m=2.0)
    norm = Normalized(rnd)
    tr = walk(32, 4)
    raw = rnd.compute(tr)
    own = raw.double().std(correction=0)
    torch.testing.assert_close(norm.compute(tr), (raw / own).float(), rtol=1e-5, atol=1e-6)
    log = norm.update(tr)
    assert log["std"] == pytest.approx(float(own), rel=1e-5)
    torch.testing.assert_close(norm.compute(tr), (rnd.compute(tr) / own).float(), rtol=1e-5, atol=0)


def test_count_rnd_is_count_times_normalized_rnd(walk):
    both = make("count-rnd", 6, 2, num_envs=4, seed=5, cell_m=1.0, fourier_length_m=3.0)
    count = make("count", 6, 2, cell_m=1.0)
    rnd = Normalized(make("rnd", 6, 2, seed=5, fourier_length_m=3.0))
    for seed in range(3):
        tr = walk(16, 4, seed=seed)
        torch.testing.assert_close(both.compute(tr), count.compute(tr) * rnd.compute(tr))
        for bonus in (both, count, rnd):
            log = bonus.update(tr)
        assert {"loss", "std", "mean"} <= set(log)
    assert both.horizon == "lifelong"


def test_episodic_times_lifelong_pays_again_in_the_next_episode(path):
    """Two cells, two episodes: the product falls within an episode and recovers after it."""
    count = make("count", 6, 1, id_columns=(), num_envs=1)
    episodic = make("count-episodic", 6, 1, id_columns=(), num_envs=1)
    still = torch.zeros(4, 1, 6)
    reward = Product([episodic, count]).compute(path(still, [[0], [1], [0], [0]])).flatten()
    n = torch.tensor([1.0, 2.0, 1.0, 2.0]) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(reward, n.rsqrt())


def test_bad_combinations_are_refused(parts):
    lifelong, episodic, _ = parts
    with pytest.raises(ValueError, match="at least one bonus"):
        Product([])
    with pytest.raises(ValueError, match="obs_dim, action_dim"):
        Sum([lifelong, make("count", 5, 2)])
    with pytest.raises(ValueError, match="4 rows, got 8"):
        Product([episodic, make("count-episodic", 6, 2, num_envs=8)])
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        Sum([lifelong, episodic], weights=[1.0])
    with pytest.raises(ValueError, match="scale must be > 0"):
        Product([lifelong], scale=0.0)
