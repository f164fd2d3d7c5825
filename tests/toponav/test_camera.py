"""CBAM on numbers worked by hand, and both nets behind one interface."""

import numpy as np
import pytest
import torch

from toponav.camera import (
    CBAM,
    CameraConfig,
    CameraPerception,
    load_net,
    save_head,
    small_net,
)
from toponav.perception import Frame

SMALL = CameraConfig(reduction=4, side_px=64)
CLASSES = ("sink", "plant", "table")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand():
    """Two channels of 1 x 2, one hidden unit, a 1 x 1 filter."""
    block = CBAM(2, reduction=2, kernel=1)
    with torch.no_grad():
        block.squeeze.weight[:] = torch.tensor([[1.0, -1.0]])
        block.excite.weight[:] = torch.tensor([[1.0], [2.0]])
        block.spatial.weight[:] = torch.tensor([0.5, 0.25]).reshape(1, 2, 1, 1)
    return block, torch.tensor([[[[1.0, 3.0]], [[0.0, 1.0]]]])


def test_cbam_is_its_equations_on_numbers_worked_by_hand():
    block, x = by_hand()
    # means (2, .5): hidden 1.5; maxima (3, 1): hidden 2; so (1.5 + 2) and 2 (1.5 + 2)
    channel = sigmoid(np.array([3.5, 7.0]))
    np.testing.assert_allclose(block.channel_attention(x)[0].detach(), channel, rtol=1e-6)
    scaled = np.array([[1.0, 3.0], [0.0, 1.0]]) * channel[:, None]
    spatial = sigmoid(0.5 * scaled.mean(axis=0) + 0.25 * scaled.max(axis=0))
    out = block(x)[0, :, 0].detach()
    np.testing.assert_allclose(out, scaled * spatial, rtol=1e-6)


def test_attention_that_is_not_trained_changes_no_direction():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 5, 4)
    torch.testing.assert_close(CBAM(32)(x), x / 4)


def test_negative_hidden_units_are_cut_before_the_two_ways_are_added():
    block, _ = by_hand()
    x = torch.tensor([[[[-5.0, 1.0]], [[0.0, 0.0]]]])  # means (-2, 0) -> 0, maxima (1, 0) -> 1
    np.testing.assert_allclose(
        block.channel_attention(x)[0].detach(), sigmoid(np.array([1.0, 2.0])), rtol=1e-6
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny ResNet with random weights as transformers writes it."""
    transformers = pytest.importorskip("transformers", reason="extra vlm")
    torch.manual_seed(1)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    folder = tmp_path_factory.mktemp("resnet")
    transformers.ResNetModel(transformers.ResNetConfig(**sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(params=["small", "resnet"])
def net(request):
    torch.manual_seed(2)
    if request.param == "small":
        return small_net(len(CLASSES), SMALL).eval()
    return load_net(len(CLASSES), request.getfixturevalue("backbone"), SMALL)


def test_both_nets_give_descriptors_of_unit_length_and_logits(net):
    images = torch.rand(3, 3, 48, 80)
    features, logits = net(images)
    assert features.shape == (3, net.width) and logits.shape == (3, len(CLASSES))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(net.features(images), features)
    torch.testing.assert_close(net.logits(images), logits)
    assert (features[0] - features[1]).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\)"):
        net(torch.rand(3, 48, 80))


def test_a_picture_becomes_detections_with_the_interface_of_all_tiers(net):
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias[:] = torch.tensor([2.0, -2.0, 1.0])
    eyes = CameraPerception(net, CLASSES)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    found = eyes.detect(Frame(np.array([1.0, 2.0, np.pi / 2]), image=image))
    assert found.kind == ("sink", "table") and found.scores.shape == (2, 3)
    assert found.confidence == pytest.approx(sigmoid(np.array([2.0, 1.0])))
    assert found.pose_w[0] == pytest.approx([1.0, 4.5, np.pi / 2])
    assert np.linalg.norm(found.descriptor) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match=r"image \(H, W, 3\) uint8, got None"):
        eyes.detect(Frame(np.zeros(3)))


def test_trained_attention_and_head_come_back_from_the_folder(backbone):
    first = load_net(len(CLASSES), backbone, SMALL)
    with torch.no_grad():
        first.attention.excite.weight.normal_()
    images = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(first.features(images), load_net(3, backbone, SMALL).features(images))
    save_head(first, backbone)
    torch.testing.assert_close(load_net(3, backbone, SMALL)(images), first(images))
    with pytest.raises(ValueError, match="must have weights of shapes"):
        load_net(5, backbone, SMALL)
    (backbone / "cbam_head.safetensors").unlink()


def test_without_a_folder_there_is_the_small_net(tmp_path):
    assert load_net(3, None, SMALL).width == load_net(3, tmp_path, SMALL).width == 128


def test_the_small_net_learns_to_tell_two_pictures_apart():
    torch.manual_seed(3)
    net = small_net(2, SMALL)
    images = torch.zeros(2, 3, 32, 32)
    images[0, 0, :, :16], images[1, 2, :16] = 1.0, 1.0
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(25):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            net.logits(images), torch.eye(2)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="odd kernel"):
        CameraConfig(kernel=4)
    with pytest.raises(ValueError, match="classes must be 3, got 1"):
        CameraPerception(small_net(3, SMALL), ("sink",))
