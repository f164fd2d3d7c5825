"""What PPO trains: exact likelihood, two value heads and, if it likes, a memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Obs = Tensor | dict[str, Tensor]
"""(..., obs_dim) float32, or of an environment with cameras ``{"state": that, "frames": (..., V, H,
W, 3) uint8}``, see :attr:`learning.vec_env.EnvSpec.frames`."""
Arrays = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]
"""The same as arrays."""


def each(f: Callable[..., Any], *obs: Any) -> Any:
    """``f`` of a plain observation, or of every entry of one with cameras."""
    if isinstance(obs[0], dict):
        return {key: f(*(o[key] for o in obs)) for key in obs[0]}
    return f(*obs)


def state_of(obs: Any) -> Any:
    """The numbers of an observation, without its frames."""
    return obs["state"] if isinstance(obs, dict) else obs


class Sample(NamedTuple):
    """Actions drawn for B rows."""

    trace: Tensor
    """(B, trace_dim) what the draw is told by: enough for its exact likelihood."""
    action: Tensor
    """(B, action_dim) what is sent, in [-1, 1]."""
    memory: Tensor
    """(B, memory_dim) what is remembered after this step."""
    gate: Tensor | None = None
    """(B,) in [0, 1] what the memory lets through of a progress reward; None lets all through."""


Sampler = Callable[[Obs, Tensor, Tensor], Sample]
"""Normalized observations, memory (B, memory_dim), standard normal noise (B, trace_dim)."""


class Policy(nn.Module):
    """Base of the policies that :class:`learning.ppo.PPO` trains; the normalizer is in here.

    A policy without memory treats rows as samples and ignores ``memory`` and ``first``. All zeros
    is a memory of nothing.

    Attributes:
        obs_dim, action_dim: widths of the numbers seen and of the action.
        trace_dim: width of a :attr:`Sample.trace` and of the noise it is drawn from.
        memory_dim: width of what is remembered; 0 is no memory.
        log_std: log standard deviation of the noise of exploration, a parameter of any shape.
    """

    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor
    log_std: nn.Parameter
    memory_dim: int = 0

    def __init__(self, obs_dim: int, action_dim: int, trace_dim: int | None = None) -> None:
        super().__init__()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.trace_dim = action_dim if trace_dim is None else trace_dim
        self.register_buffer("obs_mean", torch.zeros(obs_dim, dtype=torch.float64))
        self.register_buffer("obs_var", torch.ones(obs_dim, dtype=torch.float64))
        self.register_buffer("obs_count", torch.zeros((), dtype=torch.float64))

    # what a policy must give

    def sampler(self) -> Sampler:
        """Draws actions with the weights of now, without gradients."""
        raise NotImplementedError

    def log_prob(self, x: Any, trace: Tensor, memory: Tensor) -> Tensor:
        """(B,) log-density of traces (B, trace_dim) at normalized x, step by step."""
        raise NotImplementedError

    def value(self, x: Any, memory: Tensor) -> Tensor:
        """(B, 2) extrinsic and intrinsic value of normalized x."""
        raise NotImplementedError

    def evaluate(
        self, x: Any, trace: Tensor, memory: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """:meth:`log_prob` and :meth:`value` with gradients.

        Args:
            x, trace: (B, ...); with a memory (S, B, ...), S steps of B rows.
            memory: (B, memory_dim) before the first step.
            first: (S, B) bool, an episode begins here: nothing is remembered.

        Returns:
            Log-densities and values of the leading shape of ``trace``.
        """
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Entropy of the noise of exploration, the same at every observation."""
        raise NotImplementedError

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the actor and of the critic, whose gradients are clipped apart."""
        raise NotImplementedError

    # the normalizer

    def normalize(self, obs: Any) -> Any:
        """Whiten raw observations with the running statistics, clip to +-10."""
        return self.whitener()(obs)

    def whitener(self) -> Callable[[Any], Any]:
        """:meth:`normalize` with the statistics of now, worked out once."""
        mean, scale = self.obs_mean.float(), self.obs_scale
        return lambda obs: ((obs - mean) * scale).clamp_(-10.0, 10.0)

    @property
    def obs_scale(self) -> Tensor:
        """(obs_dim,) float32, 1 / std; a feature that never varied keeps scale 1."""
        scale = self.obs_var.clamp(min=1e-12).rsqrt()
        return torch.where(self.obs_var < 1e-8, torch.ones_like(scale), scale).float()

    @torch.no_grad()
    def update_normalizer(self, obs: Tensor) -> None:
        """Take (B, obs_dim) raw observations into mean and variance (Chan et al. 1979)."""
        centre = self.obs_mean.float()  # float32 sums of centred values are exact enough
        spread, mean = torch.var_mean(obs - centre, dim=0, correction=0)
        var, mean = spread.double(), mean.double() + centre.double()
        n = float(len(obs))
        total = self.obs_count + n
        delta = mean - self.obs_mean
        new = n / total
        old = 1 - new
        self.obs_var.copy_(self.obs_var * old + var * new + delta.square() * old * new)
        self.obs_mean.add_(delta * new)
        self.obs_count.copy_(total)
