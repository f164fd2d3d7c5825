r"""Heads that turn what is seen into the next C actions: by L1 regression, or by a flow.

Both are cloned from demonstrated chunks and improved by PPO, which asks for an exact likelihood.
Only the first ``execute`` actions of a chunk are ever carried out before the next look, so the
likelihood is of these alone, and in cloning they count as much as all the others together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_LOG_2PI = math.log(2 * math.pi)
ROUND = 0.2
"""Errors below are squared by the L1 loss, in actions that span [-1, 1]."""


class L1Head(nn.Module):
    """Parallel linear readouts of C actions, fitted by L1 (Kim et al. 2025, arXiv:2502.19645).

    For PPO the executed actions are Gaussian around what is read out. Departure: the loss is round
    below :data:`ROUND`. A plain L1 takes the median, which stands still wherever a demonstration
    hesitates.

    Args:
        width: of what is seen, y.
        chunk, execute, action_dim: C, how many of them are executed, A.
    """

    def __init__(self, width: int, chunk: int, execute: int, action_dim: int) -> None:
        super().__init__()
        self.chunk, self.execute, self.action_dim = chunk, execute, action_dim
        self.out = nn.Linear(width, chunk * action_dim)
        _shrink(self.out)

    @property
    def trace_dim(self) -> int:
        """Numbers that a draw is told by: the executed actions before they are cut."""
        return self.execute * self.action_dim

    def noise(self, log_std: float) -> Tensor:
        """(A,) the parameter that this head takes as ``log_std``, at the start."""
        return torch.full((self.action_dim,), log_std)

    def best(self, y: Tensor) -> Tensor:
        """(B, C * A) without noise, not cut."""
        out: Tensor = self.out(y)
        return out

    def draw(self, y: Tensor, noise: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Trace and executed actions, not cut, (B, E * A) each; noise (B, trace_dim)."""
        action = self._mean(y) + noise * log_std.exp().repeat(self.execute)
        return action, action

    def log_prob(self, y: Tensor, trace: Tensor, log_std: Tensor) -> Tensor:
        """(B,) log-density of traces."""
        return _gaussian(trace, self._mean(y), log_std.repeat(self.execute))

    def entropy(self, log_std: Tensor) -> Tensor:
        """Of one action."""
        return log_std.sum() + 0.5 * (1 + _LOG_2PI) * self.action_dim

    def loss(self, y: Tensor, chunk: Tensor, there: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) mean absolute error of each row, round near 0.

        Args:
            chunk: (B, C, A) demonstrated actions.
            there: (B, C) 1 or 0, whether the demonstration went on for so long.
            generator: is not drawn from.
        """
        del generator
        error = functional.smooth_l1_loss(
            self.best(y).view(chunk.shape), chunk, reduction="none", beta=ROUND
        )
        return _mean(error.mean(dim=2), there, self.execute)

    def _mean(self, y: Tensor) -> Tensor:
        size = self.trace_dim
        return functional.linear(y, self.out.weight[:size], self.out.bias[:size])


class FlowHead(nn.Module):
    r"""A velocity field that carries noise to actions in a few steps (Lipman et al. 2023).

    Cloning is conditional flow matching (arXiv:2210.02747) with :math:`x_t = (1 - t) x_0 + t a`.
    The net says where the flow ends, e, and the velocity follows from it; the loss is the usual one
    times :math:`(1 - t)^2`, which has the same minimum at every t and x,

    .. math:: L = E \lVert e(x_t, t, y) - a \rVert^2, \qquad v = (e - x_t) / (1 - t)

    For PPO, as ReinFlow does it (Zhang et al. 2025, arXiv:2505.22094), noise is put into every
    Euler step, so that the chain of steps is Markov and its density exact:

    .. math:: x_{k+1} \sim N(x_k + v(x_k, t_k, y) / K, \sigma_k^2)

    The density of :math:`x_0` is left out: no weight moves it. Departures: ReinFlow learns
    :math:`\sigma` by a network, we as numbers per step and dimension of the action, as PPO's
    Gaussian has them. The velocity of an action sees the noisy actions *before* it in the chunk and
    none after, so the first E actions are a chain of their own: the density that PPO works with
    has no dimension that nobody executes. Without noise the flow starts at 0, the mean of
    :math:`x_0`.

    Args:
        width, chunk, execute, action_dim: as for :class:`L1Head`.
        steps: Euler steps, K.
    """

    frequency: Tensor

    def __init__(self, width: int, chunk: int, execute: int, action_dim: int, steps: int) -> None:
        super().__init__()
        self.chunk, self.execute, self.action_dim, self.steps = chunk, execute, action_dim, steps
        self.earlier = nn.Conv1d(action_dim, width, chunk)
        self.seen, self.time = nn.Linear(width, chunk * width), nn.Linear(8, width)
        self.inner, self.out = nn.Linear(width, width), nn.Linear(width, action_dim)
        _shrink(self.out)
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(4), persistent=False)

    @property
    def trace_dim(self) -> int:
        """Numbers that a draw is told by: x_0 to x_K of the executed actions."""
        return (self.steps + 1) * self.execute * self.action_dim

    def noise(self, log_std: float) -> Tensor:
        """(K, A) the parameter that this head takes as ``log_std``, at the start."""
        each = log_std - 0.5 * math.log(self.steps)  # so that K steps add up to log_std
        return torch.full((self.steps, self.action_dim), each)

    def velocity(self, y: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """(B, E, A) of the first E <= C actions, see :meth:`end`; t < 1."""
        return (self.end(y, x, t) - x) / (1 - t[:, None, None])

    def end(self, y: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """(B, E, A) where the first E <= C actions are expected to end up.

        Args:
            y: (B, width); x: (B, E, A) noisy actions; t: (B,) time in [0, 1].
        """
        angle = t[:, None] * self.frequency
        width = self.inner.in_features
        first = x.shape[1] * width
        about = functional.linear(y, self.seen.weight[:first], self.seen.bias[:first])
        about = about.view(-1, x.shape[1], width)
        about = about + self.time(torch.cat([angle.sin(), angle.cos()], dim=1))[:, None]
        before = self.earlier(functional.pad(x.transpose(1, 2), (self.chunk - 1, 0)))
        h = functional.gelu(before.transpose(1, 2) + about)
        end: Tensor = self.out(h + functional.gelu(self.inner(h)))
        return end

    def best(self, y: Tensor) -> Tensor:
        """(B, C * A) from x_0 = 0 without noise, not cut."""
        x = y.new_zeros(y.shape[0], self.chunk, self.action_dim)
        for k in range(self.steps):
            t = torch.zeros_like(y[:, 0]) + k / self.steps
            x = x + self.velocity(y, x, t) / self.steps
        return x.flatten(1)

    def draw(self, y: Tensor, noise: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Trace (B, trace_dim) and executed actions (B, E * A), not cut; noise (B, trace_dim)."""
        eps = noise.view(len(y), self.steps + 1, self.execute, self.action_dim)
        chain = [eps[:, 0]]
        std = log_std.exp()
        for k in range(self.steps):
            x, t = chain[-1], y.new_full((len(y),), k / self.steps)
            chain.append(x + self.velocity(y, x, t) / self.steps + std[k] * eps[:, k + 1])
        return torch.stack(chain, dim=1).flatten(1), chain[-1].flatten(1)

    def log_prob(self, y: Tensor, trace: Tensor, log_std: Tensor) -> Tensor:
        """(B,) log-density of traces, given x_0."""
        b, k = len(y), self.steps
        chain = trace.view(b, k + 1, self.execute, self.action_dim)
        t = (torch.arange(k, device=y.device, dtype=y.dtype) / k).expand(b, k).flatten()
        v = self.velocity(y.repeat_interleave(k, 0), chain[:, :-1].flatten(0, 1), t)
        mean = chain[:, :-1] + v.view(b, k, self.execute, -1) / k
        spread = log_std[:, None].expand(k, self.execute, -1).flatten()
        return _gaussian(chain[:, 1:].flatten(1), mean.flatten(1), spread)

    def entropy(self, log_std: Tensor) -> Tensor:
        """Of one action in one step, on average over the steps."""
        return log_std.sum() / self.steps + 0.5 * (1 + _LOG_2PI) * self.action_dim

    def loss(self, y: Tensor, chunk: Tensor, there: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) squared error of the end at one random time each, see :meth:`L1Head.loss`."""
        start = torch.randn(chunk.shape, generator=generator).to(chunk.device)
        t = torch.rand(len(chunk), generator=generator).to(chunk.device)
        x = torch.lerp(start, chunk, t[:, None, None])
        error = (self.end(y, x, t) - chunk).square().mean(dim=2)
        return _mean(error, there, self.execute)


def _mean(error: Tensor, there: Tensor, execute: int) -> Tensor:
    """(B,) mean of errors (B, C) that are there, half of it by the first ``execute``."""
    rest = there.shape[1] - execute
    first = torch.arange(there.shape[1], device=there.device) < execute
    weight = torch.where(first, rest / execute, 1.0) * there if rest else there
    return (error * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6)


def _gaussian(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """(B,) log-density of x (B, n) under independent Gaussians; log_std (n,)."""
    z = (x - mean) * torch.exp(-log_std)
    return -0.5 * z.square().sum(dim=1) - log_std.sum() - 0.5 * _LOG_2PI * x.shape[1]


@torch.no_grad()
def _shrink(layer: nn.Linear) -> None:
    """Begin near 0."""
    layer.weight.mul_(0.1)
    layer.bias.zero_()
