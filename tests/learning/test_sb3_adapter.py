"""Our bonuses under Stable-Baselines3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import curiosity
import learning
from learning import checkpoint

pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from learning.sb3_adapter import IntrinsicCallback, IntrinsicVecWrapper


class Line(gymnasium.Env):
    """A counter along a line; ends at 3, or by its time limit of 3 if the action is negative."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.t, self.x = 0, 0
        return self._obs(), {}

    def _obs(self):
        return np.array([self.x], np.float32)

    def step(self, action):
        self.t += 1
        self.x += 1 if action[0] >= 0 else -1
        ended, cut = self.x == 3, self.t == 3 and self.x != 3
        return self._obs(), 2.0, ended, cut, {"is_success": ended}


class Recorder(curiosity.IntrinsicReward):
    """Pays the state that was reached; remembers what it was shown."""

    normalize = False

    def __init__(self):
        super().__init__(1, 1)
        self.seen = []

    def _run(self, tr, commit):
        if commit:
            self.seen.append([float(tr.obs[0, 0]), float(tr.next_obs[0, 0])])
            self.seen[-1] += [bool(tr.terminated[0, 0]), bool(tr.truncated[0, 0])]
        return tr.next_obs[..., 0]


@pytest.mark.parametrize(("sign", "ended", "cut"), [(1, True, False), (-1, False, True)])
def test_pays_for_the_terminal_observation_and_adds_to_the_reward(sign, ended, cut):
    bonus = Recorder()
    env = IntrinsicVecWrapper(DummyVecEnv([Line]), bonus, weight=0.5)
    env.reset()
    for i in (1, 2, 3, 1):
        _, reward, _, infos = env.step(np.array([[sign]]))
        assert reward[0] == 2 + 0.5 * sign * i
        assert infos[0]["reward_extrinsic"] == 2
        assert infos[0]["reward_intrinsic"] == 0.5 * sign * i
    assert bonus.seen == [
        [0, sign, False, False], [sign, 2 * sign, False, False],
        [2 * sign, 3 * sign, ended, cut], [0, sign, False, False],
    ]  # fmt: skip


@pytest.mark.parametrize("algorithm", [PPO, SAC])
@pytest.mark.parametrize("name", ["rnd", "count"])
def test_trains_on_and_off_policy_while_the_bonus_learns_and_is_logged(algorithm, name, tmp_path):
    torch.set_num_threads(1)
    bonus = curiosity.make(name, 3, 1, num_envs=2)
    before = {k: v.clone() for k, v in bonus.named_parameters()}
    venv = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * 2)
    env = IntrinsicVecWrapper(venv, bonus)
    small = {"n_steps": 32, "batch_size": 32} if algorithm is PPO else {"learning_starts": 20}
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **small)
    model.set_logger(configure(str(tmp_path), ["json"]))
    # Pendulum's episodes take 200 steps, after which SAC writes its log
    model.learn(256 if algorithm is PPO else 450, callback=IntrinsicCallback(env), log_interval=1)
    if name == "rnd":
        after = dict(bonus.named_parameters())
        assert any(not torch.equal(before[k], after[k]) for k in before)
    else:
        start = np.tile(env.reset(), (1, 1, 1))
        step = curiosity.Transition.from_numpy(
            start, np.zeros((1, 2, 1)), start, [[False] * 2], [[False] * 2]
        )
        assert float(bonus.compute(step).min()) < 1
    lines = [json.loads(x) for x in (tmp_path / "progress.json").read_text().splitlines()]
    logged = [line for line in lines if "intrinsic/weight" in line]
    assert logged and all(x["intrinsic/weight"] == 1 and x["intrinsic/p95"] > 0 for x in logged)


def test_the_weight_falls_after_success():
    venv = DummyVecEnv([lambda: Monitor(Line())])
    env = IntrinsicVecWrapper(venv, Recorder(), weight=1.0)
    weights = []

    class Watch(IntrinsicCallback):
        def _on_step(self):
            weights.append(self.env.weight)
            return super()._on_step()

    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, seed=0, device="cpu")
    model.learn(1500, callback=Watch(env, anneal_success=0.1, anneal_steps=500))
    assert weights[0] == 1 and weights[-1] == 0
    assert weights == sorted(weights, reverse=True)


def test_what_the_bonus_learned_can_be_saved(tmp_path):
    def made():
        venv = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * 2)
        return IntrinsicVecWrapper(venv, curiosity.make("rnd", 3, 1, num_envs=2))

    env, other = made(), made()
    env.seed(0)
    env.reset()
    for _ in range(20):
        env.step(np.zeros((2, 1), np.float32))
    checkpoint.save(tmp_path, env.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path))
    step = curiosity.Transition.from_numpy(
        np.zeros((1, 2, 3)), np.zeros((1, 2, 1)), np.ones((1, 2, 3)), [[False] * 2], [[False] * 2]
    )
    assert torch.equal(env.bonus.compute(step), other.bonus.compute(step))


def test_states_that_are_no_flat_box_need_a_function():
    class Goal(Line):
        observation_space = gymnasium.spaces.Dict({"x": Line.observation_space})

        def _obs(self):
            return {"x": super()._obs()}

    with pytest.raises(ValueError, match="state must be given"):
        IntrinsicVecWrapper(DummyVecEnv([Goal]), Recorder())
    bonus = Recorder()
    env = IntrinsicVecWrapper(DummyVecEnv([Goal]), bonus, state=lambda obs, infos: obs["x"])
    env.reset()
    for _ in range(4):
        env.step(np.ones((1, 1)))
    assert [row[1] for row in bonus.seen] == [1, 2, 3, 1]
    assert [row[0] for row in bonus.seen] == [0, 1, 2, 0]


def test_without_sb3_the_error_names_the_install_line():
    code = """
import sys
sys.modules["stable_baselines3"] = None
try:
    import learning.sb3_adapter
except ImportError as error:
    assert "pip install 'incognita[train]'" in str(error), error
else:
    raise SystemExit("imported")
"""
    root = Path(learning.__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
