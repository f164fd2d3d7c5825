"""The small reward network: where are the thing, the goal and the hand, and how far did it get?

Command: hashed character trigrams per word and one transformer layer, so there is no vocabulary.
Frame: a small convolutional net that does not know the command, so that many commands can be judged
on one clip for little more than one, and three attention maps that the command asks for: thing,
goal, gripper. What lies under them, and how far they went of their ways, goes frame by frame
through a causal transformer: so each frame carries the judgement of the clip up to it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..rubric import LEVELS

KEYS = ("thing", "goal", "gripper")
PROBE_HEADS = ("contact", "safety", "smoothness", "instruction")
"""Trained besides score and success; ``progress`` is the expected reward, ``success`` a head. The
order is that of the truth in the data."""
WORDS, GRAMS = 24, 12
"""Most words of a command, most trigrams of a word."""
PATCH = 4
"""Pixels of an image to one cell of the maps, each way."""
SEEN = 64
"""Numbers kept of what lies under a map."""
COARSE = 6
"""Cells, each way, of the rough picture that tells how the camera stands."""
WAYS = 5
"""Shares of the way that are told to the judge."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class SmallConfig:
    """Sizes of the network."""

    side: int = 96
    """Of the square images, pixels; a multiple of 4."""
    channels: int = 48
    dilations: tuple[int, ...] = (1, 1, 2, 2)
    """Of the convolutions after the first, one block each."""
    width: int = 128
    """Of the transformers."""
    layers: int = 2
    heads: int = 4
    buckets: int = 4096
    """Of the hash of trigrams."""

    def __post_init__(self) -> None:
        if self.side % PATCH or self.side < 16 or self.width % self.heads:
            raise ValueError(f"side a multiple of 4, width of heads wanted, got {self}")


class Outputs(NamedTuple):
    """Per clip, command and frame; each frame judges the clip up to it."""

    score: Tensor
    """(B, T, 5) logits of the scores."""
    success: Tensor
    """(B, T) logits."""
    probes: Tensor
    """(B, T, len(PROBE_HEADS)) logits."""
    maps: Tensor
    """(B, T, 3, S, S) logits of where thing, goal and gripper are; S = side / 4."""
    points: Tensor
    """(B, T, 3, 2) x, y that the maps mean, 0..1 from the top left."""
    way: Tensor
    """(B, T, 4) from the thing to the goal and from the gripper to the thing, x, y in the image."""
    axes: Tensor
    """(B, T, 4) how far 10 cm away from the robot and 10 cm to its left are in the image, x, y."""
    features: Tensor
    """(B, T, width) what the heads see."""


def tokens(command: str, buckets: int) -> NDArray[np.int64]:
    """(WORDS, GRAMS) hashed trigrams of a command, 0 where there is none."""
    out = np.zeros((WORDS, GRAMS), np.int64)
    for i, word in enumerate(_WORD.findall(command.lower())[:WORDS]):
        framed = f"^{word}$"
        grams = [framed[j : j + 3] for j in range(len(framed) - 2)][:GRAMS]
        out[i, : len(grams)] = [1 + zlib.crc32(g.encode()) % (buckets - 1) for g in grams]
    return out


