"""Running statistics: whitening of inputs, and the scale of discounted bonus returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMeanStd(nn.Module):
    """Mean and variance of all samples so far, batch by batch, in float64.

    Chan, Golub and LeVeque 1979, pairwise update; population variance.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add samples, (..., *shape)."""
        x = x.detach().double().reshape(-1, *self.mean.shape)
        n = x.shape[0]
        if n == 0:
            return
        total = self.count + n
        batch_mean = x.mean(0)
        batch_var = x.var(0, correction=0)
        delta = batch_mean - self.mean
        # The initial variance of 1 has weight 0: it stands in until the first sample.
        second = self.var * self.count + batch_var * n + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.var.copy_(second / total)
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """Standard deviation, (*shape) float64; 1 before the first sample, never below 1e-4."""
        return (self.var + 1e-8).sqrt()

    @property
    def fitted(self) -> bool:
        """Whether at least one sample came."""
        return bool(self.count > 0)


class DiscountedReturnStd(nn.Module):
    r"""Scales rewards by the std of their discounted returns; never centres them.

    .. math:: R_t = \gamma R_{t-1} + r_t, \qquad \tilde r_t = r_t / \operatorname{std}(R)

    Burda 2018, Sec. 2.4. The filter runs forward along *time*, one R per environment, and is
    carried from rollout to rollout. Only an episodic stream forgets R after a finished step.
    """

    returns: Tensor

    def __init__(self, gamma: float, num_envs: int, episodic: bool = False) -> None:
        super().__init__()
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma must be in [0, 1), got {gamma}")
        if num_envs < 1:
            raise ValueError(f"num_envs must be >= 1, got {num_envs}")
        self.gamma = gamma
        self.episodic = episodic
        self.stat = RunningMeanStd()
        self.register_buffer("returns", torch.zeros(num_envs, dtype=torch.float64))

    @torch.no_grad()
    def update(self, rewards: Tensor, done: Tensor | None = None) -> None:
        """Filter a rollout and add its returns to the statistics.

        Args:
            rewards: (T, N), time first.
            done: (T, N) bool, needed if and only if the stream is episodic (else ignored).

        Raises:
            ValueError: wrong shape, or an episodic stream without ``done``.
        """
        num_envs = self.returns.shape[0]
        if rewards.ndim != 2 or rewards.shape[1] != num_envs:
            raise ValueError(f"rewards must be (T, {num_envs}), got {tuple(rewards.shape)}")
        if self.episodic and done is None:
            raise ValueError("done must be given for an episodic stream, got None")
        if done is not None and done.shape != rewards.shape:
            want = tuple(rewards.shape)
            raise ValueError(f"done must be {want} like rewards, got {tuple(done.shape)}")
        out = rewards.detach().to(self.returns.device, torch.float64, copy=True)
        running = self.returns.clone()
        ended = done.bool() if self.episodic and done is not None else None
        for t in range(out.shape[0]):
            running = out[t].add_(running, alpha=self.gamma)
            if ended is not None:
                running = running.masked_fill(ended[t], 0.0)
        self.returns.copy_(running)
        self.stat.update(out)

    def normalize(self, rewards: Tensor) -> Tensor:
        """Rewards over the current std, same shape and dtype; changes nothing."""
        return (rewards / self.stat.std).to(rewards.dtype)

    def forward(self, rewards: Tensor, done: Tensor | None = None) -> Tensor:
        """:meth:`update`, then :meth:`normalize`."""
        self.update(rewards, done)
        return self.normalize(rewards)

    def reset(self) -> None:
        """Forget the running returns, keep the statistics."""
        self.returns.zero_()
