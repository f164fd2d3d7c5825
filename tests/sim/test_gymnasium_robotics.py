"""Gymnasium-Robotics beside ours: its Fetch, Hand and Kitchen ids on our MuJoCo."""

import subprocess
import sys

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")

IDS = (
    "FetchReach-v4", "FetchPush-v4", "FetchPickAndPlace-v4", "FetchSlide-v4", "HandReach-v3",
    "HandManipulateBlock-v1", "FrankaKitchen-v1",
)  # fmt: skip


@pytest.mark.parametrize("name", IDS)
def test_steps_with_the_remedy(name):
    import gymnasium_robotics

    from sim.gymnasium_robotics_compat import patch

    patch()
    patch()
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(name)
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(3):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert np.isfinite(obs["observation"]).all() and np.isfinite(reward)
        assert not terminated and not truncated
    env.close()


def test_the_remedy_is_still_needed():
    """Fails when upstream has released its fix: then drop sim/gymnasium_robotics_compat.py."""
    code = (
        "import gymnasium, gymnasium_robotics; gymnasium.register_envs(gymnasium_robotics); "
        "gymnasium.make('FetchReach-v4').reset(seed=0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode != 0
    assert "AssertionError" in run.stderr
