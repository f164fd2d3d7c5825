"""Lifelong navigation measured: explore, drive while doors change, be carried away.

What the truth is asked for here is for judging only; the robot has odometry and scans.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.planner import nearest_free
from rnd_agv.robot import RobotSpec
from sim.tasks.lifelong import floor
from sim.worlds import World
from sim.worlds.world import GRID_M
from toponav.exploration import Exploration, ExplorationConfig, Reason
from toponav.graph import TopologicalMap
from toponav.localizer import between, compose
from toponav.navigation import Navigation
from toponav.tracker import Tracker
from toponav.ways import Floor, link

from .stage import Stage

PLACE_M = 0.5
"""A node is at its true place if it is this near to it; a pose is right up to this error ..."""
PLACE_DEG = 15.0
"""... and this one."""
ABOUT, ABOUT_M = 1.25, 0.5
"""Two lengths are about the same within this factor and this much more, m."""
GOAL_M = 0.7
"""A goal this near, truly, is reached."""
FAR_M = 6.0
"""Least way to a goal."""
EPISODE_S, KIDNAP_S, EXPLORE_S = 240.0, 90.0, 1800.0
"""Limits, simulated."""
SHUT = 0.2
"""Share of the doors that is shut."""


def true_floor(world: World, robot: RobotSpec) -> Floor:
    """Where the robot's disc (inscribed, less a centimetre of tolerance) truly fits."""
    grid = world.grid(GRID_M)
    return Floor(~grid.inflate(robot.inscribed_m - 0.01, unknown=True), grid.origin_w, GRID_M)


def edge_is_right(
    length_m: float, at: Sequence[NDArray[np.float64]], truly: Sequence[NDArray[np.float64]],
    truth: Floor,
) -> bool:  # fmt: skip
    """Whether an edge tells the truth.

    It does if each of its two nodes is within ``PLACE_M`` of its true place, see :class:`Places`,
    and the shortest way of the robot's disc between the two true places is about as long as the
    edge (within 25 % and 0.5 m, either way).

    Args:
        length_m: of the edge.
        at: (2,) of both nodes on the map.
        truly: (2,) true place of both.
        truth: the true floor.
    """
    if any(np.hypot(*(a - b)) > PLACE_M for a, b in zip(at, truly, strict=True)):
        return False
    way = truth.ways_m(truly[0], truly[1][None], ABOUT * length_m + ABOUT_M)[0]
    return bool(way <= ABOUT * length_m + ABOUT_M and length_m <= ABOUT * way + ABOUT_M)


@dataclass
class Places:
    """Where each node truly is.

    The map says how far a node is from the robot that is at it. So its true place is so far from
    where the robot truly is at that time, which is that of its latest visit.
    """

    graph: TopologicalMap
    truly: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """(2,) by id."""
    _at: tuple[int | None, int] = (None, 0)

    def note(self, mind: Exploration, stage: Stage) -> None:
        """Call it every step."""
        node = self.graph.current
        visit = (node, 0 if node is None else self.graph.nodes[node].visits)
        if node is not None and visit != self._at:
            believed = compose(mind.map_from_odom, stage.odometer.pose)
            off = between(believed, self.graph.nodes[node].pose_w)
            self.truly[node] = compose(stage.pose_w, off)[:2]
        self._at = visit

    def right(self, a: int, b: int, length_m: float, truth: Floor) -> bool:
        """See :func:`edge_is_right`."""
        ends = [self.graph.nodes[i].pose_w[:2] for i in (a, b)]
        return edge_is_right(length_m, ends, [self.truly[a], self.truly[b]], truth)


@dataclass
class Life:
    """One floor: its robot, what that has come to know, and what is measured on the way."""

    seed: int
    world: World
    stage: Stage
    places: Places
    nav: Navigation
    explored: dict[str, Any]
    rng: np.random.Generator

    def watch(self, stage: Stage) -> bool:
        """A :data:`incognita.stage.Watch` that never ends a run."""
        self.places.note(self.nav, stage)
        return False


