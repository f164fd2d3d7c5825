"""AGV navigation, written once for N robots: start, observation, reward and end of an episode."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.grid import OccupancyGrid
from rnd_agv.guide import GuideConfig, Layers, layers
from rnd_agv.observation import ObservationConfig, ScanSpec, build, full_circle
from rnd_agv.planner import line_of_sight
from rnd_agv.robot import ROBOTS

from ..movers import Mover
from ..worlds import World

GUIDES = ("none", "known", "built")


@dataclass(frozen=True)
class AgvConfig:
    """What all AGV tasks share. Rewards not named here are zero: sparse is the default."""

    robot: str = "agv"
    v_max: float | None = None
    """Drive no faster than this, m/s; None: as fast as the robot can."""
    observation: ObservationConfig = ObservationConfig()
    beams: int = 180
    scan_range_m: float = 10.0
    max_steps: int = 2000
    """Control steps of 50 ms until the episode is truncated."""
    goal_radius_m: float = 0.5
    goal_reward: float = 10.0
    """Paid once, when the robot's centre is within the radius."""
    contact_reward: float = -0.0005
    """Per step in contact with anything."""
    touch_reward: float = 0.0
    """Per step in contact, divided by how many of them the episode has had: the first touch costs
    most. Unlike a cost per step it is no ruin for who slides along walls all the way, and still
    tells one touch from none."""
    collision_reward: float = 0.0
    """Paid once where ``terminal_collision`` ends the episode."""
    progress_reward: float = 0.0
    """Per metre of cost-to-go gained: potential-based shaping (Ng 1999), off in sparse tasks."""
    time_reward: float = 0.0
    """Per step."""
    smooth_reward: float = 0.0
    """Per unit of squared change of the scaled action between steps."""
    near_reward: float = 0.0
    """Per step at zero clearance, falling linearly to nothing at ``near_m``."""
    near_m: float = 0.3
    terminal_collision: bool = False
    """A collision (see :meth:`AgvTask.collided`) ends the episode.

    It does in evaluation. Training slides: a random policy that dies at a touch never meets a
    sparse goal.
    """
    stale_steps: int = 0
    """An episode that has entered no cell new to it for this many steps is over; 0 never. In
    training only: a robot stuck in a dead end would fill thousands of steps with it."""
    stale_cell_m: float = 1.0
    """Edge of such a cell, m."""
    guide: str = "none"
    """"none": the policy is on its own; "known": guide points from the given floor plan; "built":
    from a map that grows with the scans."""
    guide_config: GuideConfig = GuideConfig()
    max_movers: int = 0
    coverage: bool = False
    """Keep what share of the floor has been seen, see ``State.seen_share``; with guide "built"."""
    labels: bool = False
    """Keep the label of what each beam hits, see ``BatchEnv.labels``."""

    def __post_init__(self) -> None:
        if self.robot not in ROBOTS:
            raise ValueError(f"robot must be one of {sorted(ROBOTS)}, got {self.robot!r}")
        if self.v_max is not None and not self.v_max > 0:
            raise ValueError(f"v_max must be > 0 m/s or None, got {self.v_max}")
        if self.guide not in GUIDES:
            raise ValueError(f"guide must be one of {GUIDES}, got {self.guide!r}")
        if (self.guide != "none") != self.observation.guide:
            raise ValueError(f"observation.guide must match guide={self.guide!r}")
        if self.coverage and self.guide != "built":
            raise ValueError(f"coverage needs guide='built', got {self.guide!r}")
        if (
            self.max_steps < 1
            or self.stale_steps < 0
            or not self.stale_cell_m > 0
            or self.beams < self.observation.sectors
            or not self.goal_radius_m > 0
        ):
            raise ValueError(
                "max_steps >= 1, stale_steps >= 0, stale_cell_m > 0, beams >= sectors and "
                f"goal_radius_m > 0 wanted, got {self}"
            )


@dataclass
class Placement:
    """How one episode starts."""

    world: World
    start_w: NDArray[np.float64]
    """(3,) x, y, yaw."""
    goal_w: NDArray[np.float64]
    """(2,)."""
    layout: int = 0
    """Number of the layout, for novelty per place."""
    movers: list[Mover] = field(default_factory=list)
    target: Mover | None = None
    """A goal that moves: the goal is where this disc is. It is no obstacle."""
    wanted: int = -1
    """Label of what is looked for, -1 nothing; with ``AgvConfig.labels``."""
    instruction: str = "Drive to the goal without touching anything."
    """What the robot is told to do, in words."""


@dataclass
class State:
    """The arrays of N episodes; the engine fills them, the task reads them."""

    pose_w: NDArray[np.float64]
    """(N, 3) true pose."""
    seen_pose_w: NDArray[np.float64]
    """(N, 3) pose as localisation gives it, with drift."""
    vel_b: NDArray[np.float64]
    goal_w: NDArray[np.float64]
    frames: NDArray[np.float32]
    """(N, frames, sectors) newest first, delay applied."""
    clearance_m: NDArray[np.float64]
    """(N,) least gap between footprint and returns of the newest scan, along the beams, m."""
    touches: NDArray[np.int64]
    """(N,) steps of the episode in contact with anything."""
    last_command: NDArray[np.float64]
    """(N, 2) last command sent."""
    last_action: NDArray[np.float64]
    action: NDArray[np.float64]
    contact: NDArray[np.bool_]
    """(N, 3) static, mover, at fault."""
    cost_to_go: NDArray[np.float64]
    """(N,) m; before the step in ``last_cost_to_go``. Zero where no shaping is asked for."""
    last_cost_to_go: NDArray[np.float64]
    seen_share: NDArray[np.float64]
    """(N,) free cells of the map built so far by those of the floor; before the step in
    ``last_seen_share``. Zero where ``coverage`` is off."""
    last_seen_share: NDArray[np.float64]
    wanted_m: NDArray[np.float64]
    """(N,) range of the nearest thing in view that is looked for, m; inf if none is in view."""
    wanted_w: NDArray[np.float64]
    """(N, 2) where such a thing was last seen by where the robot believed to be; nan if never."""
    stale: NDArray[np.int64]
    """(N,) steps since the episode entered a cell new to it; counted if ``stale_steps`` is set."""
    guide_w: NDArray[np.float64] | None
    t: NDArray[np.int64]
    """(N,) steps since reset."""

    def rows(self, ids: NDArray[np.int64]) -> State:
        """A copy of these rows."""
        rows: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            array = getattr(self, name)
            rows[name] = None if array is None else array[ids]
        return State(**rows)


