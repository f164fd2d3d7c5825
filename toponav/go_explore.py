"""Go-Explore (Ecoffet et al. 2019, arXiv 1901.10995) on the topological map; our own code.

The archive's cells are the nodes of the map. Again and again: choose a cell, rarely seen ones more
often; go back there without exploring; explore from there at random, actions repeated. In
simulation one goes back by restoring the state, on a robot by driving there over the map. The form
of the weights and what replaces an entry are the paper's. Ours are the cells, nodes of a map
instead of small pictures, and what follows from their being few: a steeper choice, and counts that
a shorter way alone does not reset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .graph import Sight, TopologicalMap


@dataclass(frozen=True)
class GoExploreConfig:
    """Of one exploration."""

    steps: int = 40
    """Actions of a phase, after each return."""
    repeat: float = 4.0
    """Mean number of times that an action is repeated (stickiness)."""
    power: float = 2.0
    """A cell is chosen in proportion to 1 / (seen + 1) to this power; 0 chooses evenly. The paper
    has 0.5; on a map of few cells that leaves the far ones too rare."""
    sigma_m: float = 0.01
    """Standard deviation of the poses told, x, y (m) and yaw (rad)."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.repeat >= 1:
            raise ValueError(f"steps and repeat must be >= 1, got {self.steps}, {self.repeat}")
        if not (self.power >= 0 and self.sigma_m > 0):
            raise ValueError(f"power >= 0 and sigma_m > 0 wanted, got {self.power}, {self.sigma_m}")


@dataclass
class Cell:
    """An entry of the archive."""

    node: int
    """Id of the node of the map."""
    snapshot: Any
    """What brings the state back; None on a robot."""
    cost: float
    """Actions from the start to here."""
    score: float
    """Reward on the way here."""
    seen: int = 0
    """Phases that came by since the entry was last replaced."""


class Body(Protocol):
    """What explores: a simulator or a robot."""

    def pose_w(self) -> NDArray[np.float64]:
        """(3,) where it is, m and rad."""

    def snapshot(self) -> Any:
        """What :meth:`go_back` needs; None on a robot."""

    def go_back(self, cell: Cell, way_w: NDArray[np.float64] | None) -> float | None:
        """Restore the cell's snapshot, or drive ``way_w``.

        Args:
            way_w: (L, 2) nodes from the current one to the cell's, m; None if there is no way.

        Returns:
            Actions that it took, 0 for restoring; None if it was not reached.
        """

    def act(self, action: int) -> tuple[float, bool]:
        """Do an action: reward, and whether this is the end of all exploring."""

    def sees(self, xy_w: NDArray[np.float64]) -> bool:
        """Is nothing in the way to a point (2,)?"""


class GoExplore:
    """The archive, and what is done with it.

    Args:
        body: explores.
        actions: number of its actions.
        config: of the exploration.
        seed: of cells and actions.
        graph: map to go on with; a new one if None.

    Raises:
        ValueError: no actions.
    """

    def __init__(
        self, body: Body, actions: int, config: GoExploreConfig | None = None, seed: int = 0,
        graph: TopologicalMap | None = None,
    ) -> None:  # fmt: skip
        if actions < 1:
            raise ValueError(f"actions must be >= 1, got {actions}")
        self.body, self.actions, self.config = body, actions, config or GoExploreConfig()
        self.rng = np.random.default_rng([seed, 1901])
        self.graph = graph or TopologicalMap()
        self.archive: dict[int, Cell] = {}
        """By node."""
        self.used = 0.0
        """Actions so far, those of driving back included."""
        self.found = False
        """The end of all exploring was reached."""
        self._enter(0.0, 0.0, set())

    def chances(self) -> NDArray[np.float64]:
        """(cells,) with which each cell of the archive is chosen, in its order."""
        seen = np.array([cell.seen for cell in self.archive.values()], np.float64)
        weight = (seen + 1) ** -self.config.power
        return np.asarray(weight / weight.sum())

    def choose(self) -> Cell:
        """A cell to go back to; those whose node the map has dropped are dropped first."""
        for node in [node for node in self.archive if node not in self.graph.nodes]:
            del self.archive[node]
        cells = list(self.archive.values())
        return cells[int(self.rng.choice(len(cells), p=self.chances()))]

    def run(self, limit: float, after: Callable[[], bool] | None = None) -> bool:
        """Explore until the end is reached or ``limit`` actions are used; True if it was reached.

        Args:
            after: asked after every phase; True stops.
        """
        while not self.found and self.used < limit:
            cell = self.choose()
            took = self._go_back(cell)
            if took is not None:
                self.used += took
                self._phase(cell, limit)
            else:
                self.used += 1  # what cannot be got to is not tried for ever
                cell.seen += 1
            if after is not None and after():
                break
        return self.found

    def _go_back(self, cell: Cell) -> float | None:
        graph, way = self.graph, None
        if graph.current is not None:
            plan = graph.plan(graph.current, cell.node, self.used)
            if plan is not None:
                way = np.array([graph.nodes[node].pose_w[:2] for node in plan])
        took = self.body.go_back(cell, way)
        graph.lost()  # no new way was driven from where it was
        if took is not None:
            graph.arrive(cell.node, self.used + took)
        return took

    def _phase(self, cell: Cell, limit: float) -> None:
        """Explore from a cell."""
        score, by = cell.score, set[int]()
        action, left, begun = 0, 0, cell.cost
        for step in range(1, self.config.steps + 1):
            if left == 0:
                action = int(self.rng.integers(self.actions))
                left = int(self.rng.geometric(1 / self.config.repeat))
            left -= 1
            reward, self.found = self.body.act(action)
            self.used += 1
            score += reward
            self._enter(begun + step, score, by)
            if self.found or self.used >= limit:
                return

    def _enter(self, cost: float, score: float, by: set[int]) -> None:
        """Note where the body is; better ways replace worse ones."""
        pose = self.body.pose_w()
        cov = np.eye(3) * self.config.sigma_m**2
        node = self.graph.observe(pose, cov, self.used, self._sight())
        cell = self.archive.get(node)
        if cell is None or score > cell.score or (score == cell.score and cost < cell.cost):
            # a shorter way alone leaves the place as well known as it was
            seen = 0 if cell is None or score > cell.score else cell.seen
            self.archive[node] = cell = Cell(node, self.body.snapshot(), cost, score, seen)
        if node not in by:
            cell.seen += 1
            by.add(node)

    def _sight(self) -> Sight:
        return lambda node: self.body.sees(self.graph.nodes[node].pose_w[:2])
