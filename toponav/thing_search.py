"""Search for a thing of a class in a place that nobody has mapped: "find a fire extinguisher".

An exploration that knows what it looks for: things are fused as they are seen, one that may be of
the class is driven to, and the search is over when the robot stands before it and is sure. Which
frontier comes next is the explorer's choice. :class:`SemanticExplorer` asks where the thing is
likely to be; any other explorer makes this a plain frontier search with the same eyes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import geodesic
from ._jit import njit
from .doorways import DOORWAY, LidarPerception
from .exploration import Decision, Exploration, ExplorationConfig, Reason, Task
from .explorers import Explorer, Utility
from .localizer import compose
from .occupancy import OCCUPIED_FROM, OccupancyMap
from .perception import Detections, Frame
from .places import Places, PlacesConfig
from .prior import Prior
from .semantics import RayPerception, SemanticsConfig, Thing, ThingMap
from .snapshot import Snapshot

LANDMARK_M = 0.5
"""A robot this near to a doorway or branching is in it."""


@dataclass(frozen=True)
class ThingSearchConfig:
    """When something is worth a drive, and when it is found."""

    near_m: float = 0.95
    """The thing is found from this near: the centre of the robot to what is seen of it."""
    stand_m: float = 0.8
    """The robot drives this near."""
    try_p: float = 0.5
    """A thing of the class with this chance is driven to ..."""
    tries: int = 2
    """... if it was seen from so many places."""
    sure_p: float = 0.9
    """It is found with this chance."""
    last_p: float = 0.2
    """When nothing is left to explore, things with this chance are looked at from near."""
    wait_s: float = 3.0
    """A thing that is not sure after so long before it is not it."""

    def __post_init__(self) -> None:
        if not 0 < self.last_p <= self.try_p <= self.sure_p < 1:
            raise ValueError(f"0 < last_p <= try_p <= sure_p < 1 wanted, got {self}")
        if not (0 < self.stand_m <= self.near_m and self.wait_s > 0 and self.tries >= 1):
            raise ValueError(f"0 < stand_m <= near_m, wait_s > 0, tries >= 1 wanted, got {self}")


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a search knows when its explorer chooses."""

    wanted: str
    map: OccupancyMap
    doors: NDArray[np.float64]
    """(n, 4) x, y, yaw, width of doorways."""
    things: Sequence[Thing]


