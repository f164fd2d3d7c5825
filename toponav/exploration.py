"""Explore a place: scans and poses in, sub-goals out, until a reason to end.

The loop of an exploration without clocks, messages or motors: times, poses and scans are arguments
and the answer is where to drive next. Whoever drives (a planner of ours, Nav2, a simulator) is
asked for nothing but to try. Objectives in the order of their weight, after TopoNav's HODAT
(Hossain et al. 2024, arXiv 2402.04061, which gives the order and no rule; the rules are ours):
never a target that the robot does not fit to, the way home within the budget, what has been begun,
what is unknown.

Every exploration ends with a reason. What its users report of public explorers is what is guarded
against here: frontiers that cannot be reached are left, not tried for ever; one that comes and
goes is given up; a robot that sees too little to begin turns round first.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import geodesic
from .explorers import Explorer, Utility
from .frontier import Frontiers, find
from .graph import TopologicalMap
from .localizer import compose, scan_points, transform, wrap
from .occupancy import OCCUPIED, OCCUPIED_FROM, OccupancyMap
from .snapshot import Snapshot
from .tracker import Tracker, clear_way

MOVED_M, MOVED_RAD = 0.1, 0.3
"""Less is no motion."""
ALL_ROUND_RAD = 2 * math.pi - 0.3
"""A scan of this field of view shows no more for turning."""
PLACE_M = 0.5
"""The topological map is told where the robot is this often."""
AIMED_RAD = 0.2
"""A heading this near is reached."""
WANDER_M, WANDER_S, AT_M = 2.0, 8.0, 0.3
"""A lost robot drives so far at a time, for so long at most, and this near."""


class Reason(enum.StrEnum):
    """Why an exploration is over."""

    COMPLETE = "complete"
    """Nothing unknown is left to see."""
    UNREACHABLE = "unreachable"
    """What is left cannot be got to, or was given up after failures."""
    BUDGET = "budget"
    """Time or distance is used up, or just enough is left for the way home."""
    STUCK = "stuck"
    """The robot has no room to drive, not even after turning round."""
    STOPPED = "stopped"
    """The caller ended it."""
    LOST = "lost"
    """The robot does not know where it is, and could not find out."""
    GOAL = "goal"
    """The goal is reached, see :class:`toponav.goal.GoalSearch`."""


class Task(enum.StrEnum):
    """What the robot is to do now."""

    EXPLORE = "explore"
    """Drive along ``path_w`` to ``target_w``: a frontier."""
    TURN = "turn"
    """Turn on the spot to ``heading_w``, to see more."""
    LOCATE = "locate"
    """The robot is lost: drive along ``path_w``, a short straight way over floor that the last scan
    saw to be free, or turn to ``heading_w``; dead reckoned, see ``Exploration.map_from_odom``."""
    BACK_UP = "back_up"
    """Drive back a little, slowly, whatever the target: the robot has been standing."""
    VISIT = "visit"
    """Drive along ``path_w`` to ``target_w``: a place that was asked for."""
    RETURN = "return"
    """Drive along ``path_w`` to ``target_w``: home."""
    GOAL = "goal"
    """Drive along ``path_w`` to ``target_w``: the goal, over known floor."""
    DONE = "done"
    """Stand still: it is over, see ``Exploration.reason``."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Of the robot and of patience."""

    resolution_m: float = 0.1
    """Side of a cell of the map."""
    factor: int = 2
    """Cells of the map to a side of a cell that is planned on."""
    radius_m: float = 0.3
    """Radius of the robot: what is narrower than twice this is no way."""
    range_m: float = 8.0
    """Scans are entered up to this far."""
    view_m: float = 1.5
    """A frontier counts as reachable if the robot gets this near in sight of it."""
    least_m: float = 0.4
    """Frontiers narrower than this are left ..."""
    least_m2: float = 0.5
    """... and those with less that is unknown in view of them."""
    reach_m: float = 0.5
    """A target this near is reached."""
    settle_s: float = 3.0
    """A frontier that is still one after so long at its lookout is given up."""
    progress_m: float = 0.3
    """The way left must shrink by this ..."""
    patience_s: float = 15.0
    """... in this time, or the target has failed."""
    failures: int = 2
    """A place that failed so often is given up for good."""
    rest_s: float = 60.0
    """A place that failed is left alone for so long."""
    avoid_m: float = 1.0
    """Frontiers this near to a place that failed are that place."""
    stand_s: float = 6.0
    """A robot that is to drive and has not moved for so long backs up ..."""
    back_s: float = 2.0
    """... for so long."""
    turns: int = 6
    """Turns of 60 degrees before a robot that sees no way, and not all round, ends."""
    max_time_s: float = math.inf
    """Time for all of it, the way home included."""
    speed_m_s: float = 0.3
    """Mean speed that the way home is reckoned with."""
    return_home: bool = True
    """Drive home at the end."""
    lost_s: float = 120.0
    """A robot that has been lost for so long gives up."""

    def __post_init__(self) -> None:
        positive = ("resolution_m", "radius_m", "range_m", "view_m", "reach_m", "progress_m",
                    "patience_s", "settle_s", "stand_s", "back_s", "avoid_m", "max_time_s",
                    "speed_m_s", "lost_s")  # fmt: skip
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name, least in (
            ("factor", 1),
            ("failures", 1),
            ("turns", 0),
            ("least_m", 0),
            ("least_m2", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Decision:
    """What to do until the next decision; frame w is the map frame."""

    task: Task
    target_w: NDArray[np.float64] | None = None
    """(2,) m."""
    path_w: NDArray[np.float64] | None = None
    """(L, 2) from the robot to the target, m."""
    heading_w: float | None = None
    """rad."""


@dataclass
class _Failed:
    """A place that could not be got to, or showed nothing."""

    xy: NDArray[np.float64]
    count: int
    until_s: float


class Exploration:
    """One exploration.

    Args:
        config: of the robot and of patience.
        explorer: chooses among frontiers.
        tracker: makes poses on the map of odometry and scans. None: poses are taken as they come,
            because a localiser has made them.
    """

    def __init__(
        self, config: ExplorationConfig | None = None, explorer: Explorer | None = None,
        tracker: Tracker | None = None,
    ) -> None:  # fmt: skip
        self.config = config or ExplorationConfig()
        self.explorer = explorer or Utility()
        self.tracker = tracker
        self.map: OccupancyMap | None = None
        self.reason: Reason | None = None
        """Why it is over; None while it goes on. The way home may still be driven."""
        self.paused = False
        self.home_w: NDArray[np.float64] | None = None
        """(3,) pose of the first scan."""
        self.graph = TopologicalMap()
        """Places driven to and the ways between them."""
        self.driven_m = 0.0
        self.decision = Decision(Task.EXPLORE)
        self.frontiers_w = np.zeros((0, 2))
        """(K, 2) targets that the last decision chose among."""
        self.given_up: list[NDArray[np.float64]] = []
        """Places (2,) given up for good."""
        self._pose_w = np.zeros(3)
        self._placed_w: NDArray[np.float64] | None = None
        self._begun_s: float | None = None
        self._target: NDArray[np.float64] | None = None
        self._lookout_w = np.zeros(2)
        self._came_from: NDArray[np.float64] | None = None
        self._least_m, self._since_s = math.inf, 0.0
        self._failed: list[_Failed] = []
        self._turned, self._all_round = 0, False
        self._left = 0
        self._heading: float | None = None
        self._stood_w, self._stood_s, self._back_until_s = np.zeros(3), 0.0, -math.inf
        self._homed = False
        self._visits: list[NDArray[np.float64]] = []
        self._visiting: NDArray[np.float64] | None = None
        self.visited: list[NDArray[np.float64]] = []
        """Places (2,) that were asked for and reached."""
        self.missed: list[NDArray[np.float64]] = []
        """Places (2,) that were asked for and could not be reached."""
        self._entered_w: NDArray[np.float64] | None = None
        self._lost_s = math.inf
        self._hits_b, self._wander_s = np.zeros((0, 2)), -math.inf

    # In

    def observe(
        self, t_s: float, pose_w: ArrayLike, ranges: ArrayLike, angles: ArrayLike,
        range_max: float, lidar_b: ArrayLike = (0.0, 0.0, 0.0),
    ) -> None:  # fmt: skip
        """Enter a scan and where the robot was.

        Args:
            t_s: time, s; never runs backwards.
            pose_w: (3,) base x, y, yaw, m and rad: in the map frame, or, with a tracker, in the
                odometry frame.
            ranges: (B,) m; angles: (B,) rad in the lidar frame.
            range_max: of the lidar, m.
            lidar_b: (3,) pose of the lidar on the base.

        Raises:
            ValueError: the pose is not finite, or the arrays do not fit.
        """
        pose = np.array(pose_w, np.float64)
        if pose.shape != (3,) or not np.isfinite(pose).all():
            raise ValueError(f"pose_w must be 3 finite numbers, got {pose.tolist()}")
        c, cov, sure = self.config, np.diag([1e-4, 1e-4, 1e-4]), True
        if self._entered_w is not None:
            self.driven_m += float(np.hypot(*(pose - self._entered_w)[:2]))
        self._entered_w = pose
        if self.tracker is not None:
            fix = self.tracker.follow(pose, ranges, angles, range_max, lidar_b)
            pose, cov, sure = fix.pose_w, fix.cov, fix.sure
            self._settle(t_s, fix.lost, ranges, angles, range_max, lidar_b)
        if self.map is None:
            x, y = np.floor(pose[:2]) - np.ceil(c.range_m)
            side = 2 * math.ceil(c.range_m) + 1
            self.map = OccupancyMap.unknown((x, y, x + side, y + side), c.resolution_m)
        if self.home_w is None:
            self.home_w, self._begun_s, self._since_s = pose, t_s, t_s
            self._came_from = pose[:2]
        self._pose_w = pose
        beams = np.asarray(angles, np.float64)
        self._all_round = bool(np.ptp(beams) > ALL_ROUND_RAD)
        if not sure:
            return
        lidar = compose(pose, lidar_b)
        self.map = self.map.grown(lidar[:2], c.range_m + 1.0)
        self.map.integrate(lidar, ranges, angles, min(range_max, c.range_m))
        if self._placed_w is None or np.hypot(*(pose - self._placed_w)[:2]) >= PLACE_M:
            self.graph.observe(pose, cov, t_s, self._sees)
            self._placed_w = pose

    def _settle(
        self, t_s: float, lost: bool, ranges: ArrayLike, angles: ArrayLike, range_max: float,
        lidar_b: ArrayLike,
    ) -> None:  # fmt: skip
        """Note that the robot has got lost, is, or knows again where it is."""
        if lost:
            points = scan_points(ranges, angles, range_max)
            self._hits_b = transform(lidar_b, points)
            if self._lost_s == math.inf:
                self._lost_s, self._wander_s = t_s, -math.inf
                self.graph.lost()
        elif self._lost_s < math.inf:
            self._lost_s, self._placed_w, self._target = math.inf, None, None
            self._came_from, self._heading = None, None
            self._stood_s = t_s

    @property
    def lost(self) -> bool:
        """Does the robot not know where it is? Then nothing is written into the map."""
        return self._lost_s < math.inf

    @property
    def map_from_odom(self) -> NDArray[np.float64]:
        """(3,) pose of the odometry frame in the map frame, zeros without a tracker."""
        return np.zeros(3) if self.tracker is None else self.tracker.map_from_odom

    def stop(self) -> None:
        """End it here and now."""
        self.reason = Reason.STOPPED
        self.decision = Decision(Task.DONE)

    def go_home(self) -> None:
        """End exploring, drive home."""
        if self.reason is None:
            self.reason = Reason.STOPPED
        self._homed = False

    def visit(self, place_w: ArrayLike) -> None:
        """Go to a place once exploring is over, before driving home; not when time is used up.

        Args:
            place_w: (2,) in the map frame, m. Nobody has to know the way, nor whether there is one.

        Raises:
            ValueError: it is not two finite numbers.
        """
        place = np.array(place_w, np.float64)
        if place.shape != (2,) or not np.isfinite(place).all():
            raise ValueError(f"place_w must be 2 finite numbers, got {place.tolist()}")
        self._visits.append(place)

    def fail(self, t_s: float) -> None:
        """Whoever drives reports that the target cannot be got to."""
        if self._target is not None:
            self._blame(self._target, t_s)
            self._target = None

    # Out

    def decide(self, t_s: float) -> Decision:
        """What to do now. Call it about once a second, and whenever a target is reached."""
        if self.map is None:
            raise ValueError("observe must come before decide, there is no scan yet")
        if self.decision.task == Task.DONE:
            return self.decision
        if self._standing(t_s):
            self.decision = Decision(Task.BACK_UP)
            return self.decision
        if self.lost:
            self.decision = self._locate(t_s)
            return self.decision
        view, hope = self._view()
        if self.reason is None:
            found = self._explore(t_s, view)
            if found is not None:
                self.decision = found
                return found
        self.decision = self._visit(t_s, view, hope) or self._return(view, hope)
        return self.decision

    def _standing(self, t_s: float) -> bool:
        """Is the robot, which is to drive, to back up because it has been standing?"""
        if t_s < self._back_until_s:
            return True
        off = self._pose_w - self._stood_w
        moved = np.hypot(off[0], off[1]) > MOVED_M or abs(wrap(off[2])) > MOVED_RAD
        if moved or self.decision.task in (Task.TURN, Task.BACK_UP):
            self._stood_w, self._stood_s = self._pose_w.copy(), t_s
        elif t_s - self._stood_s > self.config.stand_s:
            self._back_until_s = t_s + self.config.back_s
            return True
        return False

    def _locate(self, t_s: float) -> Decision:
        """Go a little way to where the scan is most open: what is seen on the way tells places
        apart that look alike from one point."""
        if t_s - self._lost_s > self.config.lost_s:
            self.reason = Reason.LOST
            return Decision(Task.DONE)
        here, before = self._pose_w, self.decision
        if before.task == Task.LOCATE and t_s - self._wander_s < WANDER_S:
            if before.target_w is not None:
                there = np.hypot(*(before.target_w - here[:2])) <= AT_M
            else:
                there = abs(wrap((before.heading_w or 0.0) - here[2])) < AIMED_RAD
            if not there:
                return before
        self._wander_s = t_s
        yaw, way = clear_way(self._hits_b, self.config.radius_m + 0.1, WANDER_M)
        if way < 2 * AT_M:
            return Decision(Task.LOCATE, heading_w=float(wrap(here[2] + math.pi / 3)))
        ahead = np.array([math.cos(here[2] + yaw), math.sin(here[2] + yaw)])
        path = here[:2] + np.linspace(0, way, 2 + int(way / 0.2))[:, None] * ahead
        return Decision(Task.LOCATE, path[-1], path)

    def _explore(self, t_s: float, view: Snapshot) -> Decision | None:
        """The next thing to explore; None, and a reason, if that is over."""
        c, here = self.config, self._pose_w[:2]
        assert self._begun_s is not None and self.map is not None
        self._watch(t_s, view)
        everything = view.frontiers
        kept = self._worth(everything, t_s)
        left_s = c.max_time_s - (t_s - self._begun_s)
        if left_s <= self._home_s(view):
            self.reason = Reason.BUDGET
            return None
        if not kept.any():
            return self._nothing(t_s, view)
        self._turned, self._heading = 0, None
        view.frontiers = everything.where(kept)
        if self._target is not None:
            view.target = self._cell(self._target)
        self.frontiers_w = self._centre(view.frontiers.cell)
        self._gains(view.frontiers)
        view.visits, view.fails = self._history()
        held = view.held
        if self._target is not None and held is None:
            self._left = max(self._left - 1, 0)
        view.left = self._left
        chosen = self.explorer.choose(view)
        self._left += held is not None and chosen != held
        target, lookout = self.frontiers_w[chosen], view.frontiers.lookout[chosen]
        if self._target is None or np.hypot(*(target - self._target)) > c.avoid_m:
            self._least_m, self._since_s = math.inf, t_s
            self._came_from = here.copy()
        way = self._centre(geodesic.path(view.cost, (int(lookout[0]), int(lookout[1]))))
        self._target, self._lookout_w = target, way[-1]
        return Decision(Task.EXPLORE, way[-1], way)

    def _nothing(self, t_s: float, view: Snapshot) -> Decision | None:
        """No frontier is worth a drive: look round, then end."""
        self._target = None
        self.frontiers_w = np.zeros((0, 2))
        yaw, c = float(self._pose_w[2]), self.config
        if self._heading is not None:
            there = abs(wrap(self._heading - yaw)) < AIMED_RAD
            if not there and t_s - self._since_s < c.patience_s:
                return Decision(Task.TURN, heading_w=self._heading)
            self._heading = None
        if self._turned < c.turns and not self._all_round:
            self._turned += 1
            self._heading, self._since_s = float(wrap(yaw + math.pi / 3)), t_s
            return Decision(Task.TURN, heading_w=self._heading)
        left = find(view.grid, view.grid == 0, view.sensor_cells)
        room_m2 = np.count_nonzero(view.cost >= 0) * (c.resolution_m * c.factor) ** 2
        if self.driven_m < c.reach_m and room_m2 < math.pi * (3 * c.radius_m) ** 2:
            self.reason = Reason.STUCK
        else:
            self.reason = Reason.UNREACHABLE if self._wide(left).any() else Reason.COMPLETE
        return None

    def _visit(self, t_s: float, view: Snapshot, hope: NDArray[np.bool_]) -> Decision | None:
        """The way to the next place that was asked for; None if there is none, or no time."""
        c = self.config
        while self._visits and self.reason not in (Reason.BUDGET, Reason.LOST, Reason.STOPPED):
            place = self._visits[0]
            if self._visiting is not place:
                self._visiting, self._least_m, self._since_s = place, math.inf, t_s
            if np.hypot(*(place - self._pose_w[:2])) <= c.reach_m:
                self.visited.append(self._visits.pop(0))
                continue
            way = self._way(place, view, hope)
            left = math.inf if way is None else _length(way)
            if left < self._least_m - c.progress_m:
                self._least_m, self._since_s = left, t_s
            if way is None or t_s - self._since_s > 2 * c.patience_s:
                self.missed.append(self._visits.pop(0))
                continue
            return Decision(Task.VISIT, place, way)
        return None

    def _return(self, view: Snapshot, hope: NDArray[np.bool_]) -> Decision:
        """The way home, or the end."""
        assert self.home_w is not None
        here = self._pose_w[:2]
        if not self.config.return_home or self._homed:
            return Decision(Task.DONE)
        if np.hypot(*(self.home_w[:2] - here)) <= self.config.reach_m:
            self._homed = True
            return Decision(Task.DONE)
        way = self._way(self.home_w[:2], view, hope)
        return Decision(Task.DONE) if way is None else Decision(Task.RETURN, self.home_w[:2], way)

    def _way(
        self, place: NDArray[np.float64], view: Snapshot, hope: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """(L, 2) way over what is known, else over what may be open; None if there is none."""
        assert self.map is not None
        if not self.map.inside(place):
            return None
        cell = self._cell(place)
        cost = view.cost
        if cost[cell] < 0:  # what is known is closed: hope for what is not
            cost = geodesic.costs(hope, view.at)
        return None if cost[cell] < 0 else self._centre(geodesic.path(cost, cell))

    # Inside

    def _view(self) -> tuple[Snapshot, NDArray[np.bool_]]:
        """Snapshot on planning cells, and which of them may be open."""
        assert self.map is not None
        c = self.config
        grid = self.map.coarse(c.factor)
        side = c.resolution_m * c.factor
        wall = (grid == OCCUPIED).astype(np.uint8)
        far = cv2.distanceTransform(1 - wall, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * side
        at = self._cell(self._pose_w[:2])
        wide = far > c.radius_m
        walk, hope = (grid == 0) & wide, (grid != OCCUPIED) & wide
        if not walk[at]:  # where it stands it can stand, and get from there to open floor
            reach = math.ceil(c.radius_m / side) + 1
            y, x = at
            here = np.s_[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            walk[here] |= grid[here] != OCCUPIED
            hope[here] |= walk[here]
        came = None if self._came_from is None else self._cell(self._came_from)
        view = Snapshot(grid, at, c.range_m / side, came, walk=walk, view_cells=c.view_m / side)
        return view, hope

    def _gains(self, f: Frontiers) -> None:
        """Tell each node what is unknown near it: of every frontier, to the nearest node."""
        side = self.config.resolution_m * self.config.factor
        for node in self.graph.nodes.values():
            node.gain = 0.0
        for xy, gain in zip(self.frontiers_w, f.gain, strict=True):
            nearest = self.graph.nearest(xy)
            if nearest is not None:
                self.graph.nodes[nearest].gain += float(gain) * side**2

    def _history(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(K,) visits of the place nearest to each of ``frontiers_w``, and (K,) failures there."""
        visits, fails = np.zeros((2, len(self.frontiers_w)), np.int64)
        for k, xy in enumerate(self.frontiers_w):
            nearest = self.graph.nearest(xy)
            visits[k] = 0 if nearest is None else self.graph.nodes[nearest].visits
            near = [f for f in self._failed if np.hypot(*(f.xy - xy)) <= self.config.avoid_m]
            fails[k] = sum(failed.count for failed in near)
        return visits, fails

    def _wide(self, f: Frontiers) -> NDArray[np.bool_]:
        """(K,) frontiers that are wide enough and hide enough."""
        side = self.config.resolution_m * self.config.factor
        wide = f.size * side >= self.config.least_m
        return np.asarray(wide & (f.gain * side**2 >= self.config.least_m2))

    def _sees(self, node: int) -> bool:
        """Is nothing known to stand between the robot and a node of the graph?"""
        assert self.map is not None
        here, there = self._pose_w[:2], self.graph.nodes[node].pose_w[:2]
        steps = int(np.hypot(*(there - here)) / self.map.resolution) + 2
        line = here + np.linspace(0, 1, steps)[:, None] * (there - here)
        x, y = ((line - self.map.origin_w) / self.map.resolution).astype(int).T
        height, width = self.map.data.shape
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return bool(inside.all() and (self.map.data[y, x] < OCCUPIED_FROM).all())

    def _worth(self, f: Frontiers, t_s: float) -> NDArray[np.bool_]:
        """(K,) frontiers wide enough and not known to fail."""
        kept = self._wide(f)
        for failed in self._failed:
            if failed.count >= self.config.failures or t_s < failed.until_s:
                away = np.hypot(*(self._centre(f.cell) - failed.xy).T)
                kept &= away > self.config.avoid_m
        return np.asarray(kept)

    def _watch(self, t_s: float, view: Snapshot) -> None:
        """Has the target failed: no progress, or still a frontier at its lookout?"""
        if self._target is None:
            return
        c = self.config
        cost = int(view.cost[self._cell(self._lookout_w)])
        left = cost / geodesic.STRAIGHT * c.resolution_m * c.factor if cost >= 0 else math.inf
        if left < self._least_m - c.progress_m:
            self._least_m, self._since_s = left, t_s
        there = left <= c.reach_m
        if t_s - self._since_s > (c.settle_s if there else c.patience_s):
            self._blame(self._target, t_s, self.config.failures if there else 1)
            self._target = None

    def _blame(self, xy: NDArray[np.float64], t_s: float, by: int = 1) -> None:
        for failed in self._failed:
            if np.hypot(*(failed.xy - xy)) <= self.config.avoid_m:
                failed.count += by
                failed.until_s = t_s + self.config.rest_s
                break
        else:
            failed = _Failed(xy.copy(), by, t_s + self.config.rest_s)
            self._failed.append(failed)
        if failed.count - by < self.config.failures <= failed.count:
            self.given_up.append(failed.xy)

    def _home_s(self, view: Snapshot) -> float:
        """Time that the way home takes, 0 if it is not to be driven."""
        assert self.home_w is not None
        if not self.config.return_home:
            return 0.0
        cost = int(view.cost[self._cell(self.home_w[:2])])
        side = self.config.resolution_m * self.config.factor
        return max(cost, 0) / geodesic.STRAIGHT * side / self.config.speed_m_s

    def _cell(self, xy: NDArray[np.float64]) -> tuple[int, int]:
        assert self.map is not None
        y, x = self.map.cell(xy)
        height, width = (side // self.config.factor for side in self.map.data.shape)
        return min(y // self.config.factor, height - 1), min(x // self.config.factor, width - 1)

    def _centre(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        assert self.map is not None
        side = self.map.resolution * self.config.factor
        centre: NDArray[np.float64] = (
            np.asarray(self.map.origin_w) + (cells[..., ::-1] + 0.5) * side
        )
        return centre


def _length(way: NDArray[np.float64]) -> float:
    """Of a way (L, 2), m."""
    return float(np.hypot(*np.diff(way, axis=0).T).sum())
