import json
import shutil

import numpy as np
import pytest
import torch

from reward_vlm.backends.small import SmallModel, write_small
from reward_vlm.backends.small_net import SmallConfig, SmallNet, tokens
from reward_vlm.model import BadOutput, Clip

WIDTH = SmallConfig().width
PLAIN = {
    "temperature": np.ones(2), "centre": np.zeros(WIDTH), "whiten": np.eye(WIDTH),
    "quantiles": np.linspace(5, 20, 201),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    at = tmp_path_factory.mktemp("small")
    write_small(at, SmallNet(), PLAIN, {"note": "untrained"})
    return at


@pytest.fixture(scope="module")
def model(folder):
    return SmallModel(folder)


def clip(seed, task="lift the red cube", shape=(10, 96, 96, 3), views=("side",)):
    rng = np.random.default_rng(seed)
    return Clip(task, {v: rng.integers(0, 256, shape, np.uint8) for v in views}, 5.0)


def test_a_batch_is_judged_as_each_clip_alone(model):
    clips = [clip(0), clip(1, "push it", (3, 60, 80, 3)), clip(2, shape=(8, 200, 120, 3))]
    for one, alone in zip(model.judge(clips), [model.judge([c])[0] for c in clips], strict=True):
        np.testing.assert_allclose(one.probs, alone.probs, atol=1e-5)
        np.testing.assert_allclose(one.progress, alone.progress, atol=1e-5)


def test_each_frame_carries_the_judgement_of_the_clip_up_to_it(model):
    net, said = model.net, torch.from_numpy(tokens("lift it", 4096))[None]
    frames = torch.rand(1, 6, 3, 96, 96)
    changed = frames.clone()
    changed[:, 4:] = 0
    with torch.no_grad():
        a, b = net(frames, said), net(changed, said)
    torch.testing.assert_close(a.score[:, :4], b.score[:, :4])
    assert not torch.allclose(a.score[:, 4:], b.score[:, 4:])


def test_what_is_asked_and_what_is_seen_both_matter(model):
    base = model.judge([clip(0)])[0].probs
    assert not np.allclose(base, model.judge([clip(0, "push the blue ball away")])[0].probs)
    assert not np.allclose(base, model.judge([clip(5)])[0].probs)


def test_views_are_averaged(model):
    both = clip(3, views=("left", "right"))
    alone = [
        model.judge([Clip(both.task, {name: both.views[name]}, both.fps)])[0].probs
        for name in both.views
    ]
    np.testing.assert_allclose(model.judge([both])[0].probs, np.mean(alone, axis=0), atol=1e-6)


def test_a_judgement_has_every_head(model):
    found = model.judge([clip(0)])[0]
    assert set(found.probes) | {"score"} >= set(model.info.heads) - {"progress", "success"}
    assert len(found.progress) == 8 and 0 <= found.ood <= 1 and found.lost_mass == 0
    assert found.progress[-1] == pytest.approx(found.reward)
    model.ready()
    model.close()


def test_odd_tasks_are_judged_all_the_same(model):
    for task in ("?!", "x" * 2000, "把红色方块拿起来", "lift " * 300):
        assert 1 <= model.judge([clip(0, task)])[0].score <= 5


def test_weights_that_are_not_the_described_ones_are_refused(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (copy / "model.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match="sha256"):
        SmallModel(copy)
    about = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(about | {"schema": 99}))
    with pytest.raises(ValueError, match="schema 1"):
        SmallModel(copy)
    with pytest.raises(FileNotFoundError):
        SmallModel(tmp_path / "nowhere")


def test_broken_weights_give_no_reward(folder, tmp_path):
    net = SmallModel(folder).net
    with torch.no_grad():
        net.heads.weight[:] = torch.nan
    write_small(tmp_path, net, PLAIN, {})
    with pytest.raises(BadOutput):
        SmallModel(tmp_path).judge([clip(0)])
