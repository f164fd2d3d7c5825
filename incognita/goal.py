"""Search a world for a goal with a simulated robot, and measure the search against the best way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.command import action_from_command
from rnd_agv.planner import line_of_sight, nearest_free
from rnd_agv.pure_pursuit import PurePursuit
from rnd_agv.robot import RobotSpec
from sim.backend import CONTROL_DT, SCAN_EVERY
from sim.batch import BatchEnv, Tier
from sim.randomization import NOMINAL, Randomization
from sim.tasks.agv import AgvTask, Placement
from sim.tasks.goal import GoalReaching
from sim.worlds import World
from toponav import geodesic
from toponav.exploration import Decision, ExplorationConfig, Task
from toponav.explorers import Explorer
from toponav.goal import GoalSearch
from toponav.h_dqn import Hdqn

from .explore import floor_cells, in_place, seen_share

SHORTEST_CELL_M = 0.05
"""Cells that the best way is found on."""
DECIDE_S = 0.5
"""A decision is taken this often."""


class Drive(Protocol):
    """Drives row 0 to where a decision leads."""

    def look(self, env: BatchEnv) -> None:
        """Called before every decision."""

    def command(self, decision: Decision, env: BatchEnv) -> NDArray[np.float64]:
        """(2,) v m/s and w rad/s for the next period."""


class FollowPath:
    """Pure pursuit along the decision's path.

    Args:
        told: an agent whose upper level chooses and is told what the sensors show.
    """

    def __init__(self, robot: RobotSpec, told: Hdqn | None = None) -> None:
        self.planner, self.told = PurePursuit(robot), told

    def look(self, env: BatchEnv) -> None:
        """See :class:`Drive`."""
        s = env.state
        if self.told is not None:
            self.told.sense(s.seen_pose_w[0], s.vel_b[0], s.frames[0, 0])

    def command(self, decision: Decision, env: BatchEnv) -> NDArray[np.float64]:
        """See :class:`Drive`."""
        s = env.state
        if decision.target_w is None or decision.path_w is None:
            return in_place(decision, s.seen_pose_w[0, 2])
        return self.planner.act(
            s.seen_pose_w[0], s.vel_b[0], env.ranges[0], env.scan, decision.path_w,
            decision.target_w,
        )  # fmt: skip


class DrivePrimitives:
    """The sub-controller of H-DQN: one primitive for every decision.

    Args:
        agent: both levels; the upper one is told what the sensors show, too.
    """

    def __init__(self, agent: Hdqn) -> None:
        if agent.config.primitive_s != DECIDE_S:
            raise ValueError(f"primitive_s must be {DECIDE_S}, got {agent.config.primitive_s}")
        self.agent = agent
        self._decision: Decision | None = None
        self._command = np.zeros(2)

    def look(self, env: BatchEnv) -> None:
        """See :class:`Drive`."""
        s = env.state
        self.agent.sense(s.seen_pose_w[0], s.vel_b[0], s.frames[0, 0])

    def command(self, decision: Decision, env: BatchEnv) -> NDArray[np.float64]:
        """See :class:`Drive`."""
        if decision is not self._decision:
            self._decision, self._command = decision, self.agent.primitive(decision)
        return self._command


@dataclass
class Search:
    """How one search went."""

    success: bool
    time_s: float
    path_m: float
    """Way driven."""
    shortest_m: float
    """Way of one who knows the map, to where the goal counts as reached."""
    coverage: float
    """Share of the floor that was seen."""
    touched: bool
    """Did the robot touch anything?"""
    reason: str
    """Why it ended."""
    decision_s: list[float] = field(default_factory=list, repr=False)
    """Time that each decision took."""

    @property
    def spl(self) -> float:
        """Success weighted by path length (Anderson et al. 2018, arXiv 1807.06757)."""
        return self.success * self.shortest_m / max(self.shortest_m, self.path_m)


def placed(task: GoalReaching, layout: int) -> Placement:
    """The one start and goal of this layout that everybody is measured on."""
    return task.place_in(layout, np.random.default_rng([layout, 3]))


class _Fixed(AgvTask):
    """A task whose every episode starts the same."""

    def __init__(self, task: AgvTask, placement: Placement) -> None:
        super().__init__(task.config)
        self.placement = placement

    def place(self, rng: np.random.Generator) -> Placement:
        return self.placement


def search(
    task: GoalReaching, layout: int, explorer: Explorer, *,
    drive: Callable[[RobotSpec], Drive] = FollowPath, config: ExplorationConfig | None = None,
    told: bool = True, limit_s: float | None = None, no_goal: bool = False, seed: int = 0,
    tier: Tier = "kinematic", randomization: Randomization = NOMINAL,
) -> Search:  # fmt: skip
    """Search one layout.

    Args:
        explorer: chooses among frontiers.
        told: the robot knows where the goal is, never the way; else it learns that once the goal
            is in sight and in range of its lidar.
        limit_s: the search ends here; None: with the task's episode.
        no_goal: there is none, explore to ``limit_s``, without success.
    """
    placement = placed(task, layout)
    goal_w = None if no_goal else placement.goal_w
    nowhere = replace(placement, goal_w=np.array([1e6, 1e6]))
    env = BatchEnv(_Fixed(task, nowhere if no_goal else placement), 1, tier, seed, randomization)
    env.reset()
    c = config or ExplorationConfig(range_m=task.scan.range_max, return_home=False)
    mind = GoalSearch(c, explorer, goal_w if told else None, task.config.goal_radius_m)
    driver = drive(task.robot)
    decided, decision, took = -math.inf, mind.decision, list[float]()
    success, touched, path_m = False, False, 0.0
    steps = task.config.max_steps if limit_s is None else round(limit_s / CONTROL_DT)
    for step in range(min(steps, task.config.max_steps)):
        t = step * CONTROL_DT
        if step % SCAN_EVERY == 0:
            _sense(mind, env, t, goal_w)
        if t - decided >= DECIDE_S:
            driver.look(env)
            begun = time.perf_counter()
            decision, decided = mind.decide(t), t
            took.append(time.perf_counter() - begun)
        if decision.task == Task.DONE:
            break
        out = env.step(action_from_command(driver.command(decision, env)[None], task.robot.limits))
        path_m, success = float(out.terms["path_m"][0]), bool(out.terms["success"][0])
        if success:  # the row has begun anew
            touched |= not out.terms["clean"][0]
            break
        touched |= bool(env.collided[0])
    floor = floor_cells(placement.world, task.robot, c.resolution_m)
    shortest = shortest_m(placement.world, placement.start_w, placement.goal_w, task.robot)
    return Search(
        success, (step + 1) * CONTROL_DT, path_m, max(shortest - task.config.goal_radius_m, 0.0),
        seen_share(mind, floor), touched, "goal" if success else str(mind.reason or "time"), took,
    )  # fmt: skip


def _sense(mind: GoalSearch, env: BatchEnv, t_s: float, goal_w: NDArray[np.float64] | None) -> None:
    """Enter the newest scan; tell a goal that nobody has told once it is seen."""
    s, placement = env.state, env.placements[0]
    lidar_b = (env.robot.lidar_x_m, 0.0, 0.0)
    mind.observe(t_s, s.seen_pose_w[0], env.ranges[0], env.scan.angles, env.scan.range_max, lidar_b)
    if mind.goal_w is None and goal_w is not None and placement is not None:
        if in_sight(placement.world, s.pose_w[0], goal_w, mind.config.range_m):
            mind.spot(goal_w)


def in_sight(world: World, pose_w: ArrayLike, goal_w: ArrayLike, range_m: float) -> bool:
    """Is the goal within range with nothing between? Stands in for a detector."""
    here, goal = np.asarray(pose_w, np.float64)[:2], np.asarray(goal_w, np.float64)
    if np.hypot(*(goal - here)) > range_m:
        return False
    grid = world.grid(0.1)
    return line_of_sight(grid.data != 0, *grid.cell(here), *grid.cell(goal))


def shortest_m(world: World, start_w: ArrayLike, goal_w: ArrayLike, robot: RobotSpec) -> float:
    """Length of the shortest way for the robot's disc (its circumscribed circle), m.

    On cells of 5 cm, then drawn taut: steps over a grid alone would be up to 8 % too long, and
    flatter whoever is measured by them.

    Raises:
        ValueError: there is no way.
    """
    grid = world.grid(SHORTEST_CELL_M)
    blocked = grid.inflate(robot.circumscribed_m, unknown=True)
    ends = []
    for point in (start_w, goal_w):
        cell = nearest_free(blocked, grid.cell(np.asarray(point, np.float64)[:2]), 4)
        if cell is None:
            raise ValueError(f"start and goal must be free for the robot, got {point}")
        ends.append(cell)
    cost = geodesic.costs(~blocked, ends[0])
    way = geodesic.path(cost, ends[1])
    return min(_taut(blocked, way), _taut(blocked, way[::-1])) * grid.resolution


def _taut(blocked: NDArray[np.bool_], way: NDArray[np.int64]) -> float:
    """Length of a way over cells drawn taut from its beginning, cells."""
    at, length = 0, 0.0
    while at < len(way) - 1:
        to = len(way) - 1
        while to > at + 1 and not line_of_sight(blocked, *way[at].tolist(), *way[to].tolist()):
            to -= 1
        length += float(np.hypot(*(way[to] - way[at])))
        at = to
    return length
