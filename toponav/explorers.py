"""Classical explorers: which frontier next? All lengths in ranges of the sensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .snapshot import Snapshot


class Explorer(Protocol):
    """Chooses among the frontiers of a snapshot, of which there is at least one."""

    def choose(self, view: Snapshot) -> int:
        """Number of the frontier to drive to."""


@dataclass(frozen=True)
class Nearest:
    """The nearest frontier (Yamauchi 1997)."""

    def choose(self, view: Snapshot) -> int:
        """See :class:`Explorer`."""
        return int(view.distance.argmin())


@dataclass(frozen=True)
class Utility:
    """Size against distance, s exp(-d / scale) (Gonzalez-Banos & Latombe 2002)."""

    scale: float = 0.75
    power: float = 1.0

    def scores(self, view: Snapshot) -> NDArray[np.float32]:
        """(K,) logarithm of the utility."""
        d = view.distance / view.sensor_cells
        return np.asarray(self.power * np.log(view.frontiers.size) - d / self.scale, np.float32)

    def choose(self, view: Snapshot) -> int:
        """See :class:`Explorer`."""
        return int(self.scores(view).argmax())


@dataclass(frozen=True)
class NextBestView:
    """Unknown area in view against distance, g exp(-d / scale)."""

    scale: float = 0.75
    power: float = 1.0

    def choose(self, view: Snapshot) -> int:
        """See :class:`Explorer`."""
        d = view.distance / view.sensor_cells
        return int((self.power * np.log(view.frontiers.gain + 1) - d / self.scale).argmax())


@dataclass(frozen=True)
class Tour:
    """First stop of the shortest open tour of all frontiers (TARE, Cao et al. 2021), 2-opt.

    It goes on to where it has been going unless that costs more than ``margin`` of the tour: two
    tours of one length would have it turn round for ever.
    """

    margin: float = 0.1

    def choose(self, view: Snapshot) -> int:
        """See :class:`Explorer`."""
        best = tour(view.distance, view.between)
        held = view.held
        if held is None or held == best[0]:
            return int(best[0])
        rest = np.delete(np.arange(len(view.frontiers)), held)
        way = rest[tour(view.between[held, rest], view.between[np.ix_(rest, rest)])]
        kept = np.concatenate([[held], way])
        longer = _length(view, kept) > (1 + self.margin) * _length(view, best)
        return int(best[0] if longer else held)


def _length(view: Snapshot, order: NDArray[np.int64]) -> float:
    return float(view.distance[order[0]] + view.between[order[:-1], order[1:]].sum())


@dataclass
class Random:
    """Any frontier; sticks to it while it is there."""

    seed: int = 0
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def choose(self, view: Snapshot) -> int:
        """See :class:`Explorer`."""
        held = view.held
        return int(self.rng.integers(len(view.frontiers))) if held is None else held


def tour(first: NDArray[np.float32], between: NDArray[np.float32]) -> NDArray[np.int64]:
    """(K,) order of the shortest open tour found: nearest neighbour, then 2-opt (Croes 1958).

    Args:
        first: (K,) ways from where the tour begins.
        between: (K, K) ways.
    """
    k = len(first)
    left, order = set(range(k)), [int(first.argmin())]
    left.discard(order[0])
    while left:
        order.append(min(left, key=lambda j: between[order[-1], j]))
        left.discard(order[-1])
    path = np.array(order)
    better = True
    while better:
        better = False
        for i in range(k - 1):
            before = first if i == 0 else between[path[i - 1]]
            for j in range(i + 1, k):
                after = between[:, path[j + 1]] if j + 1 < k else np.zeros(k, np.float32)
                old = before[path[i]] + after[path[j]]
                new = before[path[j]] + after[path[i]]
                if new < old - 1e-6:
                    path[i : j + 1] = path[i : j + 1][::-1].copy()
                    better = True
    return path


CLASSICAL: dict[str, Explorer] = {
    "nearest": Nearest(), "utility": Utility(), "next-best-view": NextBestView(), "tour": Tour(),
}  # fmt: skip
"""By name."""
