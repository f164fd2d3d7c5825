"""The vision transformer of OpenVLA's two towers, with the parameter names of their files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of a tower."""

    width: int
    depth: int
    """Blocks in the file; what comes out of the last but one is used."""
    heads: int
    hidden: int
    """Of the MLPs."""
    patch: int
    side: int
    """Of the square pictures, pixels."""
    registers: int = 0
    """Tokens beside the class token; 0: there is no class token either."""
    scaled: bool = False
    """Whether branches have a learned scale."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Of the colours, 0..1."""


DINOV2 = TowerConfig(
    1024, 24, 16, 4096, 14, 224, registers=4, scaled=True, mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)  # fmt: skip
SIGLIP = TowerConfig(1152, 27, 16, 4304, 14, 224)
PUBLIC = {
    "vit_large_patch14_reg4_dinov2.lvd142m": DINOV2, "vit_so400m_patch14_siglip_224": SIGLIP,
}  # fmt: skip
"""By the name that a checkpoint's configuration has for them."""


class Tower(nn.Module):
    """(B, 3, side, side) colours 0..1 -> (B, patches, width), of the last block but one."""

    mean: Tensor
    std: Tensor

    def __init__(self, c: TowerConfig) -> None:
        super().__init__()
        self.config = c
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, c.width, c.patch, c.patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, (c.side // c.patch) ** 2, c.width))
        if c.registers:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
            self.reg_token = nn.Parameter(torch.zeros(1, c.registers, c.width))
        self.blocks = nn.ModuleList(_Block(c) for _ in range(c.depth - 1))
        for name in ("mean", "std"):
            values = torch.tensor(getattr(c, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        kind = self.pos_embed.dtype
        x = ((image - self.mean) / self.std).to(kind)
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        more = 0
        if self.config.registers:
            extra = torch.cat([self.cls_token, self.reg_token], dim=1)
            more = extra.shape[1]
            x = torch.cat([extra.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, more:]


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class _Block(nn.Module):
    def __init__(self, c: TowerConfig) -> None:
        super().__init__()
        self.heads = c.heads
        self.norm1, self.norm2 = (nn.LayerNorm(c.width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(c.width, 3 * c.width), "proj": nn.Linear(c.width, c.width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(c.width, c.hidden), "fc2": nn.Linear(c.hidden, c.width)}
        )
        self.ls1, self.ls2 = (_Scale(c.width) if c.scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.ls1(self.attn["proj"](mixed))
        h = functional.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2(self.mlp["fc2"](h))  # type: ignore[no-any-return]
