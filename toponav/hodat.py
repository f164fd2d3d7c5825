"""HODAT's sub-goal score: which frontier serves the objectives best.

TopoNav (Hossain et al. 2024, arXiv 2402.04061) names the hierarchical objectives and a weighted
score with novelty in it; its other terms and all of its weights are not public. The score here is
our reconstruction, the weights are tuned by ``incognita bench goal --tune``.

The objectives, in the order of their weight. The first three are kept by
:class:`toponav.exploration.Exploration` before a frontier comes to be scored; the score orders
what is left:

1. hit nothing: a frontier that the robot does not fit to is none;
2. keep the way home: exploring ends when just enough is left for it;
3. reach the sub-goal: what has been begun is kept, and given up after failures;
4. explore, and
5. reach the goal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import tolls
from .snapshot import Snapshot

MOST_LEFT = 8
"""Leaving more targets than this holds on no harder."""


@dataclass(frozen=True)
class HodatConfig:
    r"""Weights and scales of the score.

    .. math:: w_n e^{-n/\tau} + w_g e^{-d/L} + w_i g/g_{max} - w_c c/C - w_f f

    n visits of the place nearest to the frontier, d way from it to the goal (through the unknown,
    at its toll), g unknown area in view, c way to it, f failures there.
    """

    novelty: float = 0.3
    """w_n."""
    goal: float = 0.3
    """w_g; counts only while the goal is known."""
    gain: float = 0.3
    """w_i."""
    cost: float = 0.2
    """w_c."""
    fails: float = 0.5
    """w_f."""
    visits: float = 2.0
    """tau, visits."""
    goal_ranges: float = 1.0
    """L, ranges of the sensor."""
    cost_ranges: float = 1.0
    """C, ranges of the sensor."""
    unknown: float = 1.0
    """Cost of an unknown cell on the way to the goal, in known ones: 1 hopes for the best."""
    keep: float = 0.0
    """Added to the frontier that is being driven to, against turning round for a little; doubled
    for each target that was left for another. A gap of the robot's own width that opens and closes
    as scans come in would have it turn round for ever."""

    def __post_init__(self) -> None:
        for name in ("novelty", "goal", "gain", "cost", "fails", "keep"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("visits", "goal_ranges", "cost_ranges"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not self.unknown >= 1:
            raise ValueError(f"unknown must be >= 1, got {self.unknown}")


TO_GOAL = HodatConfig(
    novelty=0.0, gain=0.1, goal=200.0, cost=1.0, goal_ranges=200.0, unknown=1.5, keep=0.05
)  # fmt: skip
"""Tuned for a goal whose position is known: with a long scale the goal's term is linear, and what
is least is the way to the frontier and on to the goal (as D* Lite, Koenig and Likhachev 2002)."""

TO_FIND = HodatConfig(novelty=0.1, gain=0.3, cost=0.5, keep=0.03)
"""Tuned for a goal that is known only once it is seen."""


class Hodat:
    """Drives to the frontier of the highest score; an :class:`toponav.explorers.Explorer`."""

    def __init__(self, config: HodatConfig | None = None) -> None:
        self.config = config or HodatConfig()

    def terms(self, view: Snapshot) -> dict[str, NDArray[np.float64]]:
        """The terms (K,) of the score by name; the score is their sum."""
        c, k = self.config, len(view.frontiers)
        none = np.zeros(k)
        visits = none if view.visits is None else np.asarray(view.visits, np.float64)
        fails = none if view.fails is None else np.asarray(view.fails, np.float64)
        gain = view.frontiers.gain.astype(np.float64)
        cost = view.distance.astype(np.float64) / view.sensor_cells
        out = {
            "novelty": c.novelty * np.exp(-visits / c.visits),
            "gain": c.gain * gain / max(float(gain.max(initial=0)), 1.0),
            "cost": -c.cost * cost / c.cost_ranges,
            "fails": -c.fails * fails,
            "goal": none,
            "keep": none.copy(),
        }
        if view.goal is not None:
            far = way_to_goal(view, c.unknown) / view.sensor_cells
            out["goal"] = c.goal * np.exp(-far / c.goal_ranges)
        if view.held is not None:
            out["keep"][view.held] = c.keep * 2.0 ** min(view.left, MOST_LEFT)
        return out

    def scores(self, view: Snapshot) -> NDArray[np.float64]:
        """(K,) scores of the frontiers; finite."""
        return np.asarray(np.sum(list(self.terms(view).values()), axis=0), np.float64)

    def choose(self, view: Snapshot) -> int:
        """See :class:`toponav.explorers.Explorer`."""
        return int(self.scores(view).argmax())


def way_to_goal(view: Snapshot, unknown: float) -> NDArray[np.float64]:
    """(K,) way from each frontier to the goal, unknown cells at their toll, in known cells.

    Inf where walls that are known shut the goal off.

    Raises:
        ValueError: the snapshot has no goal.
    """
    field = goal_field(view, unknown).astype(np.float64)
    (y, x), lookout = view.frontiers.cell.T, view.frontiers.lookout.T
    # a frontier too narrow for the robot lies where no way begins: it is looked at from its lookout
    way: NDArray[np.float64] = np.minimum(field[y, x], field[lookout[0], lookout[1]])
    return way


def goal_field(view: Snapshot, unknown: float) -> NDArray[np.float32]:
    """(H, W) way from each cell to the goal as :func:`way_to_goal` reckons it."""
    if view.goal is None:
        raise ValueError("view must have a goal, got None")
    hope = view.grid <= 0 if view.hope is None else view.hope
    return tolls.distances(tolls.tolls(hope, view.grid, unknown), view.goal)
