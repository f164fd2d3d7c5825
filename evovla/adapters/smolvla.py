r"""SmolVLA checkpoints (Shukor et al. 2025, arXiv:2506.01844): a flow over chunks of actions.

The first layers of a SmolVLM read pictures, instruction and state once. An expert of as many layers
turns noise to actions in K Euler steps; layer by layer in turn it looks at itself and at what the
SmolVLM has seen, or at that alone. Time runs from 1, noise, to 0.

A folder holds ``config.json`` and ``model.safetensors`` as published, in ``vlm/`` the
``config.json`` and the tokenizer of the SmolVLM it was made from, and ``dataset_statistics.json``
with mean and std of "state" and "action".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..actor import Arrays, Floats
from .backbones import llama, smolvlm, tokenizer
from .files import Moments, fill, read_json, read_tensors, settle

UNUSED = ("model.vlm_with_expert.vlm.lm_head.", "normalize_inputs.", "normalize_targets.",
          "unnormalize_outputs.", "model.vlm_with_expert.lm_expert.lm_head.")  # fmt: skip
Seen = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (B, n, heads, head width) each."""


@dataclass(frozen=True)
class SmolVLAConfig:
    """Fields of the published ``config.json`` that are read, with their published defaults."""

    chunk_size: int = 50
    max_state_dim: int = 32
    max_action_dim: int = 32
    num_steps: int = 10
    """Euler steps, K."""
    num_vlm_layers: int = 16
    """First layers of the SmolVLM's text model that are kept; below 1: all."""
    num_expert_layers: int = -1
    expert_width_multiplier: float = 0.75
    self_attn_every_n_layers: int = 2
    attention_mode: str = "cross_attn"
    min_period: float = 4e-3
    max_period: float = 4.0
    tokenizer_max_length: int = 48
    add_image_special_tokens: bool = False
    prefix_length: int = -1
    resize_imgs_with_padding: tuple[int, int] = (512, 512)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resize_imgs_with_padding", tuple(self.resize_imgs_with_padding))
        if min(self.chunk_size, self.num_steps, self.self_attn_every_n_layers) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if self.attention_mode != "cross_attn" or self.num_expert_layers > 0:
            raise ValueError(f"cross_attn with as many layers as the VLM wanted, got {self}")
        if self.add_image_special_tokens or self.prefix_length > 0:
            raise ValueError(f"no image tokens and no prefix_length wanted, got {self}")

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> SmolVLAConfig:
        """What is read of a ``config.json``; other fields are of training."""
        return cls(**{f.name: told[f.name] for f in fields(cls) if f.name in told})


