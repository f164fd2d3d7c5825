"""The long manipulation tasks behind every face: the batch unchanged, and the libraries' checks."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker as sb3_checker

from sim.faces.sb3_vec_env import Sb3VecEnv
from sim.faces.vec_task import VecTask
from sim.manipulation.batch import ArmBatch
from sim.registration import ARM_NAMES, env_id
from sim.tasks import make_arm

torch.set_num_threads(1)
IDS = [env_id(name, goal) for name in ARM_NAMES for goal in (False, True)]


def actions(steps, rows, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, rows, 5)).astype(np.float32)


@pytest.mark.parametrize("name", IDS)
def test_both_environment_checkers_pass(name):
    env = gymnasium.make(name, max_steps=8)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (5,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space m.*")
        check_env(env.unwrapped, skip_render_check=True)
        sb3_checker.check_env(env.unwrapped)


def test_every_face_shows_the_rows_of_the_batch():
    batch = ArmBatch(make_arm("stack", max_steps=5), 2, seed=3)
    env = gymnasium.make(env_id("Stack"), max_steps=5).unwrapped
    vector = gymnasium.make_vec(env_id("Stack"), num_envs=2, max_steps=5)
    task, sb3 = VecTask("stack", 2, seed=3, max_steps=5), Sb3VecEnv("stack", 2, 3, max_steps=5)
    obs = batch.reset()
    for got in (vector.reset(seed=3)[0], task.reset()["obs"].numpy(), sb3.reset()):
        assert np.array_equal(got, obs)
    assert np.array_equal(env.reset(seed=3)[0], obs[0])
    for k, action in enumerate(actions(5, 2)):
        step = batch.step(action)
        one = env.step(action[0])
        many = vector.step(action)
        assert np.array_equal(one[0], step.final_obs[0]) and one[1] == step.reward[0]
        assert one[4]["stage"] == step.terms["stage"][0] and one[4]["weak_success"] is False
        assert np.array_equal(many[0], step.obs) and np.array_equal(many[3], step.truncated)
        torch_obs, _, done, extras = task.step(torch.from_numpy(action))
        assert np.array_equal(torch_obs["obs"].numpy(), step.obs) and bool(done.all()) == (k == 4)
        assert np.array_equal(extras["final_obs"].numpy(), step.final_obs)
        obs, _, _, infos = sb3.step(action)
        assert np.array_equal(obs, step.obs)
    assert many[4]["final_info"]["episode_length"].tolist() == [5, 5]
    assert infos[0]["TimeLimit.truncated"] and infos[0]["is_success"] is False
    assert np.array_equal(infos[1]["terminal_observation"], step.final_obs[1])


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
@pytest.mark.parametrize("name", ["Stack", "StackCue"])
def test_the_three_compute_functions_repeat_what_step_gave(name, reward_type):
    env = gymnasium.make(env_id(name, goal=True), reward_type=reward_type, max_steps=6).unwrapped
    env.reset(seed=2)
    for action in actions(14, 1):
        obs, reward, terminated, truncated, info = env.step(action[0])
        args = obs["achieved_goal"], obs["desired_goal"], info
        assert reward == env.compute_reward(*args)
        assert terminated == env.compute_terminated(*args)
        assert truncated == env.compute_truncated(*args)
        if terminated or truncated:
            env.reset()


def test_goal_rewards_by_hand():
    env = gymnasium.make(env_id("Stack", goal=True)).unwrapped
    goal = np.array([0.3, 0.0, 0.054, 0.3, 0.0, 0.09])
    off = goal + [0, 0, 0, 0.021, 0, 0]
    near = goal + [0, 0, 0, 0.019, 0, 0]
    assert env.compute_reward(np.stack([goal, near, off]), goal, {}).tolist() == [0, 0, -1]
    dense = gymnasium.make(env_id("Stack", goal=True), reward_type="dense").unwrapped
    assert dense.compute_reward(off, goal, {}) == pytest.approx(-0.0105)
    assert env.compute_terminated(off, goal, {"lost": True})
    assert not env.compute_terminated(goal, goal, {"success": False})
    with pytest.raises(ValueError, match=r"goals must be \(..., 6\)"):
        env.compute_reward(np.zeros(3), np.zeros(3), {})


def test_the_goals_of_the_stack_are_the_tower_and_the_observation_does_not_tell():
    env = gymnasium.make(env_id("StackCue", goal=True)).unwrapped
    obs, _ = env.reset(seed=4)
    batch = env.rows.batch
    base = batch.state.pos[0, 1 + batch.state.cue[0]]
    np.testing.assert_allclose(obs["desired_goal"], base + [0, 0, 0.036], atol=1e-6)
    batch.state.cue = 1 - batch.state.cue
    batch.state.goal = batch.task.goals(batch.state)
    other = env.rows._present()
    assert np.array_equal(other["observation"][0], obs["observation"])
    assert not np.array_equal(other["desired_goal"][0], obs["desired_goal"])


def test_an_image_of_the_final_state_comes_before_the_reset():
    env = gymnasium.make(env_id("Stack"), render_mode="rgb_array", max_steps=2).unwrapped
    with pytest.raises(RuntimeError, match="reset must be called"):
        env.render()
    env.reset(seed=0)
    env.step(actions(1, 1)[0, 0])
    before = env.render()
    *_, truncated, _ = env.step(np.zeros(5, np.float32))
    after = env.render()
    assert truncated and before.shape == after.shape == (240, 240, 3)
    # still the same cubes where they were: no other episode's
    assert np.abs(before.astype(int) - after).mean() < 3
    env.close()


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="takes no parameters, got \\['max_steps'\\]"):
        VecTask(make_arm("stack"), 1, max_steps=3)
    with pytest.raises(ValueError, match="render_mode must be .*'human'"):
        VecTask("stack", 1, render_mode="human")
