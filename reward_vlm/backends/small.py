"""The small reward model: our own, on a CPU, without a download. It knows the simulated table only.

Trained by ``incognita train reward``; the weights that are shipped came from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..model import BadOutput, Clip, Judgement, ModelInfo, ModelOutOfMemory, Sampling
from .small_net import PROBE_HEADS, SmallConfig, SmallNet, tokens

SHIPPED = Path(__file__).parents[1] / "weights" / "small"
WEIGHTS, ABOUT = "model.safetensors", "model.json"
SCHEMA = 1
FRAMES = 8
_CALIBRATION = ("temperature", "centre", "whiten", "quantiles")


class SmallModel:
    """See :class:`reward_vlm.model.RewardModel`.

    Args:
        folder: of ``incognita train reward`` (its ``model/``); None: the model that is shipped.

    Raises:
        FileNotFoundError: no model there.
        ValueError: another schema, or weights that are not those the description was written for.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        at = SHIPPED if folder is None else Path(folder)
        about = json.loads((at / ABOUT).read_text())
        if about.get("schema") != SCHEMA:
            raise ValueError(f"{at / ABOUT} must have schema {SCHEMA}, got {about.get('schema')}")
        digest = hashlib.sha256((at / WEIGHTS).read_bytes()).hexdigest()
        if digest != about["sha256"]:
            raise ValueError(f"{at / WEIGHTS} must have sha256 {about['sha256']}, got {digest}")
        self.net = SmallNet(SmallConfig(**about["net"]))
        weights = {}
        with safe_open(at / WEIGHTS, "pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                weights[name] = file.get_tensor(name)
        self._calibration = {name: weights.pop(name).double() for name in _CALIBRATION}
        self.net.load_state_dict(weights)
        self.net.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        side = self.net.config.side
        self.info = ModelInfo(
            name="small", backend="small", revision=digest[:16],
            sampling=Sampling(count=FRAMES, most=FRAMES, side=side),
            preprocess={"side": side, "pad": "edge to a square", "resize": "area", "colour": "RGB",
                        "net": asdict(self.net.config), "views": "mean of the distributions"},
            domain="simulated arm at a table (MuJoCo), seen from the side; no real images",
            heads=("score", "progress", "success", *PROBE_HEADS), max_batch=32,
        )  # fmt: skip

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """Judge clips; several views of one are judged one by one and averaged."""
        rows: list[tuple[int, NDArray[np.uint8], str]] = []
        for i, clip in enumerate(clips):
            seen = clip.sampled(self.info.sampling)
            for name in sorted(seen.views):
                rows.append((i, _square(seen.views[name], self.net.config.side), clip.task))
        results: list[list[dict[str, NDArray[np.float64]]]] = [[] for _ in clips]
        for length in sorted({len(frames) for _, frames, _ in rows}):
            same = [row for row in rows if len(row[1]) == length]
            for (i, _, _), found in zip(same, self._forward(same), strict=True):
                results[i].append(found)
        return [self._judgement(found) for found in results]

    def ready(self) -> None:
        """Judge a grey clip."""
        side = self.net.config.side
        self.judge([Clip("be ready", {"front": np.full((2, side, side, 3), 128, np.uint8)}, 1.0)])

    def close(self) -> None:
        """Nothing to free."""

    @torch.inference_mode()
    def _forward(
        self, rows: list[tuple[int, NDArray[np.uint8], str]]
    ) -> list[dict[str, NDArray[np.float64]]]:
        """What the net says of clips of one length."""
        frames = torch.from_numpy(np.stack([row[1] for row in rows])).permute(0, 1, 4, 2, 3)
        said = np.stack([tokens(row[2], self.net.config.buckets) for row in rows])
        try:
            out = self.net(frames.float() / 255, torch.from_numpy(said))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise ModelOutOfMemory(str(error)) from error
        temperature = self._calibration["temperature"]
        score = (out.score.double() / temperature[0]).softmax(dim=-1)
        success = (out.success[:, -1].double() / temperature[1]).sigmoid()
        columns: dict[str, Tensor] = {
            "score": score, "success": success, "probes": out.probes[:, -1].double().sigmoid(),
            "ood": self._unlike(out.features[:, -1].double()),
        }  # fmt: skip
        if not all(bool(torch.isfinite(c).all()) for c in columns.values()):
            raise BadOutput("the network gave numbers that are not finite")
        return [{k: v[i].numpy() for k, v in columns.items()} for i in range(len(rows))]

    def _unlike(self, features: Tensor) -> Tensor:
        """(B,) share of validation clips whose features lie nearer to the middle; 1 beyond all."""
        c = self._calibration
        far = ((features - c["centre"]) @ c["whiten"]).square().sum(dim=1).sqrt()
        return torch.searchsorted(c["quantiles"], far) / len(c["quantiles"])

    def _judgement(self, views: list[dict[str, NDArray[np.float64]]]) -> Judgement:
        mean = {k: np.mean([view[k] for view in views], axis=0) for k in views[0]}
        levels = np.arange(mean["score"].shape[1]) / (mean["score"].shape[1] - 1)
        named = dict(zip(PROBE_HEADS, map(float, mean["probes"]), strict=True))
        progress = np.clip(mean["score"] @ levels, 0, 1)
        success = float(mean["success"])
        return Judgement(
            mean["score"][-1] / mean["score"][-1].sum(), progress, success, 0.0,
            float(mean["ood"]), named | {"progress": float(progress[-1]), "success": success},
        )  # fmt: skip


def write_small(
    folder: str | Path, net: SmallNet, calibration: Mapping[str, NDArray[np.float64]],
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a trained net: float32 weights and calibration, and a description with their digest."""
    at = Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().contiguous().numpy() for k, v in net.state_dict().items()}
    tensors |= {k: np.ascontiguousarray(calibration[k], np.float32) for k in _CALIBRATION}
    save_file(tensors, at / WEIGHTS)
    digest = hashlib.sha256((at / WEIGHTS).read_bytes()).hexdigest()
    text = {"schema": SCHEMA, "sha256": digest, "net": asdict(net.config), **about}
    (at / ABOUT).write_text(json.dumps(text, indent=2) + "\n")


def _square(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(T, side, side, 3): padded to a square by repeating the edge, then scaled."""
    height, width = frames.shape[1:3]
    if height != width:
        most = max(height, width)
        top, left = (most - height) // 2, (most - width) // 2
        pads = ((0, 0), (top, most - height - top), (left, most - width - left), (0, 0))
        frames = np.pad(frames, pads, mode="edge")
    if frames.shape[1] == side:
        return frames
    shrinks = frames.shape[1] > side
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, (side, side), interpolation=how) for f in frames])
