"""ONI: labels come late and from a thread, the learner goes on, and what is learned is right."""

import threading
import time

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from reward_vlm.annotate import Annotator, OniConfig, OniReward, features
from reward_vlm.caption_wrapper import CaptionRewardWrapper

GOOD = ("you pick up the key", "you open the red door", "you step onto the goal")
BAD = ("you bump into a wall", "you see nothing here", "you drop the stone", "the wind blows")
NOT_DONE = np.zeros(1, bool)


def helpful(captions):
    return [float(caption in GOOD) for caption in captions]


def better(pairs):
    return [0.5 + 0.5 * ((a in GOOD) - (b in GOOD)) for a, b in pairs]


def until(condition, within=5.0):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


@pytest.fixture
def make():
    made = []

    def oni(label=helpful, num_envs=1, **options):
        made.append(OniReward(label, num_envs, OniConfig(**options)))
        return made[-1]

    yield oni
    for one in made:
        one.close()


def taught(oni, captions=(*GOOD, *BAD), updates=1):
    """Show captions, wait for their labels, learn."""
    for caption in captions:
        oni.step([caption], np.ones(1, bool))
    if oni.config.variant == "ranking":
        oni.update()  # offers pairs
    until(lambda: oni.annotator.counts["labelled"] and not oni.annotator._pending)
    time.sleep(0.05)
    for _ in range(updates):
        oni.update()
    return oni


def test_the_bonus_falls_with_the_third_power_of_the_count(make):
    oni = taught(make(weight=0.4))
    paid = [oni.step([GOOD[0]], NOT_DONE)[0] for _ in range(4)]
    np.testing.assert_allclose(paid, 0.4 / np.arange(1, 5) ** 3)
    oni.step([GOOD[0]], np.ones(1, bool))
    assert oni.step([GOOD[0]], NOT_DONE)[0] == 0.4  # another episode


def test_retrieval_gives_what_the_annotator_said_and_0_before(make):
    oni = make()
    assert oni.step([GOOD[0]], NOT_DONE)[0] == 0
    taught(oni)
    assert dict(oni.labels) == {c: float(c in GOOD) for c in (*GOOD, *BAD)}
    assert [oni.step([c], np.ones(1, bool))[0] > 0 for c in (*GOOD[1:], *BAD)] == [True] * 2 + [
        False
    ] * 4


@pytest.mark.parametrize(("variant", "label"), [("classification", helpful), ("ranking", better)])
def test_a_distilled_model_knows_captions_that_nobody_labelled(make, variant, label):
    oni = make(label, variant=variant, lr=1e-2)
    for _ in range(3 if variant == "ranking" else 1):
        taught(oni, updates=2)
    paid = {c: oni.step([c], np.ones(1, bool))[0] for c in (*GOOD, *BAD)}
    assert min(paid[c] for c in GOOD) > max(max(paid[c] for c in BAD), 0)
    new = [oni.step([c], np.ones(1, bool))[0] for c in (
        "you pick up the keys", "you open the blue door", "you bump into the wall",
        "you see nothing there",
    )]  # fmt: skip
    assert min(new[:2]) > max(new[2:])


def test_ranking_pays_what_is_normalized_and_cut_off_not_the_raw_value(make):
    oni = taught(make(better, variant="ranking", lr=1e-2, weight=1.0), updates=3)
    captions = [*GOOD, *BAD]
    paid = np.array([oni.step([c], np.ones(1, bool))[0] for c in captions])
    with torch.no_grad():
        raw = oni._net(features(captions, 2048))[:, 0].numpy()
    deviation = np.sqrt(oni._m2 / oni._seen)
    z = (raw - oni._mean) / deviation
    assert (paid[len(GOOD) :] == 0).any()  # those at or below -.5
    kept = paid != 0
    assert np.corrcoef(paid[kept], z[kept])[0, 1] > 0.8 and not np.allclose(paid, raw, atol=0.1)
    assert (paid > -0.5).all()


def test_a_slow_annotator_costs_the_learner_no_steps(make):
    def slow(captions):
        time.sleep(2.0)
        return helpful(captions)

    def rate(oni):
        """Steps a second of a learner whose own work takes 1 ms a step."""
        begun = time.perf_counter()
        for k in range(400):
            time.sleep(0.001)
            oni.step([BAD[k % 4] if k % 3 else f"caption {k}"], NOT_DONE)
            if k % 100 == 99:
                oni.update()
        return 400 / (time.perf_counter() - begun)

    quick, late = make(lambda captions: [0.0] * len(captions)), make(slow)
    pairs = [(rate(quick), rate(late)) for _ in range(4)]
    print(f"steps a second with a quick and a slow annotator: {pairs}")
    assert max(b / a for a, b in pairs) >= 0.98
    until(lambda: late.annotator.counts["labelled"] > 0)


def test_the_newest_captions_are_labelled_first_and_the_oldest_dropped():
    asked, go = [], threading.Event()

    def label(items):
        go.wait(5)
        asked.append(list(items))
        return [1.0] * len(items)

    annotator = Annotator(label, batch=2, queue=4)
    annotator.offer(["first"])
    until(lambda: not annotator._pending)  # it is being asked about
    annotator.offer([f"c{k}" for k in range(6)])
    go.set()
    until(lambda: annotator.counts["labelled"] == 5)
    assert asked == [["first"], ["c5", "c4"], ["c3", "c2"]] and annotator.counts["dropped"] == 2
    annotator.offer(["c5"])  # known: not asked again
    time.sleep(0.05)
    assert len(asked) == 3
    annotator.close()


