"""Behaviour cloning of the vision-language-action policy: chunks, masks, whole episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learning.policy import each, state_of

from .policy import VLAPolicy


@dataclass(frozen=True)
class CloneConfig:
    """How demonstrations are cloned."""

    steps: int = 2000
    """Gradient steps."""
    minibatch: int = 256
    """Samples of one; with a memory as many whole episodes as have about so many steps."""
    lr: float = 1e-3
    """Adam's at the start; it falls to 0 along a cosine."""
    value_weight: float = 0.5
    """Of the squared error of the extrinsic value."""
    log_std: float | None = -1.6
    """Noise of exploration that PPO then starts from, of a whole action; None keeps the present."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.minibatch) < 1 or not self.lr > 0 or self.value_weight < 0:
            raise ValueError(f"sizes >= 1, lr > 0, value_weight >= 0 wanted, got {self}")


@dataclass(frozen=True)
class Demonstrations:
    """Episodes, one after the other, B steps in all."""

    obs: Any
    """(B, ...) raw observations, see :data:`learning.policy.Obs`."""
    action: Tensor
    """(B, A) float32 in [-1, 1]."""
    length: Tensor
    """(E,) int64 steps of each episode, B in all."""
    returns: Tensor | None = None
    """(B,) discounted extrinsic returns, for the critic."""

    def __post_init__(self) -> None:
        rows = len(state_of(self.obs))
        if rows < 1 or len(self.action) != rows or int(self.length.sum()) != rows:
            got = f"{rows}, {len(self.action)}, {int(self.length.sum())}"
            raise ValueError(f"obs, action, length must be of as many steps >= 1, got {got}")
        if self.returns is not None and self.returns.shape != (rows,):
            raise ValueError(f"returns must be ({rows},), got {tuple(self.returns.shape)}")
        for name in ("obs", "action", "returns"):
            value = state_of(getattr(self, name))
            if value is not None and not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")


def chunks(action: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What follows each step of its episode.

    Args:
        action: (B, A) of episodes of ``length`` (E,) steps, one after the other.
        size: C.

    Returns:
        (B, C, A) actions from each step on, the last one repeated beyond the end; (B, C) float32,
        1 within the episode.
    """
    ends = length.cumsum(0)
    last = torch.repeat_interleave(ends, length) - 1  # (B,)
    at = torch.arange(len(action))[:, None] + torch.arange(size)
    there = at <= last[:, None]
    return action[torch.minimum(at, last[:, None])], there.float()


class Cloner:
    """Draws demonstrations and gives the loss of a policy on them.

    Attributes:
        errors: mean loss of the actor and squared error of the critic of the latest draw.
    """

    def __init__(self, policy: VLAPolicy, shown: Demonstrations, minibatch: int = 256) -> None:
        c = policy.config
        if shown.action.shape[1] != c.action_dim:
            raise ValueError(f"action must be (B, {c.action_dim}), got {tuple(shown.action.shape)}")
        self.policy, self.shown, self.minibatch = policy, shown, minibatch
        self._chunk, self._there = chunks(shown.action, shown.length, c.chunk)
        self._begin = shown.length.cumsum(0) - shown.length
        self._episodes = max(1, round(minibatch / float(shown.length.float().mean())))
        self.errors = torch.zeros(2)

    def loss(self, generator: torch.Generator, value_weight: float = 0.0) -> Tensor:
        """Mean loss of one draw, with gradients; the form of :data:`learning.cloning.CloningLoss`.

        Args:
            value_weight: of the critic's error, where returns are known.
        """
        policy = self.policy
        if policy.memory_dim:
            rows, weight, first = self._whole(generator)
            memory = policy.log_std.new_zeros(rows.shape[1], policy.memory_dim)
            seen, fused = policy.look_on(self._seen(rows), memory, first)
        else:
            rows = torch.randint(len(self._chunk), (self.minibatch,), generator=generator)
            weight = torch.ones(self.minibatch)
            seen = policy.look(self._seen(rows))
            fused = seen.fused
        rows, device = rows.flatten(), policy.log_std.device
        weight = (weight.flatten() / weight.sum()).to(device)
        actor = policy.head.loss(
            policy.think(seen.fused, fused), self._chunk[rows].to(device),
            self._there[rows].to(device), generator,
        )  # fmt: skip
        loss, value = (actor * weight).sum(), torch.zeros((), device=device)
        if value_weight > 0 and self.shown.returns is not None:
            guess = policy.critic(torch.cat([seen.about, fused.detach()], dim=1))[:, 0]
            error = (guess - self.shown.returns[rows].to(device)).square()
            value = (error * weight).sum()
        self.errors = torch.stack([loss.detach(), value.detach()]).cpu()
        return loss + value_weight * value

    def _whole(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (T, E') of episodes drawn, 1 where they are no padding, and where they begin."""
        drawn = torch.randint(len(self._begin), (self._episodes,), generator=generator)
        length = self.shown.length[drawn]
        t = torch.arange(int(length.max()))[:, None]
        rows = self._begin[drawn] + torch.minimum(t, length - 1)
        first = (t == 0).expand(rows.shape).to(self.policy.log_std.device)
        return rows, (t < length).float(), first

    def _seen(self, rows: Tensor) -> Any:
        device = self.policy.log_std.device
        return self.policy.normalize(each(lambda part: part[rows].to(device), self.shown.obs))


def clone(
    policy: VLAPolicy, shown: Demonstrations, config: CloneConfig | None = None,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Fit a policy to demonstrations, in place; its normalizer takes them in first.

    Args:
        log: called every 100 steps with their number and the mean errors since.

    Returns:
        "actor" and "critic": mean errors of the last 100 steps.
    """
    c = config or CloneConfig()
    policy.update_normalizer(state_of(shown.obs).to(policy.log_std.device))
    if c.log_std is not None:
        with torch.no_grad():
            policy.log_std.copy_(policy.head.noise(c.log_std))
    cloner, generator = Cloner(policy, shown, c.minibatch), torch.Generator().manual_seed(c.seed)
    adam = torch.optim.Adam(policy.parameters(), lr=c.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, c.steps)
    since: list[Tensor] = []
    for step in range(1, c.steps + 1):
        adam.zero_grad(set_to_none=True)
        cloner.loss(generator, c.value_weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        adam.step()
        schedule.step()
        since = [*since[-99:], cloner.errors]
        if log is not None and step % 100 == 0:
            log(step, _named(since))
    return _named(since)


def _named(errors: list[Tensor]) -> dict[str, float]:
    actor, critic = torch.stack(errors).mean(dim=0).tolist()
    return {"actor": actor, "critic": critic}
