"""Bonuses out of bonuses: scaled to unit spread, multiplied, added."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .base import EnvIds, IntrinsicReward, Transition, summary
from .normalization import RunningMeanStd


class Normalized(IntrinsicReward):
    """A bonus over the running std of its own per-step values; not centred.

    Bonuses of different units must be scaled before they are added; the factor of a product
    keeps the scale of the product steady while a network learns. Before the first update a
    rollout is scaled by its own std.
    """

    def __init__(self, part: IntrinsicReward) -> None:
        super().__init__(part.obs_dim, part.action_dim)
        self.part = part
        self.name = part.name
        self.horizon = part.horizon
        self.rows = part.rows
        self.stat = RunningMeanStd()

    def update(self, tr: Transition) -> dict[str, float]:
        """Add this rollout's values to the statistics, then update the part."""
        raw = self.part.compute(tr)
        self.stat.update(raw)
        std = self.stat.std
        return {**self.part.update(tr), **summary(raw / std), "std": float(std)}

    def reset(self, env_ids: EnvIds = None) -> None:
        """Reset the part."""
        self.part.reset(env_ids)

    def _run(self, tr: Transition, commit: bool) -> Tensor:
        raw = self.part._run(tr, commit)
        stat = self.stat
        if not stat.fitted and raw.numel() > 1:
            stat = RunningMeanStd().to(raw.device)
            stat.update(raw)
        return (raw / stat.std).float()


class _Combination(IntrinsicReward):
    """Several bonuses of the same sizes, under distinct names."""

    parts: nn.ModuleDict

    def __init__(self, parts: Sequence[IntrinsicReward]) -> None:
        if not parts:
            raise ValueError("parts must hold at least one bonus, got none")
        super().__init__(parts[0].obs_dim, parts[0].action_dim)
        self.parts = nn.ModuleDict()
        for i, part in enumerate(parts):
            if (part.obs_dim, part.action_dim) != (self.obs_dim, self.action_dim):
                want = f"({self.obs_dim}, {self.action_dim})"
                got = f"({part.obs_dim}, {part.action_dim})"
                raise ValueError(f"parts must all have (obs_dim, action_dim) {want}, got {got}")
            if None not in (self.rows, part.rows) and part.rows != self.rows:
                raise ValueError(f"parts must all have {self.rows} rows, got {part.rows}")
            self.rows = part.rows if self.rows is None else self.rows
            self.parts[f"{part.name}{i}" if part.name in self.parts else part.name] = part

    def __iter__(self) -> Iterator[IntrinsicReward]:
        return cast(Iterator[IntrinsicReward], iter(self.parts.values()))

    def update(self, tr: Transition) -> dict[str, float]:
        """Update every part; logs carry its name."""
        self._check(tr, ndim=2)
        log: dict[str, float] = {}
        for name, part in zip(self.parts, self, strict=True):
            log.update({f"{name}/{key}": value for key, value in part.update(tr).items()})
        return log

    def reset(self, env_ids: EnvIds = None) -> None:
        """Reset every part."""
        for part in self:
            part.reset(env_ids)


class Product(_Combination):
    r"""Parts multiplied: pays only where every part finds the state new.

    .. math:: r_t = s \prod_k r_t^{(k)}

    Henaff et al. 2023 (arXiv:2306.03236): an episodic times a lifelong bonus is the robust choice
    when it is not known whether layouts change. Episodic if any part is.
    """

    name = "product"

    def __init__(self, parts: Sequence[IntrinsicReward], scale: float = 1.0) -> None:
        super().__init__(parts)
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.scale = scale
        self.horizon = "episodic" if any(p.horizon == "episodic" for p in parts) else "lifelong"

    def _run(self, tr: Transition, commit: bool) -> Tensor:
        rewards = [part._run(tr, commit) for part in self]
        return self.scale * torch.stack(rewards).prod(0)


class Sum(_Combination):
    r"""Parts added: pays where any part finds the state new.

    .. math:: r_t = \sum_k w_k\, r_t^{(k)}

    Scale parts of different units by :class:`Normalized` first. Lifelong if any part is.
    """

    name = "sum"

    def __init__(
        self, parts: Sequence[IntrinsicReward], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(parts)
        self.weights = tuple(float(w) for w in weights) if weights else (1.0,) * len(parts)
        if len(self.weights) != len(parts) or not all(0 <= w < math.inf for w in self.weights):
            want = f"{len(parts)} numbers >= 0"
            raise ValueError(f"weights must be {want}, got {self.weights}")
        self.horizon = "lifelong" if any(p.horizon == "lifelong" for p in parts) else "episodic"

    def _run(self, tr: Transition, commit: bool) -> Tensor:
        rewards = [w * p._run(tr, commit) for w, p in zip(self.weights, self, strict=True)]
        return torch.stack(rewards).sum(0)

    def update(self, tr: Transition) -> dict[str, float]:
        """Update every part; logs also the weights and each part's share of the sum."""
        log = super().update(tr)
        paid = [w * log[f"{n}/mean"] for n, w in zip(self.parts, self.weights, strict=True)]
        total = sum(paid) or 1.0
        for name, weight, amount in zip(self.parts, self.weights, paid, strict=True):
            log[f"{name}/weight"] = weight
            log[f"{name}/share"] = amount / total
        return log
