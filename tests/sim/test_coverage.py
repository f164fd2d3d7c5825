"""The coverage task: paid for what comes into view, over when enough of it has."""

import numpy as np
import pytest

from sim.batch import BatchEnv
from sim.tasks import make


def test_what_is_paid_adds_up_to_what_is_seen():
    env = BatchEnv(make("coverage", layouts=1, first_layout=3), 2, "kinematic", seed=1)
    env.reset()
    begun, paid = env.state.seen_share.copy(), np.zeros(2)
    assert (begun > 0.02).all() and (begun < 0.9).all()
    for k in range(400):
        turn = np.sin(k / 40)
        step = env.step(np.array([[0.3, turn], [0.5, -turn]], np.float32))
        paid += step.terms["reward/new"]
        assert not step.terminated.any()
        assert (step.terms["reward/goal"] == 0).all()
    np.testing.assert_allclose(paid, 10 * (env.state.seen_share - begun), atol=0.2)
    assert (env.state.seen_share > begun).all()


def test_an_episode_is_over_when_enough_is_seen():
    env = BatchEnv(make("coverage", layouts=1, share=0.01), 1, "kinematic", seed=1)
    env.reset()
    step = env.step(np.zeros((1, 2), np.float32))
    assert step.terminated[0] and step.terms["success"][0]
    assert env.state.t[0] == 0 and env.state.last_seen_share[0] == env.state.seen_share[0]


@pytest.mark.parametrize("kind", ["rooms", "maze", "cave"])
def test_all_kinds_of_floor_can_be_covered_in_principle(kind):
    env = BatchEnv(make("coverage", kind=kind, layouts=1), 1, "kinematic", seed=0)
    env.reset()
    world = env.placements[0].world
    rng = np.random.default_rng(0)
    for x, y in world.free_points(rng, 150, 0.4):
        env.state.pose_w[0, :2] = env.state.seen_pose_w[0, :2] = x, y
        env._sense(np.array([0]))
    assert env.state.seen_share[0] > 0.95


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="kind must be one of"):
        make("coverage", kind="sea")
    with pytest.raises(ValueError, match="0 < share <= 1"):
        make("coverage", share=0.0)
    with pytest.raises(ValueError, match="coverage needs guide='built'"):
        make("agv-warehouse", coverage=True)
