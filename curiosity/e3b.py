"""Elliptical episodic bonus (Henaff et al. 2022, arXiv:2210.05805)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .base import EnvIds, Transition, env_rows
from .features import Features
from .inverse import InverseDynamics
from .learned import LearnedReward


@dataclass(frozen=True)
class E3BConfig:
    """Embedding and training of an elliptical bonus."""

    obs_dim: int
    """Length of one state."""
    action_dim: int = 1
    """Length of one action, continuous."""
    num_envs: int = 1
    """Rows of a transition: each has its own ellipse."""
    columns: tuple[int, ...] | None = None
    """Columns of the state that are looked at; all by default."""
    embedding: Literal["inverse", "fourier", "raw"] = "inverse"
    """phi: learned from inverse dynamics; fixed Fourier features; or the columns as they are."""
    embed_dim: int = 32
    """Width of phi (not for "raw"); cost grows with its square, keep it at 64 or below on a CPU."""
    fourier_length_m: float = 2.0
    """Length of the Fourier features, metres."""
    ridge: float = 0.1
    """Start of the covariance, lambda in the paper."""
    hidden: int = 128
    """Hidden width of encoder and inverse model."""
    lr: float = 1e-4
    """Adam step size."""
    epochs: int = 1
    """Passes over the rollout in one update."""
    minibatch: int = 1024
    """Samples in a gradient step."""
    scale: float = 1.0
    """Factor on the bonus."""
    seed: int = 0
    """Of the weights and the sampling."""

    def __post_init__(self) -> None:
        sizes = (self.obs_dim, self.action_dim, self.num_envs, self.embed_dim, self.hidden)
        if min(*sizes, self.epochs, self.minibatch) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not (self.ridge > 0 and self.lr > 0 and self.scale > 0):
            got = f"{self.ridge}, {self.lr}, {self.scale}"
            raise ValueError(f"ridge, lr, scale must be > 0, got {got}")
        if self.embedding not in ("inverse", "fourier", "raw"):
            raise ValueError(
                f"embedding must be 'inverse', 'fourier' or 'raw', got {self.embedding!r}"
            )


class E3B(LearnedReward):
    r"""Distance of an embedding from those seen earlier in the episode.

    .. math:: r_t = \phi_t^\top C_{t-1}^{-1} \phi_t, \qquad
        C_t = \lambda I + \sum_{i \le t} \phi_i \phi_i^\top, \quad \phi_t = \phi(o_{t+1})

    Henaff 2022, Sec. 3; C^-1 by Sherman and Morrison, a rank-one step each. With one-hot phi this
    is 1 / (lambda + visits before). The first step of an episode is paid like any other (the
    authors' program gives it 0). C is carried from rollout to rollout and forgotten at episode
    ends; it keeps the embeddings of the encoder as it was when they came.
    """

    name = "e3b"
    horizon = "episodic"
    inverse_cov: Tensor

    def __init__(self, config: E3BConfig) -> None:
        super().__init__(config.obs_dim, config.action_dim, config.seed)
        self.config = config
        self.rows = config.num_envs
        fourier = config.fourier_length_m if config.embedding == "fourier" else None
        whiten = config.embedding == "inverse"
        self.features = Features(
            config.obs_dim, config.columns, fourier, config.embed_dim, whiten, self._generator
        )
        width = self.features.dim
        self.inverse: InverseDynamics | None = None
        if config.embedding == "inverse":
            width = config.embed_dim
            self.inverse = InverseDynamics(
                self.features.dim, config.action_dim, width, config.hidden, self._generator
            )
            self._train(self.inverse.parameters(), config.lr)
        start = (torch.eye(width) / config.ridge).repeat(config.num_envs, 1, 1)
        self.register_buffer("inverse_cov", start)  # (N, d, d)

    def reset(self, env_ids: EnvIds = None) -> None:
        """Forget the running episode of these rows."""
        rows = torch.from_numpy(env_rows(env_ids, self.config.num_envs))
        self.inverse_cov[rows.to(self.inverse_cov.device)] = self._start()

    def update(self, tr: Transition) -> dict[str, float]:
        """Carry the ellipses over this rollout, then train the encoder."""
        log = super().update(tr)
        if self.inverse is None:
            return log
        cfg = self.config
        self.features.fit(tr.next_obs)
        now = self.features(tr.obs).flatten(0, 1)
        then = self.features(tr.next_obs).flatten(0, 1)
        action = tr.action.flatten(0, 1)
        losses = []
        for rows in self._minibatches(len(now), cfg.epochs, cfg.minibatch, now.device):
            phi, next_phi = self.inverse.encode(torch.stack((now[rows], then[rows])))
            loss = self.inverse.loss(phi, next_phi, action[rows])
            self._descend(loss.mean())
            losses.append(loss.detach())
        return {"inverse_loss": float(torch.cat(losses).mean()), **log}

    def embed(self, obs: Tensor) -> Tensor:
        """(..., d) phi of (..., obs_dim) states."""
        features = self.features(obs)
        return features if self.inverse is None else self.inverse.encode(features)

    @torch.no_grad()
    def _run(self, tr: Transition, commit: bool) -> Tensor:
        phi = self.embed(tr.next_obs).unsqueeze(-1)  # (T, N, d, 1)
        done = tr.done
        ends = done.any(dim=1).tolist()
        inv = self.inverse_cov.clone()
        rewards = torch.empty(phi.shape[:2], device=phi.device)
        for t, step in enumerate(phi):
            u = torch.bmm(inv, step)  # (N, d, 1)
            bonus = torch.bmm(step.mT, u)  # (N, 1, 1)
            rewards[t] = bonus[:, 0, 0]
            inv.baddbmm_(u, (u / (1 + bonus)).mT, alpha=-1)
            if ends[t]:
                inv[done[t]] = self._start()
        if commit:
            self.inverse_cov.copy_(inv)
        return rewards * self.config.scale

    def _start(self) -> Tensor:
        return torch.eye(self.inverse_cov.shape[-1]).to(self.inverse_cov) / self.config.ridge
