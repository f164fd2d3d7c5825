"""Random Network Distillation bonus (Burda et al. 2018, arXiv:1810.12894)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .base import Transition, summary
from .features import Features, mlp
from .learned import LearnedReward

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU}


@dataclass(frozen=True)
class RNDConfig:
    """Sizes, input and training of an RND bonus."""

    obs_dim: int
    """Length of one state."""
    action_dim: int = 1
    """Length of one action (not looked at)."""
    columns: tuple[int, ...] | None = None
    """Columns of the state that are looked at; all by default."""
    fourier_length_m: float | None = None
    """Look at random Fourier features of the columns with this length, metres; None whitens."""
    fourier_dim: int = 64
    """Number of Fourier features."""
    whiten: bool = True
    """Whiten and clip to +-5 (ignored with Fourier features)."""
    embed_dim: int = 64
    """Width of both embeddings, k in the paper."""
    hidden: tuple[int, ...] = (64,)
    """Hidden widths of the target."""
    predictor_extra: int = 1
    """Hidden layers that the predictor has on top, as wide as the target's last."""
    activation: Literal["relu", "swish"] = "relu"
    """Activation of both networks."""
    lr: float = 2e-4
    """Adam step size (1e-4 in the paper, whose networks are wider)."""
    sample_fraction: float = 0.25
    """Share of the rollout that trains the predictor, drawn anew each epoch."""
    epochs: int = 4
    """Passes over that share in one update."""
    minibatch: int = 512
    """Samples in a gradient step."""
    scale: float = 1.0
    """Factor on the bonus."""
    normalize: bool = True
    """Tell the learner to divide by the std of discounted bonus returns."""
    seed: int = 0
    """Of the weights and the sampling."""

    def __post_init__(self) -> None:
        sizes = (self.obs_dim, self.fourier_dim, self.embed_dim, self.epochs, self.minibatch)
        if min(sizes + self.hidden) < 1 or not self.hidden or self.predictor_extra < 0:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not 0 < self.sample_fraction <= 1:
            raise ValueError(f"sample_fraction must be in (0, 1], got {self.sample_fraction}")
        if not (self.lr > 0 and self.scale > 0):
            raise ValueError(f"lr and scale must be > 0, got {self.lr}, {self.scale}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be in {list(ACTIVATIONS)}, got {self.activation!r}")


class RND(LearnedReward):
    r"""Novelty as the error of a trained net predicting a frozen random one.

    .. math:: r_t = \lVert \hat f(o_{t+1}) - f(o_{t+1}) \rVert_2^2

    Burda 2018, Sec. 2.2: squared, summed over k (not the root, not half).
    """

    name = "rnd"
    horizon = "lifelong"

    def __init__(self, config: RNDConfig) -> None:
        super().__init__(config.obs_dim, config.action_dim, config.seed)
        self.config = config
        self.normalize = config.normalize
        self.features = Features(
            config.obs_dim,
            config.columns,
            config.fourier_length_m,
            config.fourier_dim,
            config.whiten,
            self._generator,
        )
        activation = ACTIVATIONS[config.activation]
        extra = (config.hidden[-1],) * config.predictor_extra
        inner = (self.features.dim, *config.hidden)
        self.target = mlp((*inner, config.embed_dim), activation, self._generator)
        self.target.requires_grad_(False)
        self.predictor = mlp((*inner, *extra, config.embed_dim), activation, self._generator)
        self._train(self.predictor.parameters(), config.lr)

    def error(self, features: Tensor) -> Tensor:
        """(...) prediction error of (..., features.dim) inputs; gradient flows to the predictor."""
        with torch.no_grad():
            target = self.target(features)  # (B, k)
        error: Tensor = self.predictor(features) - target
        return error.square().sum(dim=-1)

    def update(self, tr: Transition) -> dict[str, float]:
        """Whiten by this rollout too, then train the predictor on a share of it."""
        self._check(tr, ndim=2)
        cfg = self.config
        states = tr.next_obs.flatten(0, 1)
        self.features.fit(states)
        inputs = self.features(states)
        errors = []
        for rows in self._minibatches(
            len(inputs), cfg.epochs, cfg.minibatch, inputs.device, cfg.sample_fraction
        ):
            error = self.error(inputs[rows])
            self._descend(error.mean())
            errors.append(error.detach())
        log = summary(torch.cat(errors) * cfg.scale)
        return {"loss": log["mean"] / cfg.scale, **log}

    @torch.no_grad()
    def _run(self, tr: Transition, commit: bool) -> Tensor:
        del commit  # the state is the networks, which only update() changes
        return self.error(self.features(tr.next_obs)) * self.config.scale
