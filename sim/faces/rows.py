"""What the faces share: N rows of a batch engine, flat or goal observations, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from learning.vec_env import Step

from ..batch import BatchEnv, Tier
from ..randomization import NOMINAL, Randomization
from ..tasks import AgvTask, make

if TYPE_CHECKING:
    from ..render import RobotView

Goal = dict[str, NDArray[Any]]
"""``observation`` (N, D) float32, ``achieved_goal`` and ``desired_goal`` (N, 2) float64, m."""
Obs = NDArray[np.float32] | Goal
OUTCOMES = ("success", "clean", "collision", "at_fault", "path_m", "episode_length")
"""Per-episode numbers of :attr:`learning.vec_env.Step.terms` that faces report."""
REWARDS = ("sparse", "dense")


@dataclass
class Result:
    """One step of N rows, in the form that the face shows. Finished rows are reset in ``obs``."""

    obs: Obs
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_obs: Obs
    """What the step led to, before any reset."""
    terms: dict[str, NDArray[Any]]

    @property
    def done(self) -> NDArray[np.bool_]:
        """(N,) the episode ended."""
        return self.terminated | self.truncated


class FaceRows:
    """N rows of one task as faces show them, whatever its engine.

    Args:
        task, batch: what is shown, and the engine that runs it.
        render_mode: None or "rgb_array".
        goals: observations are dicts with ``achieved_goal`` and ``desired_goal``, and the reward is
            :meth:`compute_reward`.
        reward_type: "sparse" or "dense", see :meth:`compute_reward`; used only with ``goals``.

    Raises:
        ValueError: no such render mode or reward type.
    """

    outcome_names: tuple[str, ...] = OUTCOMES
    """Per-episode numbers of :attr:`learning.vec_env.Step.terms` that faces report."""
    observation_space: spaces.Space[Any]

    def __init__(
        self, task: Any, batch: Any, render_mode: str | None, goals: bool, reward_type: str
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
        if reward_type not in REWARDS:
            raise ValueError(f"reward_type must be one of {REWARDS}, got {reward_type!r}")
        self.task, self.batch, self.num_envs = task, batch, batch.spec.num_envs
        self.render_mode, self.goals, self.reward_type = render_mode, goals, reward_type
        self.max_steps = batch.spec.max_episode_steps
        self.action_space = spaces.Box(-1.0, 1.0, (batch.spec.action_dim,), np.float32)
        self._fresh = False

    def reset(self, seed: int | None = None) -> Obs:
        """Start all rows anew: at the first episodes of ``seed``, or at the next of each row.

        Where the last step has just reset every row, these starts are the next ones already.
        """
        fresh, self._fresh = self._fresh, False
        if seed is not None:
            self.batch.seed = int(seed)
            self.batch.episode[:] = 0
        elif fresh:
            return self._present()
        self.batch.reset()
        return self._present()

    def step(self, action: NDArray[Any]) -> Result:
        """Advance all rows under (N, A) actions in [-1, 1].

        Raises:
            ValueError: the actions have another shape.
        """
        step = self.batch.step(np.asarray(action, dtype=np.float32))
        done = step.terminated | step.truncated
        self._fresh = bool(done.all())
        result = Result(
            step.obs, step.reward, step.terminated, step.truncated, step.final_obs, step.terms
        )
        if self.goals:
            final = self._arrived(step)
            result.final_obs = result.obs = final
            if done.any():
                result.obs = self._present()
            assert isinstance(final, dict)
            result.reward = self.compute_reward(final["achieved_goal"], final["desired_goal"], {})
        return result

    def outcomes(self, terms: dict[str, NDArray[Any]], i: int) -> dict[str, Any]:
        """What is known of a row's episode so far, as plain numbers, ``is_success`` among them."""
        out: dict[str, Any] = {name: terms[name][i].item() for name in self.outcome_names}
        return out | {"is_success": out["success"]}

    def _present(self) -> Obs:
        """The observation to act on next."""
        raise NotImplementedError

    def _arrived(self, step: Step) -> Obs:
        """What a step led to, before any reset, in the form with goals."""
        raise NotImplementedError

    def compute_reward(
        self,
        achieved_goal: NDArray[Any],
        desired_goal: NDArray[Any],
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | NDArray[Any],
    ) -> NDArray[np.float32]:
        """Reward of reaching ``achieved_goal`` when ``desired_goal`` was wanted."""
        raise NotImplementedError

    def compute_terminated(
        self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Mapping[str, Any]
    ) -> Any:
        """(...,) bool: the episode is over."""
        raise NotImplementedError

    def compute_truncated(
        self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Mapping[str, Any]
    ) -> Any:
        """(...,) bool: the time is up and the episode is not over."""
        late = np.asarray(info.get("episode_length", 0)) >= self.max_steps
        return late & ~self.compute_terminated(achieved_goal, desired_goal, info)

    def render(self, row: int = 0, final: bool = False) -> NDArray[np.uint8] | None:
        """Image of a row; None without ``render_mode``.

        ``final`` shows what the last step led to, before any reset.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free what rendering holds."""


