"""The tasks on floors that change."""

import numpy as np
import pytest

from sim.batch import BatchEnv
from sim.kinematic import Kinematic
from sim.tasks import make

SMALL = {"layouts": 1, "size_m": (11.0, 8.0)}


def put(env: BatchEnv, xy: np.ndarray) -> None:
    """Row 0 stands at a point."""
    assert isinstance(env.backend, Kinematic)
    env.backend.pose_w[0, :2] = env.state.pose_w[0, :2] = xy


def test_doors_differ_between_episodes_and_the_goal_is_always_reachable() -> None:
    task = make("lifelong", layouts=1)
    rng = np.random.default_rng(0)
    placed = [task.place(rng) for _ in range(12)]
    states = {id(p.world): p.world for p in placed}
    assert 1 < len(states) <= 4
    for world in states.values():
        shut = (world.clearance(world.doors[:, :2]) == 0).mean()
        assert 0.05 < shut <= 0.21
    for p in placed:
        assert p.world.connects([p.start_w[:2], p.goal_w], task.robot.inscribed_m)


def test_a_patrol_pays_every_station_and_ends_at_the_last() -> None:
    task = make("patrol", stations=3, **SMALL)
    env = BatchEnv(task, 1, seed=2)
    env.reset()
    first = env.state.goal_w[0]
    variant = next(v for v in range(4) if np.allclose(task.round(0, v)[0], first))
    stations = task.round(0, variant)
    assert stations.shape == (3, 2)
    for k, station in enumerate(stations):
        assert env.state.goal_w[0] == pytest.approx(station)
        put(env, station)
        step = env.step(np.zeros((1, 2), np.float32))
        assert step.terms["reward/goal"][0] == task.config.goal_reward
        assert step.terminated[0] == step.terms["success"][0] == (k == 2)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="shut in"):
        make("lifelong", shut=2.0)
    with pytest.raises(ValueError, match="stations must be >= 1, got 0"):
        make("patrol", stations=0)
    with pytest.raises(ValueError, match="progress_reward must be 0"):
        make("patrol", progress_reward=1.0)
