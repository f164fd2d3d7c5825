"""Explore a grid map or a world with any explorer, and the tour of one who knows it all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.command import action_from_command
from rnd_agv.grid import OccupancyGrid, distance_m
from rnd_agv.pure_pursuit import PurePursuit
from rnd_agv.robot import RobotSpec
from sim.backend import CONTROL_DT, SCAN_EVERY
from sim.batch import BatchEnv, Tier
from sim.dungeon import CELL_PX, LATTICE_PX, SENSOR_PX, UNSEEN_PX, DungeonMap, DungeonRun
from sim.randomization import NOMINAL, Randomization
from sim.tasks.explore import Explore
from sim.worlds import World
from toponav import geodesic
from toponav.exploration import Decision, Exploration, ExplorationConfig, Task
from toponav.explorers import Explorer, tour
from toponav.localizer import wrap
from toponav.snapshot import Snapshot

Disturb = Callable[[float, BatchEnv], None]
Driver = Any
"""A local planner of ``rnd_agv``: PurePursuit, DWA or MPPI."""

REPLAN_PX = 24
"""A new decision is taken after this distance, or where the target is reached."""
LIMIT_PX = 20_000
"""An exploration that has driven so far is given up."""
BACK_M_S = 0.15
"""A robot that has been standing backs up this fast."""
WHOLE = 1_000_000
"""Frontiers of grid maps are not cut: a candidate is a whole cluster."""


@dataclass
class GridWalk:
    """How one exploration went."""

    finished: bool
    driven_px: float
    decision_s: list[float] = field(default_factory=list)
    """Time that each decision took, mapping excluded."""
    curve: list[tuple[float, int]] = field(default_factory=list)
    """Distance and floor unseen at each decision, px."""


def explore(run: DungeonRun, explorer: Explorer, limit_px: float = LIMIT_PX) -> GridWalk:
    """Drive until the map is finished, nothing is left to drive to, or ``limit_px`` is used up."""
    out, view = GridWalk(False, 0.0), None
    while not run.finished and run.driven_px < limit_px:
        begun, from_px = time.perf_counter(), run.driven_px
        view = snapshot(run, view)
        if len(view.frontiers) == 0:
            break
        chosen = explorer.choose(view)
        out.decision_s.append(time.perf_counter() - begun)
        out.curve.append((run.driven_px, run.unseen_px))
        drive_to(run, view, chosen)
        if run.driven_px == from_px:  # stands on it and sees no more: nothing would change
            break
    out.finished, out.driven_px = run.finished, run.driven_px
    out.curve.append((run.driven_px, run.unseen_px))
    return out


def snapshot(run: DungeonRun, before: Snapshot | None) -> Snapshot:
    """What the next decision of a run sees; ``before`` is what the last one saw."""
    came_from = None if before is None else before.at
    target = None if before is None else before.target
    at = int(run.at[0]), int(run.at[1])
    return Snapshot(run.grid.copy(), at, SENSOR_PX / CELL_PX, came_from, target, piece_cells=WHOLE)


def drive_to(run: DungeonRun, view: Snapshot, chosen: int) -> None:
    """Drive one decision's way to a frontier of ``view``, which is told so."""
    y, x = view.frontiers.cell[chosen]
    view.target = int(y), int(x)
    from_px = run.driven_px
    for cell in geodesic.path(view.cost, view.target)[1:]:
        run.step(cell)
        if run.finished or run.driven_px - from_px >= REPLAN_PX - 1e-6:
            break


