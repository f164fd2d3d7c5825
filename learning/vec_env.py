"""The vector environment that learners train on, and all they may know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

EXPLORE = ("x_w", "y_w", "yaw_w", "goal_x_w", "goal_y_w", "layout")
"""Columns of :attr:`Step.explore`: metres, metres, radians, metres, metres, layout number."""


@dataclass(frozen=True)
class EnvSpec:
    """Sizes and clock of a vector environment."""

    num_envs: int
    obs_dim: int
    action_dim: int
    explore_dim: int
    """Width of :attr:`Step.explore`, what exploration bonuses look at."""
    dt: float
    """Seconds per step."""
    max_episode_steps: int
    frames: tuple[int, ...] = ()
    """(V, H, W, 3) of an environment with cameras. Its observations are then dicts: "state" (N,
    obs_dim) float32 and "frames" (N, V, H, W, 3) uint8."""

    def __post_init__(self) -> None:
        if min(self.num_envs, self.obs_dim, self.action_dim, self.max_episode_steps) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not self.dt > 0:
            raise ValueError(f"dt must be > 0 s, got {self.dt}")


@dataclass
class Step:
    """What one step of N environments gave. Finished rows are already reset in ``obs``."""

    obs: NDArray[np.float32]
    """(N, obs_dim) observation to act on next."""
    reward: NDArray[np.float32]
    """(N,) extrinsic reward."""
    terminated: NDArray[np.bool_]
    """(N,) the episode ended in a terminal state."""
    truncated: NDArray[np.bool_]
    """(N,) the episode was cut by its time limit."""
    final_obs: NDArray[np.float32]
    """(N, obs_dim) observation the step led to, before any reset; equals ``obs`` where not done."""
    explore: NDArray[np.float32]
    """(N, explore_dim) novelty state the step led to, before any reset, see :data:`EXPLORE`."""
    terms: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Reward terms ("reward/...") of every step, and outcomes of the rows that finished.

    Outcomes are "success", "collision" and the like.
    """


class VecEnv(Protocol):
    """N environments stepped together. Actions are float32 in [-1, 1]; rows reset by themselves."""

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self) -> NDArray[np.float32]:
        """Start every environment anew and return (N, obs_dim) observations."""
        ...

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance by one step under (N, action_dim) actions."""
        ...

    def explore(self) -> NDArray[np.float32]:
        """(N, explore_dim) novelty state of the observation to act on next."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: arrays, numbers, strings, dicts of these."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, bit for bit."""
        ...
