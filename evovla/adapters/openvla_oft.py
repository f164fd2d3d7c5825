"""OpenVLA-OFT checkpoints (Kim et al. 2025, arXiv:2502.19645): L1 head, chunks of 8 actions.

Two towers see each picture; their patches, projected, and the proprioception stand between the
first token and the prompt; C * A empty tokens follow, and one pass of a Llama that looks both ways
gives all actions at once. Not covered: FiLM, the diffusion head, discrete actions.

A folder holds ``config.json``, the weights and the tokenizer as published, and beside them what is
published as pickles, converted: ``action_head.safetensors``, ``proprio_projector.safetensors``
(only if the policy was trained with proprioception) and ``dataset_statistics.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..actor import Arrays, Floats
from .backbones import llama, tokenizer
from .files import Bounds, fill, read_json, read_tensors, settle
from .vit import PUBLIC, Tower, TowerConfig

PROMPT = "In: What action should the robot take to {}?\nOut:"
UNUSED = ("language_model.lm_head.", "vision_backbone.featurizer.norm.",
          "vision_backbone.fused_featurizer.norm.", "vision_backbone.fused_featurizer.attn_pool.",
          "vision_backbone.featurizer.attn_pool.")  # fmt: skip


@dataclass(frozen=True)
class OFTConfig:
    """Sizes of a checkpoint and how it is asked."""

    towers: tuple[TowerConfig, TowerConfig] = tuple(PUBLIC.values())  # type: ignore[assignment]
    """DINOv2 and SigLIP, in the order of the file."""
    text: Mapping[str, Any] = field(default_factory=lambda: {"vocab_size": 32064})
    """Of the Llama, as ``transformers`` names it; the defaults are Llama-2 7B's."""
    action_dim: int = 7
    chunk: int = 8
    views: int = 2
    """Pictures at once: third person, then wrist."""
    proprio_dim: int = 8
    """0: without proprioception."""
    crop: float = 0.9
    """Share of a picture's area, in its middle, that is seen: 0.9 for those trained with random
    crops, as the public ones are."""
    begin_token: int = 1
    empty_token: int = 29871
    """That the prompt ends with."""
    stop_token: int = 2

    def __post_init__(self) -> None:
        if min(self.action_dim, self.chunk, self.views) < 1 or self.proprio_dim < 0:
            raise ValueError(f"sizes must be >= 1, proprio_dim >= 0, got {self}")
        if not 0 < self.crop <= 1 or self.towers[0].side != self.towers[1].side:
            raise ValueError(f"crop in (0, 1], towers of one side wanted, got {self}")


