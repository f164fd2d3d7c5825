"""Tier 3: descriptors and classes of camera pictures, by a ResNet-50 with CBAM or a small net.

TopoNav (Hossain et al. 2024, arXiv 2402.04061) says ResNet-50 with CBAM for its landmarks, and no
more of it. Which pictures, which head and where the attention sits is ours. Weights of the
ResNet-50 are read from a local folder by ``transformers``; nothing is ever downloaded. Where there
is none, a small net of our own has the same interface: descriptors of unit length and logits.

Neither net is shipped with trained weights: tiers 1 and 2 do without this file, which is the only
one of the room that imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .perception import Detections, Frame

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, RGB: what pretrained nets expect."""
HEAD = "cbam_head.safetensors"
"""File in the folder of a backbone with the weights of CBAM and the class head."""


@dataclass(frozen=True)
class CameraConfig:
    """Of both nets, and of what a picture says of the place of things."""

    reduction: int = 16
    """r of the channel attention: the hidden layer is this much narrower."""
    kernel: int = 7
    """Side of the spatial attention's filter, odd."""
    side_px: int = 224
    """Pictures are scaled to squares of this side."""
    least_p: float = 0.5
    """Classes with this chance are detections."""
    ahead_m: float = 2.5
    """A picture has no depth: what is in it is taken to be so far ahead, give or take as much."""

    def __post_init__(self) -> None:
        if self.reduction < 1 or self.kernel < 1 or self.kernel % 2 == 0 or self.side_px < 32:
            raise ValueError(f"reduction >= 1, odd kernel, side_px >= 32 wanted, got {self}")
        if not (0 < self.least_p < 1 and self.ahead_m > 0):
            raise ValueError(f"least_p in (0, 1) and ahead_m > 0 wanted, got {self}")


class CBAM(nn.Module):
    r"""Convolutional Block Attention Module (Woo et al. 2018, arXiv 1807.06521, eq. 1 to 3).

    .. math::
        F' = M_c(F) \otimes F, \qquad F'' = M_s(F') \otimes F'

        M_c(F) = \sigma(W_1 \max(W_0 \bar F, 0) + W_1 \max(W_0 \hat F, 0))

        M_s(F') = \sigma(f^{k \times k}([\bar F'_c; \hat F'_c]))

    with the mean and the maximum of F over its H x W places (eq. 2; W_0 of C/r x C, W_1 of C x C/r,
    shared by both and without biases, as in the authors' equations) and of F' over its channels
    (eq. 3). Both last layers begin at zero: an untrained module scales everything by 1/4, which a
    descriptor of unit length does not notice, so that it can be put behind pretrained layers.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.spatial.weight)

    def channel_attention(self, x: Tensor) -> Tensor:
        """M_c, (B, C) of features (B, C, H, W)."""
        mean, most = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
        both = self.excite(self.squeeze(mean).relu()) + self.excite(self.squeeze(most).relu())
        return torch.sigmoid(both)

    def spatial_attention(self, x: Tensor) -> Tensor:
        """M_s, (B, 1, H, W) of features (B, C, H, W)."""
        both = torch.stack([x.mean(dim=1), x.amax(dim=1)], dim=1)
        return torch.sigmoid(self.spatial(both))

    def forward(self, x: Tensor) -> Tensor:
        """F'', (B, C, H, W) of F, the same shape."""
        if x.ndim != 4:
            raise ValueError(f"x must be (B, C, H, W), got {tuple(x.shape)}")
        x = x * self.channel_attention(x)[:, :, None, None]
        return x * self.spatial_attention(x)


class CameraNet(nn.Module):
    """A trunk that makes (B, D, h, w) of (B, 3, H, W), CBAM behind it, mean over the places, head.

    Args:
        trunk: the layers.
        width: D.
        classes: number of classes.
        config: of the attention.
    """

    def __init__(
        self, trunk: nn.Module, width: int, classes: int, config: CameraConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or CameraConfig()
        self.trunk, self.width = trunk, width
        self.attention = CBAM(width, self.config.reduction, self.config.kernel)
        self.head = nn.Linear(width, classes)

    def pooled(self, images: Tensor) -> Tensor:
        """(B, D) of pictures (B, 3, H, W) in [0, 1], RGB.

        Raises:
            ValueError: the pictures have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        side = self.config.side_px
        x = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        features: Tensor = self.attention(self.trunk((x - mean) / std))
        return features.mean(dim=(2, 3))

    def features(self, images: Tensor) -> Tensor:
        """Descriptors (B, D) of unit length."""
        return functional.normalize(self.pooled(images), dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes); each class is in the picture or not, apart from the others."""
        return self.of_features(self.features(images))

    def of_features(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of descriptors (B, D)."""
        out: Tensor = self.head(features * math.sqrt(self.width))
        return out

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptors and logits, the trunk run once."""
        features = self.features(images)
        return features, self.of_features(features)


def small_net(classes: int, config: CameraConfig | None = None) -> CameraNet:
    """Five strided convolutions, D = 128, for where there is no backbone: 0.25 million weights."""
    config, layers, before = config or CameraConfig(), list[nn.Module](), 3
    for width in (16, 32, 64, 96, 128):
        layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.GroupNorm(8, width), nn.ReLU()]
        before = width
    return CameraNet(nn.Sequential(*layers), before, classes, config)


class _ResNet(nn.Module):
    """The last feature map of a ``transformers`` ResNet."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H / 32, W / 32)."""
        out: Tensor = self.model(pixel_values=x).last_hidden_state
        return out


