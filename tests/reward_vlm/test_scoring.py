"""Recordings, verdicts and shaping; scored by the real gateway and by the same model in process."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from reward_vlm.client import ClientConfig, Missing, Query, RewardClient, RewardRequestError
from reward_vlm.local import LocalScores
from reward_vlm.scoring import EpisodeScorer, Recording, ScoringConfig, Tally, shaping


def grey(*brightness):
    """(T, 8, 8, 3) frames."""
    return np.stack([np.full((8, 8, 3), round(255 * b), np.uint8) for b in brightness])


def recording(*brightness, every=1, most=32):
    made = Recording(grey(brightness[0])[0], every, most)
    for step, b in enumerate(brightness[1:], 1):
        made.add(step, grey(b)[0])
    return made


@pytest.fixture(scope="module")
def client(gray):
    url, key = gray
    with RewardClient(url, key, ClientConfig(deadline_s=5)) as made:
        yield made


@pytest.fixture(scope="module")
def model():
    """The gateway's model, in this process."""
    path = Path(__file__).with_name("gray_server.py")
    spec = importlib.util.spec_from_file_location("gray_server", path)
    module, argv = importlib.util.module_from_spec(spec), sys.argv
    sys.argv = [str(path), "nowhere"]
    try:
        spec.loader.exec_module(module)
    finally:
        sys.argv = argv
    return module.Gray()


def test_the_gateway_answers_the_client(client):
    result = client.score("go", grey(0, 0.5, 0.6), fps=10, want=("score", "progress", "success"))
    assert result.expected == pytest.approx(1 + 4 * 0.6) and result.score == 3
    np.testing.assert_allclose(result.progress, [0, 128 / 255, 0.6], atol=1e-6)
    assert client.ready() and client.models().models[0].name == "gray"
    better = client.prefer("go", grey(0.9), grey(0.2), fps=10)
    assert better.p_first > 0.9 and better.first.score > better.second.score


def test_the_gateway_refuses_what_the_client_cannot_know(client):
    with pytest.raises(RewardRequestError, match="fps"):
        client.score("go", grey(0.5))
    with pytest.raises(RewardRequestError, match="404"):
        client.score("go", grey(0.5), fps=10, model="another")


def test_a_model_in_process_answers_as_the_gateway_does(client, model):
    queries = [Query("go", grey(*np.linspace(0, b, 20)), 10, ("score", "progress", "success"))
               for b in (0.1, 0.5, 0.77, 1.0)]  # fmt: skip
    queries.append(Query("go", {"front": grey(0.2, 0.4), "wrist": grey(0.4, 0.6)}, 10))
    there, here = client.score_many(queries), LocalScores(model).score_many(queries)
    own = {"id", "timing_ms", "cached"}
    assert [r.model_dump(exclude=own) for r in there] == [r.model_dump(exclude=own) for r in here]
    with pytest.raises(RewardRequestError, match="fps"):
        LocalScores(model).score_many([Query("go", grey(0.5))])


def test_an_mp4_is_scored_as_its_frames_are(client, model, tmp_path):
    from episodes import encode_mp4

    frames = np.repeat(np.repeat(grey(*np.linspace(0, 1, 16)), 8, 1), 8, 2)
    encode_mp4(frames, 10.0, tmp_path / "a.mp4")
    there = client.score("go", tmp_path / "a.mp4")
    (here,) = LocalScores(model).score_many([Query("go", (tmp_path / "a.mp4").read_bytes())])
    assert there.expected == pytest.approx(5, abs=0.1) and here.probs == there.probs


def test_a_recording_keeps_first_and_last_and_thins_evenly():
    made = recording(*np.linspace(0, 1, 101), most=16)
    frames, steps = made.clip()
    assert len(steps) == len(frames) <= 16 and steps[0] == 0 and steps[-1] == 100
    assert set(np.diff(steps[:-1])) == {8} and frames[-1].mean() == 255
    assert frames[3].mean() == round(255 * 0.24)
    short, steps = recording(0, 0.5, 1, every=10).clip()
    assert steps == [0, 2] and len(short) == 2
    with pytest.raises(ValueError, match="step must"):
        made.add(100, grey(0)[0])
    with pytest.raises(ValueError, match="frame"):
        made.add(101, np.zeros((4, 4, 3), np.uint8))


