import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sim.tabletop.env import STEP_M, TableEnv
from sim.tabletop.rubric import Instruction


@pytest.fixture(scope="module")
def env():
    made = TableEnv("place", steps=12)
    yield made
    made.close()


def test_it_keeps_to_gymnasiums_rules(env):
    check_env(env, skip_render_check=True)


def test_the_same_seed_gives_the_same_episode(env):
    def episode():
        obs, info = env.reset(seed=3)
        rows = [obs]
        rng = np.random.default_rng(0)
        for _ in range(12):
            rows.append(env.step(rng.uniform(-1, 1, 4).astype(np.float32))[0])
        return np.stack(rows), info["task"]

    first, second = episode(), episode()
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_an_action_moves_the_grip_in_metres(env):
    before = env.reset(seed=1)[0]
    for _ in range(3):
        after = env.step(np.array([0, 1, 0, 1], np.float32))[0]
    np.testing.assert_allclose(after[:3] - before[:3], (0, 3 * STEP_M, 0), atol=0.025)
    assert after[3] > 0.9  # open


@pytest.mark.parametrize(("rewarded", "wanted"), [("truth", 1.0), ("success", 1.0), ("none", 0.0)])
def test_the_reward_at_the_end_is_that_of_the_rubric(rewarded, wanted):
    env = TableEnv("touch", rewarded, steps=40)
    obs, info = env.reset(seed=5)
    for _ in range(40):  # go to the thing, from above
        gap = obs[4:7].astype(np.float64)
        high = np.hypot(*gap[:2]) > 0.01
        aim = np.array([gap[0], gap[1], gap[2] + (0.06 if high else 0.015)])
        action = np.append(np.clip(aim / STEP_M, -1, 1), -1.0).astype(np.float32)
        obs, reward, terminated, truncated, info = env.step(action)
    assert terminated and not truncated
    assert info["score"] == 5 and info["is_success"] and reward == wanted
    env.close()


def test_a_given_scene_and_instruction_are_taken(env):
    env.reset(seed=0)
    scene = env.scene
    _, info = env.reset(options={"scene": scene, "told": Instruction("place", 2, 1)})
    assert env.told.thing == 2 and scene.pads[1].colour in info["task"]


def test_the_camera_sees_the_arm_move(env):
    env.reset(seed=2)
    before = env.render()
    for _ in range(6):
        env.step(np.array([1, 1, 0, 1], np.float32))
    after = env.render()
    assert before.shape == (96, 96, 3)
    assert (np.abs(before.astype(int) - after) > 30).any(axis=2).mean() > 0.01


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="fold"):
        TableEnv("fold")
    with pytest.raises(ValueError, match="steps"):
        TableEnv("lift", steps=0)
