r"""Self-imitation of successful episodes (Oh et al. 2018, arXiv:1806.05635, Eqs. 2 and 3).

.. math:: L = -\log \pi(a|s) (R - V(s))_+ + \beta \tfrac12 (R - V(s))_+^2

Departures: only episodes that succeeded are kept, and of those, where places are given, the way
without its loops (Lawler 1980): what led into a dead end and out again is no example, and the
discount counts only the steps that are left. Transitions are drawn evenly; the gain is cut at 1 and
transitions with -log pi above 5 are left out (as the authors' code does); the loss does not move
the standard deviation, which would collapse on replayed actions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from .vec_env import EnvSpec

if TYPE_CHECKING:
    from .ppo import ActorCritic

log = logging.getLogger(__name__)

VALUE_WEIGHT = 1.0
"""beta of Eq. 1. The authors' 0.01 leaves the critic blind to the few successes there are: with 1
the way to the goal is worth something before the policy finds it again."""


def without_loops(places: Sequence[int]) -> list[int]:
    """Indices of a walk that are left once every loop is cut out, in order.

    Of a place that the walk comes back to, the last stay is kept: from there it went on.
    """
    stays: list[tuple[int, list[int]]] = []  # place, indices
    index: dict[int, int] = {}  # place -> its stay
    for t, place in enumerate(places):
        if stays and stays[-1][0] == place:
            stays[-1][1].append(t)
            continue
        if place in index:
            for gone, _ in stays[index[place] :]:
                del index[gone]
            del stays[len(index) :]
        index[place] = len(stays)
        stays.append((place, [t]))
    return [t for _, stay in stays for t in stay]


class SelfImitation:
    """The last ``capacity`` transitions of successful episodes, with their discounted returns."""

    def __init__(
        self, spec: EnvSpec, num_steps: int, gamma: float, capacity: int, horizon: int
    ) -> None:
        self.gamma, self.capacity = gamma, capacity
        self.horizon = min(horizon, capacity, spec.max_episode_steps)
        self._spec = spec
        # open episodes: the last `horizon` steps of every environment, as a ring over time
        self._ring = self.horizon + num_steps
        self._clock = 0
        self._open: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        done: Tensor,
        success: Tensor,
        length: Tensor,
        place: Tensor | None = None,
    ) -> None:
        """Take a rollout in; keep the episodes that ended in success.

        Args:
            obs: (T, N, obs_dim) raw observations acted on.
            action: (T, N, A) unclipped actions.
            reward: (T, N) extrinsic rewards, scaled as the critic's are.
            done, success: (T, N) bool; success only where done.
            length: (T, N) steps of the episode up to and with step t.
            place: (T, N) int64 number of the cell that step t led to; None keeps loops.
        """
        if place is None:  # no place is ever seen again
            place = torch.arange(self._clock, self._clock + len(obs))[:, None].expand(done.shape)
        if self._open is None:
            n, spec = self._spec.num_envs, self._spec
            self._open = (
                torch.zeros(self._ring, n, spec.obs_dim),
                torch.zeros(self._ring, n, spec.action_dim),
                torch.zeros(self._ring, n),
                torch.zeros(self._ring, n, dtype=torch.int64),
            )
            self._kept = (
                torch.zeros(self.capacity, spec.obs_dim),
                torch.zeros(self.capacity, spec.action_dim),
                torch.zeros(self.capacity),
            )
        slots = (self._clock + torch.arange(len(obs))) % self._ring
        for ring, new in zip(self._open, (obs, action, reward, place), strict=True):
            ring[slots] = new
        for t, n in (success & done).nonzero().tolist():
            span = min(int(length[t, n]), self.horizon)
            rows = (self._clock + t - span + 1 + torch.arange(span)) % self._ring
            rows = rows[without_loops(self._open[3][rows, n].tolist())]
            self._keep(*(ring[rows, n] for ring in self._open[:3]))
        self._clock += len(obs)

    def _keep(self, obs: Tensor, action: Tensor, reward: Tensor) -> None:
        """Store one episode, oldest transitions first to go."""
        assert self._kept is not None
        returns = torch.empty_like(reward)
        last = torch.zeros(())
        for t in range(len(reward) - 1, -1, -1):
            last = reward[t] + self.gamma * last
            returns[t] = last
        if not bool(returns.isfinite().all()):
            log.warning("a success whose return overflows float32 is not imitated")
            return
        rows = (self._next + torch.arange(len(reward))) % self.capacity
        for kept, new in zip(self._kept, (obs, action, returns), strict=True):
            kept[rows] = new
        self._next = int(self._next + len(reward)) % self.capacity
        self._size = min(self._size + len(reward), self.capacity)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw transitions with replacement: (count, obs_dim), (count, A), (count,) returns."""
        if self._kept is None or self._size == 0:
            raise ValueError("no successful episode to draw from yet")
        rows = torch.randint(self._size, (count,), generator=generator)
        obs, action, returns = self._kept
        return obs[rows], action[rows], returns[rows]

    def loss(self, net: ActorCritic, obs: Tensor, action: Tensor, returns: Tensor) -> Tensor:
        """Imitation loss on (B, …) drawn transitions."""
        x = net.normalize(obs)
        value = net.critic(x)[:, 0]
        weight = (returns - value.detach()).clamp(0.0, 1.0)
        std = net.log_std.detach()
        noise = (action - net.actor(x)) * torch.exp(-std)
        cost = 0.5 * noise.square().sum(dim=1) + std.sum() + 0.919 * net.action_dim
        weight = weight * (cost.detach() < 5.0)
        target = torch.maximum(returns, value.detach())
        error = functional.smooth_l1_loss(value, target, reduction="none")
        total: Tensor = weight * cost + VALUE_WEIGHT * error
        return total.mean()

    def state_dict(self) -> dict[str, Any]:
        """Open and kept episodes."""
        kept = None if self._kept is None else tuple(t[: self._size] for t in self._kept)
        return {
            "clock": self._clock, "next": self._next, "size": self._size,
            "open": self._open, "kept": kept,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._clock, self._next, self._size = state["clock"], state["next"], state["size"]
        self._open = state["open"]
        self._kept = None
        if state["kept"] is not None:
            self._kept = tuple(
                torch.cat([t, t.new_zeros(self.capacity - len(t), *t.shape[1:])])
                for t in state["kept"]
            )  # type: ignore[assignment]
