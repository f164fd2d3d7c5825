"""Weights and statistics of public checkpoints, read from safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

Floats = NDArray[np.float64]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no object.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a JSON object, got {content!r:.60}")
    return content


def read_tensors(folder: Path, stem: str = "model") -> dict[str, Tensor]:
    """All tensors of ``<stem>.safetensors``, or of the shards that its index names.

    Raises:
        FileNotFoundError: neither is there; pickles are not read.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return load_file(single)
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder} must hold {single.name} or {index.name}; a pickle (.pt, .bin) must be "
            "converted to safetensors elsewhere first"
        )
    out: dict[str, Tensor] = {}
    for name in sorted(set(read_json(index)["weight_map"].values())):
        if Path(name).name != name:
            raise ValueError(f"{index}: weight_map must name files beside it, got {name!r}")
        out |= load_file(folder / name)
    return out


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], named: Callable[[str], str],
    unused: tuple[str, ...], where: str,
) -> None:  # fmt: skip
    """Copy tensors into a module, all of its parameters.

    Args:
        named: name of a parameter in the module -> its name in the file.
        unused: beginnings of names in the file that the module has no use for.

    Raises:
        ValueError: a tensor is missing, of another shape, or neither used nor known as unused.
    """
    mine = {named(name): p for name, p in module.named_parameters()}
    missing = sorted(set(mine) - set(tensors))
    extra = sorted(name for name in set(tensors) - set(mine) if not name.startswith(unused))
    if missing or extra:
        raise ValueError(
            f"{where}: weights must fit, missing {missing[:3]} of {len(missing)}, "
            f"unknown {extra[:3]} of {len(extra)}"
        )
    for name, p in mine.items():
        if p.shape != tensors[name].shape:
            want, got = tuple(p.shape), tuple(tensors[name].shape)
            raise ValueError(f"{where}: {name} must be {want}, got {got}")
        with torch.no_grad():
            p.copy_(tensors[name])


def settle(module: nn.Module, device: str, dtype: torch.dtype) -> None:
    """Move to a device, parameters to a type; buffers, such as angles, keep theirs."""
    module.to(device).eval().requires_grad_(False)
    for p in module.parameters():
        p.data = p.data.to(dtype)


@dataclass(frozen=True)
class Bounds:
    """Numbers scaled to [-1, 1] between their 1st and 99th percentile, as OpenVLA has them."""

    low: Floats
    """(D,) q01."""
    high: Floats
    """(D,) q99."""
    mask: NDArray[np.bool_]
    """(D,) what is scaled; the rest, such as a gripper's 0 or 1, stays as it is."""

    @classmethod
    def from_json(cls, told: Mapping[str, Any], where: str) -> Bounds:
        """Of a dataset's "action" or "proprio" with "q01", "q99" and perhaps "mask".

        Raises:
            ValueError: they are missing, of different lengths, or not finite.
        """
        try:
            low, high = (np.asarray(told[name], np.float64) for name in ("q01", "q99"))
            mask = np.asarray(told.get("mask", np.ones(len(low))), np.bool_)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: must have q01 and q99, {error!r}") from error
        good = low.ndim == 1 and low.shape == high.shape == mask.shape
        if not good or not np.isfinite(low + high).all() or (low > high).any():
            raise ValueError(f"{where}: q01 <= q99 of one length wanted, got {told!r:.80}")
        return cls(low, high, mask)

    def to_unit(self, raw: ArrayLike) -> Floats:
        """(..., D) -> [-1, 1], cut there."""
        x = np.asarray(raw, np.float64)
        scaled = np.clip(2 * (x - self.low) / (self.high - self.low + 1e-8) - 1, -1, 1)
        return np.where(self.mask, scaled, x)

    def from_unit(self, unit: ArrayLike) -> Floats:
        """And back, not cut."""
        x = np.asarray(unit, np.float64)
        return np.where(self.mask, (x + 1) / 2 * (self.high - self.low + 1e-8) + self.low, x)


@dataclass(frozen=True)
class Moments:
    """Numbers less their mean, over their standard deviation, as LeRobot has them."""

    mean: Floats
    std: Floats

    def to_unit(self, raw: ArrayLike) -> Floats:
        """(..., D) centred and scaled."""
        return np.asarray((np.asarray(raw, np.float64) - self.mean) / (self.std + 1e-8))

    def from_unit(self, unit: ArrayLike) -> Floats:
        """And back."""
        return np.asarray(np.asarray(unit, np.float64) * (self.std + 1e-8) + self.mean)
