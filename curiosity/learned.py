"""What bonuses with networks share: seeded minibatches, one optimizer, and saving both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .base import IntrinsicReward


class LearnedReward(IntrinsicReward):
    """A bonus that owns a random generator and, once there is something to train, an Adam."""

    def __init__(self, obs_dim: int, action_dim: int, seed: int) -> None:
        super().__init__(obs_dim, action_dim)
        self._generator = torch.Generator().manual_seed(seed)
        self._adam: torch.optim.Adam | None = None

    def _train(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self._adam = torch.optim.Adam(parameters, lr=lr, fused=True)

    def _minibatches(
        self, count: int, epochs: int, size: int, device: torch.device, fraction: float = 1.0
    ) -> Iterator[Tensor]:
        """Rows of up to ``size`` samples: each epoch a fresh ``fraction`` of ``count``."""
        share = max(1, round(fraction * count))
        for _ in range(epochs):
            order = torch.randperm(count, generator=self._generator)[:share].to(device)
            for start in range(0, share, size):
                yield order[start : start + size]

    def _descend(self, loss: Tensor) -> None:
        """One gradient step on a scalar."""
        if self._adam is None:
            raise RuntimeError("there is nothing to train")
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()

    def get_extra_state(self) -> dict[str, Any]:
        """Optimizer and generator, beside the parameters and buffers."""
        adam = {} if self._adam is None else self._adam.state_dict()
        return {"adam": adam, "generator": self._generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`get_extra_state`."""
        if self._adam is not None:
            self._adam.load_state_dict(state["adam"])
        self._generator.set_state(state["generator"].cpu())
