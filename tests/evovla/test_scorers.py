"""Scorers behind one protocol: the oracle, and the small net that learns near misses."""

import json

import numpy as np
import pytest
import torch

from evovla.scorer import ImageTextScorer, OracleScorer, check_images
from evovla.self_evolution import EvolutionConfig, new_hard_negatives
from evovla.stage_text import from_steps
from evovla.stages import Stage, StageDictionary, Step
from evovla.tiny_scorer import ABOUT, WEIGHTS, TinyConfig, TinyContrastive, load, save, tokens
from evovla.tiny_training import LabelledFrames, TinyTrainer, TinyTraining
from evovla.triplets import Triplets, scores

SMALL = TinyConfig(
    views=("side",),
    side=32,
    channels=16,
    dilations=(1,),
    maps=8,
    width=64,
    text_width=32,
    buckets=256,
)
FRAMES = StageDictionary(
    "put", "put the dot over the bar",
    (Stage("the dot is right over the bar", "the dot is far from the bar",
           ("the dot is beside the bar", "the bar is right over the dot")),
     Stage("the dot is low in the corner", "the dot is high up", ("the bar is low in the corner",)),
    ),
)  # fmt: skip


def drawn(count, seed, near=0.4):
    """Frames with a dot and a bar; stage 0 is done where the dot is over the bar, at most 3 px off.

    A share ``near`` of them are near misses, 5 to 8 px off; as many are done.
    """
    rng = np.random.default_rng(seed)
    images = np.full((count, 1, 32, 32, 3), 30, np.uint8)
    done = np.zeros((count, 2), bool)
    kind = rng.choice(3, count, p=[near, near, 1 - 2 * near])
    for i in range(count):
        x, y = rng.integers(8, 24), rng.integers(18, 26)
        off = {0: rng.integers(-2, 3), 1: rng.choice([-1, 1]) * rng.integers(5, 9)}.get(kind[i], 0)
        dx, dy = (x + off, y - 5) if kind[i] < 2 else rng.integers(3, 29, 2)
        dx = int(np.clip(dx, 2, 29))
        images[i, 0, y : y + 2, x - 3 : x + 4, 1] = 220
        images[i, 0, dy - 1 : dy + 2, dx - 1 : dx + 2, 0] = 220
        done[i] = (abs(dx - x) <= 2 and dy == y - 5), (dx < 10 and dy > 20)
    return LabelledFrames(images, done, np.ones_like(done)), kind


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = TinyContrastive(SMALL)
    trainer = TinyTrainer(net, FRAMES, TinyTraining(steps=240, batch=48, jitter=0.1, shift_px=0))
    losses = []
    trainer.fit(drawn(2000, 0)[0], lambda step, told: losses.append(told["loss"]), every=25)
    return net, losses


def stack():
    held = ("over", "lower", "open", "retreat")
    steps = [Step(p, "red cube", "blue cube" if p in held else "") for p in ("reach", "close")]
    return from_steps("pick", "pick the red cube up", steps)


def test_the_oracle_says_what_is_true_and_nothing_else():
    made = stack()
    truth = np.array([[True, False], [False, False]])
    oracle: ImageTextScorer = OracleScorer(made, lambda: truth)
    triplets = Triplets(made)
    gaps = triplets.gaps(oracle.similarities(np.zeros((2, 2, 8, 8, 3), np.uint8), triplets.texts))
    np.testing.assert_array_equal(gaps, np.where(truth, 1.0, -1.0))
    with pytest.raises(ValueError, match=r"truth must give \(3, 2\), got \(2, 2\)"):
        oracle.similarities(np.zeros((3, 2, 8, 8, 3), np.uint8), triplets.texts)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 2, 8, 8, 3), np.uint8),
     np.zeros((2, 1, 8, 8, 3), np.float32), np.zeros((2, 1, 8, 8, 4), np.uint8)],
)  # fmt: skip
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match=r"images must be \(N, 1, H, W, 3\) uint8 of side, got"):
        check_images(images, ("side",))
    with pytest.raises(ValueError, match="images must be"):
        TinyContrastive(SMALL).similarities(images, ["a text"])


def test_the_shipped_size_is_below_eight_megabytes():
    net = TinyContrastive()
    assert net.views == ("side", "wrist")
    assert 4 * sum(p.numel() for p in net.parameters()) < 8e6