def test_an_annotator_that_fails_is_asked_again_and_nonsense_is_no_label():
    answers = [RuntimeError("down"), [1.0], [float("nan"), None, 2.0], [1.0, 0.0, 1.0]]

    def label(items):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    annotator = Annotator(label)
    annotator.offer(["a"])
    until(lambda: annotator.counts["failures"] == 1)
    time.sleep(0.6)
    annotator.offer(["a"])
    until(lambda: annotator.counts["labelled"] == 1)
    annotator.offer(["b", "c", "d"])
    until(lambda: annotator.counts["unanswered"] == 4)
    assert [item for item, _ in annotator.collect()] == ["a"]
    annotator.offer(["b", "c", "d"])
    until(lambda: annotator.counts["labelled"] == 4)
    annotator.close()


@pytest.mark.parametrize("variant", ["retrieval", "classification", "ranking"])
def test_saved_and_loaded_it_pays_the_same(make, variant):
    label = better if variant == "ranking" else helpful
    one = taught(make(label, variant=variant, lr=1e-2))
    two = make(label, variant=variant, lr=1e-2)
    two.load_state_dict(one.state_dict())
    for caption in (*GOOD, *BAD, "something new"):
        over = np.ones(1, bool)
        assert one.step([caption], over)[0] == two.step([caption], over)[0]
    with pytest.raises(ValueError, match="config must"):
        make(label, variant=variant, lr=2e-2).load_state_dict(one.state_dict())


class Corridor:
    """Key at one end, door at the other, 12 cells; reward 1 behind the door, only with the key."""

    def reset(self):
        self.at, self.key, self.t = 5, False, 0
        return self.state

    @property
    def state(self):
        return self.at + 12 * self.key

    def step(self, action):
        self.t += 1
        there, caption = self.at + (1 if action else -1), "you walk on"
        if not 0 <= there < 12:
            caption = "you bump into a wall"
        else:
            self.at = there
        if self.at == 0 and not self.key:
            self.key, caption = True, "you pick up the key"
        opened = self.at == 11 and self.key
        if opened:
            caption = "you step onto the goal"
        return self.state, float(opened), opened, opened or self.t >= 40, caption


def solved(oni, episodes=150, seed=0):
    """Share of the last 50 episodes of tabular Q-learning that reached the goal."""
    rng, env, q, ends = np.random.default_rng(seed), Corridor(), np.zeros((24, 2)), []
    for _ in range(episodes):
        state, over = env.reset(), False
        while not over:
            best = np.flatnonzero(q[state] == q[state].max())
            action = int(rng.choice(best) if rng.random() > 0.1 else rng.integers(2))
            after, reward, done, over, caption = env.step(action)
            if oni is not None:
                reward += oni.step([caption], np.array([over]))[0]
            target = reward + (0 if done else 0.95 * q[after].max())
            q[state, action] += 0.3 * (target - q[state, action])
            state = after
        ends.append(done)
        if oni is not None:
            oni.update()
            time.sleep(0.002)  # or it is over before anything is labelled
    return float(np.mean(ends[-50:]))


def test_a_learner_gets_there_with_the_annotators_help_and_not_without(make):
    def slowly(captions):
        time.sleep(0.02)
        return helpful(captions)

    alone = np.mean([solved(None, seed=seed) for seed in range(3)])
    helped = np.mean([solved(make(slowly), seed=seed) for seed in range(3)])
    print(f"goals reached: {alone:.2f} alone, {helped:.2f} with captions")
    assert helped > 0.9 and helped > alone + 0.3


class CorridorEnv(gymnasium.Env):
    """The same for Stable-Baselines3."""

    observation_space = gymnasium.spaces.Discrete(24)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.corridor = Corridor()
        return self.corridor.reset(), {}

    def step(self, action):
        state, reward, done, over, caption = self.corridor.step(int(action))
        return state, reward, done, over and not done, {"caption": caption}


def test_stable_baselines_gets_the_bonus_on_top_of_the_reward(make):
    oni = make(num_envs=2)
    env = CaptionRewardWrapper(DummyVecEnv([CorridorEnv] * 2), oni, extrinsic=10, update_every=4)
    env.reset()
    rows = []
    for k in range(16):
        rows.append(env.step(np.array([0, 0] if k < 5 else [1, 1])))
        time.sleep(0.02)
    for _, reward, _, infos in rows:
        for r, info in zip(reward, infos, strict=True):
            assert r == pytest.approx(10 * info["reward_extrinsic"] + info["reward_caption"])
    assert rows[-1][3][0]["reward_extrinsic"] == 1 and rows[-1][2].all()  # key and door
    assert rows[-1][1][0] == pytest.approx(10.0)  # said for the first time: no label yet
    for _ in range(2):
        env.step(np.array([0, 0]))
    env.reset()
    again = [env.step(np.array([0, 0]))[3][0]["reward_caption"] for _ in range(5)]
    assert again == [0, 0, 0, 0, 0.4] and env.metrics["labels"] == 3
    PPO("MlpPolicy", env, n_steps=32, batch_size=64, device="cpu").learn(64)
    env.close()


@pytest.mark.parametrize(
    "wrong", [dict(variant="x"), dict(batch=0), dict(lr=0), dict(weight=np.nan)]
)
def test_a_wrong_setting_is_an_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) if "batch" not in wrong else "sizes"):
        OniConfig(**wrong)
