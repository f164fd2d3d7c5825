"""The Gymnasium faces: one environment as a batch of one, and the native vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ..backend import CONTROL_DT
from .open import AnyTask, open_rows
from .rows import Obs, row

METADATA = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_DT)}


class TaskEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """One robot. Seeded by ``reset(seed=)``; later resets go on to that seed's next episodes.

    ``info`` holds the reward terms, the outcomes so far (``success``, ``episode_length`` and the
    others of ``rows.outcome_names``) and ``is_success``; at reset the layout and what the domain
    randomization drew.

    Args:
        task: name of a task or a task.
        options: see :func:`sim.faces.open.open_rows`.
    """

    metadata: dict[str, Any] = METADATA
    goals = False

    def __init__(self, task: AnyTask, **options: Any) -> None:
        self.rows = open_rows(task, 1, goals=self.goals, **options)
        self.render_mode = self.rows.render_mode
        self.observation_space = self.rows.observation_space
        self.action_space = self.rows.action_space
        self._started = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see :meth:`gymnasium.Env.reset`.

        Raises:
            ValueError: ``options`` are not empty: there are none.
        """
        super().reset(seed=seed)
        obs = self.rows.reset(_seed(self, seed, options))
        self._started = True
        batch = self.rows.batch
        info = {"layout": int(batch.layout[0]), "parameters": batch.episode_parameters(0)}
        return row(obs, 0), info

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance by 50 ms under an (A,) action in [-1, 1]; see :meth:`gymnasium.Env.step`."""
        result = self.rows.step(np.asarray(action)[None])
        terms = result.terms
        info = {k: float(v[0]) for k, v in terms.items() if k.startswith("reward/")}
        info |= self.rows.outcomes(terms, 0)
        return (
            row(result.final_obs, 0),
            float(result.reward[0]),
            bool(result.terminated[0]),
            bool(result.truncated[0]),
            info,
        )

    def render(self) -> Any:
        """Image of the world (of a robot on wheels from above), or None without a render mode."""
        return self.rows.render(final=True)

    def close(self) -> None:
        """Free what rendering holds."""
        self.rows.close()


class TaskVectorEnv(VectorEnv[Any, NDArray[np.float32], NDArray[Any]]):
    """N robots under one clock. Finished rows reset within the step (``AutoresetMode.SAME_STEP``).

    ``infos`` of a step hold the reward terms of all rows; where an episode ended also
    ``final_obs``, an object array with an observation in every finished row, and ``final_info``,
    its outcomes; each with its ``_mask``. Row i depends on the seed and on i, never on N.

    Args:
        num_envs: N.
        task: name of a task or a task.
        options: see :func:`sim.faces.open.open_rows`.
    """

    metadata: dict[str, Any] = METADATA | {"autoreset_mode": AutoresetMode.SAME_STEP}
    goals = False

    def __init__(self, num_envs: int, task: AnyTask, **options: Any) -> None:
        self.rows = open_rows(task, num_envs, goals=self.goals, **options)
        self.num_envs, self.render_mode = num_envs, self.rows.render_mode
        self.single_observation_space = self.rows.observation_space
        self.single_action_space = self.rows.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._started = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start all rows; see :meth:`gymnasium.vector.VectorEnv.reset`.

        Raises:
            ValueError: ``options`` are not empty: there are none, rows reset by themselves.
        """
        super().reset(seed=seed)
        obs = self.rows.reset(_seed(self, seed, options))
        self._started = True
        return obs, {"layout": self.rows.batch.layout.copy(), "_layout": self._mask(True)}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Obs, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Advance by 50 ms under (N, A) actions in [-1, 1]."""
        result = self.rows.step(actions)
        infos: dict[str, Any] = {}
        everyone = self._mask(True)
        for name, term in result.terms.items():
            if name.startswith("reward/"):
                infos |= {name: term, f"_{name}": everyone}
        done = result.done
        if done.any():
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final[i] = row(result.final_obs, i)
            ends = {name: np.where(done, result.terms[name], 0) for name in self.rows.outcome_names}
            ends = {name: end.astype(result.terms[name].dtype) for name, end in ends.items()}
            ends["is_success"] = ends["success"]
            masks = {f"_{name}": done.copy() for name in ends}
            infos |= {"final_obs": final, "_final_obs": done.copy()}
            infos |= {"final_info": ends | masks, "_final_info": done.copy()}
        return result.obs, result.reward, result.terminated, result.truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """N images, or None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(self.rows.render(i) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Free what rendering holds."""
        self.rows.close()

    def _mask(self, value: bool) -> NDArray[np.bool_]:
        return np.full(self.num_envs, value)


def _seed(
    env: TaskEnv | TaskVectorEnv, seed: int | None, options: dict[str, Any] | None
) -> int | None:
    """The engine's seed at a reset: the caller's, and a random one at a first reset without."""
    if options:
        raise ValueError(f"options must be empty, got {sorted(options)}")
    if seed is None and env._started:
        return None
    number = env.np_random_seed
    assert number is not None
    return number % 2**63
