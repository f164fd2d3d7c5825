"""Find a thing of a class in a furnished floor: a point robot for many runs, a simulated one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rnd_agv.command import action_from_command
from rnd_agv.observation import ObservationConfig, full_circle
from rnd_agv.pure_pursuit import PurePursuit
from rnd_agv.robot import ROBOTS
from sim.backend import CONTROL_DT, SCAN_EVERY
from sim.batch import BatchEnv, Tier
from sim.labels import Detector, LabelNoise
from sim.lidar import cast_labelled
from sim.randomization import NOMINAL, Randomization
from sim.tasks.agv import Placement
from sim.tasks.find import Find
from sim.worlds import LABELS
from sim.worlds.furnished import Building, furnished
from toponav import geodesic
from toponav.exploration import ExplorationConfig, Reason, Task
from toponav.explorers import Explorer
from toponav.prior import Prior, office_floor
from toponav.thing_search import SemanticExplorer, ThingSearch

from .explore import in_place

RANGE_M = 6.0
"""Range of the lidar and of the detector."""
BEAMS = 360
LOOK_M = 0.5
"""The point robot takes a scan this often ..."""
DECIDE_M = 1.6
"""... and a decision."""
SPEED_M_S = 0.6
"""Its speed."""
LIMIT_M = 600.0
"""A search that has driven so far is given up."""
FOUND_M = 1.0
"""Success: the robot says that it has found it, and something of the class is in view from this
near, from its centre to the nearest point that the lidar hits."""
FAR_M = 8.0
"""Nothing of the class is nearer to the start than this, by way."""


@dataclass(frozen=True, eq=False)
class Quest:
    """One search: where, for what, from where."""

    building: Building
    wanted: str
    start_w: NDArray[np.float64]
    """(3,)."""
    shortest_m: float
    """Way to the nearest thing of the class for one who knows it, to within FOUND_M."""
    seed: int


def quest(seed: int, prior: Prior | None = None) -> Quest:
    """A floor, a class that it has and a start in a corridor, drawn; same seed, same quest.

    The class is one that the floor has, but not within FAR_M of the start, each as likely.
    """
    prior = prior or office_floor()
    rng = np.random.default_rng([seed, 90_210])
    building = furnished(seed)
    radius = ROBOTS["jackal"].circumscribed_m + 0.05
    blocked = building.world.grid(0.1).inflate(radius, unknown=True)
    for _ in range(200):
        point = building.world.free_points(rng, 1, radius + 0.1)[0]
        room = building.room_at(point)
        if room is None or room.type != "corridor":
            continue
        cost = geodesic.costs(~blocked, building.world.grid(0.1).cell(point))
        ways = {name: _way_m(building, cost, name) for name in prior.classes}
        there = [name for name, way in ways.items() if FAR_M <= way < np.inf]
        if there:
            wanted = there[int(rng.integers(len(there)))]
            start = np.array([*point, rng.uniform(-np.pi, np.pi)])
            return Quest(building, wanted, start, ways[wanted], seed)
    raise ValueError(f"seed {seed} gives a floor without anything far from a corridor")


def _way_m(building: Building, cost: NDArray[np.int32], name: str) -> float:
    """Shortest way to a place within FOUND_M of a thing of the class in its own room, m."""
    grid = building.world.grid(0.1)
    cells = np.argwhere(cost >= 0)
    xy = grid.centre(cells[:, 0], cells[:, 1])
    best = np.inf
    for cx, cy, hx, hy in building.boxes_of(name):
        room = building.room_at(np.array([cx, cy]))
        if room is None:
            continue
        x0, y0, x1, y1 = room.box
        gap = np.maximum(np.abs(xy - (cx, cy)) - (hx, hy), 0)
        near = np.hypot(gap[:, 0], gap[:, 1]) < FOUND_M
        near &= (xy[:, 0] > x0) & (xy[:, 0] < x1) & (xy[:, 1] > y0) & (xy[:, 1] < y1)
        if near.any():
            y, x = cells[near].T
            best = min(best, float(cost[y, x].min()) / geodesic.STRAIGHT * 0.1)
    return best


@dataclass
class FindWalk:
    """How one search went."""

    success: bool
    reason: str
    driven_m: float
    time_s: float
    decision_s: list[float] = field(default_factory=list)
    """Time that each decision took."""
    path_w: list[tuple[float, float]] = field(default_factory=list)


@cache
def _angles() -> NDArray[np.float64]:
    return full_circle(BEAMS, RANGE_M).angles


class Eyes:
    """Scan and labels of a place in a floor."""

    def __init__(self, building: Building) -> None:
        world = building.world
        self.boxes, self.labels = world.boxes[None], world.box_labels[None]
        self.count = np.array([len(world.boxes)], np.int32)
        self.none = np.zeros((1, 0, 3))
        self.zero = np.zeros(1, np.int32)

    def look(self, pose_w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """(B,) exact ranges and true labels."""
        ranges, labels = np.empty((1, BEAMS), np.float32), np.empty((1, BEAMS), np.int8)
        angles = _angles()
        cast_labelled(
            pose_w[None], angles[0], angles[1] - angles[0], self.boxes, self.count,
            self.none.astype(np.float32), self.zero, self.zero, self.none, RANGE_M, self.labels,
            np.zeros((1, 0), np.int8), np.zeros((1, 0), np.int8), ranges, labels,
        )  # fmt: skip
        return ranges[0].astype(np.float64), labels[0]

    def near(self, pose_w: NDArray[np.float64], wanted: str) -> bool:
        """Is something of the class in view from FOUND_M or nearer?"""
        ranges, labels = self.look(pose_w)
        return bool((ranges[labels == LABELS.index(wanted)] <= FOUND_M).any())


def search_of(one: Quest, explorer: Explorer, prior: Prior | None = None) -> ThingSearch:
    """The search of a quest, with the robot's sizes."""
    prior = prior or office_floor()
    config = ExplorationConfig(range_m=RANGE_M, radius_m=0.3, return_home=False)
    return ThingSearch(one.wanted, LABELS, prior.classes, config, explorer,
                       landmarks=isinstance(explorer, SemanticExplorer))  # fmt: skip


