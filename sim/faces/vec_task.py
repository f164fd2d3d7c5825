"""The Isaac Gym face (Makoviychuk et al. 2021, arXiv:2108.10470): a ``VecTask`` in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from .open import AnyTask, open_rows

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise ImportError("torch is needed: pip install 'incognita[train]'") from error


class VecTask:
    """N robots with the fields and functions of IsaacGymEnvs' ``VecTask``.

    Rows that finish are reset within the step: their ``obs`` is the first of the next episode, and
    what the step led to is ``extras["final_obs"]``. ``step`` makes new tensors, which may be kept.

    Args:
        task: name of a task or a task.
        num_envs: N.
        seed: of everything drawn.
        device: of all tensors; the simulation itself runs on the CPU.
        options: see :func:`sim.faces.open.open_rows`.

    Attributes:
        obs_buf: (N, num_obs) float32; rew_buf (N,) float32; progress_buf (N,) int64 steps since
            reset; reset_buf (N,) int64, 1 where the last step ended an episode; timeout_buf (N,)
            bool, where it was the time limit.
    """

    num_states = 0

    def __init__(
        self,
        task: AnyTask,
        num_envs: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> None:
        if options.get("goals"):
            raise ValueError("goals must be off, VecTask observations are flat, got goals=True")
        self.rows = open_rows(task, num_envs, **options)
        self.rows.batch.seed = int(seed)
        self.device = self.rl_device = torch.device(device)
        spec = self.rows.batch.spec
        self.num_envs, self.num_obs, self.num_acts = num_envs, spec.obs_dim, spec.action_dim
        self.num_observations, self.num_actions = self.num_obs, self.num_acts
        self.max_episode_length = spec.max_episode_steps
        self.observation_space: spaces.Space[Any] = self.rows.observation_space
        self.action_space = self.rows.action_space
        self.obs_buf = torch.zeros(num_envs, self.num_obs, device=self.device)
        self.rew_buf = torch.zeros(num_envs, device=self.device)
        self.reset_buf = torch.ones(num_envs, dtype=torch.long, device=self.device)
        self.progress_buf = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.timeout_buf = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.extras: dict[str, Any] = {}

    def reset(self) -> dict[str, Tensor]:
        """Start every row anew: ``{"obs": (N, num_obs)}``."""
        self.obs_buf = self._tensor(self.rows.reset())
        self.rew_buf = torch.zeros_like(self.rew_buf)
        self.reset_buf = torch.zeros_like(self.reset_buf)
        self.timeout_buf = torch.zeros_like(self.timeout_buf)
        self.progress_buf = self._tensor(self.rows.batch.state.t.copy())
        return {"obs": self.obs_buf}

    def step(self, actions: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Any]]:
        """Advance by 50 ms under (N, num_acts) actions, clipped to [-1, 1].

        Returns:
            ``{"obs": …}``, ``rew_buf``, ``reset_buf`` and ``extras``: ``time_outs`` (N,) bool,
            ``final_obs`` (N, num_obs), ``terms`` with a tensor (N,) per reward term and outcome.

        Raises:
            ValueError: the actions have another shape.
        """
        result = self.rows.step(actions.detach().clamp(-1, 1).float().cpu().numpy())
        self.obs_buf = self._tensor(result.obs)
        self.rew_buf = self._tensor(result.reward)
        self.reset_buf = self._tensor(result.done.astype(np.int64))
        self.timeout_buf = self._tensor(result.truncated)
        self.progress_buf = self._tensor(self.rows.batch.state.t.copy())
        self.extras = {
            "time_outs": self.timeout_buf,
            "final_obs": self._tensor(result.final_obs),
            "terms": {name: self._tensor(term) for name, term in result.terms.items()},
        }
        return {"obs": self.obs_buf}, self.rew_buf, self.reset_buf, self.extras

    def render(self, row: int = 0) -> NDArray[np.uint8] | None:
        """Image of a row, or None without ``render_mode="rgb_array"``."""
        return self.rows.render(row)

    def close(self) -> None:
        """Free what rendering holds."""
        self.rows.close()

    def _tensor(self, array: Any) -> Tensor:
        """On the device, without a copy on the CPU: the engine makes new arrays in every step."""
        return torch.from_numpy(array).to(self.device)
