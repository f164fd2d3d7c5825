"""Active topological map: places as nodes, driven ways as edges with a chance of success.

The idea is that of TopoNav (Hossain et al. 2024, arXiv:2402.04061). The paper gives neither
thresholds nor edge weights nor a rule for merging: every rule and number here is our own
reconstruction. Frame ``w`` is the map frame; times are the caller's, in s, on any one clock.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Sight = Callable[[int], bool] | Collection[int]
"""Which nodes are in line of sight of the robot: a test, or their ids."""
Inliers = Callable[[int], float] | Mapping[int, float]
"""Share in [0, 1] of the scan's points that fit, were the robot standing at that node."""


@dataclass(frozen=True)
class GraphConfig:
    """Thresholds of the map. None is from the paper, see the module."""

    spacing_m: float = 2.0
    """A new node is made if the way to the nearest one is longer."""
    merge_m: float = 1.0
    """A robot nearer than this, by way, is at the node."""
    descriptor_new: float = 0.80
    """A new node is made if the cosine to every descriptor within ``near_m`` is below."""
    descriptor_merge: float = 0.90
    """A place is recognized above this cosine, if scan and position agree."""
    merge_inliers: float = 0.6
    """... and above this share of scan inliers."""
    merge_gate: float = 9.21
    """... and up to this squared Mahalanobis distance in x and y (chi square, 2 dof, 99 %)."""
    near_m: float = 5.0
    """Radius within which descriptors are compared for a new node."""
    max_nodes: int = 512
    """Cap on the number of nodes."""
    prune_m: float = 6.0
    """Pruning makes no edge longer than this."""
    prune_offset_m: float = 0.3
    """A node this near to the line between its two neighbours is straight."""
    prune_detour: float = 1.05
    """... if the driven way is at most this many times the line."""
    block_s: float = 30.0
    """An edge is blocked this long after a failure, twice as long after each further in a row."""
    drop_failures: int = 2
    """An edge is dropped when it has failed this many times in a row."""
    min_success: float = 0.05
    """Floor of the chance of success in the edge cost."""
    age_m_per_s: float = 0.001
    """Cost of each second since the edge was last driven, m."""
    age_max_m: float = 2.0
    """Most that age can cost, m."""

    def __post_init__(self) -> None:
        for name in ("spacing_m", "merge_m", "merge_gate", "near_m", "prune_m", "block_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name in ("prune_offset_m", "age_m_per_s", "age_max_m"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        for name, least in (("prune_detour", 1), ("max_nodes", 2), ("drop_failures", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not 0 < self.min_success <= 1:
            raise ValueError(f"min_success must be in (0, 1], got {self.min_success}")
        if not 0 <= self.merge_inliers <= 1:
            raise ValueError(f"merge_inliers must be in [0, 1], got {self.merge_inliers}")
        if self.merge_m > self.spacing_m:
            raise ValueError(f"merge_m must be <= spacing_m, got {self.merge_m}, {self.spacing_m}")
        if not -1 <= self.descriptor_new <= self.descriptor_merge <= 1:
            raise ValueError(
                "-1 <= descriptor_new <= descriptor_merge <= 1 wanted, "
                f"got {self.descriptor_new} and {self.descriptor_merge}"
            )


@dataclass(eq=False)
class Node:
    """A place. ``gain`` is the caller's to set, the rest the map's."""

    id: int
    """Never used again, even after the node is gone."""
    pose_w: NDArray[np.float64]
    """(3,) mean x, y and yaw, m and rad; yaw is the robot's heading when the place was new."""
    cov: NDArray[np.float64]
    """(3, 3) covariance of ``pose_w``."""
    descriptor: NDArray[np.float32]
    """(D,) of unit length, or (0,) if none was given."""
    kind: str = ""
    """Semantic class, "" if none."""
    landmark: bool = False
    """A doorway or a branching: never pruned."""
    visits: int = 0
    """Arrivals, the first included."""
    seen_s: float = 0.0
    """When the robot was last here."""
    gain: float = 0.0
    """Frontier gain, >= 0: what there is to see from here."""
    failures: int = 0
    """Drives to here that failed since the last arrival."""


@dataclass(eq=False)
class Edge:
    """A way between two nodes, the same in both directions. ``roughness`` is the caller's."""

    length_m: float
    """Shortest way driven between the two."""
    seen_s: float
    """When it was last driven."""
    time_s: float = math.nan
    """Mean time of a traversal, nan until one was timed."""
    alpha: float = 1.0
    """1 + successes: the chance of success is Beta(alpha, beta)."""
    beta: float = 1.0
    """1 + failures."""
    roughness: float = 0.0
    """Extra cost per metre, >= 0."""
    blocked_until_s: float = -math.inf
    """Not to be planned over before."""
    failures_in_a_row: int = 0
    """Failures since the last success."""

    @property
    def success(self) -> float:
        """Mean chance of success."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def doubted(self) -> bool:
        """The last drive failed."""
        return self.failures_in_a_row > 0


@dataclass(eq=False)
class TopologicalMap:
    """Nodes and edges, and where the robot is among them."""

    config: GraphConfig = field(default_factory=GraphConfig)
    """Thresholds."""
    nodes: dict[int, Node] = field(default_factory=dict, init=False)
    """By id, oldest first. Not to be added to or removed from outside."""
    home: int | None = field(default=None, init=False)
    """Node that is never removed: the first one, unless the caller says otherwise."""
    current: int | None = field(default=None, init=False)
    """Node that the robot was last at; None at first and after :meth:`lost`."""

    def __post_init__(self) -> None:
        self._adjacent: dict[int, dict[int, Edge]] = {}
        self._next_id = 0
        self._now_s = -math.inf
        self._pose_w: NDArray[np.float64] | None = None  # of the robot, when last observed
        self._driven_m = 0.0  # way from the current node to there
        self._left_s = math.nan  # when last at the current node; nan: unknown
        # nodes made since the last one that was fixed, with the way driven from that to each
        self._chain: dict[int, float] = {}
        self._chain_m = 0.0  # way driven since

    def __len__(self) -> int:
        return len(self.nodes)

    # Observing

    def observe(
        self, pose_w: ArrayLike, cov: ArrayLike, t_s: float, visible: Sight,
        descriptor: ArrayLike | None = None, kind: str = "", landmark: bool = False,
        inliers: Inliers | None = None,
    ) -> int:  # fmt: skip
        """Enter where the robot is: at a known node, at a new one, or on its way between.

        The way from the robot to a node is the straight line if the node is in sight. Otherwise
        it leads through nodes in sight or through the current node, to which it is as long as has
        been driven since. So the node nearest by way is in sight or is the current one.

        1. At the nearest node, if the way to it is shorter than ``merge_m``.
        2. At the most similar node with a cosine above ``descriptor_merge`` whose position agrees
           (within ``merge_gate``) and whose scan fits (share above ``merge_inliers``): a closed
           loop. The current node is not considered, the way to it is known.
        3. At a new node, if the way to the nearest is longer than ``spacing_m``, or no descriptor
           within ``near_m`` has a cosine of ``descriptor_new``, or this is a landmark. On the
           line of an edge of the current node distance makes no node, lest pruning be undone.
        4. Else on the way; the nearest node is as good as seen.

        Arriving at a node (1 to 3) joins it to the one before, see :meth:`arrive`, and fuses x, y
        and descriptor with what is known, see :meth:`_fuse`. While the robot stays there nothing
        is fused: the observations are not independent. Above ``max_nodes`` the map is pruned,
        then the least useful node is contracted, see :meth:`_least_useful`.

        Args:
            pose_w: (3,) robot's x, y, yaw, m and rad.
            cov: (3, 3) its covariance.
            t_s: time of the observation.
            visible: nodes in line of sight; called for nodes within ``spacing_m`` only.
            descriptor: (D,) of the view, any length but zero; D is the same in all calls.
            kind: semantic class of the place, "" if none was seen.
            landmark: the robot is in a doorway or at a branching.
            inliers: scan match; called for likely nodes only. Without it no loop is closed.

        Returns:
            Id of the node that the robot is at, or on the way (4) of the nearest.

        Raises:
            ValueError: an argument has another shape, is not finite, or time runs backwards.
        """
        pose, covariance = _pose(pose_w, "pose_w"), _covariance(cov, "cov")
        view = self._unit(descriptor)
        t_s = self._tick(t_s)
        if self._pose_w is not None:
            step = float(np.hypot(*(pose - self._pose_w)[:2]))
            self._driven_m += step
            self._chain_m += step
        self._pose_w = pose
        near, way = self._nearest_by_way(pose[:2], visible)
        if near is not None and way < self.config.merge_m:
            at = near
        elif (loop := self._recognize(pose, covariance, view, inliers)) is not None:
            at, way = loop, 0.0
        elif near is None or landmark or self._is_new(pose[:2], way, view, t_s):
            at, way = self._create(pose, covariance), 0.0
        else:
            self.nodes[near].seen_s = t_s
            return near
        node = self.nodes[at]
        if at != self.current and node.visits > 0:
            self._fuse(node, pose, covariance, view)
        node.descriptor = node.descriptor if len(node.descriptor) else view
        node.kind = kind or node.kind
        node.landmark = node.landmark or landmark
        self.arrive(at, t_s, self._driven_m + way)
        self._driven_m = way
        if len(self.nodes) > self.config.max_nodes:
            self.prune()
        while len(self.nodes) > self.config.max_nodes:
            self._contract(self._least_useful())
        return at

    def arrive(self, node_id: int, t_s: float, length_m: float | None = None) -> None:
        """The robot is at a node. If it comes from another one, the edge between was driven.

        A new edge starts as Beta(1, 1). The drive counts as a success, clears doubt and block,
        enters the mean time (unless a failure came between), and shortens ``length_m`` if it was
        shorter. :meth:`observe` calls this; call it yourself when a controller reports its goal.

        Args:
            node_id: where the robot is.
            t_s: time of arrival.
            length_m: way driven; by default what was observed, at least the straight line.

        Raises:
            ValueError: there is no such node, or time runs backwards.
        """
        node = self._node(node_id)
        if length_m is not None and not 0 <= length_m < math.inf:
            raise ValueError(f"length_m must be >= 0 and finite, got {length_m}")
        t_s = self._tick(t_s)
        if self.current is not None and self.current != node_id:
            self._traverse(self.current, node.id, t_s, length_m)
        if self.current != node_id:
            node.visits += 1
        node.seen_s, node.failures = t_s, 0
        self.current, self._left_s, self._driven_m = node.id, t_s, 0.0

    def fail(self, a: int, b: int, t_s: float) -> bool:
        """The robot set out from ``a`` and did not get to ``b``.

        The edge is doubted and blocked for ``block_s``, twice as long after each further failure
        in a row (at most 2^10 times); it opens again by itself. After ``drop_failures`` in a row
        it is dropped.

        Returns:
            Whether the edge was dropped.

        Raises:
            ValueError: there is no such edge, or time runs backwards.
        """
        edge = self.edge(a, b)
        if edge is None:
            raise ValueError(f"a and b must be joined by an edge, got {a} and {b}")
        t_s = self._tick(t_s)
        edge.beta += 1
        edge.failures_in_a_row += 1
        edge.blocked_until_s = t_s + self.config.block_s * 2 ** min(edge.failures_in_a_row - 1, 10)
        self.nodes[b].failures += 1
        self._left_s = math.nan
        if edge.failures_in_a_row < self.config.drop_failures:
            return False
        del self._adjacent[a][b], self._adjacent[b][a]
        return True

    def join(self, a: int, b: int, t_s: float, length_m: float, edge: Edge | None = None) -> Edge:
        """Enter a way between two nodes that was seen to be free and not driven: Beta(1, 1).

        Args:
            a: one node.
            b: the other.
            t_s: when it was seen.
            length_m: of the way.
            edge: one that was dropped and is to be tried again: its history goes on, unblocked.

        Raises:
            ValueError: there is no such node, they are joined or the same, or time runs backwards.
        """
        if self._node(a) is self._node(b) or self.edge(a, b) is not None:
            raise ValueError(f"a and b must be two nodes that are not joined, got {a} and {b}")
        if not 0 <= length_m < math.inf:
            raise ValueError(f"length_m must be >= 0 and finite, got {length_m}")
        t_s = self._tick(t_s)
        if edge is None:
            return self._join(a, b, Edge(length_m, t_s))
        edge.blocked_until_s = -math.inf
        return self._join(a, b, edge)

    def reopen(self, a: int, b: int) -> None:
        """The way of an edge was seen to be free: it is not blocked and not doubted any more.

        Raises:
            ValueError: there is no such edge.
        """
        edge = self.edge(a, b)
        if edge is None:
            raise ValueError(f"a and b must be joined by an edge, got {a} and {b}")
        edge.blocked_until_s, edge.failures_in_a_row = -math.inf, 0

    def resume(self, t_s: float) -> None:
        """A new visit begins at ``t_s``, on a clock of its own: what was last seen, was seen then.

        All times are moved alike, so that ages and blocks stay what they were at the end of the
        last visit. The robot is nowhere yet, see :meth:`lost`.
        """
        if not -math.inf < t_s < math.inf:
            raise ValueError(f"t_s must be finite, got {t_s}")
        by = t_s - self._now_s if self._now_s > -math.inf else 0.0
        for node in self.nodes.values():
            node.seen_s += by
        for _, _, edge in self.edges():
            edge.seen_s += by
            edge.blocked_until_s += by
        self._now_s = float(t_s)
        self.lost()

    def lost(self) -> None:
        """The robot does not know how it came to where it is: the next node joins no other."""
        self.current, self._pose_w = None, None
        self._driven_m, self._left_s = 0.0, math.nan

    def correct(self, node_id: int, pose_w: ArrayLike, cov: ArrayLike) -> None:
        """Move a node to where localisation now knows it to be, and others with it.

        The correction d = pose_w - node.pose_w (yaw wrapped) is spread over the chain, the nodes
        made since the last fixed node (the first node, or the last one corrected): linear along
        the path. A node made after s metres of driving moves by d s / S, where S is that of
        ``node_id``, and nodes made later by all of d. x, y and yaw each move so; the chain is not
        turned, which is right to first order in d. Then ``node_id`` is the fixed node.

        A node that is not in the chain moves alone. Lengths of edges (driven, not measured on the
        map) and covariances of the other nodes stay.

        Args:
            node_id: usually the newest node.
            pose_w: (3,) its corrected x, y, yaw.
            cov: (3, 3) its covariance now.

        Raises:
            ValueError: there is no such node, or an argument has another shape or is not finite.
        """
        node = self._node(node_id)
        pose, covariance = _pose(pose_w, "pose_w"), _covariance(cov, "cov")
        if node_id in self._chain:
            shift, end = pose - node.pose_w, self._chain[node_id]
            shift[2] = _wrap(shift[2])
            for other, way in self._chain.items():
                moved = self.nodes[other]
                moved.pose_w = moved.pose_w + shift * (way / end if way < end else 1.0)
                moved.pose_w[2] = _wrap(moved.pose_w[2])
            if self._pose_w is not None:
                self._pose_w = self._pose_w + shift
            self._chain = {i: way - end for i, way in self._chain.items() if i > node_id}
            self._chain_m -= end
        node.pose_w, node.cov = pose, covariance

    # Asking

    def edge(self, a: int, b: int) -> Edge | None:
        """The edge between two nodes, None if there is none."""
        return self._adjacent.get(a, {}).get(b)

    def edges(self) -> Iterator[tuple[int, int, Edge]]:
        """Every edge once, (a, b, edge) with a < b, in order."""
        for a in self.nodes:
            for b in sorted(self._adjacent[a]):
                if a < b:
                    yield a, b, self._adjacent[a][b]

    def neighbours(self, node_id: int) -> list[int]:
        """Ids of the nodes that share an edge with a node, blocked or not."""
        return sorted(self._adjacent[self._node(node_id).id])

    def cost(self, edge: Edge, t_s: float) -> float:
        """length / max(P_success, min_success) * (1 + roughness) + age, m.

        Age is ``age_m_per_s`` for every second since the edge was driven, up to ``age_max_m``.
        """
        c = self.config
        age = min(c.age_m_per_s * max(t_s - edge.seen_s, 0.0), c.age_max_m)
        return edge.length_m / max(edge.success, c.min_success) * (1 + edge.roughness) + age

    def plan(self, a: int, b: int, t_s: float) -> list[int] | None:
        """Ids of the cheapest way from ``a`` to ``b``, both ends; None if all ways are blocked.

        Dijkstra 1959 over :meth:`cost` and the edges that are open at ``t_s``.

        Raises:
            ValueError: there is no such node.
        """
        came = self._search(self._node(a).id, t_s, self._node(b).id)[1]
        if b not in came:
            return None
        path = [b]
        while path[-1] != a:
            path.append(came[path[-1]])
        return path[::-1]

    def distances_from(self, node_id: int, t_s: float) -> dict[int, float]:
        """Cost of the cheapest way from a node to each of all nodes, m; inf if there is none."""
        cost = self._search(self._node(node_id).id, t_s)[0]
        return {i: cost.get(i, math.inf) for i in self.nodes}

    def nearest(self, xy: ArrayLike, t_s: float | None = None) -> int | None:
        """Node with the shortest straight line to a point (2,), None if there are none.

        With ``t_s`` only nodes count that can be planned to from the current one at that time.
        """
        point = np.asarray(xy, np.float64)
        if point.shape != (2,) or not np.isfinite(point).all():
            raise ValueError(f"xy must be 2 finite numbers, got {point.tolist()}")
        ids = list(self.nodes)
        if t_s is not None:
            ids = [] if self.current is None else list(self._search(self.current, t_s)[0])
        if not ids:
            return None
        return ids[int(np.hypot(*(self._positions(ids) - point).T).argmin())]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The map as arrays, for a network.

        Returns:
            Of the nodes: ``id`` (N,) int64, ``pose_w`` (N, 3), ``cov`` (N, 3, 3), ``descriptor``
            (N, D) float32 with zeros where there is none, ``kind`` (N,) str, ``landmark`` (N,)
            bool, ``visits`` (N,) int64, ``seen_s`` (N,), ``gain`` (N,), ``failures`` (N,) int64.
            Of the edges, each once: ``edge_index`` (E, 2) int64 rows of the nodes, ``length_m``,
            ``time_s``, ``success``, ``roughness``, ``edge_seen_s``, ``blocked_until_s`` (E,) and
            ``doubted`` (E,) bool. Floats are float64 unless said.
        """
        nodes, edges = list(self.nodes.values()), list(self.edges())
        row = {i: k for k, i in enumerate(self.nodes)}
        descriptor = np.zeros((len(nodes), self._width()), np.float32)
        for k, node in enumerate(nodes):
            if len(node.descriptor):
                descriptor[k] = node.descriptor
        ends = [(row[a], row[b]) for a, b, _ in edges]
        return {
            "id": np.array(list(self.nodes), np.int64),
            "pose_w": np.array([n.pose_w for n in nodes]).reshape(-1, 3),
            "cov": np.array([n.cov for n in nodes]).reshape(-1, 3, 3),
            "descriptor": descriptor,
            "kind": np.array([n.kind for n in nodes], np.str_),
            "landmark": np.array([n.landmark for n in nodes], np.bool_),
            "visits": np.array([n.visits for n in nodes], np.int64),
            "seen_s": np.array([n.seen_s for n in nodes], np.float64),
            "gain": np.array([n.gain for n in nodes], np.float64),
            "failures": np.array([n.failures for n in nodes], np.int64),
            "edge_index": np.array(ends, np.int64).reshape(-1, 2),
            "length_m": np.array([e.length_m for *_, e in edges], np.float64),
            "time_s": np.array([e.time_s for *_, e in edges], np.float64),
            "success": np.array([e.success for *_, e in edges], np.float64),
            "roughness": np.array([e.roughness for *_, e in edges], np.float64),
            "edge_seen_s": np.array([e.seen_s for *_, e in edges], np.float64),
            "blocked_until_s": np.array([e.blocked_until_s for *_, e in edges], np.float64),
            "doubted": np.array([e.doubted for *_, e in edges], np.bool_),
        }

    # Thinning

    def prune(self) -> list[int]:
        """Contract nodes in the middle of straight chains.

        Such a node has two neighbours, no doubted edge, lies within ``prune_offset_m`` of the line
        between them, and the way driven over it is at most ``prune_detour`` times that line and at
        most ``prune_m`` long. Landmarks, nodes with frontier gain, home and the current node stay.

        Returns:
            Ids of the nodes that are gone.
        """
        gone = []
        for node in list(self.nodes.values()):
            wanted = self._kept(node) or node.landmark or node.gain > 0
            if not wanted and self._straight(node):
                self._contract(node.id)
                gone.append(node.id)
        return gone

    def _straight(self, node: Node) -> bool:
        around = self._adjacent[node.id]
        if len(around) != 2 or any(edge.doubted for edge in around.values()):
            return False
        a, b = (self.nodes[i].pose_w[:2] for i in sorted(around))  # the same after loading
        way, line = sum(edge.length_m for edge in around.values()), float(np.hypot(*(b - a)))
        c = self.config
        if way > min(c.prune_m, c.prune_detour * line):
            return False
        return _offset(node.pose_w[:2], a, b) <= c.prune_offset_m

    def _kept(self, node: Node) -> bool:
        return node.id in (self.home, self.current)

    def _least_useful(self) -> int:
        """No frontier gain before no landmark before fewest visits before longest unseen."""
        return min(
            (node for node in self.nodes.values() if not self._kept(node)),
            key=lambda node: (node.gain > 0, node.landmark, node.visits, node.seen_s, node.id),
        ).id

    def _contract(self, node_id: int) -> None:
        """Take a node out; what it connected stays connected.

        Its neighbours are joined to the nearest of them (one without doubt, if there is one), by
        edges as long as the way over the node was. Where that edge exists already, the better of
        the two stays.
        """
        around = self._adjacent.pop(node_id)
        for other in around:
            del self._adjacent[other][node_id]
        del self.nodes[node_id]
        self._chain.pop(node_id, None)
        if not around:
            return
        hub = min(around, key=lambda i: (around[i].doubted, around[i].length_m, i))
        for other, edge in around.items():
            if other != hub:
                ways = [_in_series(around[hub], edge)]
                if (known := self.edge(hub, other)) is not None:
                    ways.insert(0, known)
                self._join(hub, other, min(ways, key=lambda e: (e.doubted, e.length_m)))

    # State

    def state_dict(self) -> dict[str, Any]:
        """All but the config as plain values that JSON can hold; None stands for nan and -inf."""
        nodes = [{key: _plain(getattr(n, key)) for key in _NODE} for n in self.nodes.values()]
        edges = [
            {"a": a, "b": b} | {key: _plain(getattr(edge, key)) for key in _EDGE}
            for a, b, edge in self.edges()
        ]
        return {
            "next_id": self._next_id,
            "home": _plain(self.home),
            "current": self.current,
            "now_s": _plain(self._now_s),
            "pose_w": _plain(self._pose_w),
            "driven_m": self._driven_m,
            "left_s": _plain(self._left_s),
            "chain": [[i, way] for i, way in self._chain.items()],
            "chain_m": self._chain_m,
            "nodes": nodes,
            "edges": edges,
        }

    def load_state_dict(self, state: Any) -> None:
        """Become what :meth:`state_dict` described, bit for bit; unchanged if that fails.

        Raises:
            ValueError: a field, which is named, is missing, unknown or not what it must be, or
                there are more nodes than ``max_nodes``.
        """
        new = TopologicalMap(self.config)
        new._load(_fields(state, "state", new.state_dict()))
        self.__dict__.update(new.__dict__)

    def _load(self, state: dict[str, Any]) -> None:
        nodes, edges = _list(state["nodes"], "nodes"), _list(state["edges"], "edges")
        if len(nodes) > self.config.max_nodes:
            most = f"max_nodes {self.config.max_nodes}"
            raise ValueError(f"nodes must be at most {most}, got {len(nodes)}")
        for k, entry in enumerate(nodes):
            node = Node(**_read(_fields(entry, f"nodes[{k}]", _NODE), _NODE, f"nodes[{k}]."))
            if node.id < self._next_id:
                raise ValueError(f"nodes[{k}].id must be above the one before, got {node.id}")
            size, width = len(node.descriptor), self._width() or len(node.descriptor)
            if size not in (0, width):
                raise ValueError(f"nodes[{k}].descriptor must be {width} numbers, got {size}")
            self.nodes[node.id], self._adjacent[node.id] = node, {}
            self._next_id = node.id + 1
        self._next_id = _whole(state["next_id"], "next_id", self._next_id)
        for k, entry in enumerate(edges):
            _fields(entry, f"edges[{k}]", ("a", "b", *_EDGE))
            a, b = (self._id(entry[end], f"edges[{k}].{end}") for end in "ab")
            if a >= b or b in self._adjacent[a]:
                raise ValueError(f"edges[{k}] must join a new pair a < b, got {a} and {b}")
            self._join(a, b, Edge(**_read(entry, _EDGE, f"edges[{k}].")))
        for k, link in enumerate(_list(state["chain"], "chain")):
            if not isinstance(link, list) or len(link) != 2:
                raise ValueError(f"chain[{k}] must be [id, way], got {link!r:.80}")
            node_id = self._id(link[0], f"chain[{k}][0]")
            self._chain[node_id] = _number(link[1], f"chain[{k}][1]", 0.0)
        self.home, self.current = (
            None if state[name] is None else self._id(state[name], name)
            for name in ("home", "current")
        )
        self._pose_w = None if state["pose_w"] is None else _read_pose(state["pose_w"], "pose_w")
        self._now_s = _number(state["now_s"], "now_s", none=-math.inf)
        self._left_s = _number(state["left_s"], "left_s", none=math.nan)
        self._driven_m = _number(state["driven_m"], "driven_m", 0.0)
        self._chain_m = _number(state["chain_m"], "chain_m", 0.0)

    # Inside

    def _node(self, node_id: int) -> Node:
        if node_id not in self.nodes:
            raise ValueError(f"node_id must be one of the {len(self)} nodes, got {node_id}")
        return self.nodes[node_id]

    def _id(self, value: Any, name: str) -> int:
        node_id = _whole(value, name)
        if node_id not in self.nodes:
            raise ValueError(f"{name} must be one of the nodes, got {node_id}")
        return node_id

    def _tick(self, t_s: float) -> float:
        if not self._now_s <= t_s < math.inf:
            raise ValueError(f"t_s must be finite and not before {self._now_s}, got {t_s}")
        self._now_s = float(t_s)
        return self._now_s

    def _width(self) -> int:
        """Length D of the descriptors, 0 if there are none yet."""
        return next((len(n.descriptor) for n in self.nodes.values() if len(n.descriptor)), 0)

    def _unit(self, descriptor: ArrayLike | None) -> NDArray[np.float32]:
        """(D,) float32 of unit length, or (0,) for none."""
        if descriptor is None:
            return np.zeros(0, np.float32)
        d = np.asarray(descriptor, np.float64)
        length = float(np.linalg.norm(d))
        if d.ndim != 1 or not len(d) or (self._width() or len(d)) != len(d):
            raise ValueError(f"descriptor must be ({self._width() or 'D'},), got {d.shape}")
        if not 0 < length < math.inf:
            raise ValueError(f"descriptor must be finite and not zero, got length {length}")
        return (d / length).astype(np.float32)

    def _positions(self, ids: Collection[int]) -> NDArray[np.float64]:
        return np.array([self.nodes[i].pose_w[:2] for i in ids]).reshape(-1, 2)

    def _nearest_by_way(self, xy: NDArray[np.float64], visible: Sight) -> tuple[int | None, float]:
        """The node with the shortest way and that way, m; beyond ``spacing_m`` it may be None."""
        sees = visible if callable(visible) else visible.__contains__
        best, way = self.current, math.inf if self.current is None else self._driven_m
        ids = list(self.nodes)
        line = np.hypot(*(self._positions(ids) - xy).T)
        for k in np.argsort(line, kind="stable"):
            if line[k] >= min(way, self.config.spacing_m):
                break
            if sees(ids[k]):
                return ids[k], float(line[k])
        return best, way

    def _recognize(
        self, pose: NDArray[np.float64], cov: NDArray[np.float64], view: NDArray[np.float32],
        inliers: Inliers | None,
    ) -> int | None:  # fmt: skip
        if inliers is None or not len(view):
            return None
        share = inliers if callable(inliers) else defaultdict(float, inliers).__getitem__
        ids = [i for i, node in self.nodes.items() if len(node.descriptor) and i != self.current]
        if not ids:
            return None
        cosine = np.stack([self.nodes[i].descriptor for i in ids]) @ view
        for k in np.argsort(-cosine, kind="stable"):
            if cosine[k] <= self.config.descriptor_merge:
                return None
            node = self.nodes[ids[k]]
            apart = (pose - node.pose_w)[:2]
            spread = (node.cov + cov)[:2, :2] + 1e-9 * np.eye(2)  # m^2: also if both are exact
            if (
                apart @ np.linalg.solve(spread, apart) <= self.config.merge_gate
                and share(node.id) > self.config.merge_inliers
            ):
                return node.id
        return None

    def _is_new(
        self, xy: NDArray[np.float64], way: float, view: NDArray[np.float32], t_s: float
    ) -> bool:
        if way > self.config.spacing_m and not self._on_edge(xy, t_s):
            return True
        if not len(view):
            return False
        described = [node for node in self.nodes.values() if len(node.descriptor)]
        near = [
            node.descriptor
            for node in described
            if math.dist(node.pose_w[:2], xy) <= self.config.near_m
        ]
        return bool(near) and float((np.stack(near) @ view).max()) < self.config.descriptor_new

    def _on_edge(self, xy: NDArray[np.float64], t_s: float) -> bool:
        """Is a point on the line of an open edge of the current node?"""
        if self.current is None:
            return False
        a = self.nodes[self.current].pose_w[:2]
        return any(
            t_s >= edge.blocked_until_s
            and _offset(xy, a, self.nodes[other].pose_w[:2]) <= self.config.prune_offset_m
            for other, edge in self._adjacent[self.current].items()
        )

    def _create(self, pose: NDArray[np.float64], cov: NDArray[np.float64]) -> int:
        node = Node(self._next_id, pose, cov, np.zeros(0, np.float32))
        self._next_id += 1
        self.nodes[node.id], self._adjacent[node.id] = node, {}
        if self.home is None:
            self.home = node.id
        else:
            self._chain[node.id] = self._chain_m
        return node.id

    def _fuse(
        self, node: Node, pose: NDArray[np.float64], cov: NDArray[np.float64],
        view: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Kalman update of a node by a visit that measures x and y; mean of the descriptors.

        K = P H' (H P H' + R)^-1, x += K (z - H x), P = (I - K H) P, with H = [I2 0] (Kalman 1960).
        The robot's heading on this visit says nothing of the one on the first, so yaw is not
        measured; it moves only as far as P ties it to x and y.
        """
        # the pseudoinverse also serves where both positions are exact: the node stays
        gain = node.cov[:, :2] @ np.linalg.pinv((node.cov + cov)[:2, :2], hermitian=True)
        left = node.cov - gain @ node.cov[:2]
        node.pose_w = node.pose_w + gain @ (pose - node.pose_w)[:2]
        node.pose_w[2] = _wrap(node.pose_w[2])
        node.cov = (left + left.T) / 2
        if len(view) and len(node.descriptor):
            mean = view + node.visits * node.descriptor
            node.descriptor = self._unit(mean if mean.any() else view)

    def _traverse(self, a: int, b: int, t_s: float, length_m: float | None) -> None:
        line = math.dist(self.nodes[a].pose_w[:2], self.nodes[b].pose_w[:2])
        edge = self.edge(a, b)
        if length_m is None:
            unknown = line if edge is None else edge.length_m
            length_m = unknown if self._pose_w is None else max(self._driven_m, line)
        if edge is None:
            edge = self._join(a, b, Edge(length_m, t_s))
        edge.length_m = min(edge.length_m, float(length_m))
        edge.alpha += 1
        if not math.isnan(self._left_s):
            took = t_s - self._left_s
            first = math.isnan(edge.time_s)
            edge.time_s = took if first else edge.time_s + (took - edge.time_s) / (edge.alpha - 1)
        edge.failures_in_a_row, edge.blocked_until_s, edge.seen_s = 0, -math.inf, t_s

    def _join(self, a: int, b: int, edge: Edge) -> Edge:
        self._adjacent[a][b] = self._adjacent[b][a] = edge
        return edge

    def _search(
        self, start: int, t_s: float, goal: int | None = None
    ) -> tuple[dict[int, float], dict[int, int]]:
        """Cost of the cheapest way to each node reached, and the node before it on that way."""
        cost, came = {start: 0.0}, {start: start}
        queue = [(0.0, start)]
        while queue:
            so_far, at = heapq.heappop(queue)
            if at == goal:
                break
            if so_far > cost[at]:
                continue
            for to, edge in self._adjacent[at].items():
                if t_s < edge.blocked_until_s:
                    continue
                new = so_far + self.cost(edge, t_s)
                if new < cost.get(to, math.inf):
                    cost[to], came[to] = new, at
                    heapq.heappush(queue, (new, to))
        return cost, came


def _in_series(first: Edge, second: Edge) -> Edge:
    """One edge for two that are driven one after the other; the weaker one decides on success."""
    weak = min(first, second, key=lambda e: (e.success, e.alpha + e.beta))
    length = first.length_m + second.length_m
    rough = first.roughness * first.length_m + second.roughness * second.length_m
    return Edge(
        length,
        min(first.seen_s, second.seen_s),
        first.time_s + second.time_s,
        weak.alpha,
        weak.beta,
        rough / length if length > 0 else max(first.roughness, second.roughness),
        max(first.blocked_until_s, second.blocked_until_s),
        max(first.failures_in_a_row, second.failures_in_a_row),
    )


def _offset(p: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Distance of a point from the segment a b."""
    ab, ap = b - a, p - a
    square = float(ab @ ab)
    share = min(max(float(ap @ ab) / square, 0.0), 1.0) if square > 0 else 0.0
    return math.hypot(*(ap - share * ab))


def _wrap(angle: float) -> float:
    return math.remainder(angle, 2 * math.pi)


def _pose(value: ArrayLike, name: str) -> NDArray[np.float64]:
    pose = _array(value, name, (3,))
    pose[2] = _wrap(pose[2])
    return pose


def _covariance(value: ArrayLike, name: str) -> NDArray[np.float64]:
    cov = _array(value, name, (3, 3))
    tolerance = 1e-6 * max(float(np.abs(cov).max()), 1e-12)
    if np.abs(cov - cov.T).max() > tolerance or np.linalg.eigvalsh(cov)[0] < -tolerance:
        raise ValueError(f"{name} must be symmetric and not negative, got {cov.tolist()}")
    return cov


def _array(value: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A copy, checked."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be {shape} numbers, got {value!r:.80}") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {shape} finite numbers, got {array.tolist()}")
    return array


# State: plain values out, checked values in, every error with the name of the field


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fields(value: Any, name: str, keys: Collection[str]) -> dict[str, Any]:
    entry: dict[str, Any] = _typed(value, name, dict)
    missing, unknown = set(keys) - entry.keys(), entry.keys() - set(keys)
    if missing or unknown:
        got = f"missing {sorted(missing)}, unknown {sorted(unknown)}"
        raise ValueError(f"{name} must have all its fields and no other, got {got}")
    return entry


def _read(entry: dict[str, Any], readers: dict[str, Callable[..., Any]], where: str) -> Any:
    return {key: read(entry[key], where + key) for key, read in readers.items()}


def _typed(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {kind.__name__}, got {value!r:.80}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    return list(_typed(value, name, list))


def _whole(value: Any, name: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r:.80}")
    return value


def _number(value: Any, name: str, least: float = -math.inf, none: float | None = None) -> float:
    """A finite number; ``none``, if given, is what None stands for."""
    if value is None and none is not None:
        return none
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r:.80}")
    if not (abs(value) <= sys.float_info.max and value >= least):
        raise ValueError(f"{name} must be finite and >= {least}, got {value}")
    return float(value)


def _numbers(value: Any, name: str) -> list[float]:
    return [_number(v, f"{name}[{k}]") for k, v in enumerate(_list(value, name))]


def _read_pose(value: Any, name: str) -> NDArray[np.float64]:
    return _pose(_numbers(value, name), name)


def _read_covariance(value: Any, name: str) -> NDArray[np.float64]:
    flat = _numbers(value, name)
    if len(flat) != 9:
        raise ValueError(f"{name} must be 9 numbers, got {len(flat)}")
    return _covariance(np.reshape(flat, (3, 3)), name)


def _read_descriptor(value: Any, name: str) -> NDArray[np.float32]:
    descriptor = np.array(_numbers(value, name), np.float32)
    length = float(np.linalg.norm(descriptor))
    if len(descriptor) and abs(length - 1) > 1e-3:
        raise ValueError(f"{name} must be of unit length, got {length}")
    return descriptor


_NODE: dict[str, Callable[..., Any]] = {
    "id": _whole,
    "pose_w": _read_pose,
    "cov": _read_covariance,
    "descriptor": _read_descriptor,
    "kind": partial(_typed, kind=str),
    "landmark": partial(_typed, kind=bool),
    "visits": _whole,
    "seen_s": _number,
    "gain": partial(_number, least=0.0),
    "failures": _whole,
}
_EDGE: dict[str, Callable[..., Any]] = {
    "length_m": partial(_number, least=0.0),
    "seen_s": _number,
    "time_s": partial(_number, least=0.0, none=math.nan),
    "alpha": partial(_number, least=1.0),
    "beta": partial(_number, least=1.0),
    "roughness": partial(_number, least=0.0),
    "blocked_until_s": partial(_number, none=-math.inf),
    "failures_in_a_row": _whole,
}
