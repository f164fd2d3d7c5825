"""Intrinsic Curiosity Module (Pathak et al. 2017, arXiv:1705.05363)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import Transition, summary
from .features import Features, mlp
from .inverse import InverseDynamics
from .learned import LearnedReward


@dataclass(frozen=True)
class ICMConfig:
    """Sizes and training of an ICM bonus."""

    obs_dim: int
    """Length of one state."""
    action_dim: int
    """Length of one action, continuous."""
    columns: tuple[int, ...] | None = None
    """Columns of the state that are looked at; all by default."""
    embed_dim: int = 32
    """Width of phi."""
    hidden: int = 128
    """Hidden width of the three networks."""
    beta: float = 0.2
    """Weight of the forward loss; the inverse loss has 1 - beta."""
    lr: float = 3e-4
    """Adam step size."""
    epochs: int = 1
    """Passes over the rollout in one update."""
    minibatch: int = 1024
    """Samples in a gradient step."""
    scale: float = 1.0
    """Factor on the bonus, eta in the paper."""
    seed: int = 0
    """Of the weights and the sampling."""

    def __post_init__(self) -> None:
        sizes = (self.obs_dim, self.action_dim, self.embed_dim, self.hidden)
        if min(*sizes, self.epochs, self.minibatch) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {self.beta}")
        if not (self.lr > 0 and self.scale > 0):
            raise ValueError(f"lr and scale must be > 0, got {self.lr}, {self.scale}")


class ICM(LearnedReward):
    r"""Surprise of a forward model in a space that the action can change.

    .. math:: r_t = \tfrac{\eta}{2} \lVert \hat\phi(\phi(s_t), a_t) - \phi(s_{t+1}) \rVert_2^2
        \qquad L = (1 - \beta) L_I + \beta\, \tfrac12 \lVert \hat\phi - \phi \rVert_2^2

    Pathak 2017, Eqs. 2 to 7, for continuous actions; inputs are whitened as for RND.
    """

    name = "icm"
    horizon = "lifelong"

    def __init__(self, config: ICMConfig) -> None:
        super().__init__(config.obs_dim, config.action_dim, config.seed)
        self.config = config
        self.features = Features(
            config.obs_dim, config.columns, None, 1, whiten=True, generator=self._generator
        )
        self.inverse = InverseDynamics(
            self.features.dim, config.action_dim, config.embed_dim, config.hidden, self._generator
        )
        sizes = (config.embed_dim + config.action_dim, config.hidden, config.embed_dim)
        self.predict = mlp(sizes, nn.ReLU, self._generator)
        self._train([*self.inverse.parameters(), *self.predict.parameters()], config.lr)

    def surprise(self, phi: Tensor, action: Tensor, next_phi: Tensor) -> Tensor:
        """(...) half the squared error of the predicted embedding."""
        guess = self.predict(torch.cat((phi, action), dim=-1))
        return 0.5 * (guess - next_phi).square().sum(dim=-1)  # type: ignore[no-any-return]

    def update(self, tr: Transition) -> dict[str, float]:
        """Whiten by this rollout too, then train the three networks."""
        self._check(tr, ndim=2)
        cfg = self.config
        self.features.fit(tr.next_obs)
        now = self.features(tr.obs).flatten(0, 1)
        then = self.features(tr.next_obs).flatten(0, 1)
        action = tr.action.flatten(0, 1)
        forward, inverse = [], []
        for rows in self._minibatches(len(now), cfg.epochs, cfg.minibatch, now.device):
            phi, next_phi = self.inverse.encode(torch.stack((now[rows], then[rows])))
            error = self.surprise(phi, action[rows], next_phi)
            guess = self.inverse.loss(phi, next_phi, action[rows])
            self._descend(((1 - cfg.beta) * guess + cfg.beta * error).mean())
            forward.append(error.detach())
            inverse.append(guess.detach())
        log = summary(torch.cat(forward) * cfg.scale)
        loss = {
            "forward_loss": log["mean"] / cfg.scale,
            "inverse_loss": float(torch.cat(inverse).mean()),
        }
        return {**loss, **log}

    @torch.no_grad()
    def _run(self, tr: Transition, commit: bool) -> Tensor:
        del commit  # the state is the networks, which only update() changes
        states = torch.stack((tr.obs, tr.next_obs)).flatten(0, 1)
        phi, next_phi = self.inverse.encode(self.features(states)).chunk(2)
        return self.config.scale * self.surprise(phi, tr.action, next_phi)