class Rows(FaceRows):
    """N rows of a task on wheels.

    Args:
        task: name of a task (see :data:`sim.tasks.TASKS`), or a task.
        num_envs: N.
        tier: "kinematic" or "mujoco".
        randomization: ranges of the domain randomization.
        threads: of tier "mujoco"; results do not depend on it.
        render_mode: None or "rgb_array".
        goals: observations are dicts with ``achieved_goal`` and ``desired_goal``, and the reward is
            :meth:`compute_reward`.
        reward_type: "sparse" or "dense", see :meth:`compute_reward`; used only with ``goals``.
        options: parameters of the task, if a name was given.

    Raises:
        ValueError: no such task, tier, render mode or reward type.
        TypeError: the task has no such parameter.
    """

    def __init__(
        self,
        task: str | AgvTask,
        num_envs: int,
        tier: Tier = "kinematic",
        randomization: Randomization = NOMINAL,
        threads: int = 1,
        render_mode: str | None = None,
        goals: bool = False,
        reward_type: str = "sparse",
        **options: Any,
    ) -> None:
        if isinstance(task, AgvTask):
            if options:
                raise TypeError(f"a task made already takes no parameters, got {sorted(options)}")
        else:
            task = make(task, **options)
        batch = BatchEnv(task, num_envs, tier, randomization=randomization, threads=threads)
        super().__init__(task, batch, render_mode, goals, reward_type)
        observation = task.config.observation
        scan = observation.scan_dim
        # goal and guide point give the goal away: a relabelled goal would contradict them
        self._kept = np.r_[0:scan, scan + 4 : scan + 8 + 4 * observation.pose]
        if goals:
            width = len(self._kept) + 2
            self.observation_space = spaces.Dict(
                {
                    "observation": box(width, np.float32),
                    "achieved_goal": box(2, np.float64),
                    "desired_goal": box(2, np.float64),
                }
            )
        else:
            self.observation_space = box(observation.dim, np.float32)
        self._view: RobotView | None = None
        self._before: tuple[list[Any], NDArray[np.float64]] | None = None

    def reset(self, seed: int | None = None) -> Obs:
        """See :meth:`FaceRows.reset`."""
        self._before = None
        return super().reset(seed)

    def step(self, action: NDArray[Any]) -> Result:
        """See :meth:`FaceRows.step`."""
        if self.render_mode is not None:
            self._before = list(self.batch.placements), self.batch.obstacles()
        return super().step(action)

    def _present(self) -> Obs:
        return self._shown(self.task.observe(self.batch.state), *self._now())

    def _arrived(self, step: Step) -> Obs:
        return self._shown(step.final_obs, self.batch.arrived_w, step.explore[:, 2])

    def _now(self) -> tuple[NDArray[np.float64], NDArray[np.floating[Any]]]:
        """True pose and goal (N, 5), and the heading (N,) that the robot believes, both now."""
        state = self.batch.state
        return np.concatenate([state.pose_w, state.goal_w], axis=1), state.seen_pose_w[:, 2]

    def _shown(
        self, flat: NDArray[np.float32], where_w: NDArray[np.float64], yaw: NDArray[Any]
    ) -> Obs:
        """What the face shows of (N, D) flat observations, (N, 5) poses and goals, (N,) rad."""
        if not self.goals:
            return flat
        heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        parts = [flat[:, self._kept], heading.astype(np.float32)]
        return {
            "observation": np.concatenate(parts, axis=1),
            "achieved_goal": where_w[:, :2].copy(),
            "desired_goal": where_w[:, 3:].copy(),
        }

    # the GoalEnv functions

    def compute_reward(
        self,
        achieved_goal: NDArray[Any],
        desired_goal: NDArray[Any],
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | NDArray[Any],
    ) -> NDArray[np.float32]:
        """Reward of reaching ``achieved_goal`` when ``desired_goal`` was wanted, as in Fetch.

        "sparse": 0 within the task's goal radius, -1 elsewhere; "dense": minus the distance, m.

        Args:
            achieved_goal, desired_goal: (..., 2) x, y in metres.
            info: not looked at; one dict or one per row.

        Returns:
            (...,) float32.
        """
        gap = _distance(achieved_goal, desired_goal)
        if self.reward_type == "dense":
            return np.asarray(-gap, dtype=np.float32)[()]
        return np.asarray(-(gap >= self.task.config.goal_radius_m).astype(np.float32))[()]

    def compute_terminated(
        self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Mapping[str, Any]
    ) -> Any:
        """(...,) bool: within the goal radius, or ended by the collision that ``info`` tells."""
        near = _distance(achieved_goal, desired_goal) < self.task.config.goal_radius_m
        return near | np.asarray(info.get("collision", False), dtype=bool)

    # pictures

    def render(self, row: int = 0, final: bool = False) -> NDArray[np.uint8] | None:
        """(480, 640, 3) image of a row from above; None without ``render_mode``.

        ``final`` shows what the last step led to, before any reset.
        """
        if self.render_mode is None:
            return None
        batch = self.batch
        where, movers = self._now()[0], batch.obstacles()
        placements: list[Any] = batch.placements
        if final and self._before is not None:
            where, (placements, movers) = batch.arrived_w, self._before
        if placements[row] is None:
            raise RuntimeError("reset must be called before render")
        world = placements[row].world
        if self._view is None or self._view.world is not world:
            from ..render import RobotView

            self.close()
            self._view = RobotView(world, self.task.robot, n_movers=self.task.config.max_movers)
        return self._view.frame(where[row, :3], movers[row], goal_w=where[row, 3:])

    def close(self) -> None:
        """Free what rendering holds."""
        if self._view is not None:
            self._view.close()
            self._view = None


def row(obs: Obs, i: int | np.integer[Any]) -> Any:
    """The observation of one row."""
    return {name: part[i] for name, part in obs.items()} if isinstance(obs, dict) else obs[i]


def box(width: int, dtype: type[np.float32] | type[np.float64]) -> spaces.Box[Any]:
    """Unbounded: speeds, poses and distances have no limit that would hold in every map."""
    return spaces.Box(-np.inf, np.inf, (width,), dtype=np.dtype(dtype))


def _distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(...,) distance of (..., 2) points, m; the same bits as :meth:`AgvTask.goal_distance`."""
    delta = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if delta.shape[-1:] != (2,):
        raise ValueError(f"goals must be (..., 2), got {np.shape(a)} and {np.shape(b)}")
    return np.hypot(delta[..., 0], delta[..., 1])
