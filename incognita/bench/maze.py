"""The workload of the speed benchmarks: an AGV in a maze of 60 boxes, 64 rays, 20 Hz.

Written twice: as a task of ours, and as the ``gymnasium.Env`` that a competent user of MuJoCo would
write, with the same model, observation, reward and episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

import sim.batch
from rnd_agv.observation import ObservationConfig
from rnd_agv.robot import AGV
from sim.backend import CONTROL_DT
from sim.mujoco_batch import SUBSTEPS
from sim.randomization import Randomization
from sim.robots import GROUP_STATIC, world_spec
from sim.tasks.agv import AgvConfig, AgvTask, Placement, State, free_walk
from sim.worlds.world import CRATE, WALL, Draft, World, first_accepted

BOXES = 60
CELLS = 6
CELL_M = 2.5
RAYS = 64
WALKS = 256
"""Pairs of start and goal per maze."""
PLAIN = Randomization(lidar_sigma_m=(0.0, 0.0))
"""The nominal robot without noise on the lidar, which the baseline has not either."""


@lru_cache(maxsize=8)
def maze(seed: int) -> World:
    """A maze of 6 x 6 cells of 2.5 m with crates in its corners, 60 boxes with the outer walls."""

    def draw(rng: np.random.Generator) -> World:
        draft = Draft(CELLS * CELL_M, CELLS * CELL_M)
        edges = [(a, b, d) for d in (0, 1) for a in range(CELLS) for b in range(CELLS - 1)]
        joined = {cell: cell for cell in range(CELLS * CELLS)}

        def root(cell: int) -> int:
            while joined[cell] != cell:
                cell = joined[cell]
            return cell

        for k in rng.permutation(len(edges)):  # Kruskal: a wall stands where it closes no cell off
            a, b, d = edges[k]
            one, two = ((a, b), (a, b + 1)) if d else ((b, a), (b + 1, a))
            left, right = root(one[0] * CELLS + one[1]), root(two[0] * CELLS + two[1])
            if left != right:
                joined[left] = right
                continue
            at, along = (b + 1) * CELL_M - draft.x, a * CELL_M - draft.x
            corners = (at - 0.1, along, at + 0.1, along + CELL_M)
            draft.add(
                WALL, *(corners if not d else (corners[1], corners[0], corners[3], corners[2]))
            )
        while len(draft.rows) < BOXES:
            i, j = rng.integers(CELLS + 1, size=2)
            x, y = i * CELL_M - draft.x, j * CELL_M - draft.y
            half = rng.uniform(0.15, 0.3)
            draft.add(CRATE, x - half, y - half, x + half, y + half)
        return draft.world("maze", seed)

    return first_accepted("maze", seed, draw)


@lru_cache(maxsize=8)
def walks(seed: int, goal_m: tuple[float, float]) -> NDArray[np.float64]:
    """(WALKS, 4) starts and goals that see each other, ``goal_m`` apart at least and at most."""
    rng = np.random.default_rng([seed, 5])
    found: list[NDArray[np.float64]] = []
    while len(found) < WALKS:
        walk = free_walk(maze(seed), rng, AGV.circumscribed_m + 0.05, *goal_m)
        if walk is not None:
            found.append(np.concatenate(walk))
    return np.array(found)


class MazeTask(AgvTask):
    """Drive to a goal in sight, paid at the goal and for speed towards it."""

    name = "bench-maze"

    def __init__(self, seed: int = 0, goal_m: tuple[float, float] = (1.0, 5.0)) -> None:
        super().__init__(
            AgvConfig(
                observation=ObservationConfig(sectors=RAYS, frames=1),
                beams=RAYS,
                max_steps=200,
                contact_reward=-0.05,
            )
        )
        self.world, self.walks = maze(seed), walks(seed, goal_m)

    def place(self, rng: np.random.Generator) -> Placement:
        """A start with any heading and its goal."""
        x, y, goal_x, goal_y = self.walks[rng.integers(WALKS)]
        start = np.array([x, y, rng.uniform(-np.pi, np.pi)])
        return Placement(self.world, start, np.array([goal_x, goal_y]))

    def reward(self, state: State) -> dict[str, NDArray[np.float64]]:
        """Goal, contact, and metres made towards the goal."""
        terms = super().reward(state)
        delta = state.goal_w - state.pose_w[:, :2]
        yaw = state.pose_w[:, 2]
        along = delta[:, 0] * np.cos(yaw) + delta[:, 1] * np.sin(yaw)
        distance = np.maximum(np.hypot(delta[:, 0], delta[:, 1]), 1e-6)
        terms["progress"] = CONTROL_DT * state.vel_b[:, 0] * along / distance
        return terms


class MazeEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """The same task for one robot, by the book: one ``mj_step(nstep=10)``, one ``mj_multiRay``."""

    def __init__(
        self, seed: int = 0, row: int = 0, goal_m: tuple[float, float] = (1.0, 5.0)
    ) -> None:
        self.task = task = MazeTask(seed, goal_m)
        spec = world_spec(task.world, AGV)
        # MuJoCo's default, and the faster setting with 60 static boxes
        spec.option.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.footprint = self.model.geom("footprint").id
        self.base = self.model.body("base").id
        self.group = np.zeros(6, np.uint8)
        self.group[GROUP_STATIC] = 1
        self.angles = task.scan.angles
        self.ids, self.dist = np.zeros(RAYS, np.int32), np.zeros(RAYS)
        self.vec = np.zeros((RAYS, 3))
        self.obs = np.zeros(task.config.observation.dim, np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, self.obs.shape, np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.rng = np.random.default_rng([seed, row])
        self.v = self.w = 0.0
        self.t = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        placed = self.task.place(self.rng)
        return self.start(placed.start_w, placed.goal_w), {}

    def start(
        self, start_w: NDArray[np.float64], goal_w: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Put the robot at rest at (3,) with goal (2,)."""
        mujoco.mj_resetData(self.model, self.data)
        x, y, yaw = start_w
        self.data.qpos[:2] = x, y
        self.data.qpos[3:7] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)
        self.goal_x, self.goal_y = float(goal_w[0]), float(goal_w[1])
        self.v = self.w = 0.0
        self.t = 0
        mujoco.mj_kinematics(self.model, self.data)
        self._pose()
        return self._observe()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One control period."""
        limits = AGV.limits
        a, b = min(max(float(action[0]), -1.0), 1.0), min(max(float(action[1]), -1.0), 1.0)
        v = limits.v_min + (a + 1) / 2 * (limits.v_max - limits.v_min)
        most_v, most_w = limits.accel_v * CONTROL_DT, limits.accel_w * CONTROL_DT
        self.v = min(max(v, self.v - most_v), self.v + most_v)
        self.w = min(max(b * limits.w_max, self.w - most_w), self.w + most_w)
        half = self.w * AGV.track_m * AGV.separation_multiplier / 2
        self.data.ctrl[:] = (
            (self.v - half) / AGV.wheel_radius_m,
            (self.v + half) / AGV.wheel_radius_m,
        )
        mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        self._pose()
        self.t += 1
        obs = self._observe()
        success = self.distance < self.task.config.goal_radius_m
        reward = CONTROL_DT * self.speed * self.along / max(self.distance, 1e-6)
        if success:
            reward += self.task.config.goal_reward
        if self.data.ncon and (self.data.contact.geom == self.footprint).any():
            reward += self.task.config.contact_reward
        truncated = not success and self.t >= self.task.config.max_steps
        return obs, reward, success, truncated, {"is_success": success}

    def _pose(self) -> None:
        """Read the planar state."""
        q, qvel = self.data.qpos, self.data.qvel
        w, x, y, z = q[3:7].tolist()
        self.x, self.y = q[:2].tolist()
        self.yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        vx, vy, self.turn = float(qvel[0]), float(qvel[1]), float(qvel[5])
        self.speed = vx * math.cos(self.yaw) + vy * math.sin(self.yaw)

    def _observe(self) -> NDArray[np.float32]:
        """Ranges, goal in polar form, velocity, last command."""
        angles = self.angles + self.yaw
        np.cos(angles, out=self.vec[:, 0])
        np.sin(angles, out=self.vec[:, 1])
        start = np.array([self.x, self.y, AGV.lidar_z_m])
        far = self.task.config.scan_range_m
        mujoco.mj_multiRay(
            self.model, self.data, start, self.vec.ravel(), self.group, True, self.base, self.ids,
            self.dist, None, RAYS, far,
        )  # fmt: skip
        obs = self.obs
        ranges = np.where(self.dist < 0, far, np.minimum(self.dist, far))  # the cut-off is by geom
        obs[:RAYS] = ranges / self.task.config.observation.max_range
        dx, dy = self.goal_x - self.x, self.goal_y - self.y
        self.distance = d = math.hypot(dx, dy)
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        self.along = c * dx + s * dy
        near = max(d, 1e-6)
        obs[RAYS:] = (
            min(d / 5, 2.0), math.log1p(d), self.along / near, (c * dy - s * dx) / near,
            self.speed / AGV.limits.v_max, self.turn / AGV.limits.w_max,
            self.v / AGV.limits.v_max, self.w / AGV.limits.w_max,
        )  # fmt: skip
        return obs.copy()


@contextmanager
def scan_every_step() -> Iterator[None]:
    """Let our engine scan at every step as :class:`MazeEnv` does; as shipped it scans at 10 Hz."""
    before = vars(sim.batch)["SCAN_EVERY"]
    vars(sim.batch)["SCAN_EVERY"] = 1
    try:
        yield
    finally:
        vars(sim.batch)["SCAN_EVERY"] = before


def maze_envs(n: int, seed: int, **options: Any) -> list[Callable[[], gymnasium.Env[Any, Any]]]:
    """Makers of ``n`` environments in one maze."""
    return [Maker(seed, row, options) for row in range(n)]


class Maker:
    """Makes one :class:`MazeEnv`; can be sent to a worker process."""

    def __init__(self, seed: int, row: int, options: dict[str, Any]) -> None:
        self.seed, self.row, self.options = seed, row, options

    def __call__(self) -> MazeEnv:
        return MazeEnv(self.seed, self.row, **self.options)