def load_net(
    classes: int, folder: str | Path | None = None, config: CameraConfig | None = None
) -> CameraNet:
    """The ResNet of a local folder with CBAM behind it, or the small net without one.

    Args:
        classes: number of classes.
        folder: ``config.json`` and ``model.safetensors`` as ``ResNetModel.save_pretrained`` writes
            them, ResNet-50 or another; with ``cbam_head.safetensors`` from :func:`save_head`, if
            CBAM and head were trained. None, or a folder without ``config.json``: the small net.
        config: of the attention.

    Raises:
        ImportError: there is a folder and no ``transformers``.
        ValueError: the weights are of another net.
    """
    at = None if folder is None else Path(folder)
    if at is None or not (at / "config.json").is_file():
        return small_net(classes, config)
    try:
        from transformers import ResNetModel
    except ImportError as e:
        raise ImportError(f"{at} needs transformers: pip install 'incognita[vlm]'") from e
    model = ResNetModel.from_pretrained(at, local_files_only=True, use_safetensors=True)
    net = CameraNet(_ResNet(model), int(np.asarray(model.config.hidden_sizes)[-1]), classes, config)
    if (at / HEAD).is_file():
        _load_head(net, at / HEAD)
    return net.eval()


def save_head(net: CameraNet, folder: str | Path) -> None:
    """Write the weights of CBAM and head beside those of the backbone."""
    from safetensors.torch import save_file

    parts = {"attention": net.attention, "head": net.head}
    save_file(
        {f"{name}.{key}": value.contiguous() for name, part in parts.items()
         for key, value in part.state_dict().items()},
        Path(folder) / HEAD,
    )  # fmt: skip


def _load_head(net: CameraNet, file: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(file)
    parts = {"attention": net.attention, "head": net.head}
    wanted = {
        f"{n}.{k}": v.shape for n, part in parts.items() for k, v in part.state_dict().items()
    }
    if {key: value.shape for key, value in state.items()} != wanted:
        raise ValueError(f"{file} must have weights of shapes {wanted}, got {sorted(state)}")
    for name, part in parts.items():
        part.load_state_dict({k: state[f"{name}.{k}"] for k in part.state_dict()})


class CameraPerception:
    """Descriptor of a picture and the classes in it. Needs ``Frame.image``.

    What is seen is put straight ahead at ``ahead_m`` with a covariance as wide: a picture has no
    depth, and the map must not take it for a position.
    """

    def __init__(self, net: CameraNet, classes: Sequence[str]) -> None:
        if net.head.out_features != len(classes):
            raise ValueError(f"classes must be {net.head.out_features}, got {len(classes)}")
        self.net, self.classes = net.eval(), tuple(classes)

    @torch.no_grad()
    def detect(self, frame: Frame) -> Detections:
        """See :class:`toponav.perception.Perception`."""
        image = frame.image
        if image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            got = None if image is None else (image.shape, image.dtype)
            raise ValueError(f"frame must have an image (H, W, 3) uint8, got {got}")
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 255.0
        features, logits = self.net(pixels)
        p: NDArray[np.float64] = torch.sigmoid(logits)[0].double().numpy()
        c, (x, y, yaw) = self.net.config, frame.pose_w
        seen = np.flatnonzero(p >= c.least_p)
        k = len(seen)
        pose = np.array([x + c.ahead_m * math.cos(yaw), y + c.ahead_m * math.sin(yaw), yaw])
        scores = np.tile((1 - p[seen])[:, None] / max(len(p) - 1, 1), (1, len(p)))
        scores[np.arange(k), seen] = p[seen]
        return Detections(
            tuple(self.classes[i] for i in seen), np.tile(pose, (k, 1)),
            np.tile(np.eye(2) * c.ahead_m**2, (k, 1, 1)), np.zeros(k), p[seen], scores,
            np.zeros(k, np.int64), features[0].numpy(),
        )  # fmt: skip
