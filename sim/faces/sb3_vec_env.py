"""The Stable-Baselines3 face: a ``VecEnv`` over the batch engine, with or without goals."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .open import AnyTask, open_rows
from .rows import row

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("stable-baselines3 is needed: pip install 'incognita[train]'") from error


class Sb3VecEnv(VecEnv):
    """N robots for any Stable-Baselines3 algorithm; ``goals=True`` for SAC + HER.

    Where an episode ended ``infos[i]`` holds ``terminal_observation``, ``TimeLimit.truncated``, the
    outcomes with ``is_success``, and ``episode`` (return, length, seconds): no monitor is needed.
    ``seed(k)`` at the next reset starts the episodes of :class:`sim.batch.BatchEnv` of seed k.

    Args:
        task: name of a task or a task.
        num_envs: N.
        seed: of the first reset; None draws one.
        options: see :func:`sim.faces.open.open_rows`.
    """

    def __init__(self, task: AnyTask, num_envs: int, seed: int | None = 0, **options: Any) -> None:
        self.rows = open_rows(task, num_envs, **options)
        super().__init__(num_envs, self.rows.observation_space, self.rows.action_space)
        self._actions: NDArray[np.float32] = np.zeros(
            (num_envs, self.rows.batch.spec.action_dim), np.float32
        )
        self._returns = np.zeros(num_envs)
        self._began = time.monotonic()
        self.seed(seed)

    def reset(self) -> Any:
        """Start all rows and return (N, D) observations, or a dict of arrays."""
        obs = self.rows.reset(self._seeds[0])
        self._returns[:] = 0.0
        self.reset_infos = [{"layout": int(n)} for n in self.rows.batch.layout]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take (N, A) actions in [-1, 1]."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Advance: observations, rewards (N,), dones (N,) and N dicts."""
        result = self.rows.step(self._actions)
        self._returns += result.reward
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(result.done):
            infos[i] = self.rows.outcomes(result.terms, int(i)) | {
                "terminal_observation": row(result.final_obs, int(i)),
                "TimeLimit.truncated": bool(result.truncated[i]),
                "episode": {
                    "r": float(self._returns[i]),
                    "l": int(result.terms["episode_length"][i]),
                    "t": round(time.monotonic() - self._began, 6),
                },
            }
            self._returns[i] = 0.0
        return result.obs, result.reward, result.done, infos

    def close(self) -> None:
        """Free what rendering holds."""
        self.rows.close()

    def get_images(self) -> list[NDArray[np.uint8] | None]:
        """N images, None without a render mode."""
        return [self.rows.render(i) for i in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the rows, once per index: they share it."""
        return [getattr(self.rows, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all rows.

        Raises:
            ValueError: for some rows only: they share it.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices must be None, rows share their attributes, got {indices}")
        setattr(self.rows, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a function of the rows (``compute_reward``), once per index."""
        method = getattr(self.rows, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False for _ in self._get_indices(indices)]
