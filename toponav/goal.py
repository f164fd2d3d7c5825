"""Search for a goal in a place that nobody has mapped: the exploration loop, with an end to it.

The goal's position is known, or it is not and is told once it is seen. Either way nobody tells the
way. As soon as the way over known floor is no longer than any that one may hope for, it is driven;
until then the explorer chooses among frontiers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import geodesic, tolls
from .exploration import Decision, Exploration, ExplorationConfig, Reason, Task
from .explorers import Explorer
from .hodat import Hodat
from .snapshot import Snapshot
from .tracker import Tracker

MARGIN_M = 2.0
"""The map reaches this far beyond the goal."""


class Greedy:
    """The frontier nearest to the goal as the crow flies, the nearest one while it is unknown."""

    def choose(self, view: Snapshot) -> int:
        """See :class:`toponav.explorers.Explorer`."""
        if view.goal is None:
            return int(view.distance.argmin())
        return int(np.hypot(*(view.frontiers.cell - view.goal).T).argmin())


class GoalSearch(Exploration):
    """One search.

    Args:
        config: of the robot and of patience.
        explorer: chooses among frontiers.
        goal_w: (2,) position, m, in the map frame; None until :meth:`spot`.
        radius_m: the goal is reached this near.
        unknown: cost of an unknown cell in known ones while known and hoped-for ways are compared.
        tracker: makes poses on the map of odometry and scans, see :class:`Exploration`.

    Raises:
        ValueError: the goal is not two finite numbers, or the radius not > 0.
    """

    def __init__(
        self, config: ExplorationConfig | None = None, explorer: Explorer | None = None,
        goal_w: ArrayLike | None = None, radius_m: float = 0.5, unknown: float = 1.0,
        tracker: Tracker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, explorer or Hodat(), tracker)
        if not radius_m > 0:
            raise ValueError(f"radius_m must be > 0, got {radius_m}")
        self.radius_m, self.unknown = radius_m, unknown
        self.goal_w: NDArray[np.float64] | None = None
        """(2,) m; None while nobody knows."""
        if goal_w is not None:
            self.spot(goal_w)

    def spot(self, goal_w: ArrayLike) -> None:
        """Tell where the goal is, (2,) m. It may be told again, better."""
        goal = np.array(goal_w, np.float64)
        if goal.shape != (2,) or not np.isfinite(goal).all():
            raise ValueError(f"goal_w must be 2 finite numbers, got {goal.tolist()}")
        self.goal_w = goal

    @property
    def reached(self) -> bool:
        """Is the robot at the goal?"""
        return self.goal_w is not None and bool(
            np.hypot(*(self.goal_w - self._pose_w[:2])) < self.radius_m
        )

    def _view(self) -> tuple[Snapshot, NDArray[np.bool_]]:
        """As for any exploration, with the goal in it."""
        assert self.map is not None
        if self.goal_w is not None:
            self.map = self.map.grown(self.goal_w, MARGIN_M)
        view, hope = super()._view()
        view.hope = hope
        if self.goal_w is not None:
            view.goal = self._cell(self.goal_w)
        return view, hope

    def _explore(self, t_s: float, view: Snapshot) -> Decision | None:
        """The goal if the way to it is known, else the next frontier; None when it is over."""
        if self.reached:
            self.reason = Reason.GOAL
            return None
        if view.goal is not None and self._known(view):
            self._target = None
            assert self.goal_w is not None
            way = self._centre(geodesic.path(view.cost, self._near_goal(view)))
            return Decision(Task.GOAL, self.goal_w, np.concatenate([way, self.goal_w[None]]))
        return super()._explore(t_s, view)

    def _near_goal(self, view: Snapshot) -> tuple[int, int]:
        """The reachable cell nearest to the goal, within its radius; the goal's cell if none is."""
        assert view.goal is not None
        y, x = view.goal
        side = self.config.resolution_m * self.config.factor
        reach = int(self.radius_m / side)
        low_y, low_x = max(y - reach, 0), max(x - reach, 0)
        near = np.argwhere(view.cost[low_y : y + reach + 1, low_x : x + reach + 1] >= 0)
        off = np.hypot(*(near + (low_y - y, low_x - x)).T)
        if len(near) == 0 or off.min() * side >= self.radius_m - side:
            return view.goal
        best = near[off.argmin()] + (low_y, low_x)
        return int(best[0]), int(best[1])

    def _known(self, view: Snapshot) -> bool:
        """Is the known way to the goal as short as the cheapest that one may hope for?"""
        cost = int(view.cost[self._near_goal(view)])
        if cost < 0:
            return False
        assert view.goal is not None and view.hope is not None
        toll = tolls.tolls(view.hope | (view.cost >= 0), view.grid, self.unknown)
        best = float(tolls.distances(toll, view.goal)[view.at])
        return cost / geodesic.STRAIGHT <= best + 1.0
