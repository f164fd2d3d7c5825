"""CLIP-class checkpoints as scorers, through ``transformers``, from a local folder.

EvoVLA (arXiv 2511.16166) takes a frozen CLIP ViT-B/16; any checkpoint with ``get_image_features``
and ``get_text_features`` will do (CLIP, SigLIP). Nothing is ever downloaded and no remote code is
run. Such models do not know the scenes: calibrate them per stage before use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .scorer import Images, check_images

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class ClipConfig:
    """How a checkpoint is asked."""

    views: tuple[str, ...] = ("side",)
    """Cameras, in the order that images have them."""
    look_at: str = ""
    """The one view that is scored; empty: the mean of all. The paper: the third-person view in
    simulation, the wrist on its robot."""
    device: str = "cpu"
    batch: int = 64
    """Pictures at once."""

    def __post_init__(self) -> None:
        if not self.views or self.batch < 1:
            raise ValueError(f"views must not be empty, batch must be >= 1, got {self}")
        if self.look_at and self.look_at not in self.views:
            want = ", ".join(self.views)
            raise ValueError(f"look_at must be one of {want}, got {self.look_at!r}")


class ClipScorer:
    """See :class:`.scorer.ImageTextScorer`.

    Args:
        folder: as ``save_pretrained`` of model, tokenizer and image processor writes it; weights
            as safetensors.

    Raises:
        ImportError: no ``transformers``.
        FileNotFoundError: the folder has no ``config.json`` or no ``preprocessor_config.json``.
        ValueError: the checkpoint has no image and text features.
    """

    def __init__(self, folder: str | Path, config: ClipConfig | None = None) -> None:
        c = self.config = config or ClipConfig()
        at = Path(folder)
        for name in ("config.json", PREPROCESSOR):
            if not (at / name).is_file():
                raise FileNotFoundError(f"{at} must be a checkpoint's folder with {name}")
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise ImportError("clip_scorer needs transformers: pip install 'incognita[vlm]'") from (
                error
            )
        local = {"local_files_only": True, "trust_remote_code": False}
        model = AutoModel.from_pretrained(at, use_safetensors=True, **local)
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise ValueError(f"{at} must be a CLIP-class checkpoint, got {type(model).__name__}")
        self._model = model.to(c.device).eval().requires_grad_(False)
        self._tokenizer = AutoTokenizer.from_pretrained(at, **local)
        told = json.loads((at / PREPROCESSOR).read_text())
        self._mean, self._std = (
            torch.tensor(told.get(name, [0.5] * 3), device=c.device)[:, None, None]
            for name in ("image_mean", "image_std")
        )
        self._side = int(model.config.vision_config.image_size)
        text = model.config.text_config
        self._most = int(text.max_position_embeddings)
        # SigLIP was trained on texts padded to the full length, and has no attention mask.
        self._padding = "max_length" if "siglip" in model.config.model_type else True
        self._cached: dict[str, Tensor] = {}

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the cameras, in the order that images have them."""
        return self.config.views

    @torch.inference_mode()
    def similarities(self, images: Images, texts: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`.scorer.ImageTextScorer`. Each text is encoded once."""
        check_images(images, self.views)
        look = self.config.look_at
        if look:
            v = self.views.index(look)
            images = images[:, v : v + 1]
        if new := [text for text in dict.fromkeys(texts) if text not in self._cached]:
            self._cached.update(zip(new, self._encode_texts(new), strict=True))
        said = torch.stack([self._cached[text] for text in texts])
        flat = images.reshape(-1, *images.shape[2:])
        size = self.config.batch
        rows = [self._encode_images(flat[i : i + size]) for i in range(0, len(flat), size)]
        if not rows:
            return np.zeros((0, len(texts)))
        found = (torch.cat(rows) @ said.T).view(len(images), -1, len(texts)).mean(dim=1)
        out: NDArray[np.float64] = found.double().cpu().numpy()
        return out

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), D) of unit length. Long texts are cut after the model's tokens, not before.

        The public code of EvoVLA cuts them after 76 characters, which is a third of that.
        """
        told = self._tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._most,
            return_tensors="pt",
        ).to(self.config.device)  # fmt: skip
        return _unit(self._model.get_text_features(**told))

    def _encode_images(self, images: Images) -> Tensor:
        """(n, H, W, 3) uint8 -> (n, D) of unit length."""
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.config.device)
        x = x.permute(0, 3, 1, 2).float() / 255
        h, w = x.shape[-2:]
        scale = self._side / min(h, w)  # the shorter edge, then the middle square, as CLIP does
        size = (max(self._side, round(h * scale)), max(self._side, round(w * scale)))
        x = functional.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - self._side) // 2, (size[1] - self._side) // 2
        x = x[..., top : top + self._side, left : left + self._side]
        return _unit(self._model.get_image_features(pixel_values=(x - self._mean) / self._std))


def _unit(features: Any) -> Tensor:
    """Features of unit length; transformers 5 wraps them in an output object."""
    tensor: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return functional.normalize(tensor.float(), dim=-1)