class _Block(nn.Module):
    """A residual 3 x 3 convolution."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(nn.functional.gelu(self.norm(x)))  # type: ignore[no-any-return]


class SmallNet(nn.Module):
    """See the module."""

    def __init__(self, config: SmallConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or SmallConfig()
        self.grams = nn.Embedding(c.buckets, 64, padding_idx=0)
        self.word = nn.Linear(64, c.width)
        self.place = nn.Parameter(torch.zeros(WORDS, c.width))
        self.reader = _layer(c)
        self.ask = nn.Parameter(torch.randn(len(KEYS) + 1, c.width) * 0.1)
        self.listen = nn.MultiheadAttention(c.width, c.heads, batch_first=True)
        self.stem = nn.Conv2d(3 * PATCH**2 + 2, c.channels, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(c.channels, d) for d in c.dilations)
        self.keys, self.values = nn.Conv2d(c.channels, SEEN, 1), nn.Conv2d(c.channels, SEEN, 1)
        self.query = nn.Linear(c.width, SEEN)
        self.sharp = nn.Parameter(torch.tensor(1.0))
        self.coarse = nn.Conv2d(c.channels, 8, 1)
        self.scene = nn.Sequential(nn.Linear(8 * COARSE**2, c.width), nn.GELU())
        self.axes = nn.Linear(c.width, 4)
        self.nudge = nn.Sequential(
            nn.Linear(SEEN + 2 * c.width + 4, c.width), nn.GELU(), nn.Linear(c.width, 2)
        )
        n = len(KEYS)
        self.frame = nn.Sequential(
            nn.Linear(n * (SEEN + 3) + 16 + WAYS + c.width, c.width), nn.GELU(),
            nn.Linear(c.width, c.width),
        )  # fmt: skip
        self.time = nn.Sequential(nn.Linear(2, c.width), nn.GELU(), nn.Linear(c.width, c.width))
        self.judge = nn.ModuleList(_layer(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.heads = nn.Linear(c.width, LEVELS + 1 + len(PROBE_HEADS) + 4)

    def hear(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Commands (B, WORDS, GRAMS) -> (B, width) whole, and (B, 3, width) what to look for."""
        said = said[:, : max(1, int((said > 0).any(dim=2).sum(dim=1).max()))]  # none but padding
        grams = said > 0
        words = self.grams(said).sum(dim=2) / grams.sum(dim=2, keepdim=True).clamp(min=1).sqrt()
        absent = ~grams.any(dim=2)
        absent = absent & ~absent.all(dim=1, keepdim=True)  # attention over nothing is NaN
        x = self.reader(self.word(words) + self.place[: said.shape[1]], src_key_padding_mask=absent)
        asked = self.ask.expand(len(said), -1, -1)
        heard, _ = self.listen(asked, x, x, key_padding_mask=absent, need_weights=False)
        heard = heard + asked
        return heard[:, 0], heard[:, 1:]

    def look(self, frames: Tensor) -> Tensor:
        """Images (N, 3, side, side) -> (N, channels, S, S), whatever the command."""
        x = self.stem(_patches(frames))
        for block in self.blocks:
            x = block(x)
        return x  # type: ignore[no-any-return]

    def forward(self, frames: Tensor, said: Tensor) -> Outputs:
        """Judge clips.

        Args:
            frames: (B, T, 3, side, side) float32, 0..1.
            said: (B * Q, WORDS, GRAMS) int64, see :func:`tokens`: Q commands of the first clip,
                then Q of the second; what comes out has B * Q rows too.
        """
        size = self.config.side
        if frames.ndim != 5 or frames.shape[2:] != (3, size, size) or len(said) % len(frames):
            raise ValueError(
                f"frames must be (B, T, 3, {size}, {size}) and said (B * Q, ...), got "
                f"{tuple(frames.shape)} and {tuple(said.shape)}"
            )
        (b, t), n, side = frames.shape[:2], len(KEYS), size // PATCH
        x = self.look(frames.flatten(0, 1))
        keys, values = (
            f(x).flatten(2).view(b, t, SEEN, -1).float() for f in (self.keys, self.values)
        )
        rough = nn.functional.adaptive_avg_pool2d(self.coarse(x).float(), COARSE)
        scene = self.scene(rough.flatten(1)).view(b, t, -1)
        whole, wanted = self.hear(said)
        queries = self.query(wanted).view(b, -1, SEEN)
        maps = torch.einsum("btcp,bkc->btkp", keys, queries) * (self.sharp / 8)
        weights = maps.softmax(dim=-1)
        seen = torch.einsum("btkp,btcp->btkc", weights, values)
        at = weights @ _grid(side, keys)
        maps, seen, at, peak = (
            y.view(b, t, -1, n, y.shape[-1]).transpose(1, 2).flatten(0, 1)
            for y in (maps, seen, at, weights.amax(dim=-1, keepdim=True))
        )  # (B * Q, T, 3, ...)
        scene = scene.repeat_interleave(len(said) // b, 0)
        axes = self.axes(scene)
        scene = torch.cat([scene, 10 * axes], dim=-1)
        about = wanted[:, None].expand(-1, t, -1, -1), scene[:, :, None].expand(-1, -1, n, -1)
        at = at + 0.1 * self.nudge(torch.cat([seen, *about], dim=-1))
        y = self.frame(torch.cat(
            [seen.flatten(2), at.flatten(2), peak.flatten(2), *_ways(at), scene], dim=-1
        ))  # fmt: skip
        when = torch.linspace(0, 1, t, device=y.device, dtype=y.dtype) if t > 1 else y.new_ones(1)
        first = torch.zeros_like(when)
        first[0] = 1.0
        y = y + self.time(torch.stack([when, first], dim=-1)) + whole[:, None]
        mask = nn.Transformer.generate_square_subsequent_mask(t, device=y.device, dtype=y.dtype)
        for layer in self.judge:
            y = layer(y, src_mask=mask, is_causal=True)
        y = self.norm(y)
        out = self.heads(y)
        return Outputs(
            out[..., :LEVELS], out[..., LEVELS], out[..., LEVELS + 1 : -4],
            maps.view(*at.shape[:3], side, side), at, out[..., -4:], axes, y,
        )  # fmt: skip


def _ways(at: Tensor) -> list[Tensor]:
    """What (B, T, 3, 2) points did since the first frame: gaps, and shares of the way that was.

    The goal that counts for the shares is where it was at first: a push ends at a spot that only
    the beginning tells.
    """
    thing, goal, hand = at.unbind(dim=-2)
    begun, aim = thing[:, :1], goal[:, :1]
    moved, way = thing - begun, aim - begun
    length = way.square().sum(dim=-1, keepdim=True) + 1e-3

    def share(left: Tensor, whole: Tensor) -> Tensor:
        gap, was = (v.square().sum(dim=-1, keepdim=True).add(1e-4).sqrt() for v in (left, whole))
        return gap / (was + 0.02)

    shares = [
        share(aim - thing, way), share(goal - thing, way), share(thing - hand, begun - hand[:, :1]),
        (moved * way).sum(dim=-1, keepdim=True) / length,
        (moved[..., :1] * way[..., 1:] - moved[..., 1:] * way[..., :1]) / length,
    ]  # fmt: skip
    return [(at - at[:, :1]).flatten(2), thing - goal, thing - hand, thing - aim,
            torch.cat(shares, dim=-1).clamp(-3, 3)]  # fmt: skip


def _layer(c: SmallConfig) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        c.width, c.heads, 2 * c.width, dropout=0.0, activation="gelu", batch_first=True,
        norm_first=True,
    )  # fmt: skip


def _grid(side: int, like: Tensor) -> Tensor:
    """(side * side, 2) x, y of the middles of cells, 0..1."""
    line = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).view(-1, 2)


def _patches(images: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, 50, S / 4, S / 4): centred colours of each patch, and where it is."""
    patches = nn.functional.pixel_unshuffle(2 * images - 1, PATCH)
    n, _, side, _ = patches.shape
    grid = (2 * _grid(side, images) - 1).T.reshape(1, 2, side, side)
    joined = torch.cat([patches, grid.expand(n, -1, -1, -1)], dim=1)
    return joined.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
