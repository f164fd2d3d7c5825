"""Rows of the long manipulation tasks, as faces show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from learning.vec_env import Step

from ..manipulation.batch import ArmBatch
from ..manipulation.randomization import ARM_NOMINAL, ArmRandomization
from ..manipulation.task import ArmState, ArmTask
from ..tasks import make_arm
from .rows import FaceRows, Obs, box

if TYPE_CHECKING:
    from ..manipulation.view import ArmView

PIXELS = 240
"""Side of the images that :meth:`ArmRows.render` draws."""


class ArmRows(FaceRows):
    """N rows of a long task.

    With ``goals`` the achieved goal is where the pieces that are moved are, (3 S,) float64, m, and
    the desired one where they belong when all is done, as worked out at the start; the observation
    is the task's without stage and cue, which would tell.

    Args:
        task: name of a task (see :data:`sim.tasks.ARM_TASKS`), or a task.
        num_envs: N.
        randomization: ranges of the domain randomization.
        threads: of the physics; results do not depend on it.
        render_mode, goals, reward_type: see :class:`sim.faces.rows.FaceRows`.
        options: parameters of the task, if a name was given.

    Raises:
        ValueError: no such task, render mode or reward type.
        TypeError: the task has no such parameter.
    """

    outcome_names = ("success", "weak_success", "lost", "wrong", "stage", "episode_length")

    def __init__(
        self,
        task: str | ArmTask,
        num_envs: int,
        randomization: ArmRandomization = ARM_NOMINAL,
        threads: int = 1,
        render_mode: str | None = None,
        goals: bool = False,
        reward_type: str = "sparse",
        **options: Any,
    ) -> None:
        if isinstance(task, ArmTask):
            if options:
                raise TypeError(f"a task made already takes no parameters, got {sorted(options)}")
        else:
            task = make_arm(task, **options)
        batch = ArmBatch(task, num_envs, randomization=randomization, threads=threads)
        super().__init__(task, batch, render_mode, goals, reward_type)
        self._kept = task.base_dim - 2 * task.plan.cued
        if goals:
            self.observation_space = spaces.Dict(
                {
                    "observation": box(self._kept, np.float32),
                    "achieved_goal": box(3 * len(task.picks), np.float64),
                    "desired_goal": box(3 * len(task.picks), np.float64),
                }
            )
        else:
            self.observation_space = box(task.obs_dim, np.float32)
        self._view: ArmView | None = None
        self._started = False

    def reset(self, seed: int | None = None) -> Obs:
        """See :meth:`sim.faces.rows.FaceRows.reset`."""
        self._started = True
        return super().reset(seed)

    def _present(self) -> Obs:
        return self._shown(self.batch.observe(), self.batch.state)

    def _arrived(self, step: Step) -> Obs:
        return self._shown(step.final_obs, self.batch.final_state)

    def _shown(self, flat: NDArray[np.float32], state: ArmState) -> Obs:
        if not self.goals:
            return flat
        n = len(flat)
        return {
            "observation": flat[:, : self._kept].copy(),
            "achieved_goal": state.pos[:, self.task.plan.target].reshape(n, -1),
            "desired_goal": state.goal.reshape(n, -1).copy(),
        }

    def compute_reward(
        self,
        achieved_goal: NDArray[Any],
        desired_goal: NDArray[Any],
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | NDArray[Any],
    ) -> NDArray[np.float32]:
        """Reward of pieces at ``achieved_goal`` when ``desired_goal`` was wanted, as in Fetch.

        "sparse": 0 where every piece is within the task's ``goal_m`` of its goal, -1 elsewhere;
        "dense": minus the mean distance, m.

        Args:
            achieved_goal, desired_goal: (..., 3 S), m.
            info: not looked at; one dict or one per row.

        Returns:
            (...,) float32.
        """
        gap = self._gaps(achieved_goal, desired_goal)
        if self.reward_type == "dense":
            return np.asarray(-gap.mean(axis=-1), dtype=np.float32)[()]
        away = (gap >= self.task.config.goal_m).any(axis=-1)
        return np.asarray(-away.astype(np.float32))[()]

    def compute_terminated(
        self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Mapping[str, Any]
    ) -> Any:
        """(...,) bool: strict success, or nothing left to do, as ``info`` tells.

        Whether pieces were let go and stand cannot be told from places, so goals are not asked.
        """
        over = [np.asarray(info.get(k, False), dtype=bool) for k in ("success", "lost", "wrong")]
        shape = self._gaps(achieved_goal, desired_goal).shape[:-1]
        return np.broadcast_to(np.logical_or.reduce(over), shape)[()]

    def _gaps(self, achieved: NDArray[Any], desired: NDArray[Any]) -> NDArray[np.float64]:
        """(..., S) distance of each piece from its goal, m."""
        delta = np.asarray(desired, np.float64) - np.asarray(achieved, np.float64)
        width = 3 * len(self.task.picks)
        if delta.shape[-1:] != (width,):
            got = np.shape(achieved), np.shape(desired)
            raise ValueError(f"goals must be (..., {width}), got {got[0]} and {got[1]}")
        each = delta.reshape(*delta.shape[:-1], -1, 3)
        return np.asarray(np.linalg.norm(each, axis=-1), np.float64)

    def render(self, row: int = 0, final: bool = False) -> NDArray[np.uint8] | None:
        """(240, 240, 3) image of a row by the side camera; None without ``render_mode``."""
        if self.render_mode is None:
            return None
        if not self._started:
            raise RuntimeError("reset must be called before render")
        if self._view is None:
            from ..manipulation.view import ArmView

            self._view = ArmView(self.task, PIXELS)
        batch = self.batch
        state = batch.final_state if final else batch.state
        looks = batch.final_looks if final else batch.looks
        image: NDArray[np.uint8] = self._view.draw(state, row, looks[row], ("side",))[0]
        return image

    def close(self) -> None:
        """Free what rendering holds."""
        if self._view is not None:
            self._view.close()
            self._view = None
