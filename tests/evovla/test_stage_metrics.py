"""Hallucination with a truth and without one, calibration on numbers that are known."""

import math

import numpy as np
import pytest

from evovla.stage_metrics import calibrate, calibration_error, diagnose
from evovla.triplets import scores


def test_the_proxy_and_the_true_rate_differ_on_a_case_made_by_hand():
    """Four claims, three of them true; the scores stand still in all but one of the true ones."""
    score = [0.9, 0.9, 0.8, 0.8, 0.2, 0.3]
    done = [True, True, True, False, False, True]
    rise = [0.0, 0.0, 0.2, 0.2, 0.0, 0.0]
    found = diagnose(score, done, rise, theta=0.7)
    assert (found.claimed, found.hallucinated) == (4, 1)
    assert found.rate == 0.25 and found.proxy == 0.5
    assert found.recall == 0.75
    # bins .2: (.2, 0), .3: (.3, 1), .8: (1.6, 1), .9: (1.8, 2): |.2| + |-.7| + |.6| + |-.2| over 6
    assert found.ece == pytest.approx((0.2 + 0.7 + 0.6 + 0.2) / 6)


def test_scores_that_never_pass_give_the_proxy_a_perfect_record_and_the_true_rate_nothing():
    literal = scores(np.linspace(-2, 2, 50), 0.05, literal=True)
    found = diagnose(literal, np.zeros(50, bool), np.zeros(50), theta=0.7)
    assert found.proxy == 0.0
    assert math.isnan(found.rate) and found.claimed == 0


def test_calibrated_scores_have_little_calibration_error_and_sharp_ones_much():
    rng = np.random.default_rng(0)
    gap = rng.normal(0, 0.3, 20000)
    done = rng.random(20000) < scores(gap, 0.2)
    tau, _ = calibrate(gap[:, None], done[:, None])
    assert tau[0] == pytest.approx(0.2, rel=0.1)
    assert calibration_error(scores(gap, tau[0]), done) < 0.02
    assert calibration_error(scores(gap, 0.02), done) > 0.1


def test_the_threshold_is_the_lowest_that_is_right_as_often_as_wanted():
    gap = np.array([-2, -1, 0, 1, 2, 3, 4, 5, 6, 7.0])
    done = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 1], bool)
    tau, theta = calibrate(gap[:, None], done[:, None], precision=1.0, recall=0.6)
    assert scores(1.0, tau[0]) < theta[0] < scores(2.0, tau[0])
    _, lower = calibrate(gap[:, None], done[:, None], precision=0.85, recall=0.6)
    assert scores(-1.0, tau[0]) < lower[0] < scores(0.0, tau[0])


def test_where_precision_cannot_be_had_recall_is_kept():
    gap = np.array([3.0, 2.0, 1.0, 0.0])
    done = np.array([False, True, True, False])
    tau, theta = calibrate(gap[:, None], done[:, None], precision=0.99, recall=0.9)
    assert (scores(gap, tau[0]) > theta[0]).tolist() == [True, True, True, False]


def test_a_stage_that_is_never_seen_done_keeps_the_defaults():
    gaps = np.linspace(-1, 1, 20)[:, None].repeat(2, axis=1)
    done = np.stack([np.zeros(20, bool), gaps[:, 1] > 0], axis=1)
    tau, theta = calibrate(gaps, done, default=(0.07, 0.66))
    assert (tau[0], theta[0]) == (0.07, 0.66)
    assert tau[1] != 0.07


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"done and rise must be \(2,\), got \(3,\) and \(2,\)"):
        diagnose([0.1, 0.2], [True] * 3, [0.0, 0.0])
    with pytest.raises(ValueError, match=r"score must be in \[0, 1\]"):
        diagnose([1.2], [True], [0.0])
    with pytest.raises(ValueError, match=r"gaps and done must be \(M, K\)"):
        calibrate(np.zeros(4), np.zeros(4, bool))
