"""A small contrastive image-text scorer of our own, which runs on a CPU and knows rendered scenes.

Each view has a convolutional net whose maps say where things are (soft arg-max) and what is there;
a text is hashed trigrams per word and a recurrent layer over the words, so there is no vocabulary.
Both end in vectors of unit length, whose product is the cosine. Frames are encoded without the text
and texts once, so that a frame costs the same for one text and for a hundred.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from .scorer import Images, check_images

WEIGHTS, ABOUT, SCHEMA = "scorer.safetensors", "scorer.json", 1
WORDS, GRAMS = 48, 12
"""Most words of a text, most trigrams of a word."""
PATCH = 4
"""Pixels of an image to one cell of the maps, each way."""
CHUNK = 256
"""Frames that are encoded at once outside training, to bound memory."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the network."""

    views: tuple[str, ...] = ("side", "wrist")
    """Cameras, in the order that images have them."""
    side: int = 96
    """Of the square images, pixels; a multiple of 4. Others are scaled to it."""
    channels: int = 48
    """Of the convolutions; a multiple of 4."""
    dilations: tuple[int, ...] = (1, 2, 1, 2)
    """Of the residual blocks, one each."""
    maps: int = 32
    """Places that are looked at in a view."""
    width: int = 256
    """Of the common embedding."""
    text_width: int = 128
    buckets: int = 4096
    """Of the hash of trigrams."""

    def __post_init__(self) -> None:
        if self.side % PATCH or self.side < 16 or self.channels % 4:
            raise ValueError(f"side and channels must be multiples of 4, side >= 16, got {self}")
        if not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"views must be different names, got {self.views}")
        if min(self.maps, self.width, self.text_width) < 1 or self.buckets < 2:
            raise ValueError(f"sizes must be >= 1, buckets >= 2, got {self}")


def tokens(text: str, buckets: int) -> NDArray[np.int64]:
    """(WORDS, GRAMS) hashed trigrams of a text, 0 where there is none."""
    out = np.zeros((WORDS, GRAMS), np.int64)
    for i, word in enumerate(_WORD.findall(text.lower())[:WORDS]):
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
        return x + self.conv(functional.gelu(self.norm(x)))  # type: ignore[no-any-return]


class _View(nn.Module):
    """Images (N, 3, side, side) of one camera, 0..1 -> (N, width)."""

    def __init__(self, c: TinyConfig) -> None:
        super().__init__()
        cells, n = c.side // PATCH, c.channels
        line = (torch.arange(cells, dtype=torch.float32) + 0.5) / cells * 2 - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y]), persistent=False)  # (2, S, S), -1..1
        self.stem = nn.Conv2d(3 * PATCH**2 + 2, n, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(n, d) for d in c.dilations))
        self.looks, self.values = nn.Conv2d(n, c.maps, 1), nn.Conv2d(n, 16, 1)
        self.head = nn.Sequential(nn.Linear(c.maps * 19 + 2 * n, c.width), nn.GELU())

    def forward(self, images: Tensor) -> Tensor:
        patches = functional.pixel_unshuffle(2 * images - 1, PATCH)
        grid: Tensor = self.grid  # type: ignore[assignment]
        x = torch.cat([patches, grid.expand(len(images), -1, -1, -1)], dim=1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        x = functional.gelu(self.blocks(x))
        weights = self.looks(x).flatten(2).softmax(dim=-1)  # (N, M, P)
        places = weights @ grid.flatten(1).T
        seen = weights @ self.values(x).flatten(2).transpose(1, 2)
        told = torch.cat([places, seen, weights.amax(dim=-1, keepdim=True)], dim=-1).flatten(1)
        rest = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=-1)
        return self.head(torch.cat([told, rest], dim=-1))  # type: ignore[no-any-return]


