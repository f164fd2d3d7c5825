import numpy as np
import pytest

from sim.arena import ArenaConfig, ArenaWorld, _scores, draw_arena
from sim.rollout import FRAMES, turning_back
from sim.words import HELD_OUT, SAID, say


@pytest.fixture(scope="module")
def world():
    made = ArenaWorld()
    yield made
    made.close()


def test_rollouts_are_labelled_for_every_instruction_and_seen(world):
    rollout = world.rollout(np.random.default_rng(1))
    assert rollout.images.shape == (FRAMES, 96, 96, 3)
    assert len(rollout.told) == 6 and rollout.labels.shape == (6, FRAMES)
    assert (rollout.labels[:, 0] <= 4).all() and rollout.labels.min() >= 1
    inside = (rollout.points > 0) & (rollout.points < 1)
    assert inside.all(axis=-1).mean() > 0.95


def test_scripts_that_try_mostly_succeed_and_others_mostly_do_not(world):
    rng, scores = np.random.default_rng(2), {True: [], False: []}
    for _ in range(16):
        r = world.rollout(rng)
        scores[r.outcome == "success"].append(r.labels[r.asked, -1] == 5)
    assert np.mean(scores[True]) > np.mean(scores[False]) + 0.3, scores


def test_the_same_seed_gives_the_same_rollout(world):
    first, second = (world.rollout(np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_landmarks_stand_apart_and_only_combinations_that_occur_do():
    config = ArenaConfig(combos=(("red", "pillar"), ("blue", "crate"), ("green", "dome")))
    for seed in range(20):
        arena = draw_arena(np.random.default_rng(seed), config)
        spots = np.vstack([arena.start[:2], arena.xy])
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2)
        assert gaps[np.triu_indices(4, 1)].min() > 1.4
        assert set(arena.combos) == set(config.combos)
    with pytest.raises(ValueError, match="combos"):
        ArenaConfig(combos=(("red", "pillar"),))


def test_driving_and_leaving_are_scored_by_distance():
    gaps = np.array([4.0, 3.0, 1.8, 1.1, 0.8])
    assert _scores("drive", gaps, gaps - 0.53) == [1, 2, 3, 4, 5]
    gaps = np.array([1.0, 1.3, 1.8, 2.1, 2.5])
    assert _scores("leave", gaps, gaps - 0.53) == [1, 2, 3, 4, 5]


def test_turning_back_is_counted_by_hand():
    path = np.array([[0, 0], [1, 0], [2, 0], [1, 0], [0, 0]], np.float64)
    np.testing.assert_allclose(turning_back(path), [0, 0, 0, 0.5, 1 / 3])


def test_held_out_words_are_never_said_in_training(world):
    told = world.rollout(np.random.default_rng(0)).told[0]
    rng = np.random.default_rng(0)
    for family in SAID:
        assert not set(SAID[family]) & set(HELD_OUT[family])
    texts = {say(told, rng) for _ in range(60)} & {say(told, rng, True) for _ in range(60)}
    assert not texts