def explore(seed: int, drift: float, size_m: tuple[float, float]) -> Life:
    """Phase 1: explore an unseen floor with drifting odometry, all doors open."""
    world, rng = floor(seed, size_m), np.random.default_rng([seed, 1])
    start = np.array([*world.free_points(rng, 1, 0.5)[0], rng.uniform(-np.pi, np.pi)])
    stage = Stage(world, start, drift, seed)
    robot = stage.task.robot
    config = ExplorationConfig(radius_m=robot.inscribed_m + 0.05, range_m=8.0)
    mind = Exploration(config, tracker=Tracker())
    places, errors = Places(mind.graph), list[float]()

    def watch(now: Stage) -> bool:
        if len(errors) < now.t_s:  # once a second
            errors.append(error(mind, now)[0])
        places.note(mind, now)
        return False

    stage.run(mind, EXPLORE_S, watch)
    assert mind.map is not None and mind.tracker is not None
    truth, graph = true_floor(world, robot), mind.graph
    nav = Navigation(
        graph, mind.map, ExplorationConfig(radius_m=config.radius_m, return_home=False),
        mind.tracker,
    )  # fmt: skip
    made = {(min(ends), max(ends)) for ends in link(graph, nav.floor(), stage.t_s)}
    right = {(a, b): places.right(a, b, e.length_m, truth) for a, b, e in graph.edges()}
    explored = {
        "reason": str(mind.reason), "time_s": round(stage.t_s, 1),
        "driven_m": round(stage.driven_m, 1), "nodes": len(graph),
        "driven_edges": [ok for ends, ok in right.items() if ends not in made],
        "linked_edges": [ok for ends, ok in right.items() if ends in made],
        "scans": len(mind.tracker.localizer),
        "odometry_off_m": float(np.hypot(*between(stage.pose_w, stage.odometer.pose)[:2])),
        "worst_error_m": max(errors), "lost_again": mind.tracker.answers,
    }  # fmt: skip
    graph.resume(stage.t_s)
    return Life(seed, world, stage, places, nav, explored, rng)


def error(mind: Exploration, stage: Stage) -> tuple[float, float]:
    """How far off the believed pose is, m and degrees; the map's frame is the world's."""
    off = between(stage.pose_w, compose(mind.map_from_odom, stage.odometer.pose))
    return float(np.hypot(off[0], off[1])), float(np.degrees(abs(off[2])))


def phantoms(life: Life, count: int) -> list[tuple[int, int]]:
    """Put wrong edges into the graph: through walls, short, and believed in as if driven twice."""
    truth, nodes = true_floor(life.world, life.stage.task.robot), life.nav.graph.nodes
    ids, made = list(nodes), list[tuple[int, int]]()
    for a, b in life.rng.permutation([(a, b) for a in ids for b in ids if a < b]).tolist():
        if len(made) == count:
            break
        line = float(np.hypot(*(nodes[a].pose_w - nodes[b].pose_w)[:2]))
        if line > 5.0 or life.nav.graph.edge(a, b) is not None:
            continue
        way = truth.ways_m(life.places.truly[a], life.places.truly[b][None])[0]
        if way > 3 * line + 3:
            life.nav.graph.join(a, b, life.stage.t_s, line).alpha = 3.0
            made.append((a, b))
    return made