class TinyContrastive(nn.Module):
    """See the module; an :class:`.scorer.ImageTextScorer`. Training: :mod:`.tiny_training`."""

    def __init__(self, config: TinyConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or TinyConfig()
        self.eyes = nn.ModuleList(_View(c) for _ in c.views)
        self.join = nn.Sequential(
            nn.Linear(len(c.views) * c.width, c.width), nn.GELU(), nn.Linear(c.width, c.width)
        )
        self.grams = nn.Embedding(c.buckets, 64, padding_idx=0)
        self.words = nn.GRU(64, c.text_width, batch_first=True, bidirectional=True)
        self.say = nn.Linear(4 * c.text_width, c.width)
        self._cached: dict[str, Tensor] = {}
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda *_: self._cached.clear()
        )

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the cameras, in the order that images have them."""
        return self.config.views

    def encode_images(self, images: Tensor) -> Tensor:
        """(N, V, H, W, 3) uint8, or float 0..1 -> (N, width) of unit length."""
        x = images.permute(0, 1, 4, 2, 3)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        side = self.config.side
        if x.shape[-2:] != (side, side):
            flat = x.flatten(0, 1)
            flat = functional.interpolate(flat, (side, side), mode="bilinear", antialias=True)
            x = flat.view(*x.shape[:2], 3, side, side)
        seen = [eye(x[:, v]) for v, eye in enumerate(self.eyes)]
        return functional.normalize(self.join(torch.cat(seen, dim=-1)), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), width) of unit length; the order of words counts."""
        hashed = np.stack([tokens(text, self.config.buckets) for text in texts])
        said = torch.from_numpy(hashed).to(self.say.weight.device)
        there = said > 0
        count = there.sum(dim=2)
        words = self.grams(said).sum(dim=2) / count.clamp(min=1).sqrt()[..., None]
        lengths = (count > 0).sum(dim=1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            words, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        heard, last = self.words(packed)
        heard, _ = nn.utils.rnn.pad_packed_sequence(heard, batch_first=True)
        mean = heard.sum(dim=1) / lengths[:, None]
        both = torch.cat([mean, last.transpose(0, 1).flatten(1)], dim=-1)
        return functional.normalize(self.say(both), dim=-1)

    def forward(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """(N, len(texts)) cosines, with gradients."""
        return self.encode_images(images) @ self.encode_texts(texts).T

    def train(self, mode: bool = True) -> TinyContrastive:
        """Texts that were remembered are forgotten: the weights change."""
        self._cached.clear()
        return super().train(mode)

    @torch.inference_mode()
    def similarities(self, images: Images, texts: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`.scorer.ImageTextScorer`. Texts are encoded once until the next training."""
        check_images(images, self.views)
        if self.training:
            self.eval()
        if new := [text for text in dict.fromkeys(texts) if text not in self._cached]:
            self._cached.update(zip(new, self.encode_texts(new), strict=True))
        said = torch.stack([self._cached[text] for text in texts]).to(self.say.weight.device)
        rows = [
            self.encode_images(torch.from_numpy(np.ascontiguousarray(part)).to(said.device))
            for part in (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
        ]
        if not rows:
            return np.zeros((0, len(texts)))
        out: NDArray[np.float64] = (torch.cat(rows) @ said.T).double().cpu().numpy()
        return out


def save(folder: str | Path, net: TinyContrastive, about: Mapping[str, Any]) -> None:
    """Write weights and a description with their digest.

    Args:
        about: recipe, seed, figures: whatever JSON can hold.
    """
    at = Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    payload = save_tensors({k: v.cpu().contiguous() for k, v in net.state_dict().items()})
    told = {"schema": SCHEMA, "sha256": hashlib.sha256(payload).hexdigest()}
    text = json.dumps(told | {"net": asdict(net.config), "about": dict(about)}, indent=2)
    (at / WEIGHTS).write_bytes(payload)
    (at / ABOUT).write_text(text + "\n")


def load(folder: str | Path) -> tuple[TinyContrastive, dict[str, Any]]:
    """The net that :func:`save` wrote, ready to score, and what was said about it.

    Raises:
        FileNotFoundError: no scorer there.
        ValueError: another schema, or weights that are not those the description was written for.
    """
    at = Path(folder)
    told = json.loads((at / ABOUT).read_text())
    if told.get("schema") != SCHEMA:
        raise ValueError(f"{at / ABOUT}: schema must be {SCHEMA}, got {told.get('schema')!r}")
    payload = (at / WEIGHTS).read_bytes()
    digest = hashlib.sha256(payload).hexdigest()
    if digest != told["sha256"]:
        raise ValueError(f"{at / WEIGHTS}: sha256 must be {told['sha256']}, got {digest}")
    sizes: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in told["net"].items()
    }
    net = TinyContrastive(TinyConfig(**sizes))
    try:
        net.load_state_dict(load_tensors(payload))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{at / WEIGHTS}: must fit the sizes in {ABOUT}: {error}") from None
    return net.eval(), told["about"]
