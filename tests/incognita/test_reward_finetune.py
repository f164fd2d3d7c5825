"""Fine-tuning on scored episodes: who drove well counts more, and the new file says on what."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs torch")

import torch  # noqa: E402

from episodes import EpisodeReader, EpisodeWriter  # noqa: E402
from incognita.recipes.reward_finetune import (  # noqa: E402
    FinetuneConfig,
    finetune,
    pairs_of,
    rewards_of,
    store_digest,
    weights_of,
)
from learning.cloning import clone  # noqa: E402
from learning.policy_file import OnnxPolicy, save_policy, verify_policy  # noqa: E402
from learning.ppo import ActorCritic  # noqa: E402
from rnd_agv.observation import ObservationConfig, full_circle  # noqa: E402
from rnd_agv.robot import JACKAL  # noqa: E402

SEEN = ObservationConfig(sectors=6, frames=2)


def row(id, reward=0.5, abstain=None):
    return {"episode": id, "reward": reward, "abstain": abstain}


@pytest.fixture
def policy(tmp_path):
    return save_policy(
        tmp_path / "old", ActorCritic(SEEN.dim, 2, (32,), seed=0), observation=SEEN.spec(),
        action={"dim": 2, "robot": "jackal", "limits": vars(JACKAL.limits), "goal_radius_m": 0.9},
        recipe={"name": "weak"}, seeds=[0], evaluation={}, rate_hz=20.0,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """Two drives from the same places: the first turns left at the goal, the second right."""
    rng = np.random.default_rng(0)
    scans, poses = rng.uniform(1, 5, (60, 12)).astype(np.float32), rng.uniform(-1, 1, (60, 3))
    with EpisodeWriter(tmp_path / "store") as writer:
        attrs = {"scan": vars(full_circle(12, 6.0))}
        for turn in (2.0, -2.0):
            builder = writer.episode("t", "go", attrs)
            for scan, pose in zip(scans, poses, strict=True):
                builder.append({
                    "time_s": 0.0, "scan": scan, "pose_w": pose, "vel_b": np.zeros(2, np.float32),
                    "goal_w": np.array([2.0, 1.0]), "command": np.array([0.75, turn], np.float32),
                })  # fmt: skip
            builder.finish("over")
    return tmp_path / "store"


def test_weights_are_those_of_the_equation_and_cut():
    rewards = np.array([0.2, 0.4, 0.9])  # mean 0.5
    found = weights_of(rewards, FinetuneConfig(beta=0.1, most_weight=20.0))
    np.testing.assert_allclose(found, [math.exp(-3), math.exp(-1), 20.0])  # exp(4) = 54.6


def test_missing_and_unsure_scores_are_left_out_and_counted():
    rows = [row("a", 0.25), row("b", 0.9, abstain="entropy")]
    assert rewards_of(rows, ["a", "b", "c"]) == ({"a": 0.25}, {"missing": 1, "abstained": 1})
    with pytest.raises(ValueError, match="one model and question, a has two"):
        rewards_of([row("a"), row("a", 0.7)], ["a"])


def test_actions_are_those_sent_after_what_was_seen(store):
    episode = EpisodeReader(store).open(EpisodeReader(store).ids()[0])
    obs, action = pairs_of(episode, SEEN, JACKAL.limits)
    assert obs.shape == (59, SEEN.dim) and obs.dtype == np.float32
    np.testing.assert_allclose(action, [[0.0, 0.5]] * 59)  # .75 is midway from -.5 to 2; 2 of 4


def test_the_tuned_policy_does_what_was_scored_well(policy, store, tmp_path):
    first, second = EpisodeReader(store).ids()
    config = FinetuneConfig(beta=0.1, epochs=60, lr=1e-2)
    turns = {}
    for good in (first, second):
        rewards = {id: float(id == good) for id in (first, second)}
        out = tmp_path / f"new-{good}"
        told = finetune(policy, store, rewards, out, config, {"scores": {"revision": "r1"}})
        obs, _ = pairs_of(EpisodeReader(store).open(first), SEEN, JACKAL.limits)
        turns[good] = float(OnnxPolicy(out)(obs)[:, 1].mean())
        recipe = verify_policy(out)["recipe"]
        assert recipe["tuned"] == told and recipe["name"] == "weak"
        assert told["store"] == store_digest(store, [first, second])
        assert told["scores"] == {"revision": "r1"} and told["episodes"] == 2
    assert turns[first] > 0.35 and turns[second] < -0.35  # .5 and -.5 were sent


def test_a_store_without_scores_is_refused(policy, store, tmp_path):
    with pytest.raises(ValueError, match="at least one episode"):
        finetune(policy, store, {}, tmp_path / "new", FinetuneConfig(), {})


def test_weights_of_cloning_must_fit_and_not_be_negative():
    net, obs = ActorCritic(3, 2, (8,), seed=0), torch.zeros(4, 3)
    for bad in (torch.ones(3), torch.tensor([1.0, 1.0, 1.0, -1.0])):
        with pytest.raises(ValueError, match="weights must be"):
            clone(net, obs, torch.zeros(4, 2), weights=bad)
