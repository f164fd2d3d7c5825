"""Behaviour cloning: start a policy from demonstrations, then let PPO go on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .ppo import ActorCritic

CloningLoss = Callable[[torch.Generator], Tensor]
"""Draws demonstrations and gives the policy's mean loss on them, with gradients."""


def cloning_share(successes: Collection[float]) -> float:
    """Share of cloning in a mix of cloning and RL, gated by what is earned: 1 at no success, 0 at
    every success.

    DYPO (Zhu et al. 2026, arXiv:2604.08926) sends groups of rollouts that all fail to supervision,
    mixed ones to RL, and lets those rest that all succeed. With one task there is one group, the
    latest episodes, so the gate is soft: the share of them that failed.

    Args:
        successes: 1 or 0 of each episode; none yet counts as no success.
    """
    return 1.0 - sum(successes) / len(successes) if len(successes) else 1.0


def clone(
    net: ActorCritic,
    obs: Tensor,
    action: Tensor,
    returns: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    epochs: int = 20,
    minibatch: int = 2048,
    lr: float = 1e-3,
    log_std: float | None = -1.0,
    update_normalizer: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """Fit the mean action of ``net`` to demonstrated actions by least squares, in place.

    Args:
        obs: (B, obs_dim) raw observations.
        action: (B, A) demonstrated actions in [-1, 1].
        returns: (B,) discounted extrinsic returns for the critic; None leaves the critic alone.
        weights: (B,) of the actions' squared errors, >= 0; None is 1 for all.
        log_std: noise that PPO then starts from; None keeps the present one.
        update_normalizer: take the observations into the running mean and std first.

    Returns:
        "actor" and "critic" mean squared error over the last epoch.

    Raises:
        ValueError: sizes do not fit, or a value is not finite.
    """
    want = (len(obs), net.action_dim)
    if obs.ndim != 2 or obs.shape[1] != net.obs_dim or len(obs) == 0:
        raise ValueError(f"obs must be (B, {net.obs_dim}), B >= 1, got {tuple(obs.shape)}")
    if tuple(action.shape) != want:
        raise ValueError(f"action must be {want}, got {tuple(action.shape)}")
    if returns is not None and returns.shape != obs.shape[:1]:
        raise ValueError(f"returns must be {tuple(obs.shape[:1])}, got {tuple(returns.shape)}")
    if weights is not None and (weights.shape != obs.shape[:1] or bool((weights < 0).any())):
        raise ValueError(f"weights must be {tuple(obs.shape[:1])} >= 0, got {tuple(weights.shape)}")
    given = (("obs", obs), ("action", action), ("returns", returns), ("weights", weights))
    for name, value in given:
        if value is not None and not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if min(epochs, minibatch) < 1:
        raise ValueError(f"epochs and minibatch must be >= 1, got {epochs}, {minibatch}")
    if update_normalizer:
        net.update_normalizer(obs)
    with torch.no_grad():
        x = net.normalize(obs)
        if log_std is not None:
            net.log_std.fill_(log_std)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*net.actor.parameters(), *net.critic.parameters()], lr=lr)
    totals = torch.zeros(2)
    for _ in range(epochs):
        totals.zero_()
        order = torch.randperm(len(obs), generator=generator)
        for rows in torch.split(order, minibatch):
            errors = (net.actor(x[rows]) - action[rows]).square().mean(dim=1)
            actor = (errors if weights is None else weights[rows] * errors).mean()
            critic = torch.zeros(())
            if returns is not None:
                critic = (net.critic(x[rows])[:, 0] - returns[rows]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            (actor + 0.5 * critic).backward()
            optimizer.step()
            totals += torch.stack([actor.detach(), critic.detach()]) * len(rows) / len(obs)
    return {"actor": float(totals[0]), "critic": float(totals[1])}
