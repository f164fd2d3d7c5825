"""Improve the meta-controller beyond its first labels: double Q-learning with n-step targets.

At states that its own policy comes to, each candidate is driven to for one decision, the policy
takes the next n - 1, and the network says what is left: the candidate that one half of its heads
picks there, at the cost that the other half gives it (double Q-learning, van Hasselt 2010: the
halves learn from different samples). Decisions take different distances, so that what lies D ranges
ahead counts gamma^D (an SMDP, Sutton et al. 1999, equation 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sim.dungeon import SENSOR_PX, DungeonMap, DungeonRun
from toponav.explorers import Utility
from toponav.meta import MetaConfig, trusted
from toponav.meta_features import Features, features
from toponav.meta_net import MetaNet, padded
from toponav.snapshot import Snapshot

from ..explore import LIMIT_PX, drive_to, snapshot
from .explorer_data import Labelled


@dataclass(eq=False)
class Branch:
    """A copy of a run that goes its own way."""

    run: DungeonRun
    view: Snapshot
    cost: float = 0.0
    """Ranges driven, discounted."""
    ranges: float = 0.0
    """Driven."""

    def drive(self, chosen: int, gamma: float) -> None:
        """One decision's way."""
        begun = self.run.driven_px
        drive_to(self.run, self.view, chosen)
        driven = (self.run.driven_px - begun) / SENSOR_PX
        self.cost += discounted(driven, gamma) * gamma**self.ranges
        self.ranges += driven


def discounted(ranges: float, gamma: float) -> float:
    """Integral of gamma^x over [0, ranges]."""
    return ranges if gamma == 1 else float((gamma**ranges - 1) / np.log(gamma))


def policy_labels(
    world: DungeonMap, net: MetaNet, base: Utility, trust: MetaConfig,
    rng: np.random.Generator, *, share: float, stray: float, n: int, gamma: float,
) -> list[Labelled]:  # fmt: skip
    """States of one exploration by the network's policy, with n-step targets of each candidate.

    Args:
        share, stray: as of :func:`~incognita.recipes.explorer_data.labelled`.
        n: decisions until the network takes over.
        gamma: discount per range.
    """
    run, view, on = DungeonRun(world), None, 0
    told, branches = list[Features](), list[list[Branch]]()
    while not run.finished and run.driven_px < LIMIT_PX:
        view = snapshot(run, view)
        count = len(view.frontiers)
        if count == 0:
            break
        chosen = 0
        if count > 1:
            score = base.scores(view)
            seen = features(view, score)
            chosen = trusted(ask(net, [seen])[0], int(score.argmax()), trust)
            if rng.random() < share:
                told.append(seen)
                branches.append([_branch(run, view, k, gamma) for k in range(count)])
        if view.held is not None and on > 0:
            chosen, on = view.held, on - 1
        elif rng.random() < stray:
            chosen, on = int(rng.integers(count)), int(rng.integers(1, 8))
        begun = run.driven_px
        drive_to(run, view, chosen)
        if run.driven_px == begun:
            break
    _go_on([b for row in branches for b in row], net, base, trust, n, gamma)
    return [
        Labelled(f, np.array([b.cost for b in row], np.float32))
        for f, row in zip(told, branches, strict=True)
    ]


def _branch(run: DungeonRun, view: Snapshot, chosen: int, gamma: float) -> Branch:
    copy = object.__new__(DungeonRun)
    copy.__dict__ = run.__dict__ | {"seen": run.seen.copy(), "grid": run.grid.copy()}
    out = Branch(copy, replace(view))
    out.view.__dict__ |= {k: v for k, v in view.__dict__.items() if k not in out.view.__dict__}
    out.drive(chosen, gamma)
    return out


def _go_on(
    branches: Sequence[Branch], net: MetaNet, base: Utility, trust: MetaConfig,
    n: int, gamma: float,
) -> None:  # fmt: skip
    """Drive all on by the policy, then add what the network says is left."""
    for step in range(n):
        live, told = list[Branch](), list[Features]()
        for b in branches:
            if b.run.finished:
                continue
            b.view = snapshot(b.run, b.view)
            if len(b.view.frontiers) == 0:
                continue
            live.append(b)
            told.append(features(b.view, base.scores(b.view)))
        picked = ask(net, told)
        if step == n - 1:
            for b, by in zip(live, picked, strict=True):
                b.cost += max(double(by), 0.0) * gamma**b.ranges
        else:
            for b, by in zip(live, picked, strict=True):
                b.drive(trusted(by, base.choose(b.view), trust), gamma)


def double(cost: NDArray[np.float32]) -> float:
    """Cost of the candidate that the first half of the heads picks, by the second half.

    Args:
        cost: (K, members), members >= 2.
    """
    half = cost.shape[1] // 2
    return float(cost[cost[:, :half].mean(axis=1).argmin(), half:].mean())


@torch.no_grad()
def ask(net: MetaNet, told: Sequence[Features]) -> list[NDArray[np.float32]]:
    """(K, members) costs of each of some states."""
    out: list[NDArray[np.float32]] = []
    for begin in range(0, len(told), 64):
        some = told[begin : begin + 64]
        numbers, pictures, there = padded(some)
        cost = net(numbers, pictures.float() / 255, there).numpy()
        out += [cost[i, : len(f.numbers) - 1] for i, f in enumerate(some)]
    return out
