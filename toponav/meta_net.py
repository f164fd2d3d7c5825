"""The meta-controller's network (needs torch; a robot runs its ONNX export, see ``meta.py``).

A dueling Q-network (Wang et al. 2016) over a variable number of candidates that look at one another
and at the robot by masked self-attention (Vaswani et al. 2017). It gives costs, not rewards: ranges
of the sensor still to drive. Several heads on one body stand for what is not known (bootstrapped
DQN, Osband et al. 2016).
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .meta_features import NAMES, PATCH, Features

HEADS = 4
"""Of the attention."""


def padded(told: Sequence[Features]) -> tuple[Tensor, Tensor, Tensor]:
    """States as one batch: numbers (B, 1 + K, F), pictures uint8, there (B, 1 + K) bool."""
    b, rows = len(told), max(len(f.numbers) for f in told)
    numbers = np.zeros((b, rows, len(NAMES)), np.float32)
    pictures = np.zeros((b, rows, 2, PATCH, PATCH), np.uint8)
    there = np.zeros((b, rows), bool)
    for i, f in enumerate(told):
        k = len(f.numbers)
        numbers[i, :k], pictures[i, :k], there[i, :k] = f.numbers, f.pictures, True
    return torch.from_numpy(numbers), torch.from_numpy(pictures), torch.from_numpy(there)


class MetaNet(nn.Module):
    """Q of each candidate.

    Args:
        width: of a token.
        layers: of self-attention.
        members: heads that learn from different samples.
    """

    def __init__(self, width: int = 96, layers: int = 2, members: int = 4) -> None:
        super().__init__()
        self.width, self.layers, self.members = width, layers, members
        self.see = nn.Sequential(
            nn.Conv2d(2, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 48, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(48 * (PATCH // 8) ** 2, 64), nn.ReLU(),
        )  # fmt: skip
        self.token = nn.Linear(64 + len(NAMES), width)
        self.robot = nn.Linear(64 + len(NAMES), width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.advantage = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, members)
        )
        self.value = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, members))

    def forward(self, numbers: Tensor, pictures: Tensor, there: Tensor) -> Tensor:
        """Cost of going to each candidate first.

        Args:
            numbers: (B, 1 + K, F) float, the robot's row first.
            pictures: (B, 1 + K, 2, PATCH, PATCH) float, 0 to 1.
            there: (B, 1 + K) bool, False where a row is padding.

        Returns:
            (B, K, members) ranges; what stands at padding means nothing.
        """
        b, n = numbers.shape[0], numbers.shape[1]
        seen = self.see(pictures.reshape(b * n, 2, PATCH, PATCH)).reshape(b, n, 64)
        x = torch.cat([seen, numbers], dim=2)
        x = torch.cat([self.robot(x[:, :1]), self.token(x[:, 1:])], dim=1)
        bias = torch.where(there, 0.0, -1e9)[:, None, None]  # (B, 1, 1, 1 + K)
        for block in self.blocks:
            x = block(x, bias)
        x = self.norm(x)
        a, v = self.advantage(x[:, 1:]), self.value(x[:, :1])
        real = there[:, 1:, None].float()
        mean = (a * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp(min=1)
        cost: Tensor = v + a - mean
        return cost

    def onnx(self) -> bytes:
        """The network for one robot as ONNX: numbers (1 + K, F), pictures uint8 -> (K, members)."""
        k = 5
        numbers = torch.zeros(1 + k, len(NAMES))
        pictures = torch.zeros(1 + k, 2, PATCH, PATCH, dtype=torch.uint8)
        file = io.BytesIO()
        rows = {0: "rows"}
        torch.onnx.export(
            _One(self).eval(), (numbers, pictures), file,  # type: ignore[arg-type]
            input_names=["numbers", "pictures"], output_names=["cost"], opset_version=17,
            dynamic_axes={"numbers": rows, "pictures": rows, "cost": {0: "candidates"}},
            dynamo=False,
        )  # fmt: skip
        return file.getvalue()


class _One(nn.Module):
    """One decision, no padding."""

    def __init__(self, net: MetaNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, numbers: Tensor, pictures: Tensor) -> Tensor:
        there = torch.ones_like(numbers[None, :, 0], dtype=torch.bool)
        cost: Tensor = self.net(numbers[None], pictures[None].float() / 255, there)[0]
        return cost


class _Block(nn.Module):
    """Self-attention and two layers, each beside a way round."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: (B, N, width); bias: (B, 1, 1, N) -> (B, N, width)."""
        b, n, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, HEADS, width // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, HEADS, N, width / HEADS)
        weight = (q @ k.transpose(2, 3) * (width // HEADS) ** -0.5 + bias).softmax(dim=-1)
        x = x + self.out((weight @ v).transpose(1, 2).reshape(b, n, width))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