class ThingSearch(Exploration):
    """One search.

    Args:
        wanted: class to look for.
        names: names of the labels that beams come with, in their order.
        classes: of things.
        config: of the robot and of patience.
        explorer: chooses among frontiers.
        search: when something is worth a drive.
        semantics: what is believed of the detector.
        landmarks: find doorways and branchings, for the topological map and for a
            :class:`SemanticExplorer`, which cannot do without.

    Raises:
        ValueError: nothing is known of the class, or a semantic explorer gets no landmarks.
    """

    def __init__(
        self, wanted: str, names: Sequence[str], classes: Sequence[str],
        config: ExplorationConfig | None = None, explorer: Explorer | None = None,
        search: ThingSearchConfig | None = None, semantics: SemanticsConfig | None = None,
        landmarks: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(config, explorer or Utility())
        if wanted not in classes:
            raise ValueError(f"wanted must be one of {', '.join(classes)}, got {wanted!r}")
        if isinstance(self.explorer, SemanticExplorer) and not landmarks:
            raise ValueError("landmarks must be True for a SemanticExplorer")
        self.wanted, self.search = wanted, search or ThingSearchConfig()
        self.landmarks = landmarks
        self.rays = RayPerception(names, classes, semantics)
        self.lidar = LidarPerception()
        self.things = ThingMap(classes, semantics)
        self.found: Thing | None = None
        """What it was, once ``reason`` is GOAL."""
        self.doors = np.zeros((0, 4))
        """(n, 4) x, y, yaw, width of doorways found so far."""
        self.branchings = np.zeros((0, 4))
        """(n, 4) x, y, yaw, free radius."""
        self._wanted = self.things.classes.index(wanted)
        self._goal: Thing | None = None
        self._waited_s = math.inf
        self._refused: list[Thing] = []

    def observe(
        self, t_s: float, pose_w: ArrayLike, ranges: ArrayLike, angles: ArrayLike,
        range_max: float, lidar_b: ArrayLike = (0.0, 0.0, 0.0), labels: ArrayLike | None = None,
    ) -> None:  # fmt: skip
        """As for any exploration; ``labels`` (B,) int name what each beam hit, -1 nothing."""
        super().observe(t_s, pose_w, ranges, angles, range_max, lidar_b)
        if labels is None or self.lost:
            return
        pose = compose(self._pose_w, lidar_b)
        frame = Frame(pose, ranges=np.asarray(ranges), angles=np.asarray(angles),
                      range_max=min(range_max, self.config.range_m),
                      labels=np.asarray(labels))  # fmt: skip
        self.things.update(self.rays.detect(frame), pose[:2], t_s)
        self._mark(t_s)

    def _mark(self, t_s: float) -> None:
        """Tell the topological map that the robot is in a doorway or at a branching."""
        for kind, marks in ((DOORWAY, self.doors), ("branching", self.branchings)):
            off = np.hypot(*(marks[:, :2] - self._pose_w[:2]).T)
            if len(off) and off.min() < LANDMARK_M:
                near = marks[off.argmin(), :2]
                known = [n for n in self.graph.nodes.values() if n.landmark and n.kind == kind]
                if all(np.hypot(*(n.pose_w[:2] - near)) > 2 * LANDMARK_M for n in known):
                    cov = np.diag([1e-4, 1e-4, 1e-4])
                    self.graph.observe(self._pose_w, cov, t_s, self._sees, kind=kind,
                                       landmark=True)  # fmt: skip

    def _explore(self, t_s: float, view: Snapshot) -> Decision | None:
        """A thing that may be it, else the next frontier, else the likeliest thing that is left."""
        assert self.map is not None
        if self.landmarks:
            self._doorways()
        self.things.attach(self.graph)
        if self._sure():
            self.reason, self.found = Reason.GOAL, self._goal
            return None
        if self._goal is not None and self._near(self._goal):
            self._waited_s = min(self._waited_s, t_s)
            if t_s - self._waited_s > self.search.wait_s:
                self._refused.append(self._goal)
                self._goal = None
        else:
            self._waited_s = math.inf
        if (decision := self._to_thing(view, self.search.try_p, self.search.tries)) is not None:
            return decision
        if isinstance(self.explorer, SemanticExplorer):
            self.explorer.know(Knowledge(self.wanted, self.map, self.doors, self.things.things))
        if (found := super()._explore(t_s, view)) is not None:
            return found
        if self.reason not in (Reason.COMPLETE, Reason.UNREACHABLE):
            return None
        decision = self._to_thing(view, self.search.last_p, 1)
        self.reason = None if decision is not None else self.reason
        return decision

    def _sure(self) -> bool:
        """Does the robot stand before a thing that it is sure of?"""
        for thing in self.things.things:
            if self._near(thing) and thing.p[self._wanted] >= self.search.sure_p:
                if thing not in self._refused and self._in_view(self._pose_w[:2], thing.xy):
                    self._goal = thing
                    return True
        return False

    def _near(self, thing: Thing) -> bool:
        return bool(np.hypot(*(thing.xy - self._pose_w[:2])) <= self.search.near_m)

    def _to_thing(self, view: Snapshot, least_p: float, looks: int) -> Decision | None:
        """The way to the nearest thing that is wanted with a chance; None if there is none."""
        best: tuple[float, Thing, tuple[int, int]] | None = None
        for thing in self.things.things:
            enough = thing.p[self._wanted] >= least_p and thing.count >= looks
            if not enough or thing in self._refused:
                continue
            cell = self._stand(view, thing)
            if cell is not None and (best is None or view.cost[cell] < best[0]):
                best = float(view.cost[cell]), thing, cell
        if best is None:
            self._goal = None
            return None
        _, self._goal, cell = best
        self._target = None
        way = self._centre(geodesic.path(view.cost, cell))
        return Decision(Task.GOAL, way[-1], way)

    def _stand(self, view: Snapshot, thing: Thing) -> tuple[int, int] | None:
        """The cheapest reachable cell before a thing from which it is seen."""
        side = self.config.resolution_m * self.config.factor
        y, x = self._cell(thing.xy)
        reach = int(self.search.near_m / side) + 1
        box = view.cost[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        cells = np.argwhere(box >= 0) + (max(y - reach, 0), max(x - reach, 0))
        if len(cells) == 0:
            return None
        xy = self._centre(cells)
        off = np.hypot(*(xy - thing.xy).T)
        for limit in (self.search.stand_m, self.search.near_m):
            near = np.flatnonzero(off <= limit)
            for k in near[np.argsort(view.cost[cells[near, 0], cells[near, 1]], kind="stable")]:
                if self._in_view(xy[k], thing.xy):
                    return int(cells[k, 0]), int(cells[k, 1])
        return None

    def _in_view(self, here: NDArray[np.float64], there: NDArray[np.float64]) -> bool:
        """Is nothing known to stand between two points, the last 0.3 m left out?"""
        assert self.map is not None
        way = float(np.hypot(*(there - here)))
        steps = int(way / self.map.resolution) + 2
        until = max(1 - 0.3 / max(way, 0.3), 0.0)
        line = here + np.linspace(0, until, steps)[:, None] * (there - here)
        cells = [self.map.cell(point) for point in line]
        return all(self.map.data[cell] < OCCUPIED_FROM for cell in cells)

    def _doorways(self) -> None:
        """Find doorways and branchings anew around the robot; farther ones stay."""
        assert self.map is not None
        c = self.config
        low = self.map.cell(self._pose_w[:2] - c.range_m)
        high = self.map.cell(self._pose_w[:2] + c.range_m)
        part = OccupancyMap(
            np.ascontiguousarray(self.map.data[low[0] : high[0] + 1, low[1] : high[1] + 1]),
            self.map.resolution,
            (self.map.origin_w[0] + low[1] * self.map.resolution,
             self.map.origin_w[1] + low[0] * self.map.resolution),
        )  # fmt: skip
        found = self.lidar.find(part)
        self.doors = self._renewed(self.doors, found, DOORWAY)
        self.branchings = self._renewed(self.branchings, found, "branching")

    def _renewed(
        self, known: NDArray[np.float64], found: Detections, kind: str
    ) -> NDArray[np.float64]:
        """(n, 4) found ones of a kind, and those known that lie elsewhere."""
        k = found.of(kind)
        new = np.column_stack([found.pose_w[k], found.width_m[k]])
        apart = self.lidar.config.apart_m
        inside = np.abs(known[:, :2] - self._pose_w[:2]).max(axis=1) < self.config.range_m - 1.0
        gap = np.hypot(*(known[:, None, :2] - new[None, :, :2]).transpose(2, 0, 1))
        kept = ~inside & ((gap > apart).all(axis=1) if len(new) else True)
        return np.concatenate([known[kept], new])


@dataclass(frozen=True)
class SemanticConfig:
    """How frontiers are put into an order."""

    inner_m: float = 2.0
    """Way that a look behind a frontier takes, beyond the way to it."""
    most: int = 14
    """Frontiers that are put into an order, those with the best chance for the way."""
    margin: float = 0.05
    """The robot goes on to where it was going unless another order is so much cheaper."""

    def __post_init__(self) -> None:
        if not (self.inner_m > 0 and self.most >= 1 and self.margin >= 0):
            raise ValueError(f"inner_m > 0, most >= 1 and margin >= 0 wanted, got {self}")


class SemanticExplorer:
    """Searches where the wanted thing is likely, for the way that it costs to look there.

    Frontiers are put into the order of the least expected way until the thing is found,
    sum_i S_i (d_i + inner), S_i = 1 - sum over j < i of p_j / sum p, and the first is driven to.
    That there is such a thing behind one of them is taken for granted, hence the quotient. The
    order is greedy by chance over way, then one is moved at a time while that helps.

    Args:
        prior: of buildings.
        config: of the order.
        places: how places are told apart.
    """

    def __init__(
        self, prior: Prior, config: SemanticConfig | None = None,
        places: PlacesConfig | None = None,
    ) -> None:  # fmt: skip
        self.prior, self.config = prior, config or SemanticConfig()
        self.places_config = places or PlacesConfig()
        self.knowledge: Knowledge | None = None
        self.places: Places | None = None
        """Of the last choice."""
        self.chance = np.zeros(0)
        """(K,) behind the frontiers of the last choice."""

    def know(self, knowledge: Knowledge) -> None:
        """Tell what the search knows; before every choice."""
        self.knowledge = knowledge

    def choose(self, view: Snapshot) -> int:
        """See :class:`toponav.explorers.Explorer`."""
        if self.knowledge is None:
            raise ValueError("know must come before choose: what is looked for?")
        k, c = self.knowledge, self.config
        self.places = Places(self.prior, k.map, view.grid == 0, k.doors, k.things,
                             view.frontiers, self.places_config)  # fmt: skip
        wanted = self.prior.classes.index(k.wanted)
        p = np.maximum(self.places.chances(view.frontiers, wanted), 1e-4)
        self.chance = p
        side = self.places.side
        first = view.distance.astype(np.float64) * side
        best = np.argsort(-p / (first + c.inner_m), kind="stable")[: c.most]
        held = view.held
        if held is not None and held not in best:
            best = np.append(best[:-1] if len(best) == c.most else best, held)
        between = _between(view, best) * side
        share = p[best] / p.sum()
        order, cost = _order(share, first[best] + c.inner_m, between + c.inner_m, -1)
        if held is not None:
            kept = int(np.flatnonzero(best == held)[0])
            _, stay = _order(share, first[best] + c.inner_m, between + c.inner_m, kept)
            if stay <= (1 + c.margin) * cost:
                return int(held)
        return int(best[order[0]])


def _between(view: Snapshot, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, n) ways between the lookouts of some frontiers, cells."""
    cell = view.frontiers.lookout[chosen]
    walk = view.grid == 0 if view.walk is None else view.walk
    out = np.zeros((len(cell), len(cell)))
    for k in range(len(cell) - 1):
        cost = geodesic.costs(walk, (int(cell[k, 0]), int(cell[k, 1])))
        out[k, k + 1 :] = cost[cell[k + 1 :, 0], cell[k + 1 :, 1]] / geodesic.STRAIGHT
    return out + out.T


@njit(cache=True, nogil=True)
def _expected(order, p, first, between):  # type: ignore[no-untyped-def]
    """Expected way of an order."""
    total, left = 0.0, 1.0
    for i in range(len(order)):
        total += left * (first[order[i]] if i == 0 else between[order[i - 1], order[i]])
        left -= p[order[i]]
    return total


@njit(cache=True, nogil=True)
def _order(p, first, between, begin):  # type: ignore[no-untyped-def]
    """Order of (n,) chances, which sum to at most 1, with the least expected way found, and that
    way; ``begin`` >= 0 is where it has to begin."""
    n = len(p)
    order, left = np.empty(n, np.int64), np.ones(n, np.bool_)
    for i in range(n):
        best, at = -1.0, 0
        for k in range(n):
            if left[k]:
                way = first[k] if i == 0 else between[order[i - 1], k]
                rate = p[k] / max(way, 1e-6)
                if (i == 0 and k == begin) or rate > best:
                    best, at = (1e30 if i == 0 and k == begin else rate), k
        order[i], left[at] = at, False
    cost = _expected(order, p, first, between)
    fixed = 1 if begin >= 0 else 0
    better = True
    while better:
        better = False
        for i in range(fixed, n):
            for j in range(fixed, n):
                if i == j:
                    continue
                moved = order.copy()
                taken = order[i]
                if i < j:
                    moved[i:j] = order[i + 1 : j + 1]
                else:
                    moved[j + 1 : i + 1] = order[j:i]
                moved[j] = taken
                way = _expected(moved, p, first, between)
                if way < cost - 1e-9:
                    order, cost, better = moved, way, True
    return order, cost
