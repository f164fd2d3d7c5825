"""The stage score and the tracker: the paper's words taken literally, and what works."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evovla.stage_metrics import agreement, follow
from evovla.stage_reward import StageRewardConfig, StageTracker, builds_on
from evovla.stage_text import from_steps
from evovla.stages import PRIMITIVES, Stage, StageDictionary, Step
from evovla.triplets import Triplets, scores

NO = np.zeros(1, bool)


def dictionary(count, **fields):
    stages = [
        Stage(f"thing {k} is held now", f"thing {k} is far", (f"thing {k} is near", f"thing {k}?"),
              **fields)
        for k in range(count)
    ]  # fmt: skip
    return StageDictionary("task", "hold things", tuple(stages))


def tracked(gaps, config=None, pose_done=None, **fields):
    """All steps of one environment; gaps (T + 1, K)."""
    gaps = np.asarray(gaps, float)
    tracker = StageTracker(dictionary(gaps.shape[1], **fields), 1, config)
    tracker.reset(gaps[:1])
    return [tracker.step(g[None], NO, NO, pose_done) for g in gaps[1:]]


def one_after_the_other(steps_per_stage, count, noise=0.0, seed=0):
    """Gaps (T, K) of a demonstration: -0.2 before a stage is done, 0.2 from then on, and truth."""
    rng = np.random.default_rng(seed)
    times = np.arange(steps_per_stage * count + 1)
    truth = np.minimum(times // steps_per_stage, count)
    gaps = np.where(np.arange(count) < truth[:, None], 0.2, -0.2)
    return gaps + noise * rng.standard_normal(gaps.shape), truth


def test_the_literal_score_never_exceeds_053_and_ours_does():
    gaps = np.array([-3.0, -2.0, 0.0, 0.1, 2.0, 3.0])  # cosines end at +-1, so gaps at +-2
    literal = scores(gaps, 0.05, literal=True)
    assert literal.max() < 0.54 and scores(2.0, 0.05, literal=True) < 0.53
    assert scores(2.0, 0.05, literal=True) == pytest.approx(1 / (1 + np.exp(-0.1)))
    assert scores(0.05, 0.05) == pytest.approx(1 / (1 + np.exp(-1)))
    assert scores(0.1, 0.05) > 0.85


@given(st.integers(0, 10**6), st.integers(30, 120))
@settings(max_examples=30, deadline=None)
def test_the_literal_gate_never_fires_whatever_is_seen(seed, steps):
    rng = np.random.default_rng(seed)
    gaps = rng.choice([-2.0, 2.0, rng.uniform(-2, 2)], (steps, 3))
    done = tracked(gaps, StageRewardConfig.paper())
    assert not any(s.advanced.any() or s.stage.any() for s in done)
    assert max(float(s.reward[0]) for s in done) < 0.05


def test_on_the_frames_of_a_demonstration_the_literal_gate_stays_shut_and_ours_opens():
    gaps, truth = one_after_the_other(8, 18, noise=0.02)
    assert tracked(gaps, StageRewardConfig.paper())[-1].stage == 0
    (stage,) = follow(dictionary(18), [gaps])
    found = agreement([stage], [truth])
    assert stage[-1] == 18 and found.advances == 18
    assert found.exact > 0.95 and found.within_one == 1.0


def test_the_score_of_a_triplet_on_numbers_worked_by_hand():
    triplets = Triplets(dictionary(2))
    assert len(triplets.texts) == 8
    said = {"thing 0 is held now": 0.5, "thing 0 is far": 0.1, "thing 0 is near": 0.45,
            "thing 1 is held now": 0.2, "thing 1 is far": 0.6}  # fmt: skip
    similarities = [[said.get(text, 0.0) for text in triplets.texts]]
    np.testing.assert_allclose(triplets.gaps(similarities), [[0.05, -0.4]])
    alone = Triplets(dictionary(2), hard=False)
    assert len(alone.texts) == 4
    similarities = [[said.get(text, 0.0) for text in alone.texts]]
    np.testing.assert_allclose(alone.gaps(similarities), [[0.4, -0.4]])


def test_stages_with_fewer_hard_negatives_are_not_given_a_zero():
    stages = (*dictionary(1).stages, Stage("ball is held now", "ball is far", ("ball is near",)))
    triplets = Triplets(StageDictionary("t", "t", stages))
    gaps = triplets.gaps([[-0.9 if "near" in t or "far" in t else -0.5 for t in triplets.texts]])
    assert gaps[0, 1] == pytest.approx(0.4)


def test_the_running_score_starts_at_the_first_score_so_that_nothing_is_paid_for_waiting():
    config = StageRewardConfig(gamma=1.0)
    still = tracked(np.full((12, 3), -0.02), config)
    np.testing.assert_allclose([s.reward[0] for s in still], 0.0, atol=1e-12)
    literal = tracked(np.full((12, 3), -0.02), StageRewardConfig.paper())
    assert literal[0].reward[0] > 0.02, "the paper's rise from zero pays for doing nothing"


def test_the_running_score_on_numbers_worked_by_hand():
    gap = 0.05 * np.log(np.array([[0.2 / 0.8], [0.6 / 0.4], [0.4 / 0.6]]))  # u = .2, .6, .4
    config = StageRewardConfig(alpha=0.5, gamma=0.9, theta=0.9)
    first, second = tracked(gap, config)
    np.testing.assert_allclose([first.score[0], second.score[0]], [0.4, 0.4])
    np.testing.assert_allclose([first.reward[0], second.reward[0]], [0.9 * 0.4 - 0.2, -0.04])


def test_a_result_that_was_there_before_is_accepted_after_a_while():
    done = tracked(np.full((10, 2), 0.3), StageRewardConfig(hold=4))
    assert [int(s.stage[0]) for s in done[:8]] == [0, 0, 1, 1, 1, 2, 2, 2]


def test_near_misses_that_stand_still_advance_nothing():
    rng = np.random.default_rng(0)
    episodes = [-0.05 + 0.02 * rng.standard_normal((80, 4)) for _ in range(5)]
    stages = follow(dictionary(4), episodes)
    assert agreement(stages, [np.zeros(80)] * 5).advances == 0
    with pytest.raises(ValueError, match=r"episode 0: truth must be \(80,\)"):
        agreement(stages, [np.zeros(79)] * 5)


def test_a_single_frame_does_not_move_a_slow_tracker():
    gaps = np.full((20, 2), -0.2)
    gaps[10] = 0.2
    assert not any(s.advanced[0] for s in tracked(gaps, StageRewardConfig(alpha=0.3)))


def test_a_stage_is_not_left_before_its_fewest_frames():
    gaps = np.full((12, 1), -0.2)
    gaps[2:] = 0.2
    stage = [int(s.stage[0]) for s in tracked(gaps, min_frames=7)]
    assert stage == [0] * 6 + [1] * 5
    assert tracked(gaps)[1].stage[0] == 1, "without it, the first frame is enough"


def test_a_stage_is_taken_back_when_nothing_is_to_be_seen_of_it_or_the_one_before():
    config = StageRewardConfig(patience=5)
    gaps = np.full((40, 3), -0.2)
    gaps[5:20, 0] = 0.2  # done at 5, lost at 20
    stage = np.array([s.stage[0] for s in tracked(gaps, config)])
    assert stage[15] == 1 and stage[-1] == 0
    assert np.flatnonzero(stage[6:] == 0)[0] + 7 == 24, "five frames from the one that lost it"
    assert stage.max() == 1
    waiting = np.full((60, 3), -0.2)
    waiting[5:, 0] = 0.2  # the stage before still holds: long work on the next is no loss
    assert tracked(waiting, config)[-1].stage[0] == 1


def test_a_finished_task_that_falls_over_is_taken_back():
    gaps = np.full((40, 1), 0.2)
    gaps[20:] = -0.2
    done = tracked(gaps, StageRewardConfig(patience=5))
    assert done[15].stage[0] == 1 and done[-1].stage[0] == 0
    assert sum(bool(s.regressed[0]) for s in done) == 1


def picks():
    held = ("over", "lower", "open", "retreat")
    return from_steps("stack", "stack the cubes", [
        Step(p, target, below if p in held else "")
        for target, below in (("green cube", "blue cube"), ("red cube", "green cube"))
        for p in PRIMITIVES
    ])  # fmt: skip


def test_a_stage_builds_on_the_grasp_and_on_what_was_put_down():
    needs, begin = builds_on(picks())
    assert begin.tolist() == [0] * 9 + [9] * 9
    found = [np.flatnonzero(row).tolist() for row in needs]
    # close needs reach; settle, lift, over and lower need close; retreat needs open
    assert found[:9] == [[], [], [1], [2], [2], [2], [2], [], [7]]
    assert found[9:18] == [[7], [7], [7, 10], [7, 11], [7, 11], [7, 11], [7, 11], [7], [7, 16]]
    assert found[18] == [7, 16]


@pytest.mark.parametrize(
    ("believed", "lost", "back"), [(14, 11, 9), (14, 7, 0), (5, 2, 0), (1, 0, 1), (18, 16, 9)]
)
def test_a_result_that_is_lost_leads_back_to_the_start_of_its_pick(believed, lost, back):
    gaps = np.where(np.arange(18) < believed, 0.3, -0.3)
    tracker = StageTracker(picks(), 1, StageRewardConfig(patience=5))
    tracker.reset(gaps[None])
    for _ in range(80):
        step = tracker.step(gaps[None], NO, NO)
    assert step.stage[0] == believed
    gaps[lost] = -0.3
    steps = [tracker.step(gaps[None], NO, NO) for _ in range(5)]
    assert [int(s.stage[0]) for s in steps] == [believed] * 4 + [back]
    assert steps[-1].regressed[0] == (back != believed)


def test_pose_evidence_vetoes_what_vision_claims():
    gaps = np.full((10, 2), -0.2)
    gaps[3:, 0] = 0.2
    done = tracked(gaps, pose_done=np.array([[False, True]]))
    assert not any(s.advanced[0] for s in done) and done[4].vetoed[0]
    assert tracked(gaps, pose_done=np.array([[True, False]]))[-1].stage[0] == 1


@given(
    st.lists(st.tuples(*[st.floats(-2, 2)] * 3), min_size=2, max_size=60),
    st.sampled_from(["terminated", "truncated", "neither"]),
)
@settings(max_examples=60, deadline=None)
def test_the_sum_over_an_episode_depends_on_its_ends_only(gaps, ending):
    """Sum of gamma^t r_t = gamma^T Phi_T - Phi_0, with Phi_T = 0 beyond a terminal state."""
    config = StageRewardConfig(patience=3, gamma=0.97)
    tracker = StageTracker(dictionary(3), 1, config)
    tracker.reset(np.array(gaps[:1]))
    start, total = tracker.potential[0], 0.0
    for t, g in enumerate(gaps[1:]):
        last = np.array([t == len(gaps) - 2])
        step = tracker.step(
            np.array([g]), last & (ending == "terminated"), last & (ending == "truncated")
        )
        total += config.gamma**t * step.reward[0]
    after = 0.0 if ending == "terminated" else tracker.potential[0]
    assert total == pytest.approx(config.gamma ** (len(gaps) - 1) * after - start, abs=1e-9)


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_going_round_through_stages_earns_nothing(seed, rounds):
    """A loop that gains a stage and loses it again: what it pays sums to no more than zero."""
    rng = np.random.default_rng(seed)
    config = StageRewardConfig(patience=4)
    loop = np.full((40, 2), -0.3)
    loop[rng.integers(3, 8) : rng.integers(14, 20), 0] = rng.uniform(0.1, 1.0)
    done = tracked(np.concatenate([loop] * rounds), config)
    assert sum(bool(s.advanced[0]) for s in done) == rounds
    assert sum(bool(s.regressed[0]) for s in done) == rounds
    discounted = config.gamma ** np.arange(len(done)) @ [s.reward[0] for s in done]
    assert discounted <= 1e-6
    paid = sum(max(float(s.reward[0]), 0.0) for s in done)
    assert paid > 0.3 * rounds, "it must pay on the way, or the test says nothing"


def test_a_row_is_reset_alone_and_rows_do_not_see_one_another():
    gaps, _ = one_after_the_other(6, 3, noise=0.02)
    both = StageTracker(dictionary(3), 2)
    both.reset(np.stack([gaps[0], gaps[0]]))
    alone = StageTracker(dictionary(3), 1)
    alone.reset(gaps[:1])
    for t in range(1, 19):
        ended = np.array([False, t == 9])
        pair = both.step(np.stack([gaps[t], gaps[t]]), ended, np.zeros(2, bool))
        one = alone.step(gaps[t][None], NO, NO)
        assert pair.reward[0] == one.reward[0] and pair.stage[0] == one.stage[0]
        if t == 9:
            with pytest.raises(ValueError, match=r"rows \[1\] have ended: reset them"):
                both.step(np.stack([gaps[t], gaps[t]]), ended, ended)
            both.reset(gaps[:1], [1])
            assert both.stage.tolist() == [1, 0]
            fresh = StageTracker(dictionary(3), 1)
            fresh.reset(gaps[:1])
        elif t > 9:
            new = fresh.step(gaps[t][None], NO, NO)
            assert pair.reward[1] == new.reward[0] and pair.stage[1] == new.stage[0]
    assert both.stage[0] == 3


def test_a_saved_tracker_goes_on_bit_for_bit():
    gaps, _ = one_after_the_other(5, 4, noise=0.2, seed=3)
    first = StageTracker(dictionary(4), 1)
    first.reset(gaps[:1])
    for g in gaps[1:9]:
        first.step(g[None], NO, NO)
    second = StageTracker(dictionary(4), 1)
    second.load_state_dict(first.state_dict())
    for g in gaps[9:]:
        one, two = (t.step(g[None], NO, NO) for t in (first, second))
        assert one.reward == two.reward and one.stage == two.stage and one.score == two.score
    with pytest.raises(ValueError, match=r"state\['stage'\] must be \(2,\), got \(1,\)"):
        StageTracker(dictionary(4), 2).load_state_dict(first.state_dict())


def test_what_a_step_gave_is_not_changed_by_the_next():
    gaps = np.array([[-0.2, -0.2], [0.2, -0.2], [0.2, -0.2], [0.2, 0.1]])
    steps = tracked(gaps)
    kept = [(s.score.copy(), s.stage.copy()) for s in tracked(gaps[:3])]
    for (score, stage), step in zip(kept, steps, strict=False):
        np.testing.assert_array_equal(score, step.score)
        np.testing.assert_array_equal(stage, step.stage)


def test_each_stage_has_its_own_calibration():
    made = dictionary(2).calibrated([0.05, 0.5], [0.7, 0.55])
    tracker = StageTracker(made, 1)
    np.testing.assert_allclose(tracker.tau, [0.05, 0.5])
    np.testing.assert_allclose(tracker.theta, [0.7, 0.55])
    assert (StageTracker(made, 1, StageRewardConfig.paper()).tau == 0.05).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.step(np.zeros((2, 2)), NO, NO), r"gaps must be \(1, 3\), got \(2, 2\)"),
        (lambda t: t.step(np.full((1, 3), np.nan), NO, NO), "gaps must be finite"),
        (lambda t: t.step(np.zeros((1, 3)), False, NO), r"terminated, truncated must be \(1,\)"),
        (lambda t: t.step(np.zeros((1, 3)), NO, NO, [True]), r"pose_done must be \(1, 3\)"),
        (lambda t: t.reset(np.zeros((1, 3)), [1]), r"env_ids must be \(n,\) in \[0, 1\)"),
        (lambda t: Triplets(dictionary(3)).gaps(np.zeros((1, 5))), "similarities must be"),
    ],
)
def test_wrong_shapes_are_refused_and_change_nothing(call, message):
    tracker = StageTracker(dictionary(3), 1)
    tracker.reset(np.zeros((1, 3)))
    before = tracker.state_dict()
    with pytest.raises(ValueError, match=message):
        call(tracker)
    for name, value in tracker.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    "fields", [{"mode": "best"}, {"tau": 0.0}, {"alpha": 1.5}, {"low": 0.8}, {"patience": 0}]
)
def test_bad_settings_are_refused(fields):
    with pytest.raises(ValueError):
        StageRewardConfig(**fields)