def test_frames_a_second_follow_the_thinning():
    query = recording(*np.linspace(0, 1, 101), most=16).query("go", ScoringConfig(step_s=0.05))
    assert query.fps == pytest.approx(1 / (0.05 * 100 / (len(query.frames) - 1)))


def test_verdicts_carry_reward_and_progress(client):
    scorer = EpisodeScorer(client, ScoringConfig(mode="dense", scale=2, shaping=0.5))
    first, second = scorer.judge([recording(0, 0.4, 0.8), recording(0.2)], ["go", "go"])
    assert first.reward == pytest.approx(2 * 0.8) and first.missing is None
    np.testing.assert_allclose(first.potential, [0, 0.2, 0.4], atol=1e-6)
    assert second.reward == pytest.approx(2 * 0.2) and len(second.potential) == 1
    success = EpisodeScorer(client, ScoringConfig(reward="success"))
    assert [v.reward for v in success.judge([recording(0, 1), recording(0.5)], ["go"] * 2)] == [
        1,
        0,
    ]


def test_progress_between_frames_is_interpolated(client):
    scorer = EpisodeScorer(client, ScoringConfig(mode="dense", every=10, most=32))
    (verdict,) = scorer.judge([recording(*np.linspace(0, 1, 41), every=10)], ["go"])
    np.testing.assert_allclose(verdict.potential, np.linspace(0, 1, 41), atol=0.01)


def test_doubt_counts_as_missing_unless_it_is_trusted(client):
    red = recording(0, 0.5)
    frame = grey(0.5)[0]
    frame[..., 1:] = 0
    red.add(2, frame)
    scorer = EpisodeScorer(client)
    (verdict,) = scorer.judge([red], ["go"])
    assert verdict.missing == "abstained" and math.isnan(verdict.reward)
    assert scorer.tally.reasons == {"abstained": 1}
    (trusted,) = EpisodeScorer(client, ScoringConfig(trust_doubt=True)).judge([red], ["go"])
    assert trusted.missing is None


def test_the_missing_share_is_that_of_the_last_episodes():
    tally = Tally(4)
    for reason in ("timeout", None, None, None, None, "refused"):
        tally.count(reason)
    assert tally.share == 0.25 and (tally.scored, tally.missing) == (4, 2)


def test_shaping_in_parts_has_the_sum_of_the_whole():
    rng, gamma = np.random.default_rng(0), 0.9
    first, whole = rng.random(6), rng.random(11)  # what was thought after 5 steps, and after 10
    parts = np.concatenate([
        shaping(first, gamma, done=False),
        shaping(whole, gamma, begin=5, held=first[-1], done=True),
    ])  # fmt: skip
    assert len(parts) == 10
    assert (gamma ** np.arange(10) @ parts) == pytest.approx(-first[0])


@pytest.mark.parametrize(
    "wrong",
    [dict(mode="x"), dict(reward="x"), dict(every=0), dict(most=1), dict(gamma=2),
     dict(step_s=0), dict(scale=math.nan), dict(window=0)],
)  # fmt: skip
def test_a_wrong_setting_is_an_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScoringConfig(**wrong)


def test_a_model_without_progress_is_no_model_for_dense(faulty):
    with RewardClient(faulty, "test-key-1") as client:
        scorer = EpisodeScorer(client, ScoringConfig(mode="dense"))
        with pytest.raises(ValueError, match="gives no progress"):
            scorer.judge([recording(0, 0.5)], ["ok"])
        (verdict,) = scorer.judge([recording(0, 0.5)], ["500"])
        assert isinstance(verdict.result, Missing) and not verdict.potential.any()
