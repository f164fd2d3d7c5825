"""Wrapper and callback in real trainings: what is in the rollout is what the service said."""

import threading
import time

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from reward_vlm.client import Breaker, BreakerConfig, ClientConfig, RewardClient
from reward_vlm.training import FrameRecorder, RewardCallback, ScoringConfig, VLMRewardWrapper

STEPS = 12


class Dimmer(gymnasium.Env):
    """Turn a light up: the frame is as bright as it is. No reward; success is full brightness."""

    render_mode = "rgb_array"
    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, steps=STEPS):
        self.steps = steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.light, self.t = 0.3 + 0.1 * self.np_random.random(), 0
        return self._observe(), {"task": "turn the light up"}

    def step(self, action):
        self.light = float(np.clip(self.light + 0.1 * np.clip(action[0], -1, 1), 0, 1))
        self.t += 1
        over = self.t >= self.steps
        info = {"task": "turn the light up"} | ({"is_success": self.light > 0.9} if over else {})
        return self._observe(), -1.0, False, over, info

    def render(self):
        return np.full((8, 8, 3), round(255 * self.light), np.uint8)

    def _observe(self):
        return np.array([self.light, self.t / self.steps], np.float32)


def recorded(steps=STEPS, every=1):
    return Monitor(FrameRecorder(Dimmer(steps), every))


@pytest.fixture
def client(gray):
    with RewardClient(*gray, ClientConfig(deadline_s=5)) as made:
        yield made


class Kept(BaseCallback):
    """The rollouts as they are learned from."""

    def __init__(self):
        super().__init__()
        self.rewards, self.values, self.advantages, self.starts, self.lights = ([] for _ in "12345")

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        for kept, rows in (
            (self.rewards, buffer.rewards), (self.values, buffer.values),
            (self.advantages, buffer.advantages), (self.starts, buffer.episode_starts),
            (self.lights, buffer.observations[..., 0]),
        ):  # fmt: skip
            kept.append(np.array(rows))


def train(callback, envs=2, n_steps=STEPS * 2, rollouts=1, gamma=0.99, **options):
    """A real PPO run; the rollouts as they were learned from."""
    torch.manual_seed(0)
    kept, env = Kept(), DummyVecEnv([recorded] * envs)
    model = PPO("MlpPolicy", env, n_steps=n_steps, batch_size=n_steps, gamma=gamma, seed=0,
                device="cpu", **options)  # fmt: skip
    model.learn(n_steps * envs * rollouts, callback=CallbackList([callback, kept]))
    return kept, model


def test_rewards_in_the_rollout_are_what_the_service_said(client):
    callback = RewardCallback(client)
    kept, model = train(callback)
    (rewards,), (values,) = kept.rewards, kept.values
    assert len(callback.episodes) == 4 and callback.tally.missing == 0
    said = [j.verdict.result.reward for j in callback.episodes if j.env == 0]
    np.testing.assert_allclose(rewards[[STEPS - 1, 2 * STEPS - 1], 0], said, rtol=1e-6)
    others = np.delete(rewards, [STEPS - 1, 2 * STEPS - 1], axis=0)
    assert not others.any()  # neither the environment's -1 nor a bootstrapped value is left
    # advantages by hand, of one episode: the judgement ends it
    delta = np.append(values[1:STEPS, 0], 0) * 0.99 + rewards[:STEPS, 0] - values[:STEPS, 0]
    wanted, running = np.zeros(STEPS), 0.0
    for t in reversed(range(STEPS)):
        running = delta[t] + 0.99 * 0.95 * running
        wanted[t] = running
    np.testing.assert_allclose(kept.advantages[0][:STEPS, 0], wanted, atol=1e-5)


def test_the_last_frame_is_that_before_the_reset(client):
    callback = RewardCallback(client)
    kept, _ = train(callback, envs=1)
    final = kept.lights[0][STEPS - 1, 0]  # one action before the end
    assert abs(callback.episodes[0].verdict.result.reward - final) <= 0.1 + 1 / 255
    assert callback.episodes[0].length == STEPS


def test_dense_rewards_telescope_over_the_borders_of_rollouts(client):
    gamma = 0.97
    callback = RewardCallback(client, ScoringConfig(mode="dense", gamma=gamma))
    kept, _ = train(callback, envs=1, n_steps=8, rollouts=6, gamma=gamma)  # 8 does not divide 12
    rewards = np.concatenate(kept.rewards)[:, 0]
    starts = np.flatnonzero(np.concatenate(kept.starts)[:, 0])
    lights = np.concatenate(kept.lights)[:, 0]
    assert len(callback.episodes) == 4
    for begin, judged in zip(starts, callback.episodes, strict=False):
        total = gamma ** np.arange(STEPS) @ rewards[begin : begin + STEPS]
        wanted = gamma ** (STEPS - 1) * judged.verdict.reward - lights[begin]
        assert total == pytest.approx(wanted, abs=0.01)  # a frame has 255 levels
    wanted = gamma * lights[1:4] - lights[:3]  # of 9 frames the model looks at these and 4 more
    np.testing.assert_allclose(rewards[:3], wanted, atol=0.01)  # each step is paid for its own


def test_a_missing_reward_says_nothing_to_the_learner(faulty):
    with RewardClient(faulty, "test-key-1", ClientConfig(tries=1)) as client:
        callback = RewardCallback(client, task="500", most_missing=1.0)
        kept, _ = train(callback)
    assert callback.tally.share == 1 and callback.tally.reasons["refused"] >= 1
    last = [STEPS - 1, 2 * STEPS - 1]
    np.testing.assert_allclose(kept.rewards[0][last], kept.values[0][last], rtol=1e-5)
    np.testing.assert_allclose(kept.advantages[0][last], 0, atol=1e-6)
    assert not np.delete(kept.rewards[0], last, axis=0).any()


