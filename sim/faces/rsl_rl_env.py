"""The rsl_rl face: its ``VecEnv`` (rsl-rl-lib 5.5) over a ``VecTask``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from .vec_task import VecTask


class RslRlEnv:
    """A task as ``rsl_rl.runners.OnPolicyRunner`` wants it; one observation group, "policy".

    Args:
        task: what is trained on. It is reset here.

    Raises:
        ImportError: rsl-rl-lib is not installed.
    """

    def __init__(self, task: VecTask) -> None:
        try:
            from tensordict import TensorDict
        except ImportError as error:
            raise ImportError("rsl-rl-lib is needed: pip install rsl-rl-lib") from error
        self._dict: Any = TensorDict
        self.task = task
        self.num_envs, self.num_actions = task.num_envs, task.num_acts
        self.max_episode_length, self.device = task.max_episode_length, task.device
        self.cfg = asdict(task.rows.task.config)
        task.reset()

    @property
    def episode_length_buf(self) -> Tensor:
        """(N,) int64 steps since reset. May be set, which shifts the time limit of each row."""
        return self.task.progress_buf

    @episode_length_buf.setter
    def episode_length_buf(self, value: Tensor) -> None:
        self.task.rows.batch.state.t[:] = value.cpu().numpy()
        self.task.progress_buf = value

    def get_observations(self) -> Any:
        """``TensorDict`` of the observations to act on next."""
        return self._dict({"policy": self.task.obs_buf}, batch_size=[self.num_envs])

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """Observations, rewards (N,), dones (N,) and extras with ``time_outs`` and ``log``."""
        _, reward, done, extras = self.task.step(actions)
        log: dict[str, Tensor] = {}
        if done.any():
            ended = done.bool()
            terms = extras["terms"]
            names = [k for k in ("success", "collision", "stage") if k in terms]
            log = {f"/{k}": terms[k][ended].float().mean() for k in names}
        return (
            self.get_observations(),
            reward,
            done,
            {"time_outs": extras["time_outs"].to(torch.long), "log": log},
        )
