import math

import numpy as np
import pytest

from reward_vlm import rubric
from reward_vlm.model import (
    BadOutput,
    Clip,
    Doubt,
    Judgement,
    ModelInfo,
    Sampling,
    digit_distribution,
    preference,
)

CARD = (
    b"Given the task, assign a discrete progress score reward (1,2,3,4,5) for the robot in the "
    b"video in the format: ANSWER: <score>\n"
    b"Rubric for end-of-episode progress (judge only the final state without time limits):\n"
    b"1 - No Success: Final state shows no goal-relevant change for the command.\n"
    b"2 - Minimal Progress: Final state shows a small but insufficient change toward the goal.\n"
    b"3 - Partial Completion: The final state shows good progress toward the goal but violates "
    b"more than one requirement or a major requirement.\n"
    b"4 - Near Completion: Final state is correct in region and intent but misses a single minor "
    b"requirement.\n"
    b"5 - Perfect Completion: Final state satisfies all requirements.\n"
    b"\n"
    b"Task: put the red cup on the plate"
)

ANSWERS: list[tuple[str | None, float | None]] = [
    ("ANSWER: 1", 1),
    ("ANSWER: 5", 5),
    ("answer: 3", 3),
    ("Answer : 4", 4),
    ("ANSWER:2", 2),
    ("ANSWER: 2. The cup is near the plate.", 2),
    ("The cup fell.\n\nANSWER: 1", 1),
    ("ANSWER: 4\nANSWER: 5", 4),
    ("I think ANSWER: 3, maybe 4", 3),
    ("5. All done", 5),
    ("  4 ", 4),
    ("3\n", 3),
    ("ANSWER: 3.5", 3.5),
    ("ANSWER: -1", -1),
    ("ANSWER: 0", 0),
    ("ANSWER: 10", 10),
    ("2 or 3", 2),
    ("4/5", 4),
    ("2.5 of 5", 2.5),
    ("ANSWER:   5  ", 5),
    ("MyANSWER: 5", None),
    ("answers: 5", None),
    ("The score is 4", None),
    ("ANSWER: four", None),
    ("ANSWER 4", None),
    ("**4**", None),
    ("", None),
    (None, None),
    ("   ", None),
    ("ANSWER: <4>", None),
    ("5th", None),
    ("ANSWER\n:\n2", 2),
]


def test_the_prompt_is_that_of_the_model_card_to_the_byte():
    assert rubric.prompt("put the red cup on the plate").encode() == CARD


def test_braces_in_a_task_stay_as_they_are():
    assert rubric.prompt("move {task} to {0}").endswith("Task: move {task} to {0}")


@pytest.mark.parametrize(("text", "number"), ANSWERS)
def test_answers_parse_as_in_the_benchmark(text, number):
    assert rubric.parse_answer(text) == number


def test_what_cannot_be_parsed_costs_four_and_sixteen():
    assert rubric.absolute_error(None, 1) == 4 and rubric.squared_error(None, 5) == 16
    assert rubric.absolute_error(2.0, 5) == 3 and rubric.squared_error(10.0, 5) == 25


def test_a_number_outside_one_to_five_is_never_a_reward():
    for text in ("ANSWER: 0", "ANSWER: 6", "ANSWER: 3.5", "nothing", "ANSWER: -1"):
        assert rubric.score_of_answer(text) is None
    assert rubric.score_of_answer("ANSWER: 4.0") == 4


def test_every_subset_weighs_the_same():
    assert rubric.macro_mae({"a": [1.0], "b": [0.0, 0.0, 0.0]}) == 0.5
    with pytest.raises(ValueError, match="none empty"):
        rubric.macro_mae({"a": []})


def test_shaping_of_a_finished_episode_telescopes():
    phi = np.array([0.1, 0.4, 0.2, 0.9])
    assert rubric.shaped(phi, 1.0).sum() == pytest.approx(-0.1)
    assert rubric.shaped(phi, 1.0, done=False).sum() == pytest.approx(0.8)
    np.testing.assert_allclose(rubric.shaped(phi, 0.5, done=False), [0.1, -0.3, 0.25])


def test_balanced_takes_as_many_of_each_as_there_are_of_the_rarest():
    labels = np.array([1, 1, 1, 2, 2, 3, 4, 4, 5, 5, 5])
    picked = rubric.balanced(labels, np.random.default_rng(0))
    assert sorted(labels[picked]) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"\[4, 5\]"):
        rubric.balanced([1, 2, 3], np.random.default_rng(0))


