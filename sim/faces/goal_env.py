"""The ``GoalEnv`` API of Gymnasium-Robotics: dict observations and a vectorised ``compute_reward``.

What goals are of a manipulation task, see :class:`sim.faces.arm_rows.ArmRows`. On wheels:

* ``achieved_goal`` and ``desired_goal`` are true positions in the world, (2,) float64 metres;
  ``observation`` is the task's without goal and guide point, which would contradict a relabelled
  goal, and with the heading (cos, sin).
* The reward is ``compute_reward(achieved_goal, desired_goal, info)`` alone: -1 per step and 0 at
  the goal (``reward_type="sparse"``, as in Fetch), or minus the distance ("dense"). Contact and
  the other terms of the task stay in ``info``. Reaching the goal ends the episode.
* With ``terminal_collision=True`` the sparse reward makes an early collision pay: leave it off in
  training, as the tasks do.

The classes have the functions of ``gymnasium_robotics.core.GoalEnv`` without being one: importing
that package loads all of its environments.
"""

from __future__ import annotations

from typing import Any

from .gymnasium_env import TaskEnv, TaskVectorEnv


class GoalTaskEnv(TaskEnv):
    """One robot with goal observations; works with Stable-Baselines3's HER as it is."""

    goals = True

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """See :meth:`sim.faces.rows.FaceRows.compute_reward`."""
        return self.rows.compute_reward(achieved_goal, desired_goal, info)

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """See :meth:`sim.faces.rows.FaceRows.compute_terminated`."""
        return self.rows.compute_terminated(achieved_goal, desired_goal, info)

    def compute_truncated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """See :meth:`sim.faces.rows.FaceRows.compute_truncated`."""
        return self.rows.compute_truncated(achieved_goal, desired_goal, info)


class GoalTaskVectorEnv(TaskVectorEnv):
    """N robots with goal observations."""

    goals = True

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """See :meth:`sim.faces.rows.FaceRows.compute_reward`; goals (..., G)."""
        return self.rows.compute_reward(achieved_goal, desired_goal, info)
