"""What every exploration bonus promises, and the transition that it is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

Horizon = Literal["lifelong", "episodic"]
EnvIds = Sequence[int] | NDArray[Any] | Tensor | None


@dataclass(frozen=True)
class Transition:
    """One step of N environments, leading shape (N,), or T of them, leading shape (T, N).

    ``next_obs`` is what the action led to, *before* any automatic reset: on a finished row it is
    the terminal observation, which earns its bonus like any other.
    """

    obs: Tensor
    """(..., E) float32, state acted on."""
    action: Tensor
    """(..., A) float32."""
    next_obs: Tensor
    """(..., E) float32, state the step led to."""
    terminated: Tensor
    """(...) bool, ended in a terminal state."""
    truncated: Tensor
    """(...) bool, cut by a time limit."""

    def __post_init__(self) -> None:
        lead = self.terminated.shape
        for name in ("obs", "action", "next_obs"):
            shape = getattr(self, name).shape
            if shape[:-1] != lead:
                want = f"{tuple(lead)} + (features,)"
                raise ValueError(f"{name} must be {want} like terminated, got {tuple(shape)}")
        if self.truncated.shape != lead:
            got = tuple(self.truncated.shape)
            raise ValueError(f"truncated must be {tuple(lead)} like terminated, got {got}")
        if self.obs.shape != self.next_obs.shape:
            got = tuple(self.next_obs.shape)
            raise ValueError(f"next_obs must be {tuple(self.obs.shape)} like obs, got {got}")

    @classmethod
    def from_numpy(
        cls,
        obs: ArrayLike,
        action: ArrayLike,
        next_obs: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
    ) -> Transition:
        """Wrap arrays (no copy where the dtype already fits)."""
        number = (torch.as_tensor(np.asarray(x, np.float32)) for x in (obs, action, next_obs))
        flag = (torch.as_tensor(np.asarray(x, np.bool_)) for x in (terminated, truncated))
        return cls(*number, *flag)

    @property
    def done(self) -> Tensor:
        """(...) bool, the episode ended here, either way."""
        return self.terminated.bool() | self.truncated.bool()

    def __getitem__(self, index: Any) -> Transition:
        """Index the leading dimensions: ``rollout[t]`` is the (N,) step t."""
        return Transition(*(getattr(self, f.name)[index] for f in fields(self)))


class IntrinsicReward(nn.Module):
    """A bonus for reaching states that are new.

    Built from sizes, never from an environment. A learner asks :meth:`compute` for a rollout and
    then calls :meth:`update` with the same rollout, once. A robot calls :meth:`observe` at every
    step instead. Do not mix the two over the same steps: they would be counted twice.

    ``state_dict`` holds all that the next reward depends on: networks, optimizers, normalizers,
    counts and random generators.
    """

    name: str = "bonus"
    """Short name, the prefix of its logs inside a combination."""
    horizon: Horizon = "lifelong"
    """"lifelong": novelty carries over episodes, so its return should too (own value head)."""
    normalize: bool = True
    """Whether the learner should divide by the std of discounted bonus returns."""
    rows: int | None = None
    """Number of rows N that a transition must have; None where rows do not matter."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        if obs_dim < 1 or action_dim < 1:
            raise ValueError(f"obs_dim, action_dim must be >= 1, got {obs_dim}, {action_dim}")
        self.obs_dim = obs_dim
        self.action_dim = action_dim

    def observe(self, tr: Transition) -> Tensor:
        """Pay for one step and remember it. No gradient step.

        Args:
            tr: leading shape (N,).

        Returns:
            (N,) float32, >= 0.

        Raises:
            ValueError: wrong shape, or a number that is not finite (nothing is remembered).
        """
        self._check(tr, ndim=1)
        return self._run(tr[None], commit=True)[0]

    def compute(self, tr: Transition) -> Tensor:
        """Pay for a rollout as if observed in time order from here; changes nothing.

        Args:
            tr: leading shape (T, N).

        Returns:
            (T, N) float32, >= 0.

        Raises:
            ValueError: wrong shape, or a number that is not finite.
        """
        self._check(tr, ndim=2)
        return self._run(tr, commit=False)

    def update(self, tr: Transition) -> dict[str, float]:
        """Remember a rollout and learn from it; call once, after :meth:`compute`.

        Args:
            tr: leading shape (T, N).

        Returns:
            What to log, by name.
        """
        self._check(tr, ndim=2)
        return summary(self._run(tr, commit=True))

    def reset(self, env_ids: EnvIds = None) -> None:
        """Forget the running episode of these rows (all by default).

        A finished row of a transition is forgotten by itself; this is for resets from outside.
        """

    def _run(self, tr: Transition, commit: bool) -> Tensor:
        """(T, N) rewards of a checked rollout; ``commit`` also keeps the state it ends in."""
        raise NotImplementedError

    def _check(self, tr: Transition, ndim: int) -> None:
        lead = tuple(tr.terminated.shape)
        if len(lead) != ndim:
            want = "(N,)" if ndim == 1 else "(T, N)"
            raise ValueError(f"transition must have leading shape {want}, got {lead}")
        got = (tr.next_obs.shape[-1], tr.action.shape[-1])
        if got != (self.obs_dim, self.action_dim):
            want = f"({self.obs_dim}, {self.action_dim})"
            raise ValueError(f"(obs_dim, action_dim) must be {want}, got {got}")
        if self.rows is not None and lead[-1] != self.rows:
            raise ValueError(f"transition must have {self.rows} rows (num_envs), got {lead[-1]}")
        for name in ("obs", "action", "next_obs"):
            if not bool(torch.isfinite(getattr(tr, name)).all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")


def summary(rewards: Tensor) -> dict[str, float]:
    """Mean and 95th percentile of rewards of any shape."""
    flat = rewards.detach().flatten()
    k = max(1, round(0.95 * flat.numel()))
    return {"mean": float(flat.mean()), "p95": float(flat.kthvalue(k).values)}


def env_rows(env_ids: EnvIds, num_envs: int) -> NDArray[np.int64]:
    """Row numbers as an array; None means all.

    Raises:
        ValueError: a row outside [0, num_envs).
    """
    if env_ids is None:
        return np.arange(num_envs)
    ids = env_ids.cpu().numpy() if isinstance(env_ids, Tensor) else np.asarray(env_ids)
    rows = np.atleast_1d(ids).astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= num_envs):
        raise ValueError(f"env_ids must be in [0, {num_envs}), got {rows.tolist()}")
    return rows
