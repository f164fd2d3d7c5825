"""What the two levels of a hierarchy are paid, every term by its name.

TopoNav (Hossain et al. 2024) pays for new places and for sub-goals; its amounts are not public,
those here are ours. The meta level is paid for what a sub-goal brought; the sub level for the way
to it: potential-based progress (Ng, Harada and Russell 1999), which leaves the best policy what it
is, and one over the root of the visits to a place (:class:`curiosity.count.VisitCount`).

For training: a robot does not need this file, which imports torch by way of ``curiosity``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curiosity.base import Transition
from curiosity.count import VisitCount, VisitCountConfig

from .exploration import Exploration, Reason


@dataclass(frozen=True)
class MetaRewardConfig:
    """Amounts of the meta level."""

    goal: float = 10.0
    """Paid once, at the goal."""
    time: float = -0.05
    """Per second."""
    node: float = 0.1
    """Per node that the topological map has gained."""
    area: float = 1.0
    """Per ``area_m2`` of floor seen for the first time."""
    area_m2: float = 50.0
    closed: float = 0.1
    """If the sub-goal is no frontier any more: it was seen."""

    def __post_init__(self) -> None:
        if not (self.area_m2 > 0 and self.time <= 0 and self.goal > 0):
            raise ValueError(f"area_m2 > 0, time <= 0 and goal > 0 wanted, got {self}")


@dataclass(frozen=True)
class Account:
    """What a search amounts to at one moment."""

    t_s: float
    nodes: int
    """Nodes of the topological map made so far."""
    seen_m2: float
    """Floor known to be free."""
    at_goal: bool = False

    @classmethod
    def of(cls, mind: Exploration, t_s: float, at_goal: bool = False) -> Account:
        """Account of a running exploration that has had a scan."""
        assert mind.map is not None
        free = int(np.count_nonzero(mind.map.data == 0))
        reached = at_goal or mind.reason == Reason.GOAL
        return cls(t_s, len(mind.graph), free * mind.map.resolution**2, reached)


def meta_rewards(
    config: MetaRewardConfig, before: Account, after: Account, closed: bool
) -> dict[str, float]:
    """Terms of the reward of one sub-goal; the reward is their sum.

    Args:
        before, after: when the sub-goal was chosen and when it was left.
        closed: it was left because nothing unknown is beside it any more.

    Raises:
        ValueError: time runs backwards.
    """
    if after.t_s < before.t_s:
        raise ValueError(f"after must be no earlier than {before.t_s} s, got {after.t_s}")
    return {
        "goal": config.goal * (after.at_goal and not before.at_goal),
        "time": config.time * (after.t_s - before.t_s),
        "node": config.node * max(after.nodes - before.nodes, 0),
        "area": config.area * max(after.seen_m2 - before.seen_m2, 0.0) / config.area_m2,
        "closed": config.closed * closed,
    }


@dataclass(frozen=True)
class SubRewardConfig:
    """Amounts of the sub level."""

    subgoal: float = 5.0
    """Paid once, at the sub-goal."""
    collision: float = -1.0
    """Per primitive that touched something."""
    stride_m: float = 0.6
    """Way that a primitive makes good at best: sets the potential."""
    gamma: float = 0.95
    """Discount of the learner, per primitive; the shaping is neutral for this one only."""
    visits: float = 0.1
    """Over the root of the visits, for entering a place."""
    place_m: float = 1.0
    """Side of a place."""

    def __post_init__(self) -> None:
        if not (0 < self.gamma < 1 and min(self.place_m, self.stride_m, self.visits) > 0):
            raise ValueError(f"0 < gamma < 1, lengths and visits > 0 wanted, got {self}")


@dataclass
class SubRewards:
    """Pays N robots for their primitives; remembers which places each episode has visited."""

    num_envs: int
    config: SubRewardConfig = SubRewardConfig()
    novelty: VisitCount = field(init=False)

    def __post_init__(self) -> None:
        c = self.config
        self.novelty = VisitCount(VisitCountConfig(
            obs_dim=2, num_envs=self.num_envs, cell_m=c.place_m, scope="episodic",
            entries_only=True, scale=c.visits,
        ))  # fmt: skip

    def pay(
        self,
        xy_w: ArrayLike,
        next_xy_w: ArrayLike,
        way_m: ArrayLike,
        next_way_m: ArrayLike,
        reached: ArrayLike,
        touched: ArrayLike,
        ended: ArrayLike,
    ) -> dict[str, NDArray[np.float64]]:
        r"""Terms (N,) of the reward of one primitive each; the reward is their sum.

        .. math:: F = \gamma \Phi(s') - \Phi(s), \quad \Phi = r_{goal} \gamma^{way / stride}

        The potential is what a robot that drives straight to its sub-goal will get, so that doing
        so earns nothing and standing costs. Any other potential is as neutral in theory; one in
        metres pays (1 - gamma) of itself for standing, and our nets learned to stand. It is zero
        where the sub-goal is reached, as it must be where an option ends.

        Args:
            xy_w, next_xy_w: (N, 2) where the robots were and are, m.
            way_m, next_way_m: (N,) way left to the same sub-goal, m; inf where there is none.
            reached: (N,) bool, the sub-goal is reached.
            touched: (N,) bool, something was touched.
            ended: (N,) bool, the episode ended here: the row forgets its places.

        Raises:
            ValueError: not all are of N rows.
        """
        c, n = self.config, self.num_envs
        arrays: dict[str, NDArray[Any]] = {
            "way_m": np.asarray(way_m, np.float64),
            "next_way_m": np.asarray(next_way_m, np.float64),
            "reached": np.asarray(reached, bool),
            "touched": np.asarray(touched, bool),
            "ended": np.asarray(ended, bool),
        }
        for name, array in arrays.items():
            if array.shape != (n,):
                raise ValueError(f"{name} must be ({n},), got {array.shape}")
        hit, stop = arrays["reached"], arrays["ended"]
        before, after = (c.subgoal * c.gamma ** (arrays[name] / c.stride_m)
                         for name in ("way_m", "next_way_m"))  # fmt: skip
        step = Transition.from_numpy(
            xy_w, np.zeros((n, 1)), next_xy_w, stop, np.zeros(n, bool)
        )  # fmt: skip
        return {
            "subgoal": c.subgoal * hit,
            "progress": np.where(hit, 0.0, c.gamma * after) - before,
            "collision": c.collision * arrays["touched"],
            "visits": self.novelty.observe(step).numpy().astype(np.float64),
        }
