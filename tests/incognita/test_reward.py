"""The small reward model's data, training and benchmark, in small."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from incognita import reward_metrics
from incognita.bench.reward import CELLS, examples
from incognita.bench.reward_ladder import correlation
from incognita.bench.reward_rl import _same_rewards
from incognita.cli import app
from incognita.recipes.reward import (
    RewardRecipe,
    Sampler,
    _altered,
    _looking,
    calibration,
    judged,
    losses,
    mirrored,
    train_reward,
)
from incognita.recipes.reward_data import (
    FAMILIES,
    HELD_TABLE,
    SEEN_TABLE,
    TRAINED,
    Examples,
    load,
    make,
)
from incognita.table_rl import Task, train_ours
from reward_vlm.backends.small import SmallModel, write_small
from reward_vlm.backends.small_net import PATCH, SmallConfig, SmallNet, tokens
from reward_vlm.local import LocalScores
from sim.rollout import FRAMES, PROBES, Told

TINY = RewardRecipe(
    rollouts=24,
    drives=6,
    val=8,
    steps=4,
    batch=4,
    asks=3,
    checkpoint_every=2,
    val_clips=32,
    calibration_clips=64,
    lengths=(3, 4),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rollouts")
    for source, count in (("train", 24), ("train_arena", 6), ("val", 8), ("val_arena", 8)):
        make(source, count, folder)
    return folder


@pytest.fixture(scope="module")
def rollouts(data):
    return load(data, "train", "train_arena")


def test_every_instruction_of_every_rollout_is_labelled(rollouts):
    assert len(rollouts) == 30
    for labels, points, probes, told in zip(
        rollouts.labels, rollouts.points, rollouts.probes, rollouts.told, strict=True
    ):
        count = len(told)
        assert (labels[:count] >= 1).all() and (labels[:count] <= 5).all()
        assert (labels[count:] == -1).all() and np.isnan(points[count:]).all()
        assert np.isfinite(points[:count]).all() and np.isfinite(probes[:count]).all()
        assert (labels[:count, 0] <= 4).all()  # nothing is done before it begins
    assert {t.family for told in rollouts.told for t in told} == set(FAMILIES)


def test_rollouts_that_are_there_stay_and_more_can_be_asked_for(data, tmp_path):
    make("train", 5, tmp_path)
    file = tmp_path / "train" / "0000.npz"
    before = file.stat().st_mtime_ns
    make("train", 5, tmp_path)
    assert file.stat().st_mtime_ns == before
    small, large = load(tmp_path, "train"), load(data, "train")
    assert small.told == large.told[:5]
    np.testing.assert_array_equal(small.labels, large.labels[:5])
    np.testing.assert_array_equal(small.images(4, np.arange(3)), large.images(4, np.arange(3)))
    with pytest.raises(FileNotFoundError, match="family"):
        load(tmp_path, "train", "family")


def test_held_out_combinations_are_never_learned_from(rollouts):
    assert not set(HELD_TABLE) & set(SEEN_TABLE)
    table = [t for told in rollouts.told for t in told if t.family not in ("drive", "leave")]
    assert not {t.thing for t in table} & set(HELD_TABLE)
    asked = [told[i].family for told, i in zip(rollouts.told, rollouts.asked, strict=True)]
    assert set(asked) <= set(TRAINED)


def test_examples_leave_out_the_held_out_family(rollouts):
    found = Examples.of(rollouts)
    assert set(np.unique(found.family)) <= {FAMILIES.index(f) for f in TRAINED}
    assert found.last.min() == 3 and set(np.unique(found.label)) == {1, 2, 3, 4, 5}


def test_a_batch_is_balanced_and_its_points_are_in_the_images(rollouts):
    sampler = Sampler(rollouts, TINY)
    batch = sampler.draw(np.random.default_rng(0), 256, 4)
    counts = torch.bincount(batch.labels[:, -1], minlength=6)[1:]
    assert counts.min() > 25
    inside = ((batch.points > 0) & (batch.points < 1)).all(-1).float().mean()
    assert inside > 0.85
    assert batch.frames.min() >= 0 and batch.frames.max() <= 1


def test_a_blind_model_sees_grey_or_hears_nothing(rollouts):
    for what in ("video", "text"):
        batch = Sampler(rollouts, replace(TINY, blind=what)).draw(np.random.default_rng(0), 2, 3)
        assert (batch.frames.std() < 1e-6) == (what == "video")
        assert (batch.said.sum() == 0) == (what == "text")
    assert len(PROBES) == batch.probes.shape[1]


def test_where_the_network_should_look_costs_least_there():
    side = SmallConfig().side // PATCH
    points = torch.tensor([[[[5.5, 7.5], [10.5, 3.5], [20.5, 20.5]]]]) / side
    cells = torch.arange(side, dtype=torch.float32)
    maps = torch.stack([
        -((cells[None] - x) ** 2 + (cells[:, None] - y) ** 2)
        for x, y in ((5, 7), (10, 3), (20, 20))
    ])[None, None]  # fmt: skip
    shown = torch.ones(1, 1, 3, dtype=torch.bool)
    right = float(_looking(maps, points, shown))
    assert right < float(_looking(maps.transpose(-1, -2), points, shown)) - 5
    outside = points.clone()
    outside[0, 0, 0], shown[0, 0, 0] = 1.5, False
    assert float(_looking(maps, outside, shown)) == pytest.approx(right, abs=0.2)  # the others


def test_a_clip_is_asked_many_things_and_judged_as_if_asked_each_alone(rollouts):
    batch = Sampler(rollouts, TINY).draw(np.random.default_rng(2), 3, 4, asks=5)
    assert batch.said.shape[0] == len(batch.labels) == len(batch.points) == 15
    net = SmallNet().eval()
    with torch.no_grad():
        together = net(batch.frames, batch.said)
        alone = net(batch.frames.repeat_interleave(5, 0), batch.said)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="said"):
        net(batch.frames, batch.said[:4])


def test_in_a_mirror_left_is_right_and_points_are_where_things_are(rollouts):
    push = Told("push", ("red", "cube"), ("", "to the robot's left"))
    assert mirrored(push).other[1] == "to the robot's right"
    assert mirrored(mirrored(push)) == push
    assert mirrored(Told("lift", ("red", "cube"))) == Told("lift", ("red", "cube"))
    image = np.zeros((1, 96, 96, 3), np.uint8)
    image[0, 30:33, 60:63] = 255  # about (61.5, 31.5)
    for seed in range(20):
        for mirror in (False, True):
            rng = np.random.default_rng(seed)
            point = np.array([[[[61.5, 31.5]]]], np.float32) / 96
            axes = np.array([[0, -0.1], [-0.1, 0]], np.float32)
            seen, moved, turned = _altered(rng, image, point, axes, mirror)
            row, column = np.argwhere(seen[0].sum(-1) > 400).mean(0) + 0.5
            assert abs(96 * moved[0, 0, 0] - [column, row]).max() < 1
            np.testing.assert_allclose(turned, axes, atol=0.05)  # left is where it was again


def test_the_end_of_a_push_is_not_looked_for(rollouts):
    batch = Sampler(rollouts, TINY).draw(np.random.default_rng(3), 40, 3, asks=4)
    hidden = ~batch.shown[:, 0, 1] & batch.known[:, 0, 1]  # goals that the first frame tells
    assert 0 < hidden.float().mean() < 0.7
    assert not batch.known[hidden][:, 1:, 1].any()


def test_every_term_of_the_loss_reaches_the_weights(rollouts):
    torch.manual_seed(0)
    net = SmallNet()
    batch = Sampler(rollouts, TINY).draw(np.random.default_rng(1), 4, 3)
    for name, term in losses(net, batch, TINY).items():
        net.zero_grad()
        term.backward(retain_graph=True)
        grads = [p.grad.abs().sum() for p in net.parameters() if p.grad is not None]
        assert torch.isfinite(term) and sum(grads) > 0, name


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(data, tmp_path):
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
    whole = train_reward(TINY, tmp_path / "straight", quiet=True)
    train_reward(replace(TINY, steps=2), tmp_path / "stopped", quiet=True)
    with pytest.raises(FileExistsError, match="--resume"):
        train_reward(TINY, tmp_path / "stopped", quiet=True)
    # the learning rate depends on the number of steps: go on from the first half of the whole run
    shutil.rmtree(tmp_path / "stopped" / "checkpoints")
    newest = sorted((tmp_path / "straight" / "checkpoints").iterdir())[0]
    shutil.copytree(newest, tmp_path / "stopped" / "checkpoints" / newest.name)
    on = train_reward(TINY, tmp_path / "stopped", resume=True, quiet=True)
    assert on["revision"] == whole["revision"]
    about = json.loads((tmp_path / "stopped" / "model" / "model.json").read_text())
    assert about["recipe"]["steps"] == 4
    steps = sorted(p.name for p in (tmp_path / "straight" / "ladder").iterdir())
    assert steps == ["000002", "000004"]


@pytest.fixture(scope="module")
def tiny_model(data, tmp_path_factory):
    torch.manual_seed(0)
    net = SmallNet().eval()
    folder = tmp_path_factory.mktemp("model")
    found = judged(net, Sampler(load(data, "val", "val_arena"), TINY), 64)
    write_small(folder, net, calibration(found), {"note": "untrained"})
    return folder


def test_the_cells_of_the_benchmark_hold_what_they_say(rollouts):
    seen = {cell: [] for cell in CELLS}
    for example in examples(rollouts, False, 0):
        seen[example.truth.cell].append(example)
    assert all(e.truth.label == 5 and e.clip.length == FRAMES for e in seen["original"])
    assert all(e.truth.label < 5 and e.clip.length == FRAMES for e in seen["failure"])
    assert len(seen["original"]) + len(seen["failure"]) == len(seen["clip"]) == 30
    assert all(4 <= e.clip.length < FRAMES for e in seen["clip"])


@pytest.mark.slow
def test_the_benchmark_runs_in_small(tiny_model, tmp_path):
    from incognita.bench import app as bench

    out = tmp_path / "result.json"
    arguments = ["reward", "--model", f"small:{tiny_model}", "--smoke", "--json", str(out),
                 "--picture", str(tmp_path / "clips.png")]  # fmt: skip
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    table = json.loads(out.read_text())["table"]
    assert set(table) == {"model", "ridge", "constant"}
    assert (tmp_path / "clips.png").stat().st_size > 50_000
    for row in table["model"].values():
        assert 0 <= row["macro_mae"] <= 4 and 0 <= row["ece"] <= 1
    assert app is not None


def test_calibration_error_by_hand():
    confidence, correct = [0.9, 0.9, 0.9, 0.9, 0.5, 0.5], [1, 1, 1, 0, 1, 0]
    error = reward_metrics.expected_calibration_error(confidence, correct)
    assert error == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.0)


def test_auroc_and_false_positives_by_hand():
    scores, good = [0.9, 0.8, 0.7, 0.6, 0.5], [True, False, True, True, False]
    assert reward_metrics.auroc(scores, good) == pytest.approx(4 / 6)
    assert reward_metrics.false_positives(scores, good, 0.3) == 0.0
    assert reward_metrics.false_positives(scores, good, 1.0) == 0.5
    assert np.isnan(reward_metrics.auroc(scores, [True] * 5))


def test_words_are_read_by_their_letters():
    one, other = tokens("Put the RED cube!", 4096), tokens("put the red cubes", 4096)
    np.testing.assert_array_equal(one[:3], other[:3])
    shared = set(one[3]) & set(other[3]) - {0}
    assert shared and (one[3] != other[3]).any() and one.max() < 4096
    assert tokens("", 64).sum() == 0 and tokens("word " * 100, 64).shape == one.shape


def test_correlation_by_hand():
    pairs = np.array([[-1.0, 0.1], [-0.5, 0.3], [-0.2, 0.9]])
    assert correlation(pairs) == pytest.approx(np.corrcoef(pairs.T)[0, 1])
    assert correlation(np.array([[1.0, 2.0], [1.0, 3.0]])) == 0
    assert correlation(np.stack([pairs, pairs])[..., ::-1], axis=1).shape == (2,)


def test_rewards_behind_503s_must_be_those_of_the_calm_run():
    calm = {"reward": "server", "seed": 0, "first_rewards": [0.1] * 48, "missing": 0}
    same = calm | {"reward": "flaky"}
    assert _same_rewards([calm, same])
    assert not _same_rewards([calm, same | {"missing": 1}])
    assert not _same_rewards([calm, same | {"first_rewards": [0.1] * 47 + [0.2]}])


@pytest.mark.slow
def test_our_learner_trains_on_the_rewards_of_a_model(tiny_model):
    task = Task("touch", False, 4, 0)
    out = train_ours(task, "server", 0, 2 * 16 * 12, LocalScores(SmallModel(tiny_model)))
    assert len(out.rewards) == 2 * 16 * 3 and all(0 <= r <= 1 for r in out.rewards)
    assert out.failed_as_good == 0 and out.failed > 0
    assert out.act(np.zeros((3, 19), np.float32)).shape == (3, 4)


@pytest.mark.slow
def test_trainings_that_were_kept_are_not_done_again(tmp_path):
    from incognita.bench import app as bench

    def run(name):
        line = ["reward-rl", "--tasks", "touch", "--learners", "ours", "--rewards", "success",
                "--smoke", "--keep", str(tmp_path / "runs.jsonl"),
                "--json", str(tmp_path / name)]  # fmt: skip
        result = CliRunner().invoke(bench, line)
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / name).read_text())

    first, second = run("first.json"), run("second.json")
    assert first["runs"] == second["runs"] and len(first["runs"]) == 1
    assert first["passed"] == {}  # nothing was compared
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 1