def test_similarities_are_cosines_and_the_order_of_words_counts():
    net = TinyContrastive(SMALL)
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 40, 50, 3)).astype(np.uint8)
    texts = ["the dot is over the bar", "the bar is over the dot", "the dot is over the bar"]
    found = net.similarities(images, texts)
    assert found.shape == (3, 3) and np.abs(found).max() <= 1 + 1e-6
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    assert np.abs(found[:, 0] - found[:, 1]).min() > 1e-4
    said = net.encode_texts(texts)
    torch.testing.assert_close(said.norm(dim=1), torch.ones(3))
    seen = net.encode_images(torch.from_numpy(images))
    np.testing.assert_allclose(found, (seen @ said.T).detach().numpy(), atol=1e-5)


def test_a_text_does_not_depend_on_those_beside_it():
    net = TinyContrastive(SMALL).eval()
    alone = net.encode_texts(["the dot is high"])
    beside = net.encode_texts(["the dot is high", "a much longer text of many more words than it"])
    torch.testing.assert_close(alone[0], beside[0], rtol=1e-5, atol=1e-6)
    assert net.encode_texts([""]).isfinite().all()


def test_words_are_hashed_alike_everywhere():
    assert (tokens("Dot", 4096) == tokens("dot!", 4096)).all()
    assert tokens("dot", 4096)[0, :4].tolist() == [2297, 465, 1945, 0]


def test_views_are_told_apart():
    net = TinyContrastive(TinyConfig(side=16, channels=8, dilations=(1,), maps=4, width=32))
    images = np.random.default_rng(1).integers(0, 255, (1, 2, 16, 16, 3)).astype(np.uint8)
    one, other = (net.similarities(im, ["the dot"]) for im in (images, images[:, ::-1]))
    assert abs(float(one[0, 0] - other[0, 0])) > 1e-5


def test_training_learns_near_misses(trained):
    net, losses = trained
    assert losses[-1] < 0.5 * losses[0]
    frames, kind = drawn(600, 1)
    triplets = Triplets(FRAMES)
    u = scores(triplets.gaps(net.similarities(frames.images, triplets.texts)), 0.05)[:, 0]
    done = frames.done[:, 0]
    assert (u[done] > 0.5).mean() > 0.85
    assert (u[kind == 1] > 0.5).mean() < 0.15


def test_a_scorer_comes_back_from_disk_and_damage_is_seen(trained, tmp_path):
    net, _ = trained
    save(tmp_path, net, {"seed": 0})
    again, about = load(tmp_path)
    assert about == {"seed": 0} and again.config == net.config
    images, texts = drawn(4, 2)[0].images, Triplets(FRAMES).texts
    np.testing.assert_array_equal(
        again.similarities(images, texts), net.similarities(images, texts)
    )
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="sha256 must be"):
        load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(data)
    told = json.loads((tmp_path / ABOUT).read_text())
    (tmp_path / ABOUT).write_text(json.dumps(told | {"schema": 2}))
    with pytest.raises(ValueError, match="schema must be 1, got 2"):
        load(tmp_path)
    told["net"]["width"] = 65
    (tmp_path / ABOUT).write_text(json.dumps(told))
    with pytest.raises(ValueError, match="must fit the sizes"):
        load(tmp_path)


def test_remembered_texts_are_forgotten_when_weights_change(trained, tmp_path):
    net = TinyContrastive(SMALL)
    images, texts = drawn(4, 2)[0].images, Triplets(FRAMES).texts
    net.similarities(images, texts)
    net.load_state_dict(trained[0].state_dict())
    np.testing.assert_array_equal(
        net.similarities(images, texts), trained[0].similarities(images, texts)
    )


def test_a_saved_training_goes_on_bit_for_bit():
    frames = drawn(64, 3)[0]
    config = TinyTraining(steps=6, batch=16)
    torch.manual_seed(1)
    first = TinyTrainer(TinyContrastive(SMALL), FRAMES, config)
    for _ in range(3):
        first.step(frames)
    second = TinyTrainer(TinyContrastive(SMALL), FRAMES, config)
    second.load_state_dict(first.state_dict())
    first.fit(frames)
    second.fit(frames)
    for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_loss_on_numbers_worked_by_hand():
    """Cosines .5 against .3 and .4 at tau .1: l = 5 - log(e^3 + e^4); stage 1 is not known."""

    class Fixed(TinyContrastive):
        def forward(self, images, texts):
            stage = FRAMES.stages[0]
            said = dict(zip(stage.texts().values(), (0.5, 0.3, 0.4, -9.0), strict=True))
            return torch.tensor([[said.get(t, 0.0) for t in texts]])

    trainer = TinyTrainer(Fixed(SMALL), FRAMES, TinyTraining(tau=0.1))
    logit = 5 - np.log(np.exp(3) + np.exp(4))
    known = torch.tensor([[True, False]])
    for done, want in ((True, np.log1p(np.exp(-logit))), (False, np.log1p(np.exp(logit)))):
        flag = torch.tensor([[done, True]])
        assert float(trainer.loss(torch.zeros(1), flag, known)) == pytest.approx(want, abs=1e-5)


