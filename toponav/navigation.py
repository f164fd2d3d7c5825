"""Lifelong navigation: drive to goals over the graph of an earlier visit while the place changes.

Doors close and open between visits, and a graph may hold edges that were never right. The robot
believes its graph until an edge fails: then the edge is doubted (Beta), blocked for a while, driven
around, and dropped when it fails again. A dropped edge is remembered: it comes back once its way is
seen to be free, on probation after some minutes, and at once when nothing else leads to the goal.

The TopoNav paper (arXiv:2402.04061) has an active map and no such rules; they are ours. As
:class:`toponav.exploration.Exploration`, of which this shares map, localizer, patience and the
interface, it is given times, poses and scans, and says where to drive.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import geodesic
from .exploration import Decision, Exploration, ExplorationConfig, Reason, Task
from .graph import Edge, TopologicalMap
from .occupancy import OccupancyMap
from .snapshot import Snapshot
from .tracker import Tracker
from .ways import Floor, link


@dataclass(frozen=True)
class NavigationConfig:
    """When an edge has failed, and what becomes of it."""

    detour: float = 1.25
    """An edge is shut if the way over known floor is more than so many times its length ..."""
    slack_m: float = 1.5
    """... and this more."""
    near_m: float = 2.0
    """A doubted edge is looked at from this near before it counts as shut again."""
    at_m: float = 1.0
    """A node this near, by way, has been passed."""
    ahead_m: float = 6.0
    """The sub-goal is the farthest node of the route up to this far along it."""
    leg_m: float = 6.0
    """A node this near to a goal, by way, is where the route to it ends."""
    retry_s: float = 300.0
    """A dropped edge comes back on probation after so long."""
    again_s: float = 20.0
    """Where nothing else leads to the goal, a dropped edge comes back after so long."""
    wait_s: float = 90.0
    """A goal to which no way opens for so long is given up."""

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 0 < getattr(self, f.name) < math.inf:
                raise ValueError(f"{f.name} must be > 0 and finite, got {getattr(self, f.name)}")
        if self.detour < 1:
            raise ValueError(f"detour must be >= 1, got {self.detour}")


@dataclass(frozen=True, eq=False)
class Shut:
    """An edge that was dropped."""

    edge: Edge
    since_s: float


class Navigation(Exploration):
    """Goals on a known map, one after another.

    Args:
        graph: of an earlier visit; it goes on to change, and grows where the robot goes elsewhere.
        known: map of the earlier visit; it goes on to change.
        config: of the robot and of patience; ``return_home`` counts after the last goal.
        tracker: with the scans of the earlier visit, see :class:`toponav.tracker.Tracker`.
        rules: see there.
    """

    def __init__(
        self, graph: TopologicalMap, known: OccupancyMap, config: ExplorationConfig | None = None,
        tracker: Tracker | None = None, rules: NavigationConfig | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config or ExplorationConfig(return_home=False), tracker=tracker)
        self.graph, self.map = graph, known
        self.rules = rules or NavigationConfig()
        self.goals: list[NDArray[np.float64]] = []
        """(2,) each, m, still to be driven to."""
        self.patrol = False
        """Begin again with the first goal after the last?"""
        self.arrivals, self.misses = 0, 0
        """Goals reached, and given up, in all."""
        self.shut: dict[tuple[int, int], Shut] = {}
        """Edges (a, b), a < b, that were dropped and may come back."""
        self.tries: dict[tuple[int, int], int] = {}
        """Failures of each doubted edge in the graph since it last was fine."""
        self.dropped: deque[tuple[tuple[int, int], int]] = deque(maxlen=1000)
        """The latest edges dropped, and after how many failures."""
        self._route: list[int] = []
        self._passed = -1
        self._waiting_s: float | None = None
        self._hoped: set[tuple[int, int]] = set()  # brought back for this goal
        self._linked, self._newest, self._missed_before = False, -1, 0

    def go(self, goals: ArrayLike, patrol: bool = False) -> None:
        """Drive to these goals (K, 2), m, map frame, in this order, from now on.

        Raises:
            ValueError: there is none, or one is not finite.
        """
        points = np.array(goals, np.float64).reshape(-1, 2)
        if len(points) == 0 or not np.isfinite(points).all():
            raise ValueError(f"goals must be (K, 2) finite, K >= 1, got {points.tolist()}")
        self.goals, self.patrol = list(points), patrol
        self.reason, self._homed, self._missed_before = None, False, self.misses
        self.decision = Decision(Task.GOAL)
        self._hoped.clear()
        if self.lost:  # patience begins anew
            self._lost_s = max(self._lost_s, self._wander_s)
        self._replan()

    def floor(self, view: Snapshot | None = None) -> Floor:
        """Where the robot fits, for all that is known."""
        assert self.map is not None
        walk = (view or self._view()[0])._open
        return Floor(walk, self.map.origin_w, self.map.resolution * self.config.factor)

    # The loop: overrides the choice of a frontier

    def _explore(self, t_s: float, view: Snapshot) -> Decision | None:
        floor = self.floor(view)
        self._review(t_s, floor)
        for _ in range(len(self.goals)):
            found = self._leg(t_s, view, floor)
            if found is not None:
                return found
        if self.goals:  # a patrol, and each of its goals is just here or out of reach
            return Decision(Task.TURN, heading_w=float(self._pose_w[2]))
        if self.reason is None:
            missed = self.misses > self._missed_before
            self.reason = Reason.UNREACHABLE if missed else Reason.GOAL
        return None

    def _locate(self, t_s: float) -> Decision:
        self._replan()
        return super()._locate(t_s)

    def _leg(self, t_s: float, view: Snapshot, floor: Floor) -> Decision | None:
        """What to do for the first goal; None: it is settled."""
        goal = self.goals[0]
        if np.hypot(*(goal - self._pose_w[:2])) <= self.config.reach_m:
            self.arrivals += 1
            self._settled()
            return None
        if not self._route and not self._plan(t_s, view, floor):
            return self._without_route(t_s, view, floor)
        for _ in range(len(self.graph) + 1):  # each round fails one edge
            broken = self._broken(view, floor)
            if broken is None or not self._fail(*broken, t_s):
                break
            if not self._plan(t_s, view, floor):
                return self._without_route(t_s, view, floor)
        return self._follow(t_s, view, floor)

    def _settled(self) -> None:
        """On to the next goal."""
        goal = self.goals.pop(0)
        self._hoped.clear()
        if self.patrol:
            self.goals.append(goal)
        self._replan()

    def _replan(self) -> None:
        self._route, self._passed, self._waiting_s = [], -1, None
        self._least_m = math.inf

    # Planning

    def _plan(self, t_s: float, view: Snapshot, floor: Floor) -> bool:
        """Choose the nodes to drive over; False if no open edges lead to the goal."""
        self._route, self._passed, self._least_m = [], -1, math.inf
        goal = self.goals[0]
        ids = list(self.graph.nodes)
        at = np.array([self.graph.nodes[i].pose_w[:2] for i in ids]).reshape(-1, 2)
        from_goal = floor.ways_m(goal, at, self.rules.leg_m)
        from_here = np.array([self._way_m(view, floor, xy) for xy in at])
        straight = self._way_m(view, floor, goal)
        if straight <= self.rules.at_m:
            return False  # so near that no node helps
        best = math.inf
        for end in np.argsort(from_goal)[:3]:
            if not from_goal[end] <= self.rules.leg_m:
                break
            cost = self.graph.distances_from(ids[end], t_s)
            total = np.array([cost[i] for i in ids]) + from_here + from_goal[end]
            total[from_here > self.rules.leg_m] = math.inf
            start = int(total.argmin())
            if total[start] < best:
                best = total[start]
                self._route = self.graph.plan(ids[start], ids[end], t_s) or []
        return bool(self._route)

    def _way_m(self, view: Snapshot, floor: Floor, xy: NDArray[np.float64]) -> float:
        """Way from the robot to a point over known floor, m."""
        cell = floor.cell(xy)
        if cell is None or view.cost[cell] < 0:
            return math.inf
        return float(view.cost[cell]) / geodesic.STRAIGHT * floor.cell_m

    def _lengths(self) -> list[float]:
        """Along the route, m, from the last node passed to each node after it."""
        out, way = [], 0.0
        for a, b in zip(self._route[:-1], self._route[1:], strict=True):
            edge = self.graph.edge(a, b)
            way += math.inf if edge is None else edge.length_m
            out.append(way)
        begin = 0.0 if self._passed < 0 else ([0.0, *out])[self._passed]
        return [length - begin for length in out[max(self._passed, 0) :]]

    def _broken(self, view: Snapshot, floor: Floor) -> tuple[int, int] | None:
        """The first edge of the route that the map says is shut, and that is near or new to it."""
        nodes, r = self.graph.nodes, self.rules
        if any(i not in nodes for i in self._route):
            self._replan()  # a node has been merged away
            return None
        for k in range(max(self._passed, 0) + 1, min(max(self._passed, 0) + 4, len(self._route))):
            if self._way_m(view, floor, nodes[self._route[k]].pose_w[:2]) <= r.at_m:
                self._passed = k
        first, begin = max(self._passed, 0), 0.0
        if self._passed < 0:
            begin = self._way_m(view, floor, nodes[self._route[0]].pose_w[:2])
            if begin <= r.at_m:
                self._passed, begin = 0, 0.0
        for k, length in enumerate(self._lengths(), start=first + 1):
            a, b = self._route[k - 1], self._route[k]
            edge = self.graph.edge(a, b)
            if edge is None:
                self._replan()
                return None
            way = self._way_m(view, floor, nodes[b].pose_w[:2])
            if way <= r.detour * (begin + length) + r.slack_m:
                continue
            here = self._way_m(view, floor, nodes[a].pose_w[:2])
            if edge.doubted and here > r.near_m:
                return None  # it is to be seen again before it is judged
            return a, b
        return None

    def _fail(self, a: int, b: int, t_s: float) -> bool:
        """An edge has failed; whether there was one to fail."""
        edge = self.graph.edge(a, b)
        if edge is None:
            return False
        key = (min(a, b), max(a, b))
        self.tries[key] = self.tries.get(key, 0) + 1
        if self.graph.fail(a, b, t_s):
            self.shut[key] = Shut(edge, t_s)
            self.dropped.append((key, self.tries.pop(key)))
        return True

    # Driving

    def _follow(self, t_s: float, view: Snapshot, floor: Floor) -> Decision | None:
        """Towards the farthest node of the route in reach, or the goal."""
        if not self._route:
            return self._without_route(t_s, view, floor)
        nodes, r = self.graph.nodes, self.rules
        stops = [(0.0, self._route[0])] if self._passed < 0 else []
        stops += list(zip(self._lengths(), self._route[max(self._passed, 0) + 1 :], strict=True))
        target = None
        for length, node in stops:
            xy = nodes[node].pose_w[:2]
            way = self._way_m(view, floor, xy)
            if target is not None and (length > r.ahead_m or way > r.detour * length + r.slack_m):
                break
            target = xy
            if way == math.inf:
                break
        else:  # all of the route is in reach
            goal = self._way_m(view, floor, self.goals[0])
            if goal < math.inf or target is None:
                target = self.goals[0]
        assert target is not None
        return self._towards(t_s, target, view, floor)

    def _towards(
        self, t_s: float, target: NDArray[np.float64], view: Snapshot, floor: Floor
    ) -> Decision | None:
        """The way to a target over known floor; failing it if there is none, or no progress."""
        way, cell = self._way_m(view, floor, target), floor.cell(target)
        if way < self._least_m - self.config.progress_m or self._target is None or (
            np.hypot(*(self._target - target)) > self.config.progress_m
        ):  # fmt: skip
            self._least_m, self._since_s = way, t_s
        self._target = target
        if way == math.inf or cell is None or t_s - self._since_s > self.config.patience_s:
            k = max(self._passed, 0)
            if k + 1 < len(self._route):
                self._fail(self._route[k], self._route[k + 1], t_s)
                self._replan()
                return Decision(Task.TURN, heading_w=float(self._pose_w[2]))
            return self._without_route(t_s, view, floor)
        self._waiting_s = None  # it gets on
        path = self._centre(geodesic.path(view.cost, cell))
        return Decision(Task.GOAL, path[-1] if len(path) > 1 else target, path)

    def _without_route(self, t_s: float, view: Snapshot, floor: Floor) -> Decision | None:
        """No open edge leads there: over the floor as it is known, or bring back what was dropped;
        then wait for a block to end, looking round; then give the goal up."""
        goal = self.goals[0]
        cell = floor.cell(goal)
        if self._waiting_s is None:
            self._waiting_s = t_s
        if cell is not None and view.cost[cell] >= 0:
            path = self._centre(geodesic.path(view.cost, cell))
            if t_s - self._waiting_s < self.rules.wait_s + len(path):
                return Decision(Task.GOAL, path[-1], path)
        elif self._bring_back_one(t_s):
            self._waiting_s = t_s
        if t_s - self._waiting_s > self.rules.wait_s:
            self.misses += 1
            self._settled()
            return None
        return Decision(Task.TURN, heading_w=float(self._pose_w[2]) + 0.5)

    # What was dropped

    def _review(self, t_s: float, floor: Floor) -> None:
        """Edges near the robot that are blocked or dropped and seen to be free; new joins."""
        here, nodes = self._pose_w[:2], self.graph.nodes
        if not self._linked:
            link(self.graph, floor, t_s)
            self._linked, self._newest = True, max(nodes, default=-1)
        fresh = [i for i in nodes if i > self._newest]
        if fresh:
            self._newest = max(fresh)
            link(self.graph, floor, t_s, fresh)
        self.shut = {k: v for k, v in self.shut.items() if k[0] in nodes and k[1] in nodes}
        self.tries = {k: v for k, v in self.tries.items() if self._doubted(*k)}
        for a, b in [*self.shut, *self.tries]:
            ends = nodes[a].pose_w[:2], nodes[b].pose_w[:2]
            if max(np.hypot(*(end - here)) for end in ends) > self.config.range_m:
                continue
            known = self.shut[a, b].edge if (a, b) in self.shut else self.graph.edge(a, b)
            assert known is not None
            limit = self.rules.detour * known.length_m + self.config.radius_m
            if floor.ways_m(ends[0], ends[1][None], limit)[0] > limit:
                continue
            if (a, b) in self.shut:
                self._join_again(a, b, t_s)
            if self.graph.edge(a, b) is not None:
                self.graph.reopen(a, b)
            self.tries.pop((a, b), None)
        self._bring_back(t_s, self.rules.retry_s)

    def _doubted(self, a: int, b: int) -> bool:
        edge = self.graph.edge(a, b)
        return edge is not None and edge.doubted

    def _bring_back(self, t_s: float, age_s: float) -> None:
        """Dropped edges that old are in the graph again, doubted: one more failure drops them."""
        for (a, b), shut in list(self.shut.items()):
            if t_s - shut.since_s >= age_s:
                self._join_again(a, b, t_s)

    def _bring_back_one(self, t_s: float) -> bool:
        """The edge that was dropped longest ago, if that is some while; once for each goal."""
        left = [key for key in self.shut if key not in self._hoped]
        key = min(left, key=lambda k: self.shut[k].since_s, default=None)
        if key is None or t_s - self.shut[key].since_s < self.rules.again_s:
            return False
        self._hoped.add(key)
        self._join_again(*key, t_s)
        return True

    def _join_again(self, a: int, b: int, t_s: float) -> None:
        shut = self.shut.pop((a, b))
        if self.graph.edge(a, b) is None:
            edge = replace(shut.edge, beta=min(shut.edge.beta, 4.0))
            self.graph.join(a, b, t_s, edge.length_m, edge)