class OpenVLAOFT(nn.Module):
    """The network; its parameters have the public names but for the Llama's, see :func:`named`."""

    def __init__(self, config: OFTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.vision_backbone = nn.ModuleDict(
            {"featurizer": Tower(c.towers[0]), "fused_featurizer": Tower(c.towers[1])}
        )
        self.language_model = llama(c.text)
        wide = c.towers[0].width + c.towers[1].width
        width = int(self.language_model.config.hidden_size)
        self.projector = _layers(fc1=(wide, 4 * wide), fc2=(4 * wide, width), fc3=(width, width))
        if c.proprio_dim:
            self.proprio_projector = _layers(fc1=(c.proprio_dim, width), fc2=(width, width))
        self.action_head = nn.ModuleDict(
            {"model": _Head(width * c.action_dim, width, c.action_dim)}
        )

    def forward(self, images: Tensor, ids: Tensor, proprio: Tensor | None) -> Tensor:
        """Normalized actions (B, C, A).

        Args:
            images: (B, V, 3, side, side) colours 0..1.
            ids: (L,) tokens of the prompt, the begin token first and the empty one last.
            proprio: (B, P) in [-1, 1], or None where there is none.
        """
        c, b = self.config, len(images)
        flat = images.flatten(0, 1)
        seen = torch.cat([tower(flat) for tower in self.vision_backbone.values()], dim=2)
        p = self.projector
        seen = p["fc3"](functional.gelu(p["fc2"](functional.gelu(p["fc1"](seen)))))
        parts = [seen.view(b, -1, seen.shape[2])]
        if proprio is not None:
            q = self.proprio_projector
            parts.append(q["fc2"](functional.gelu(q["fc1"](proprio.to(seen.dtype))))[:, None])
        embed = self.language_model.get_input_embeddings()
        words = embed(ids).expand(b, -1, -1)
        empty = seen.new_zeros(b, c.chunk * c.action_dim, seen.shape[2])
        stop = embed(ids.new_tensor([c.stop_token])).expand(b, -1, -1)
        x = torch.cat([words[:, :1], *parts, words[:, 1:], empty, stop], dim=1)
        both_ways = torch.ones(b, 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        out = self.language_model(inputs_embeds=x, attention_mask=both_ways, use_cache=False)
        acts = out.last_hidden_state[:, -1 - empty.shape[1] : -1]
        return self.action_head["model"](acts.reshape(b, c.chunk, -1))  # type: ignore[no-any-return]


def named(name: str) -> str:
    """Name of a parameter of :class:`OpenVLAOFT` -> its name in the public files."""
    return name.replace("language_model.", "language_model.model.", 1)


class OFTPolicy:
    """A checkpoint that follows one instruction; a :class:`evovla.actor.Chunker`.

    Observations are {"state": proprioception in the units of the training data, "frames"}; without
    proprioception "state" may be of any width. Actions come in the units of the training data.

    Args:
        folder: see the module.
        instruction: what is to be done, in words.
        config: sizes; None: those of ``config.json``, with the towers of :data:`.vit.PUBLIC`.
        dataset: whose statistics are meant; None where there is only one.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the weights or the statistics do not fit.
    """

    memory_dim = 0

    def __init__(
        self, folder: str | Path, instruction: str, config: OFTConfig | None = None,
        dataset: str | None = None, device: str = "cpu", dtype: torch.dtype = torch.bfloat16,
    ) -> None:  # fmt: skip
        at = Path(folder)
        c = self.config = public_config(at) if config is None else config
        self.net = OpenVLAOFT(c)
        tensors = read_tensors(at) | _part(at, "action_head")
        if c.proprio_dim:
            tensors |= _part(at, "proprio_projector")
        last = tuple(
            f"vision_backbone.{name}.blocks.{tower.depth - 1}."
            for name, tower in zip(("featurizer", "fused_featurizer"), c.towers, strict=True)
        )
        fill(self.net, tensors, named, UNUSED + last, str(at))
        settle(self.net, device, dtype)
        told = _statistics(read_json(at / "dataset_statistics.json"), dataset, at)
        self.action = Bounds.from_json(told["action"], f"{at}: action")
        self.proprio = (
            Bounds.from_json(told["proprio"], f"{at}: proprio") if c.proprio_dim else None
        )
        if len(self.action.low) != c.action_dim:
            raise ValueError(f"{at}: action must have {c.action_dim}, got {len(self.action.low)}")
        words = tokenizer(at)(PROMPT.format(instruction.lower()))["input_ids"]
        begin = [] if words[:1] == [c.begin_token] else [c.begin_token]
        end = [] if words[-1:] == [c.empty_token] else [c.empty_token]
        self.ids = torch.tensor([*begin, *words, *end], device=device)

    @torch.inference_mode()
    def chunk(self, obs: Arrays, memory: Floats) -> tuple[Floats, Floats]:
        """See :class:`evovla.actor.Chunker`."""
        c = self.config
        if not isinstance(obs, dict) or obs["frames"].shape[1] != c.views:
            raise ValueError(f"obs must be a dict with frames of {c.views} views")
        device = self.ids.device
        proprio = None
        if self.proprio is not None:
            state = torch.from_numpy(self.proprio.to_unit(obs["state"]))
            proprio = state.to(device, torch.float32)
        images = pictures(torch.from_numpy(obs["frames"]).to(device), c.towers[0].side, c.crop)
        unit = self.net(images, self.ids, proprio).float().cpu().numpy()
        return self.action.from_unit(unit).astype(np.float32), memory


def pictures(frames: Tensor, side: int, crop: float) -> Tensor:
    """(B, V, H, W, 3) uint8 -> (B, V, 3, side, side) 0..1, the middle of each."""
    b, v, h, w, _ = frames.shape
    share = crop**0.5
    high, wide = max(1, round(h * share)), max(1, round(w * share))
    top, left = (h - high) // 2, (w - wide) // 2
    x = frames[:, :, top : top + high, left : left + wide].flatten(0, 1).permute(0, 3, 1, 2)
    x = x.float() / 255
    x = functional.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return x.view(b, v, 3, side, side)


def public_config(folder: Path) -> OFTConfig:
    """Sizes from a published ``config.json`` and the statistics beside it.

    Raises:
        ValueError: towers that :data:`.vit.PUBLIC` does not have.
    """
    told = read_json(folder / "config.json")
    ids = told.get("timm_model_ids", [])
    if len(ids) != 2 or any(name not in PUBLIC for name in ids):
        raise ValueError(f"{folder}: timm_model_ids must be two of {list(PUBLIC)}, got {ids}")
    return OFTConfig(
        towers=(PUBLIC[ids[0]], PUBLIC[ids[1]]), text=told["text_config"],
        proprio_dim=8 if (folder / "proprio_projector.safetensors").is_file() else 0,
    )  # fmt: skip


def _part(folder: Path, stem: str) -> dict[str, Tensor]:
    """Weights that are published apart, under the name of their module."""
    plain = {k.removeprefix("module."): v for k, v in read_tensors(folder, stem).items()}
    return {f"{stem}.{name}": value for name, value in plain.items()}


def _statistics(told: dict[str, Any], dataset: str | None, where: Path) -> dict[str, Any]:
    name = dataset if dataset is not None else next(iter(told)) if len(told) == 1 else None
    if name not in told:
        raise ValueError(f"{where}: dataset must be one of {sorted(told)}, got {dataset!r}")
    return dict(told[name])


def _layers(**sizes: tuple[int, int]) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})


class _Head(nn.Module):
    """Residual layers that turn the A hidden states of one step into its action."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(inputs), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.mlp_resnet_blocks = nn.ModuleList()
        for _ in range(2):
            ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())
            self.mlp_resnet_blocks.append(nn.ModuleDict({"ffn": ffn}))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = x + block["ffn"](x)  # type: ignore[index]
        return self.fc2(self.layer_norm2(x))  # type: ignore[no-any-return]
