"""Cross open ground to a goal without rolling over: a Gymnasium environment in tier M.

The planar batch engine has no hills, so this task is a Gymnasium environment by itself and is not
in :data:`sim.tasks.TASKS`. The robot senses the ground; nothing tells it its heights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rnd_agv.command import command_from_action
from rnd_agv.robot import ROBOTS

from ..backend import SCAN_EVERY
from ..mujoco_terrain import RingLidar, TerrainSim
from ..worlds.terrain import Terrain, TerrainConfig, terrain

FAR_M = 30.0
"""Distances to the goal are given in this unit."""


@dataclass(frozen=True)
class CrossingConfig:
    """What ends an episode and what is paid. Rewards not named here are zero."""

    robot: str = "jackal"
    lidar: RingLidar = RingLidar(rings=8, azimuths=36)
    world: TerrainConfig = TerrainConfig()
    layouts: int = 1000
    """Terrains are drawn from so many seeds."""
    first_layout: int = 0
    """The first of them."""
    max_steps: int = 3600
    """Control steps of 50 ms until the episode is truncated."""
    goal_radius_m: float = 0.5
    goal_reward: float = 10.0
    """Paid once, when the robot's centre is within the radius."""
    rollover_cos: float = 0.5
    """The episode ends where the robot's z axis and the vertical have a smaller cosine."""
    rollover_reward: float = -10.0
    """Paid once then."""
    energy_reward: float = 0.0
    """Per J that the wheels work."""
    progress_reward: float = 0.0
    """Per metre nearer to the goal: potential-based shaping (Ng 1999)."""

    def __post_init__(self) -> None:
        if self.robot not in ROBOTS:
            raise ValueError(f"robot must be one of {sorted(ROBOTS)}, got {self.robot!r}")
        if min(self.max_steps, self.layouts) < 1 or self.first_layout < 0:
            raise ValueError(
                "max_steps, layouts >= 1 and first_layout >= 0 wanted, got "
                f"{self.max_steps}, {self.layouts}, {self.first_layout}"
            )
        if not self.goal_radius_m > 0 or not 0 < self.rollover_cos < 1:
            raise ValueError(
                "goal_radius_m > 0 and rollover_cos in (0, 1) wanted, got "
                f"{self.goal_radius_m}, {self.rollover_cos}"
            )


class TerrainEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """A robot that crosses a new terrain in each episode.

    The observation (rings * azimuths + 9,) float32 holds the newest scan over its range, cosine
    and sine of the bearing to the goal, the distance to it in 30 m, the vertical in base_link (3),
    forward speed and turn rate over their limits, and the share of the episode that is over.

    An action (2,) in [-1, 1] is a velocity command, see
    :func:`rnd_agv.command.command_from_action`. ``info`` holds the reward terms, ``success``,
    ``rollover``, ``energy_j`` and ``driven_m``.

    Args:
        config: what ends an episode and what is paid; or its fields as keywords.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, config: CrossingConfig | None = None, **overrides: Any) -> None:
        if config is not None and overrides:
            raise ValueError(f"config or fields of it wanted, got both: {sorted(overrides)}")
        self.config = config or CrossingConfig(**overrides)
        self.robot = ROBOTS[self.config.robot]
        beams = self.config.lidar.rings * self.config.lidar.azimuths
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(
            -np.inf, np.inf, (beams + 9,), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; ``options={"layout": 7}`` asks for one terrain.

        Raises:
            ValueError: options hold anything else.
        """
        super().reset(seed=seed)
        c = self.config
        if unknown := sorted(set(options or {}) - {"layout"}):
            raise ValueError(f"options may hold layout only, got {unknown}")
        layout = c.first_layout + int(self.np_random.integers(c.layouts))
        self.layout = int((options or {}).get("layout", layout))
        self.terrain: Terrain = terrain(self.layout, c.world)
        self.sim = TerrainSim(
            self.terrain, self.robot, c.lidar, c.rollover_cos, int(self.np_random.integers(2**31))
        )
        self._steps, self._scan = 0, self.sim.scan()
        return self._observe(), {"layout": self.layout}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance by 50 ms; see :meth:`gymnasium.Env.step`."""
        c, sim = self.config, self.sim
        before_m, before_j = self.left_m(), sim.energy_j
        command = command_from_action(np.asarray(action)[None], self.robot.limits)[0]
        sim.step(command)
        self._steps += 1
        if self._steps % SCAN_EVERY == 0:
            self._scan = sim.scan()
        rollover = sim.rolled_over
        success = self.left_m() < c.goal_radius_m and not rollover
        terms = {
            "reward/goal": c.goal_reward * success,
            "reward/rollover": c.rollover_reward * rollover,
            "reward/energy": c.energy_reward * (sim.energy_j - before_j),
            "reward/progress": c.progress_reward * (before_m - self.left_m()),
        }
        info: dict[str, Any] = {name: float(value) for name, value in terms.items()}
        info |= {
            "success": success, "is_success": success, "rollover": rollover,
            "energy_j": sim.energy_j, "driven_m": sim.driven_m, "touched": sim.touched,
        }  # fmt: skip
        terminated = success or rollover
        truncated = not terminated and self._steps >= c.max_steps
        return self._observe(), sum(map(float, terms.values())), terminated, truncated, info

    def left_m(self) -> float:
        """Straight line to the goal, m."""
        return float(np.hypot(*(self.terrain.goal_w - self.sim.pose_w[:2])))

    def _observe(self) -> Any:
        sim, limits = self.sim, self.robot.limits
        dx, dy = self.terrain.goal_w - sim.pose_w[:2]
        bearing = np.arctan2(dy, dx) - sim.pose_w[2]
        rest = [
            np.cos(bearing), np.sin(bearing), self.left_m() / FAR_M, *sim.rot[2],
            sim.vel_b[0] / limits.v_max, sim.vel_b[1] / limits.w_max,
            self._steps / self.config.max_steps,
        ]  # fmt: skip
        return np.concatenate([self._scan.ravel() / sim.lidar.range_m, rest]).astype(np.float32)


class TerrainGoalEnv(TerrainEnv):
    """The same with the ``GoalEnv`` API of Gymnasium-Robotics, for hindsight replay.

    ``achieved_goal`` and ``desired_goal`` are positions (2,) float64 in the world, m. The reward
    is that of :meth:`compute_reward`: -1 a step, 0 at the goal. ``observation`` is that of
    :class:`TerrainEnv` with cosine and sine of the heading, and nothing, for bearing and distance.
    """

    def __init__(self, config: CrossingConfig | None = None, **overrides: Any) -> None:
        super().__init__(config, **overrides)
        goal = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        flat = self.observation_space
        self.observation_space = gymnasium.spaces.Dict(
            {"observation": flat, "achieved_goal": goal, "desired_goal": goal}
        )

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As :meth:`TerrainEnv.step` with the reward of the goal alone."""
        obs, _, terminated, truncated, info = super().step(action)
        reward = self.compute_reward(obs["achieved_goal"], obs["desired_goal"], info)
        return obs, float(reward), terminated, truncated, info

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """(...) 0 where goals (..., 2) are within the radius of each other, else -1."""
        off = np.linalg.norm(np.asarray(achieved_goal) - np.asarray(desired_goal), axis=-1)
        return np.where(off < self.config.goal_radius_m, 0.0, -1.0)

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """(...) the goal is reached or the robot has rolled over."""
        reached = self.compute_reward(achieved_goal, desired_goal, info) == 0
        over = info.get("rollover", False) if isinstance(info, dict) else False
        return reached | over if reached.ndim else bool(reached or over)

    def compute_truncated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Whether the time is up, whatever the goal."""
        return self._steps >= self.config.max_steps

    def _observe(self) -> Any:
        flat = super()._observe()
        yaw = self.sim.pose_w[2]
        flat[-9:-6] = np.cos(yaw), np.sin(yaw), 0.0
        return {
            "observation": flat,
            "achieved_goal": self.sim.pose_w[:2].copy(),
            "desired_goal": np.array(self.terrain.goal_w, np.float64),
        }
