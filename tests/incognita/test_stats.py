"""IQM, bootstrap intervals and ratios against numbers worked by hand."""

import numpy as np
import pytest

from incognita.stats import bootstrap_interval, iqm, ratio_of_iqms, share_interval, wilson


@pytest.mark.parametrize(
    "values, want",
    [
        ([3.0], 3.0),
        ([1, 2, 9], 4.0),  # 3 // 4 = 0: nothing is dropped
        ([100, 2, 4, 0], 3.0),  # 0 and 100 go
        ([0, 1, 2, 3, 1000], 2.0),  # 0 and 1000 go, (1 + 2 + 3) / 3
        ([-900, 1, 2, 3, 4, 5, 6, 900], 3.5),  # two go at each end, (2 + 3 + 4 + 5) / 4
    ],
)
def test_iqm_by_hand(values, want):
    assert iqm(values) == want


def test_iqm_of_curves_is_per_column():
    curves = np.array([[0, 10], [1, 20], [2, 30], [9, 90]])
    assert iqm(curves).tolist() == [1.5, 25.0]
    assert iqm(curves.T, axis=1).tolist() == [1.5, 25.0]


def test_interval_of_two_values_by_hand():
    """Means of two draws from {0, 1} are 0, 1/2, 1 with 1/4, 1/2, 1/4."""
    assert bootstrap_interval([0, 1], np.mean, level=0.95) == (0, 1)
    assert bootstrap_interval([0, 1], np.mean, level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([4, 4, 4]) == (4, 4)


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.normal(size=30), np.mean, resamples=300, seed=trial)
        covered += low <= 0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_of_curves_is_a_band_and_seeded():
    curves = np.random.default_rng(1).normal(size=(5, 7)) + np.arange(7)
    low, high = bootstrap_interval(curves)
    assert low.shape == high.shape == (7,)
    assert (low <= iqm(curves)).all() and (iqm(curves) <= high).all()
    again = bootstrap_interval(curves)
    assert np.array_equal(again[0], low) and np.array_equal(again[1], high)


def test_ratio_by_hand():
    assert ratio_of_iqms([6, 6, 6], [2, 2]) == (3, 3, 3)
    ratio, low, high = ratio_of_iqms([0, 8, 10, 99], [1, 2, 4, 70])  # (8 + 10) / (2 + 4)
    assert ratio == 3 and low < 3 < high
    assert low >= 0 and high <= 99


@pytest.mark.parametrize(
    "call",
    [
        lambda: iqm([]),
        lambda: iqm([1, float("inf")]),
        lambda: bootstrap_interval([1, float("nan")]),
        lambda: bootstrap_interval([1, 2], level=1.0),
        lambda: bootstrap_interval([1, 2], resamples=0),
        lambda: ratio_of_iqms([1], [0]),
        lambda: ratio_of_iqms([[1]], [[1]]),
    ],
)
def test_bad_numbers_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_wilsons_interval_is_that_of_his_formula():
    low, high = wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    np.testing.assert_allclose((low, high), (0.2553, 0.3662), atol=5e-5)
    assert wilson(0, 20)[0] == 0.0 and wilson(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


def test_a_share_is_as_unsure_as_its_episodes_are_few():
    few = share_interval([0, 40], [40, 40])  # 40 steps each, but two episodes
    many = share_interval([1] * 40, [2] * 40)
    assert few == (0.0, 1.0) and many == (0.5, 0.5)
    assert share_interval([0, 0], [0, 0]) is None
