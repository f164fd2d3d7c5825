"""A small convolutional encoder that says where things are, for policies that run at 20 Hz."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 4
"""Pixels of a picture to one cell of the maps, each way."""


class Camera(nn.Module):
    """Pictures of one camera -> (B, width).

    Patches and their places go through residual convolutions; a soft arg-max gives the place of
    each map (Levine et al. 2016, arXiv:1504.00702), its highest value says whether it is there.

    Args:
        side: of the square pictures, pixels; a multiple of 4.
        channels: of the convolutions; a multiple of 4.
        maps: places that are looked at.
        width: of what comes out.
    """

    grid: Tensor

    def __init__(self, side: int, channels: int, maps: int, width: int) -> None:
        super().__init__()
        cells = side // PATCH
        line = (torch.arange(cells, dtype=torch.float32) + 0.5) / cells * 2 - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y]), persistent=False)  # (2, S, S), -1..1
        self.stem = nn.Conv2d(3 * PATCH**2 + 2, channels, 3, padding=1)
        self.near, self.far = _block(channels, 1), _block(channels, 2)
        self.looks = nn.Conv2d(channels, maps, 1)
        self.out = nn.Linear(3 * maps + channels, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, width)."""
        image = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        patches = functional.pixel_unshuffle(image, PATCH)
        grid = self.grid.expand(image.shape[0], -1, -1, -1)  # len() would fix it in ONNX
        x = self.stem(torch.cat([patches, grid], dim=1))
        x = x + self.near(x)
        x = functional.gelu(x + self.far(x))
        looks = self.looks(x).flatten(2)  # (B, maps, cells)
        at = looks.softmax(dim=2) @ self.grid.flatten(1).T  # (B, maps, 2)
        seen = [at.flatten(1), looks.amax(dim=2), x.mean(dim=(2, 3))]
        out: Tensor = self.out(torch.cat(seen, dim=1))
        return out


def _block(channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(4, channels), nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
    )  # fmt: skip