def test_score_is_the_median_and_reward_comes_from_the_mean():
    judged = Judgement(np.array([0.3, 0.25, 0.0, 0.0, 0.45]))
    assert judged.score == 2
    assert judged.expected == pytest.approx(0.3 + 0.5 + 2.25)
    assert judged.reward == pytest.approx((3.05 - 1) / 4)
    assert judged.success == 0.45


@pytest.mark.parametrize("probs", [[1, 0, 0, 0], [np.nan] * 5, [0.5] * 5, [-1, 1, 1, 0, 0]])
def test_no_judgement_is_made_of_a_broken_distribution(probs):
    with pytest.raises(BadOutput):
        Judgement(np.array(probs, np.float64))


def test_entropy_runs_from_sure_to_clueless():
    assert Judgement(np.eye(5)[2]).entropy == 0
    assert Judgement(np.full(5, 0.2)).entropy == pytest.approx(1)


def test_a_model_doubts_with_a_reason():
    sure, doubt = np.eye(5)[4], Doubt()
    assert doubt.reason(Judgement(sure)) is None
    assert doubt.reason(Judgement(np.full(5, 0.2))) == "entropy"
    assert doubt.reason(Judgement(sure, ood=0.999)) == "ood"
    assert doubt.reason(Judgement(sure, lost_mass=0.6)) == "lost_mass"


def test_the_digits_are_renormalized_and_the_rest_is_lost_mass():
    logprobs = np.log([0.1, 0.2, 0.1, 0.05, 0.05])
    probs, lost = digit_distribution(logprobs)
    np.testing.assert_allclose(probs, [0.2, 0.4, 0.2, 0.1, 0.1])
    assert lost == pytest.approx(0.5)
    probs, lost = digit_distribution([-math.inf, -1.0, -math.inf, -math.inf, -math.inf])
    assert probs[1] == 1 and lost == pytest.approx(1 - math.exp(-1))
    for broken in ([-math.inf] * 5, [math.nan] * 5, [1.0] * 5, [-1.0]):
        with pytest.raises(BadOutput):
            digit_distribution(broken)


def test_preference_is_that_of_drawing_a_higher_score():
    low, high = Judgement(np.eye(5)[1]), Judgement(np.eye(5)[3])
    assert preference(high, low) == 1 and preference(low, high) == 0
    assert preference(low, low) == 0.5
    mixed = Judgement(np.array([0.5, 0, 0, 0, 0.5]))
    assert preference(mixed, high) == pytest.approx(0.5)


def test_sampling_keeps_the_last_frame():
    assert Sampling(count=4).indices(10, 30).tolist() == [0, 3, 6, 9]
    assert Sampling(count=8).indices(3, 30).tolist() == [0, 1, 2]
    assert Sampling(count=1).indices(9, 30).tolist() == [8]
    assert Sampling(fps=2, least=4).indices(60, 30).tolist() == [0, 15, 30, 44, 59]
    assert Sampling(fps=2, most=5).indices(600, 10)[-1] == 599


def test_a_sampled_clip_is_not_sampled_again():
    frames = np.zeros((20, 4, 4, 3), np.uint8)
    clip = Clip("go", {"front": frames}, fps=10).sampled(Sampling(count=5))
    assert clip.length == 5 and clip.frame_indices.tolist() == [0, 5, 10, 14, 19]
    assert clip.sampled(Sampling(count=2)) is clip


@pytest.mark.parametrize(
    ("task", "frames", "fps", "wanted"),
    [
        (" ", np.zeros((1, 4, 4, 3), np.uint8), 1.0, "task"),
        ("go", np.zeros((1, 4, 4, 3)), 1.0, "uint8"),
        ("go", np.zeros((0, 4, 4, 3), np.uint8), 1.0, "uint8"),
        ("go", np.zeros((1, 4, 4, 3), np.uint8), math.nan, "fps"),
        ("go", np.zeros((1, 4, 4, 3), np.uint8), 0.0, "fps"),
    ],
)
def test_a_clip_says_what_is_wrong_with_it(task, frames, fps, wanted):
    with pytest.raises(ValueError, match=wanted):
        Clip(task, {"front": frames}, fps)


def test_the_preprocessing_hash_follows_what_it_covers():
    def info(**changed):
        return ModelInfo("m", "small", "r", Sampling(count=8), {"side": 64} | changed, "sim")

    assert info().preprocess_sha == info().preprocess_sha
    assert info(mean=0.5).preprocess_sha != info().preprocess_sha
