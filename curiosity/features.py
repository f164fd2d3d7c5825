"""What a network bonus looks at: columns of the state, whitened or as random Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .normalization import RunningMeanStd

CLIP = 5.0
"""Whitened inputs are clipped to this many standard deviations (Burda 2018, Sec. 2.4)."""


class Features(nn.Module):
    r"""Fixed map of a state to network inputs.

    Either whitened and clipped columns, or, with ``fourier_length_m`` = l,

    .. math:: \sqrt 2 \cos(W x + b), \quad W_{ij} \sim N(0, l^{-2}),\ b_i \sim U(0, 2\pi)

    (Rahimi and Recht 2007), whose inner products over their number approach
    :math:`\exp(-\lVert x - y \rVert^2 / 2 l^2)`: positions l metres apart look different, however
    large the map. Those are bounded already, so they are not whitened.
    """

    columns: Tensor
    weight: Tensor
    phase: Tensor

    def __init__(
        self,
        obs_dim: int,
        columns: tuple[int, ...] | None,
        fourier_length_m: float | None,
        fourier_dim: int,
        whiten: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        chosen = tuple(range(obs_dim)) if columns is None else columns
        check_columns("columns", chosen, obs_dim)
        self.register_buffer("columns", torch.tensor(chosen))
        self.whiten = whiten and fourier_length_m is None
        self.fourier = fourier_length_m is not None
        self.dim = len(chosen)
        self.stat = RunningMeanStd((len(chosen),))
        if fourier_length_m is not None:
            if not fourier_length_m > 0:
                raise ValueError(f"fourier_length_m must be > 0 m, got {fourier_length_m}")
            self.dim = fourier_dim
            weight = torch.randn(len(chosen), fourier_dim, generator=generator) / fourier_length_m
            self.register_buffer("weight", weight.double())
            phase = 2 * math.pi * torch.rand(fourier_dim, generator=generator)
            self.register_buffer("phase", phase.double())

    @torch.no_grad()
    def fit(self, obs: Tensor) -> None:
        """Add (..., obs_dim) states to the whitening statistics."""
        if self.whiten:
            self.stat.update(obs[..., self.columns])

    @torch.no_grad()
    def forward(self, obs: Tensor) -> Tensor:
        """Map (..., obs_dim) to (..., dim) float32; changes nothing.

        Before the first :meth:`fit` a batch is whitened by its own statistics.
        """
        x = obs[..., self.columns]
        if self.fourier:
            return math.sqrt(2.0) * (x.double() @ self.weight + self.phase).float().cos()
        if not self.whiten:
            return x.float()
        stat = self.stat
        if not stat.fitted and x.numel() > self.dim:
            stat = RunningMeanStd((self.dim,)).to(x.device)
            stat.update(x)
        return ((x - stat.mean) / stat.std).clamp(-CLIP, CLIP).float()


def check_columns(name: str, columns: tuple[int, ...], obs_dim: int) -> None:
    """Raise ValueError unless columns are distinct, at least one, all in [0, obs_dim)."""
    inside = all(0 <= c < obs_dim for c in columns)
    if not columns or not inside or len(set(columns)) != len(columns):
        raise ValueError(f"{name} must be distinct and in [0, {obs_dim}), got {columns}")


def mlp(
    sizes: tuple[int, ...], activation: type[nn.Module], generator: torch.Generator
) -> nn.Sequential:
    """Linear layers with activations between, orthogonal weights (gain sqrt 2), zero biases."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore
        nn.init.orthogonal_(linear.weight, math.sqrt(2.0), generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [activation(), linear] if i else [linear]
    return nn.Sequential(*layers)