def omniscient(world: DungeonMap) -> float:
    """Distance of a good tour that sees the map, driven by one who knows it, px: a yardstick.

    Lookouts on the lattice by greedy set cover until at most UNSEEN_PX are unseen, in the order of
    :func:`toponav.explorers.tour`, whose 2-opt is good and not proven shortest; a lookout that
    shows nothing new by the time it is its turn is left out.
    """
    run = DungeonRun(world)
    free = ~world.wall
    cells = np.array([
        (y, x) for y in range(LATTICE_PX // 2, free.shape[0], LATTICE_PX)
        for x in range(LATTICE_PX // 2, free.shape[1], LATTICE_PX) if free[y, x]
    ]) // CELL_PX  # fmt: skip
    cells = np.concatenate([run.at[None], cells])
    seen = np.array([_seen(world, cell) for cell in cells])
    chosen = [0]
    left = free[::CELL_PX, ::CELL_PX].ravel() & ~seen[0]
    while left.sum() * CELL_PX**2 > UNSEEN_PX:
        best = int((seen & left).sum(axis=1).argmax())
        chosen.append(best)
        left &= ~seen[best]
    walk = free[::CELL_PX, ::CELL_PX]
    at = cells[chosen]
    costs = np.array([geodesic.costs(walk, (int(y), int(x)))[at[:, 0], at[:, 1]] for y, x in at])
    ways = costs.astype(np.float32)
    stops = np.array(chosen)[1:]
    for stop in stops[tour(ways[0, 1:], ways[1:, 1:])] if len(stops) else stops:
        shows = seen[stop].reshape(run.grid.shape)
        if run.finished or not (shows & (run.grid < 0)).any():
            continue
        y, x = cells[stop]
        cost = geodesic.costs(walk, (int(run.at[0]), int(run.at[1])))
        for cell in geodesic.path(cost, (int(y), int(x)))[1:]:
            run.step(cell)
            if run.finished:
                break
    return run.driven_px


def _seen(world: DungeonMap, cell: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(cells,) what is known to be free after one look from a cell."""
    y, x = (cell + 0.5) * CELL_PX
    run = DungeonRun(DungeonMap(world.name, world.wall, (float(x), float(y))))
    return np.asarray(run.grid == 0).ravel()


@dataclass
class Walk:
    """How the exploration of a world by a robot with a lidar went."""

    mind: Exploration
    time_s: float
    coverage: float
    """Share of the floor that the robot's disc can get to which was seen."""
    curve: list[tuple[float, float]]
    """Distance driven, m, and coverage, every 5 s."""
    home_m: float
    """How far from its start the robot ended."""
    touched: bool
    """Did the robot touch anything?"""


def explore_world(
    world: World, config: ExplorationConfig, explorer: Explorer | None = None, *,
    drive: Callable[[RobotSpec], Driver] = PurePursuit,
    start_w: ArrayLike | None = None, visit_w: ArrayLike | None = None,
    robot: str = "jackal", view_rad: float = 2 * np.pi,
    limit_s: float = 3600.0, seed: int = 0, tier: Tier = "kinematic",
    randomization: Randomization = NOMINAL, disturb: Disturb | None = None,
) -> Walk:  # fmt: skip
    """Explore a world with a simulated robot: sub-goals by ``toponav``, driven by pure pursuit.

    Args:
        visit_w: (2,) a place to go to once all is seen, m.
        view_rad: field of view of the lidar, ahead.
        limit_s: the simulation ends here, whatever the exploration says.
        disturb: called every step with the time and the environment, to push the robot about.
    """
    task = Explore(world, start_w, robot=robot, scan_range_m=config.range_m)
    env = BatchEnv(task, 1, tier, seed, randomization)
    env.reset()
    mind, driver = Exploration(config, explorer), drive(task.robot)
    if visit_w is not None:
        mind.visit(visit_w)
    angles, limits, s = task.scan.angles, task.robot.limits, env.state
    blind = np.abs((angles + np.pi) % (2 * np.pi) - np.pi) > view_rad / 2 + 1e-6
    floor = floor_cells(world, task.robot, config.resolution_m)
    lidar_b = (task.robot.lidar_x_m, 0.0, 0.0)
    start, touched, decided, curve = s.pose_w[0].copy(), False, -np.inf, []
    decision = mind.decision
    for step in range(int(limit_s / CONTROL_DT)):
        t = step * CONTROL_DT
        pose = s.seen_pose_w[0]
        if step % SCAN_EVERY == 0:
            mind.observe(
                t, pose, env.ranges[0, ~blind], angles[~blind], task.scan.range_max, lidar_b
            )
        near = decision.target_w is not None and np.hypot(*(decision.target_w - pose[:2])) < 0.3
        if t - decided >= (0.5 if near else 1.0):
            decision, decided = mind.decide(t), t
            if decision.target_w is not None:
                s.goal_w[0] = decision.target_w
        if step % 100 == 0:
            curve.append((mind.driven_m, seen_share(mind, floor)))
        if decision.task == Task.DONE:
            break
        if decision.target_w is not None:
            assert env.guide is not None
            ahead = np.where(blind, task.scan.range_max, env.ranges[0])
            command = driver.act(
                pose, s.vel_b[0], ahead, task.scan, env.guide.path(0, pose), decision.target_w
            )
        else:
            command = in_place(decision, pose[2])
        env.step(action_from_command(command[None], limits))
        touched |= bool(s.contact[0, 0] | s.contact[0, 2])
        if disturb is not None:
            disturb(t, env)
    return Walk(
        mind, t, seen_share(mind, floor), curve, float(np.hypot(*(s.pose_w[0] - start)[:2])),
        touched,
    )  # fmt: skip


def in_place(decision: Decision, yaw: float) -> NDArray[np.float64]:
    """(2,) m/s, rad/s for a decision without a way: back up, turn, or stand.

    Args:
        yaw: of the robot in the decision's frame, rad.
    """
    if decision.task == Task.BACK_UP:
        return np.array([-BACK_M_S, 0.0])
    if decision.heading_w is not None:
        return np.array([0.0, np.clip(2 * wrap(decision.heading_w - yaw), -1.0, 1.0)])
    return np.zeros(2)


def floor_cells(world: World, robot: RobotSpec, resolution: float) -> OccupancyGrid:
    """Cells that the robot's disc can cover, free (0); all else occupied."""
    grid, radius_m = world.grid(resolution), robot.circumscribed_m
    blocked = grid.inflate(radius_m, unknown=True)
    count, label = cv2.connectedComponents((~blocked).astype(np.uint8), connectivity=4)
    largest = 1 + np.bincount(label.ravel(), minlength=count)[1:].argmax()
    covered = distance_m(label == largest, resolution) <= radius_m
    grid.data[:] = np.where(covered & (grid.data == 0), 0, 100)
    return grid


def seen_share(mind: Exploration, floor: OccupancyGrid) -> float:
    """Share of the free cells of ``floor`` that the exploration has seen to be free."""
    assert mind.map is not None
    cells = np.argwhere(floor.data == 0)
    points = floor.centre(cells[:, 0], cells[:, 1])
    at = np.floor((points - mind.map.origin_w) / mind.map.resolution).astype(int)
    height, width = mind.map.data.shape
    inside = ((at >= 0) & (at < (width, height))).all(axis=1)
    x, y = at[inside].T
    return float((mind.map.data[y, x] == 0).sum() / len(points))