def episode(life: Life) -> dict[str, Any]:
    """Phase 2: other doors are shut, and the robot drives from where it is to a random goal."""
    stage, nav, rng = life.stage, life.nav, life.rng
    robot, dropped = stage.task.robot, len(nav.dropped)
    here = _free_near(life.world, stage.pose_w[:2], robot)
    for _ in range(20):
        goal = life.world.free_points(rng, 1, 0.5)[0]
        shut, which = life.world.shut_some(rng, SHUT, [here, goal], robot.circumscribed_m)
        truth = true_floor(shut, robot)
        best = float(truth.ways_m(stage.pose_w[:2], goal[None])[0])
        if FAR_M <= best < np.inf:
            break
    stage.change(shut)
    nav.go(goal[None])
    t_s, driven_m = stage.t_s, stage.driven_m
    stage.run(nav, EPISODE_S, life.watch)
    driven_m = stage.driven_m - driven_m
    off = float(np.hypot(*(stage.pose_w[:2] - goal)))
    success = nav.reason == Reason.GOAL and off <= GOAL_M
    log = list(nav.dropped)[dropped - len(nav.dropped) :] if len(nav.dropped) > dropped else []
    fine = [life.places.right(a, b, nav.shut[a, b].edge.length_m, truth)
            for (a, b), _ in log if (a, b) in nav.shut]  # fmt: skip
    return {
        "success": success, "reason": str(nav.reason), "off_m": off, "time_s": stage.t_s - t_s,
        "shut_share": len(which) / len(life.world.doors), "driven_m": driven_m, "best_m": best,
        "spl": float(success * best / max(best, driven_m)), "tries": [n for _, n in log],
        "right_edges_dropped": sum(fine), "lost": nav.lost,
    }  # fmt: skip


def found_again(life: Life, goals: int) -> tuple[int, int]:
    """Open all doors and drive to some goals: edges dropped that are right, and those back."""
    nav, stage = life.nav, life.stage
    stage.change(life.world)
    truth = true_floor(life.world, stage.task.robot)
    gone = [key for key, shut in nav.shut.items()
            if life.places.right(*key, shut.edge.length_m, truth)]  # fmt: skip
    nav.go(life.world.free_points(life.rng, goals, 0.5))
    stage.run(nav, goals * EPISODE_S, life.watch)
    back = [key for key in gone if (e := nav.graph.edge(*key)) is not None and not e.doubted]
    return len(gone), len(back)


def kidnap(life: Life) -> dict[str, Any]:
    """Phase 3: carry the robot somewhere; what it knew before is restored afterwards."""
    stage, rng, before = life.stage, life.rng, life.nav
    nav = copy.deepcopy(before)
    while True:
        to = np.array([*stage.world.free_points(rng, 1, 0.45)[0], rng.uniform(-np.pi, np.pi)])
        if np.hypot(*(to - stage.pose_w)[:2]) > 2.0:
            break
    stage.kidnap(to)
    nav.go(life.world.free_points(rng, 8, 0.5), patrol=True)
    assert nav.tracker is not None
    tracker, t_s, noticed = nav.tracker, stage.t_s, list[float]()
    answers = tracker.answers

    def watch(now: Stage) -> bool:
        if nav.lost and not noticed:
            noticed.append(now.t_s - t_s)
        return tracker.answers > answers

    stage.run(nav, KIDNAP_S, watch)
    metres, degrees = error(nav, stage)
    good = metres <= PLACE_M and degrees <= PLACE_DEG
    if tracker.answers > answers:
        outcome = "right" if good else "wrong"
    elif noticed:
        outcome = "unknown"
    else:  # it may have been put where the scans fit all the same, and be right
        outcome = "right" if good else "unnoticed"
    return {"outcome": outcome, "noticed_s": noticed[0] if noticed else None,
            "time_s": stage.t_s - t_s, "error_m": metres, "error_deg": degrees}  # fmt: skip


def _free_near(world: World, xy: NDArray[np.float64], robot: RobotSpec) -> NDArray[np.float64]:
    """The point nearest to ``xy`` at which the robot can turn."""
    grid = world.grid(GRID_M)
    blocked = grid.inflate(robot.circumscribed_m, unknown=True)
    cell = nearest_free(blocked, grid.cell(xy), 10)
    assert cell is not None
    return np.asarray(grid.centre(np.array([cell[0]]), np.array([cell[1]]))[0], np.float64)