class SmolVLA(nn.Module):
    """The network; names of parameters: see :func:`named`.

    Args:
        vlm: configuration of the SmolVLM, as ``transformers`` has it.
    """

    def __init__(self, config: SmolVLAConfig, vlm: Mapping[str, Any]) -> None:
        super().__init__()
        c = self.config = config
        self.vlm = smolvlm(vlm, c.num_vlm_layers)
        text = self.vlm.config.text_config
        self.heads, self.groups = text.num_attention_heads, text.num_key_value_heads
        self.head = int(text.head_dim)
        width = int(text.hidden_size * c.expert_width_multiplier)
        hidden = 256 * math.ceil(int(4 * int(2 * width / 3)) / 256)
        self.expert: Any = llama({
            **text.to_dict(), "hidden_size": width, "intermediate_size": hidden, "vocab_size": 1,
            "head_dim": self.head, "pad_token_id": None,
        })  # fmt: skip
        del self.expert.embed_tokens
        for i, layer in enumerate(self.expert.layers):
            if i % c.self_attn_every_n_layers:
                size = self.groups * self.head
                layer.self_attn.k_proj = nn.Linear(size, size, bias=False)
                layer.self_attn.v_proj = nn.Linear(size, size, bias=False)
        self.state_proj = nn.Linear(c.max_state_dim, text.hidden_size)
        self.action_in_proj = nn.Linear(c.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, c.max_action_dim)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)

    def forward(
        self, images: Tensor, ids: Tensor, there: Tensor, state: Tensor, noise: Tensor
    ) -> Tensor:
        """Normalized actions (B, chunk_size, max_action_dim).

        Args:
            images: (B, V, 3, H, W) colours -1..1.
            ids, there: (B, L) tokens and whether they are no padding.
            state: (B, max_state_dim) normalized, zeros at the end.
            noise: (B, chunk_size, max_action_dim) standard normal.
        """
        x, (seen, good) = noise, self.read(images, ids, there, state)
        for k in range(self.config.num_steps):
            time = x.new_full((len(x),), 1 - k / self.config.num_steps)
            x = x - self.velocity(x, time, seen, good) / self.config.num_steps
        return x

    def read(
        self, images: Tensor, ids: Tensor, there: Tensor, state: Tensor
    ) -> tuple[Seen, Tensor]:
        """What the SmolVLM has seen, and (B, n) where that is no padding."""
        b, v = images.shape[:2]
        kind = self.state_proj.weight.dtype
        patches = self.vlm.vision_model(pixel_values=images.flatten(0, 1).to(kind))
        sight = self.vlm.connector(patches.last_hidden_state)
        sight = sight.reshape(b, -1, sight.shape[-1])
        words = self.vlm.text_model.get_input_embeddings()(ids)
        scale = math.sqrt(words.shape[-1])
        x = torch.cat([scale * sight, scale * words, self.state_proj(state.to(kind))[:, None]], 1)
        yes = there.new_ones(b, 1)
        good = torch.cat([yes.expand(-1, sight.shape[1]), there, yes], dim=1)
        # pictures and words do not look at the state, which comes last
        mask = good[:, None].repeat(1, x.shape[1], 1)
        mask[:, :-1, -1] = False
        place = good.long().cumsum(1) - 1
        seen: Seen = []
        for layer in self.vlm.text_model.layers:
            q, k, v_ = self._qkv(layer, x)
            q, k = _turned(q, place), _turned(k, place)
            seen.append((k, v_))
            x = self._after(layer, x, self._attend(q, k, v_, mask))
        return seen, good

    def velocity(self, x: Tensor, time: Tensor, seen: Seen, good: Tensor) -> Tensor:
        """(B, C, A) of noisy actions x at a time (B,)."""
        c, n = self.config, x.shape[1]
        h = self.action_in_proj(x.to(self.action_in_proj.weight.dtype))
        when = self._when(time, h.shape[2]).to(h.dtype)[:, None].expand_as(h)
        h = self.action_time_mlp_in(torch.cat([h, when], dim=2))
        h = self.action_time_mlp_out(functional.silu(h))
        before = torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
        to_seen = good[:, None].expand(-1, n, -1)
        both = torch.cat([to_seen, before.expand(len(x), -1, -1)], dim=2)
        own = torch.arange(n, device=x.device).expand(len(x), -1)
        place = good.long().sum(1, keepdim=True) + own
        for i, (layer, (k, v)) in enumerate(zip(self.expert.layers, seen, strict=True)):
            if i % c.self_attn_every_n_layers == 0:
                q, mine, value = self._qkv(layer, h)
                q = _turned(q, place)
                k, v = torch.cat([k, _turned(mine, place)], 1), torch.cat([v, value], 1)
                out = self._attend(q, k, v, both)
            else:
                attn = layer.self_attn
                q = _turned(self._split(attn.q_proj(layer.input_layernorm(h))), own)
                k = self._split(attn.k_proj(k.flatten(2)))
                v = self._split(attn.v_proj(v.flatten(2)))
                out = self._attend(q, k, v, to_seen)
            h = self._after(layer, h, out)
        return self.action_out_proj(self.expert.norm(h)).float()  # type: ignore[no-any-return]

    def _when(self, time: Tensor, width: int) -> Tensor:
        """(B, width) sines and cosines of periods between the smallest and the largest."""
        c = self.config
        part = torch.linspace(0, 1, width // 2, device=time.device, dtype=torch.float64)
        period = c.min_period * (c.max_period / c.min_period) ** part
        angle = 2 * math.pi / period * time.double()[:, None]
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head)

    def _qkv(self, layer: Any, x: Tensor) -> list[Tensor]:
        x, attn = layer.input_layernorm(x), layer.self_attn
        return [self._split(proj(x)) for proj in (attn.q_proj, attn.k_proj, attn.v_proj)]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """(B, n, heads * head width); mask (B, n, m)."""
        each = self.heads // self.groups
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        k, v = (y.repeat_interleave(each, dim=1) for y in (k, v))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return out.transpose(1, 2).flatten(2)

    @staticmethod
    def _after(layer: Any, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + layer.self_attn.o_proj(mixed)
        out: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
        return out


def _turned(x: Tensor, place: Tensor) -> Tensor:
    """Rotary embedding of x (B, n, heads, d) at places (B, n); base 10,000, whatever the VLM's."""
    half = x.shape[-1] // 2
    rate = 1e4 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (place[..., None].float() * rate)[:, :, None]
    cos, sin = angle.cos(), angle.sin()
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def named(name: str) -> str:
    """Name of a parameter of :class:`SmolVLA` -> its name in the public file."""
    if name.startswith("vlm."):
        return "model.vlm_with_expert.vlm.model." + name.removeprefix("vlm.")
    if name.startswith("expert."):
        return "model.vlm_with_expert.lm_expert." + name.removeprefix("expert.")
    return f"model.{name}"


class SmolVLAPolicy:
    """A checkpoint that follows one instruction; a :class:`evovla.actor.Chunker`.

    Observations are {"state", "frames"}, the views in the order of the training data; states and
    actions are in its units. Noise is drawn from a generator of its own.

    Args:
        folder: see the module.
        instruction: what is to be done, in words.
        seed: of the noise.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: weights or statistics do not fit.
    """

    memory_dim = 0

    def __init__(
        self, folder: str | Path, instruction: str, seed: int = 0, device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        at = Path(folder)
        c = self.config = SmolVLAConfig.from_json(read_json(at / "config.json"))
        self.net = SmolVLA(c, read_json(at / "vlm" / "config.json"))
        tensors = {k.replace("._orig_mod.", "."): v for k, v in read_tensors(at).items()}
        fill(self.net, tensors, named, UNUSED, str(at))
        settle(self.net, device, dtype)
        told = read_json(at / "dataset_statistics.json")
        self.state, self.action = (
            _moments(told, name, most, at)
            for name, most in (("state", c.max_state_dim), ("action", c.max_action_dim))
        )
        words = tokenizer(at / "vlm")(instruction.rstrip("\n") + "\n")["input_ids"]
        self.ids = torch.tensor(words[: c.tokenizer_max_length], device=device)
        self.generator = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def chunk(self, obs: Arrays, memory: Floats) -> tuple[Floats, Floats]:
        """See :class:`evovla.actor.Chunker`."""
        c, device = self.config, self.ids.device
        if not isinstance(obs, dict):
            raise ValueError("obs must be a dict with state and frames")
        unit = torch.from_numpy(self.state.to_unit(obs["state"])).float()
        b, d = unit.shape
        state = functional.pad(unit, (0, c.max_state_dim - d)).to(device)
        noise = torch.randn(b, c.chunk_size, c.max_action_dim, generator=self.generator)
        ids = self.ids.expand(b, -1)
        images = padded(torch.from_numpy(obs["frames"]).to(device), c.resize_imgs_with_padding)
        there = torch.ones_like(ids, dtype=torch.bool)
        out = self.net(images, ids, there, state, noise.to(device)).cpu().numpy()
        acts = self.action.from_unit(out[..., : len(self.action.mean)])
        return acts.astype(np.float32), memory


def padded(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, V, H, W, 3) uint8 -> (B, V, 3, *size) -1..1; scaled as a whole, black left and above."""
    b, v, h, w, _ = frames.shape
    ratio = max(h / size[0], w / size[1])
    high, wide = int(h / ratio), int(w / ratio)
    x = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    x = functional.interpolate(x, (high, wide), mode="bilinear", align_corners=False)
    x = functional.pad(x, (size[1] - wide, 0, size[0] - high, 0))
    return (2 * x - 1).view(b, v, 3, *size)


def _moments(told: dict[str, Any], name: str, most: int, where: Path) -> Moments:
    try:
        mean, std = (np.asarray(told[name][key], np.float64) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {name} must have mean and std, {error!r}") from error
    if mean.ndim != 1 or mean.shape != std.shape or len(mean) > most or not (std >= 0).all():
        raise ValueError(f"{where}: {name} must have mean, std of one length <= {most}")
    return Moments(mean, std)
