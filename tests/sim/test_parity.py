"""Tier K against tier M: equal commands, equal scans, and what becomes of a policy."""

from __future__ import annotations

import numpy as np
import pytest

from incognita.evaluate import evaluate
from incognita.shipped import folder_of, task_of
from learning.policy_file import OnnxPolicy
from rnd_agv.command import limit_rate
from rnd_agv.robot import ROBOTS
from sim.backend import CONTROL_DT, Dynamics
from sim.bank import WorldBank
from sim.batch import BatchEnv
from sim.kinematic import Kinematic
from sim.mujoco_batch import MujocoBatch
from sim.randomization import Randomization
from sim.tasks import make
from sim.worlds.world import Draft

ROBOTS_N, STEPS = 32, 200
EXACT = Randomization(lidar_sigma_m=(0.0, 0.0))


def drive(name: str, v_max: float, w_max: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) pose errors after 10 s over the way driven, and (N,) turn errors, rad."""
    robot, n, rng = ROBOTS[name], ROBOTS_N, np.random.default_rng(3)
    tiers = Kinematic(robot, n, WorldBank()), MujocoBatch(robot, n)
    start = np.zeros((n, 3))
    start[:, 2] = rng.uniform(-np.pi, np.pi, n)
    for tier in tiers:
        tier.reset(
            np.arange(n), [Draft(60.0, 60.0).world("open", 0)] * n, start, Dynamics.nominal(n)
        )
    last, path = np.zeros((n, 2)), np.zeros(n)
    for t in range(STEPS):
        if t % 20 == 0:
            wanted = rng.uniform([0.0, -w_max], [v_max, w_max], (n, 2))
        last = limit_rate(wanted, last, robot.limits, CONTROL_DT)
        before = tiers[1].pose_w.copy()
        for tier in tiers:
            tier.step(last, np.zeros((n, 0, 3)))
        path += np.hypot(*(tiers[1].pose_w - before)[:, :2].T)
    gap = tiers[0].pose_w - tiers[1].pose_w
    return np.hypot(*gap[:, :2].T) / path, np.abs((gap[:, 2] + np.pi) % (2 * np.pi) - np.pi)


def test_the_agv_is_where_the_model_says_after_10_s():
    error, turn = drive("agv", 1.5, 1.5)
    assert error.max() < 0.03 and turn.max() < 0.1


def test_the_skid_steer_is_where_the_model_says_in_ordinary_driving():
    error, turn = drive("jackal", 1.0, 1.0)
    assert np.median(error) < 0.03 and np.median(turn) < 0.06
    # at its limits the tyres slide, and no kinematic model knows where to: a known gap
    assert np.median(drive("jackal", 2.0, 2.0)[0]) < 0.1


@pytest.mark.parametrize("name", ["agv-warehouse", "agv-barn"])
def test_both_tiers_see_the_same_scans_along_the_same_commands(name):
    options = {"people": 0, "vehicles": 0} if name == "agv-warehouse" else {}
    envs = [BatchEnv(make(name, **options), 8, tier, 5, EXACT) for tier in ("kinematic", "mujoco")]
    for env in envs:
        env.reset()
    action = np.tile(np.array([[-0.2, 0.1]], np.float32), (8, 1))
    errors = []
    for _ in range(40):
        for env in envs:
            env.step(action)
        errors.append(np.abs(envs[0].ranges - envs[1].ranges))
    assert np.median(errors) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["agv-warehouse", "agv-barn"])
def test_a_shipped_policy_loses_little_from_the_model_to_contacts(name):
    policy = OnnxPolicy(folder_of(name))
    task = task_of(policy.manifest)
    rate = {t: evaluate(task, policy, 50, tier=t).success.mean() for t in ("kinematic", "mujoco")}
    # 5 points is the target, measured over more episodes by `incognita eval`; 50 tell 12 apart
    assert rate["mujoco"] > rate["kinematic"] - 0.12