def find_as_point(
    one: Quest, explorer: Explorer, noise: LabelNoise, sigma_m: float = 0.01
) -> FindWalk:
    """Search with a point that follows its paths exactly, in the same maps with the same eyes."""
    rng = np.random.default_rng([one.seed, 31])
    detector = Detector(office_floor().classes, noise, one.seed)
    eyes, mind = Eyes(one.building), search_of(one, explorer)
    pose, t, driven = one.start_w.copy(), 0.0, 0.0
    out = FindWalk(False, "", 0.0, 0.0)

    def look() -> None:
        ranges, labels = eyes.look(pose)
        hit = ranges < RANGE_M
        ranges = np.where(hit, ranges + sigma_m * rng.standard_normal(BEAMS), ranges)
        mind.observe(t, pose, ranges, _angles(), RANGE_M, labels=detector.see(labels))
        out.path_w.append((float(pose[0]), float(pose[1])))

    look()
    while driven < LIMIT_M:
        begun = time.perf_counter()
        decision = mind.decide(t)
        out.decision_s.append(time.perf_counter() - begun)
        if decision.task == Task.DONE:
            break
        left, since = DECIDE_M, 0.0
        way = decision.path_w if decision.path_w is not None else pose[None, :2]
        for point in way[1:]:
            step = float(np.hypot(*(point - pose[:2])))
            pose[2] = np.arctan2(*(point - pose[:2])[::-1]) if step > 0 else pose[2]
            pose[:2], driven, left, since = point, driven + step, left - step, since + step
            t += step / SPEED_M_S
            if since >= LOOK_M:
                look()
                since = 0.0
            if left <= 0:
                break
        if since > 0 or left == DECIDE_M:
            t += 0.5 if left == DECIDE_M else 0.0
            look()
    out.reason = str(mind.reason or "limit")
    out.success = mind.reason == Reason.GOAL and eyes.near(pose, one.wanted)
    out.driven_m, out.time_s = driven, t
    return out


class _Quest(Find):
    """The find task of one quest; the goal is whatever sub-goal the search sets."""

    def __init__(self, one: Quest) -> None:
        super().__init__(
            one.wanted, observation=ObservationConfig(sectors=36, guide=True), guide="built",
            max_steps=10**9, goal_radius_m=1e-9,
        )  # fmt: skip
        self.quest = one

    def place(self, rng: np.random.Generator) -> Placement:
        """The start; the first sub-goal is just beside it."""
        one = self.quest
        return Placement(one.building.world, one.start_w, one.start_w[:2] + 0.01,
                         wanted=LABELS.index(one.wanted))  # fmt: skip


def find_as_robot(
    one: Quest, explorer: Explorer, noise: LabelNoise, tier: Tier = "kinematic",
    limit_s: float = 1200.0, randomization: Randomization = NOMINAL,
) -> FindWalk:  # fmt: skip
    """Search with the simulated Jackal, driven by pure pursuit on a map of its own."""
    task = _Quest(one)
    env = BatchEnv(task, 1, tier, one.seed, randomization)
    env.reset()
    mind, driver = search_of(one, explorer), PurePursuit(task.robot)
    detector = Detector(office_floor().classes, noise, one.seed)
    s, angles = env.state, task.scan.angles
    lidar_b = (task.robot.lidar_x_m, 0.0, 0.0)
    out, decided, decision = FindWalk(False, "", 0.0, 0.0), -np.inf, mind.decision
    assert env.guide is not None
    for step in range(int(limit_s / CONTROL_DT)):
        t, pose = step * CONTROL_DT, s.seen_pose_w[0]
        if step % SCAN_EVERY == 0:
            mind.observe(t, pose, env.ranges[0], angles, task.scan.range_max, lidar_b,
                         labels=detector.see(env.labels[0]))  # fmt: skip
        near = decision.target_w is not None and np.hypot(*(decision.target_w - pose[:2])) < 0.3
        if t - decided >= (0.5 if near else 1.0):
            begun = time.perf_counter()
            decision, decided = mind.decide(t), t
            out.decision_s.append(time.perf_counter() - begun)
            out.path_w.append((float(pose[0]), float(pose[1])))
            if decision.target_w is not None:
                s.goal_w[0] = decision.target_w
        if decision.task == Task.DONE:
            break
        if decision.target_w is not None:
            command = driver.act(pose, s.vel_b[0], env.ranges[0], task.scan,
                                 env.guide.path(0, pose), decision.target_w)  # fmt: skip
        else:
            command = in_place(decision, pose[2])
        env.step(action_from_command(command[None], task.robot.limits))
    out.reason, out.time_s = str(mind.reason or "limit"), t
    out.success = mind.reason == Reason.GOAL and bool(s.wanted_m[0] <= FOUND_M)
    out.driven_m = float(env.path_m[0])
    return out