def test_frames_that_are_not_known_do_not_move_the_scorer():
    frames = drawn(8, 4)[0]
    blind = LabelledFrames(frames.images, frames.done, np.zeros_like(frames.known))
    trainer = TinyTrainer(TinyContrastive(SMALL), FRAMES, TinyTraining(weight_decay=0.0))
    before = [p.clone() for p in trainer.net.parameters()]
    assert trainer.step(blind) == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.net.parameters(), strict=True))


def test_where_vision_is_fooled_new_hard_negatives_come_and_lower_the_score(trained, tmp_path):
    save(tmp_path, trained[0], {})
    net, _ = load(tmp_path)
    frames, _ = drawn(400, 5)
    truth = frames.done[:, 0].copy()
    triplets = Triplets(FRAMES)
    lie = frames.images.copy()
    lie[..., 2] = 60  # a bluer picture, in which, poses say, nothing is ever done
    u = scores(triplets.gaps(net.similarities(lie, triplets.texts)), 0.05)[:, 0]
    at = np.zeros(400, int)
    found = new_hard_negatives(lie, at, u, np.zeros(400, bool), EvolutionConfig(theta=0.5))
    assert len(found.row) > 20 and (u[found.row] > 0.5).all()
    assert (np.diff(found.score) <= 0).all()
    np.testing.assert_array_equal(found.images, lie[found.row])
    more = found.labelled(2)
    assert more.known.sum() == len(found.row) and not more.done.any()
    trainer = TinyTrainer(net, FRAMES, TinyTraining(steps=80, batch=48, jitter=0.1, shift_px=0))
    trainer.fit(frames.joined(more).joined(more).joined(more))
    after = scores(triplets.gaps(net.similarities(lie, triplets.texts)), 0.05)[:, 0]
    assert (after[found.row] > 0.5).mean() < 0.3
    kept = scores(triplets.gaps(net.similarities(frames.images, triplets.texts)), 0.05)[:, 0]
    assert (kept[truth] > 0.5).mean() > 0.7


def test_new_hard_negatives_are_bounded_different_and_above_their_own_threshold():
    images = np.zeros((6, 1, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0, 0] = [0, 0, 255, 255, 0, 0]
    images[4:] = 200
    score = np.array([0.8, 0.9, 0.95, 0.5, 0.99, 0.85])
    stage = np.array([0, 0, 0, 0, 1, 1])
    done = np.array([False, False, False, False, True, False])
    config = EvolutionConfig(least_difference=0.01, most_per_stage=5)
    found = new_hard_negatives(images, stage, score, done, config)
    # row 0 looks like row 1; row 3 is below; row 4 is done; row 2 differs in a corner, by 1/48
    assert found.row.tolist() == [2, 1, 5] and found.stage.tolist() == [0, 0, 1]
    one = new_hard_negatives(images, stage, score, done, EvolutionConfig(most_per_stage=1))
    assert one.row.tolist() == [2, 5]
    assert new_hard_negatives(images, stage, score, done, theta=[0.97, 0.9]).row.size == 0
    none = new_hard_negatives(images[:0], [], [], [])
    assert len(none.labelled(2)) == 0
    with pytest.raises(ValueError, match=r"stage must be in \[0, 1\)"):
        new_hard_negatives(images, stage, score, done, theta=[0.5])
    with pytest.raises(ValueError, match=r"stage, score, pose_done must be \(6,\)"):
        new_hard_negatives(images, stage[:2], score, done)


@pytest.mark.parametrize("fields", [{"side": 30}, {"views": ()}, {"channels": 6}, {"maps": 0}])
def test_bad_sizes_are_refused(fields):
    with pytest.raises(ValueError):
        TinyConfig(**fields)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"tau": 0.0}, {"jitter": 1.0}, {"lr": -1.0}])
def test_bad_trainings_are_refused(fields):
    with pytest.raises(ValueError):
        TinyTraining(**fields)