def test_training_stops_when_too_much_is_missing(faulty):
    with RewardClient(faulty, "test-key-1", ClientConfig(tries=1)) as client:
        callback = RewardCallback(client, task="503", most_missing=0.2)
        kept, model = train(callback, envs=4, n_steps=3 * STEPS, rollouts=10)
    assert "100% of rewards missing" in callback.stopped
    assert len(kept.rewards) == 1 and model.num_timesteps == 4 * 3 * STEPS + 4


def test_training_waits_for_a_service_that_comes_back(start_fault_server):
    process, url = start_fault_server()
    process.kill()
    process.wait(5)
    config = ClientConfig(tries=1, deadline_s=2)
    with RewardClient(url, "test-key-1", config, Breaker(BreakerConfig(open_s=0.1))) as client:
        scoring = ScoringConfig(window=20)
        callback = RewardCallback(client, scoring, task="ok", most_missing=0.5, pause_s=10)
        back = threading.Timer(2.0, start_fault_server, [url.rpartition(":")[2]])
        back.start()
        train(callback, envs=4, n_steps=3 * STEPS)
    assert callback.stopped is None and callback.tally.scored == 12
    assert {j.verdict.reward for j in callback.episodes} == {0.7}
    assert callback.tally.reasons["refused"] >= 10  # before it came back


@pytest.mark.slow
def test_ppo_learns_from_the_service_alone(client):
    callback = RewardCallback(client, ScoringConfig(mode="dense"))
    train(callback, envs=8, n_steps=3 * STEPS, rollouts=9, learning_rate=3e-3)
    truth = [j.success for j in callback.episodes]
    print(f"true success: {np.mean(truth[:24]):.2f} at first, {np.mean(truth[-24:]):.2f} at last")
    assert np.mean(truth[-24:]) > 0.8 > np.mean(truth[:24]) + 0.3
    hacked = [j.verdict.result.expected for j in callback.episodes if j.hacked]
    assert all(4.5 <= expected < 4.63 for expected in hacked)  # not yet .9, but nearly
    assert callback.tally.missing == 0


def test_frames_come_through_processes_and_a2c_does_as_well(client):
    env = SubprocVecEnv([recorded] * 2, start_method="fork")
    callback = RewardCallback(client)
    try:
        A2C("MlpPolicy", env, n_steps=STEPS, device="cpu").learn(2 * STEPS, callback=callback)
    finally:
        env.close()
    assert len(callback.episodes) == 2 and callback.tally.missing == 0


def test_environments_without_frames_and_learners_without_rollouts_are_errors(client):
    env = DummyVecEnv([Dimmer])
    with pytest.raises(ValueError, match="FrameRecorder"):
        PPO("MlpPolicy", env, n_steps=STEPS, device="cpu").learn(9, callback=RewardCallback(client))
    with pytest.raises(ValueError, match="gamma must"):
        dense = RewardCallback(client, ScoringConfig(mode="dense", gamma=0.5))
        PPO("MlpPolicy", DummyVecEnv([recorded]), device="cpu").learn(9, callback=dense)
    with pytest.raises(ValueError, match="PPO, A2C"):
        DQN("MlpPolicy", "CartPole-v1", device="cpu").learn(9, callback=RewardCallback(client))
    with pytest.raises(ValueError, match="rgb_array"):
        FrameRecorder(gymnasium.make("CartPole-v1"))


def drive(env, action=1.0, steps=STEPS):
    env.reset(seed=0)
    rows = [env.step(np.array([action], np.float32)) for _ in range(steps)]
    return [row[1] for row in rows], [row[4] for row in rows]


def test_the_wrapper_pays_at_the_end(client):
    rewards, infos = drive(VLMRewardWrapper(Dimmer(), client))
    assert rewards[:-1] == [0] * (STEPS - 1) and rewards[-1] == pytest.approx(1.0)
    assert infos[-1]["reward_service"] == rewards[-1] and not infos[-1]["reward_missing"]
    assert infos[0]["reward_env"] == -1
    rewards, _ = drive(VLMRewardWrapper(Dimmer(), client, env_weight=0.5), action=0)
    assert rewards[0] == -0.5 and rewards[-1] == pytest.approx(-0.5 + 0.37, abs=0.1)


def test_the_wrappers_dense_reward_telescopes(client):
    gamma = 0.9
    config = ScoringConfig(mode="dense", gamma=gamma)
    rewards, _ = drive(VLMRewardWrapper(Dimmer(), client, config, dense_every=3), action=0.4)
    terminal = gamma ** (STEPS - 1) * 0.85
    assert gamma ** np.arange(STEPS) @ rewards == pytest.approx(terminal, abs=0.02)
    assert rewards[2] > 0.3 > 0 > rewards[3]


def test_the_wrapper_never_takes_a_missing_reward_for_zero(faulty):
    with RewardClient(faulty, "test-key-1", ClientConfig(tries=1)) as client:
        env = VLMRewardWrapper(Dimmer(), client, task="ok")
        assert drive(env)[0][-1] == 0.7
        env.task = "500"
        begun = time.monotonic()
        rewards, infos = drive(env)
    assert rewards[-1] == 0.7 and infos[-1]["reward_missing"]  # the mean of what there was
    assert np.isnan(infos[-1]["reward_service"]) and infos[-1]["verdict"].missing == "refused"
    assert env.tally.share == 0.5 and time.monotonic() - begun < 2
