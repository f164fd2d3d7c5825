"""Ways between nodes over the floor that a map knows: how long, and which nodes may be joined.

A robot that explores drives most doors once. What it saw on the way joins more places than it
drove between, and without these joins one closed door would part the graph.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import geodesic
from .graph import TopologicalMap


class Floor:
    """Cells that a robot fits into, and ways over them.

    Args:
        walk: (H, W) such cells.
        origin_w: (2,) corner of cell (0, 0), m.
        cell_m: side of a cell.
    """

    def __init__(self, walk: NDArray[np.bool_], origin_w: ArrayLike, cell_m: float) -> None:
        self.walk, self.cell_m = walk, cell_m
        self.origin_w = np.asarray(origin_w, np.float64)

    def cell(self, xy: ArrayLike, within_m: float = 0.6) -> tuple[int, int] | None:
        """The cell nearest to a point (2,) that the robot fits into, None if none is near."""
        x, y = (np.asarray(xy, np.float64)[:2] - self.origin_w) / self.cell_m
        reach = math.ceil(within_m / self.cell_m)
        low_y, low_x = max(int(y) - reach, 0), max(int(x) - reach, 0)
        cells = np.argwhere(self.walk[low_y : int(y) + reach + 1, low_x : int(x) + reach + 1])
        if len(cells) == 0:
            return None
        cells += (low_y, low_x)
        off = np.hypot(*(cells + 0.5 - (y, x)).T)
        best = int(off.argmin())
        if off[best] * self.cell_m > within_m:
            return None
        return int(cells[best, 0]), int(cells[best, 1])

    def ways_m(
        self, xy: ArrayLike, to: ArrayLike, reach_m: float = math.inf
    ) -> NDArray[np.float64]:
        """(K,) ways from a point (2,) to points (K, 2), m; inf where there is none.

        Args:
            xy: from here.
            to: to each of these.
            reach_m: cells farther away than this are left out, which makes it quick.
        """
        points = np.asarray(to, np.float64).reshape(-1, 2)
        out = np.full(len(points), math.inf)
        start = self.cell(xy)
        if start is None:
            return out
        rows = min(reach_m / self.cell_m, max(self.walk.shape))
        y0, x0 = max(int(start[0] - rows), 0), max(int(start[1] - rows), 0)
        part = self.walk[y0 : int(start[0] + rows) + 1, x0 : int(start[1] + rows) + 1]
        cost = geodesic.costs(part, (start[0] - y0, start[1] - x0))
        for k, point in enumerate(points):
            at = self.cell(point)
            if at is None:
                continue
            y, x = at[0] - y0, at[1] - x0
            if 0 <= y < part.shape[0] and 0 <= x < part.shape[1] and cost[y, x] >= 0:
                out[k] = cost[y, x] / geodesic.STRAIGHT * self.cell_m
        return out


def link(
    graph: TopologicalMap, floor: Floor, t_s: float, nodes: list[int] | None = None,
    reach_m: float = 4.5, detour: float = 1.2, spare: float = 1.5,
) -> list[tuple[int, int]]:  # fmt: skip
    """Join nodes whose way over known floor is short and nearly straight, see :meth:`join`.

    Edges that are longer than the way over known floor, because the robot drove a detour when it
    made them, are set to that way.

    Args:
        graph: changed.
        floor: what is known of it.
        t_s: when it was seen.
        nodes: only edges of these; None: of all.
        reach_m: longest line between two nodes that are joined.
        detour: longest way, as a share of the line.
        spare: two nodes are not joined if the graph has a way at most so many times as long.

    Returns:
        The new edges (a, b).
    """
    made = []
    ids = list(graph.nodes)
    at = np.array([graph.nodes[i].pose_w[:2] for i in ids]).reshape(-1, 2)
    for a in ids if nodes is None else nodes:
        here = graph.nodes[a].pose_w[:2]
        line = np.hypot(*(at - here).T)
        near = [k for k in np.argsort(line) if line[k] <= reach_m and ids[k] != a]
        ways = floor.ways_m(here, at[near], detour * reach_m)
        for k, way in zip(near, ways, strict=True):
            edge = graph.edge(a, ids[k])
            if edge is not None:
                edge.length_m = min(edge.length_m, float(max(way, line[k])))
            elif way <= detour * line[k] + 2 * floor.cell_m and (
                driven_m(graph, a, ids[k], spare * way) > spare * way
            ):  # fmt: skip
                graph.join(a, ids[k], t_s, float(max(way, line[k])))
                made.append((a, ids[k]))
    return made


def driven_m(graph: TopologicalMap, a: int, b: int, limit_m: float) -> float:
    """Length of the shortest way between two nodes over all edges, m; inf if beyond the limit."""
    best, open_ = {a: 0.0}, [a]
    while open_:
        at = min(open_, key=best.__getitem__)
        if at == b:
            return best[at]
        open_.remove(at)
        for to in graph.neighbours(at):
            edge = graph.edge(at, to)
            assert edge is not None
            way = best[at] + edge.length_m
            if way <= limit_m and way < best.get(to, math.inf):
                best[to] = way
                open_.append(to)
    return math.inf