class AgvTask:
    """Base of the AGV tasks; a task says how an episode is placed, the rest is shared."""

    name = "agv"

    def __init__(self, config: AgvConfig) -> None:
        self.config = config
        self.robot = ROBOTS[config.robot]
        if config.v_max is not None:
            limits = self.robot.limits
            slower = replace(limits, v_max=min(config.v_max, limits.v_max))
            self.robot = replace(self.robot, limits=slower)
        self.scan: ScanSpec = full_circle(config.beams, config.scan_range_m)
        self._layers: dict[int, tuple[OccupancyGrid, Layers]] = {}

    def place(self, rng: np.random.Generator) -> Placement:
        """Draw one episode."""
        raise TypeError(f"{type(self).__name__} does not say how an episode is placed")

    def planning(self, world: World) -> tuple[OccupancyGrid, Layers]:
        """Grid and planning layers of a world, worked out once."""
        found = self._layers.get(id(world))
        if found is None:
            grid = world.grid(self.config.guide_config.resolution)
            found = self._layers[id(world)] = (
                grid,
                layers(grid, self.config.guide_config, self.robot, unknown=True),
            )
        return found

    def observe(self, state: State) -> NDArray[np.float32]:
        """(N, obs_dim) float32."""
        return build(
            self.config.observation, self.robot.limits, sectors=state.frames,
            pose_w=state.seen_pose_w, goal_w=state.goal_w, vel_b=state.vel_b,
            last_command=state.last_command, guide_w=state.guide_w,
        )  # fmt: skip

    def goal_distance(self, state: State) -> NDArray[np.float64]:
        """(N,) straight distance to the goal, m."""
        dx, dy = (state.goal_w - state.pose_w[:, :2]).T
        return np.asarray(np.sqrt(dx * dx + dy * dy), np.float64)

    def collided(self, state: State) -> NDArray[np.bool_]:
        """(N,) touches something static, or drove into something that moves.

        Being run into is no fault.
        """
        return state.contact[:, 0] | state.contact[:, 2]

    def reward(self, state: State) -> dict[str, NDArray[Any]]:
        """Terms (N,) of the extrinsic reward; the reward is their sum."""
        c = self.config
        success = self.goal_distance(state) < c.goal_radius_m
        hit = state.contact[:, 0] | state.contact[:, 1]
        terms: dict[str, NDArray[Any]] = {
            "goal": c.goal_reward * success,
            "contact": c.contact_reward * hit,
        }
        if c.touch_reward:
            terms["touch"] = c.touch_reward * hit / np.maximum(state.touches, 1)
        if c.terminal_collision and c.collision_reward:
            terms["collision"] = c.collision_reward * (self.collided(state) & ~success)
        if c.progress_reward:
            known = np.isfinite(state.last_cost_to_go) & np.isfinite(state.cost_to_go)
            gain = np.subtract(
                state.last_cost_to_go, state.cost_to_go, where=known, out=np.zeros(len(known))
            )
            terms["progress"] = c.progress_reward * np.clip(gain, -1, 1)
        if c.time_reward:
            terms["time"] = np.full(len(hit), c.time_reward)
        if c.smooth_reward:
            terms["smooth"] = c.smooth_reward * np.square(state.action - state.last_action).sum(
                axis=1
            )
        if c.near_reward:
            terms["near"] = c.near_reward * np.clip(1 - state.clearance_m / c.near_m, 0, 1)
        return terms

    def done(self, state: State) -> tuple[NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """(N,) terminated, (N,) truncated, and outcomes (valid where either holds)."""
        c = self.config
        success = self.goal_distance(state) < c.goal_radius_m
        collision = (
            self.collided(state) & ~success if c.terminal_collision else np.zeros_like(success)
        )
        terminated = success | collision
        if c.stale_steps:
            terminated |= state.stale >= c.stale_steps
        truncated = ~terminated & (state.t >= c.max_steps)
        return terminated, truncated, {"success": success, "collision": collision}


def free_walk(
    world: World,
    rng: np.random.Generator,
    clearance_m: float,
    low_m: float,
    high_m: float,
    tries: int = 20,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Two free points that see each other, ``low_m`` to ``high_m`` apart; None if not found."""
    grid = world.grid(0.1)
    blocked = grid.inflate(clearance_m, unknown=True)
    for a in world.free_points(rng, tries, clearance_m):
        angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(low_m, high_m)
        b = a + length * np.array([np.cos(angle), np.sin(angle)])
        x0, y0, x1, y1 = world.bounds
        if not (x0 < b[0] < x1 and y0 < b[1] < y1):
            continue
        if line_of_sight(blocked, *grid.cell(a), *grid.cell(b)):
            return a, b
    return None
