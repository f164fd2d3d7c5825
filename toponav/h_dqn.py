"""H-DQN (Kulkarni et al. 2016, arXiv 1604.06057) as TopoNav sketches it: a baseline, without torch.

A meta-controller's Q-net values each sub-goal, a frontier of the map, given what the sensor shows,
a summary of the map and the goal; a sub-controller's Q-net values motion primitives given the
sensor and the sub-goal. TopoNav (Hossain et al. 2024) names these two levels and what they see;
sizes, features and primitives are ours. Both nets are plain Q-nets as in Kulkarni, without our
attention, residual or score. Trained by ``incognita train h-dqn-goal``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .exploration import Decision, Task
from .snapshot import Snapshot

PRIMITIVES = np.array(
    [[1.2, 0.0], [0.6, 0.9], [0.6, -0.9], [0.0, 1.5], [0.0, -1.5], [-0.3, 0.0]]
)  # fmt: skip
"""(6, 2) v m/s and w rad/s, each held for ``HdqnConfig.primitive_s``."""
_MAP, _GOAL, _CHOICE, _SUB = 3, 4, 8, 3
_VELOCITY = 2


@dataclass(frozen=True)
class HdqnConfig:
    """What the two levels see and how long a primitive lasts."""

    sectors: int = 36
    """Sectors of the scan."""
    range_m: float = 8.0
    """Lengths are given in this unit."""
    guided: bool = True
    """The sub-controller also sees a point ahead on the known way to the sub-goal. The paper's
    sees the sub-goal alone; with a wall between, that is much harder."""
    ahead_m: float = 1.2
    """How far ahead that point is."""
    primitive_s: float = 0.5
    """Time that a primitive lasts."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of both nets."""

    def __post_init__(self) -> None:
        if self.sectors < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"sectors and widths must be >= 1, got {self}")
        if not min(self.range_m, self.ahead_m, self.primitive_s) > 0:
            raise ValueError(f"range_m, ahead_m and primitive_s must be > 0, got {self}")

    @property
    def meta_dim(self) -> int:
        """Features of one choice of the meta-controller."""
        return self.sectors + _MAP + _GOAL + _CHOICE

    @property
    def sub_dim(self) -> int:
        """Features of the sub-controller."""
        return self.sectors + _VELOCITY + _SUB * (1 + self.guided)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights by name, ``meta.w0`` (out, in), ``meta.b0`` (out,), ..."""
        out: dict[str, tuple[int, ...]] = {}
        ends = {"meta": (self.meta_dim, 1), "sub": (self.sub_dim, len(PRIMITIVES))}
        for level, (first, last) in ends.items():
            sizes = [first, *self.hidden, last]
            for k in range(len(sizes) - 1):
                out[f"{level}.w{k}"] = (sizes[k + 1], sizes[k])
                out[f"{level}.b{k}"] = (sizes[k + 1],)
        return out


def meta_features(
    config: HdqnConfig, view: Snapshot, yaw: float, sectors: ArrayLike
) -> NDArray[np.float32]:
    """(K, meta_dim) what the meta-controller sees of each frontier.

    Args:
        yaw: heading of the robot, rad; directions are given relative to it.
        sectors: (S,) least ranges of the scan, in ranges, 0 to 1.

    Raises:
        ValueError: another number of sectors.
    """
    scan = np.asarray(sectors, np.float64)
    if scan.shape != (config.sectors,):
        raise ValueError(f"sectors must be ({config.sectors},), got {scan.shape}")
    f, unit, k = view.frontiers, view.sensor_cells, len(view.frontiers)
    known = np.count_nonzero(view.grid == 0) / unit**2
    summary = [math.log1p(known), math.log1p(k), np.count_nonzero(view.cost >= 0) / unit**2 / 4]
    offset = (f.cell[:, ::-1] - np.array(view.at)[::-1]) / unit  # (K, 2) x, y
    goal, off_goal = np.zeros(_GOAL), np.zeros(k)
    if view.goal is not None:
        to_goal = (np.array(view.goal) - view.at)[::-1] / unit
        goal[:] = 1.0, *_polar(to_goal[None], yaw)[0]
        off_goal = np.hypot(*(to_goal - offset).T)
    none = np.zeros(k)
    visits = none if view.visits is None else view.visits
    fails = none if view.fails is None else view.fails
    choice = np.stack(
        [*_polar(offset, yaw).T, view.distance / unit, f.size / unit,
         f.gain / unit**2, off_goal, 0.2 * visits + fails], axis=1,
    )  # fmt: skip
    shared = np.concatenate([scan, summary, goal])
    return np.concatenate([np.tile(shared, (k, 1)), choice], axis=1).astype(np.float32)


def sub_features(
    config: HdqnConfig, pose_w: ArrayLike, vel_b: ArrayLike, sectors: ArrayLike,
    target_w: ArrayLike, path_w: ArrayLike,
) -> NDArray[np.float32]:  # fmt: skip
    """(sub_dim,) what the sub-controller sees.

    Args:
        pose_w: (3,) m and rad; vel_b: (2,) m/s and rad/s.
        sectors: (S,) least ranges of the scan, in ranges, 0 to 1.
        target_w: (2,) sub-goal, m; path_w: (L, 2) known way to it, m.
    """
    pose = np.asarray(pose_w, np.float64)
    parts = [np.asarray(sectors, np.float64), np.asarray(vel_b, np.float64)]
    points = [np.asarray(target_w, np.float64)]
    if config.guided:
        points.append(ahead(path_w, pose[:2], config.ahead_m))
    parts += list(_polar((np.array(points) - pose[:2]) / config.range_m, float(pose[2])))
    return np.concatenate(parts).astype(np.float32)


def ahead(path_w: ArrayLike, xy_w: ArrayLike, length_m: float) -> NDArray[np.float64]:
    """(2,) first point of a path, after the one nearest to ``xy_w``, so far from there; or its end.

    Args:
        path_w: (L, 2), L >= 1, m.
    """
    path, here = np.asarray(path_w, np.float64), np.asarray(xy_w, np.float64)
    off = np.hypot(*(path - here).T)
    first = int(off.argmin())
    far = np.flatnonzero(off[first:] >= length_m)
    return np.asarray(path[first + far[0] if len(far) else -1])


def way_left(path_w: ArrayLike, xy_w: ArrayLike) -> float:
    """Way from a point (2,) along a path (L, 2) to its end, m."""
    path, here = np.asarray(path_w, np.float64), np.asarray(xy_w, np.float64)
    off = np.hypot(*(path - here).T)
    first = int(off.argmin())
    return float(off[first] + np.hypot(*np.diff(path[first:], axis=0).T).sum())


class Hdqn:
    """The two greedy levels; the upper one is an :class:`toponav.explorers.Explorer`.

    Args:
        weights: of both nets, see :meth:`HdqnConfig.shapes`.
        config: what they were trained with.

    Raises:
        ValueError: a weight is missing, too many, of another shape or not finite.
    """

    def __init__(
        self, weights: Mapping[str, NDArray[np.float32]], config: HdqnConfig | None = None
    ) -> None:
        self.config = config or HdqnConfig()
        want, got = self.config.shapes(), {name: w.shape for name, w in weights.items()}
        if want != got:
            wrong = sorted(n for n in {*want, *got} if want.get(n) != got.get(n))
            raise ValueError(
                f"weights must have shapes {[want.get(n) for n in wrong]} for {wrong}, "
                f"got {[got.get(n) for n in wrong]}"
            )
        if not all(np.isfinite(w).all() for w in weights.values()):
            raise ValueError("weights must be finite")
        self.weights = {name: np.asarray(w, np.float32) for name, w in weights.items()}
        self._pose_w, self._vel_b = np.zeros(3), np.zeros(2)
        self._sectors = np.ones(self.config.sectors)

    def sense(self, pose_w: ArrayLike, vel_b: ArrayLike, sectors: ArrayLike) -> None:
        """Tell what the robot's sensors show, before :meth:`choose` and :meth:`primitive`.

        Args:
            pose_w: (3,) m and rad; vel_b: (2,) m/s and rad/s.
            sectors: (S,) least ranges of the scan, in ranges, 0 to 1.
        """
        self._pose_w, self._vel_b = np.array(pose_w, np.float64), np.array(vel_b, np.float64)
        self._sectors = np.array(sectors, np.float64)

    def choose(self, view: Snapshot) -> int:
        """The best new sub-goal; the old one while it stands (an option runs to its end)."""
        if view.held is not None:
            return view.held
        features = meta_features(self.config, view, float(self._pose_w[2]), self._sectors)
        return int(self.values("meta", features)[:, 0].argmax())

    def primitive(self, decision: Decision) -> NDArray[np.float64]:
        """(2,) command to hold for ``primitive_s``; the last primitive where a robot backs up."""
        if decision.task == Task.BACK_UP:
            return np.asarray(PRIMITIVES[-1])
        if decision.target_w is None or decision.path_w is None:
            return np.zeros(2)
        seen = sub_features(self.config, self._pose_w, self._vel_b, self._sectors,
                            decision.target_w, decision.path_w)  # fmt: skip
        return np.asarray(PRIMITIVES[int(self.values("sub", seen[None])[0].argmax())])

    def values(self, level: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, outputs) of a level's net, "meta" or "sub", for (B, dim) features."""
        x = features
        last = len(self.config.hidden)
        for k in range(last + 1):
            x = x @ self.weights[f"{level}.w{k}"].T + self.weights[f"{level}.b{k}"]
            x = x if k == last else np.maximum(x, 0)
        return np.asarray(x, np.float32)


def _polar(xy: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """(K, 3) length, capped at 4, and cosine and sine of the bearing of (K, 2) offsets."""
    bearing = np.arctan2(xy[:, 1], xy[:, 0]) - yaw
    length = np.minimum(np.hypot(xy[:, 0], xy[:, 1]), 4.0)
    return np.stack([length, np.cos(bearing), np.sin(bearing)], axis=1)
