"""Drive over unknown ground with little energy: sense heights, learn what they cost, plan again.

Scans and what the wheels worked go in, ways come out. It drives nothing itself. On the way it
enters places into a topological map, whose edges learn how rough they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .elevation import ElevationConfig, ElevationMap, Surface
from .energy import EnergyConfig, EnergyModel
from .graph import TopologicalMap
from .terrain_ways import Way, WayConfig, Weights, find, shortest


@dataclass(frozen=True)
class TerrainConfig:
    """How the mind drives over ground."""

    shortest: bool = False
    """Take the shortest way that is open, whatever it costs."""
    learn: bool = True
    """Learn the energy model from what was measured; otherwise the prior stays."""
    piece_m: float = 0.6
    """A piece of way to learn from is so long,"""
    piece_rad: float = 0.8
    """... or turns by so much,"""
    piece_s: float = 2.0
    """... or takes so long."""
    keep: float = 0.05
    """The way that is being driven is left for one that costs less by more than this share."""
    unknown: float = 1.6
    """See :attr:`toponav.terrain_ways.Weights.unknown`."""
    roll_weight: float = 0.1
    """See :attr:`toponav.terrain_ways.Weights.roll`."""
    turn_m: float = 0.02
    """What a turn by a radian counts as on the shortest way, m: of equal ways the straightest."""
    node_s: float = 0.5
    """The topological map is told where the robot is so often."""
    elevation: ElevationConfig = field(default_factory=ElevationConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    way: WayConfig = field(default_factory=WayConfig)

    def __post_init__(self) -> None:
        for name in ("piece_m", "piece_rad", "piece_s", "node_s", "unknown"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("roll_weight", "turn_m", "keep"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


class TerrainMind:
    """A map of heights, an energy model and a topological map that grow while a robot drives.

    Args:
        bounds: xmin, ymin, xmax, ymax that the robot must not leave, m (a geofence).
        config: how.
    """

    def __init__(self, bounds: ArrayLike, config: TerrainConfig | None = None) -> None:
        self.config = config or TerrainConfig()
        self.bounds = np.asarray(bounds, np.float64)
        self.elevation = ElevationMap(bounds, self.config.elevation)
        self.model = EnergyModel(self.config.energy)
        self.graph = TopologicalMap()
        self.surface: Surface = self.elevation.surface()
        self.way: Way | None = None
        self._last: tuple[float, NDArray[np.float64], float, float] | None = None
        self._begun: tuple[float, NDArray[np.float64], float] | None = None
        self._turned = 0.0
        self._noded_s, self._leg = -math.inf, (0.0, 0.0)

    def sense(self, points_w: ArrayLike, sigma_m: ArrayLike) -> NDArray[np.bool_]:
        """Enter the points of a scan; see :meth:`ElevationMap.integrate`."""
        return self.elevation.integrate(points_w, sigma_m)

    def drive(self, t_s: float, pos_w: ArrayLike, yaw: float, energy_j: float) -> None:
        """Enter where the robot is and what its wheels have worked so far.

        Args:
            t_s: time.
            pos_w: (3,) x, y, z of base_link, m.
            yaw: rad.
            energy_j: counted since any one moment.
        """
        c, pos = self.config, np.asarray(pos_w, np.float64)
        if pos.shape != (3,):
            raise ValueError(f"pos_w must be (3,), got {pos.shape}")
        if self._last is None or self._begun is None:
            self._begun = (t_s, pos, energy_j)
        else:
            self._turned += abs((yaw - self._last[2] + math.pi) % (2 * math.pi) - math.pi)
        self._last = (t_s, pos, yaw, energy_j)
        begun_s, from_w, from_j = self._begun
        length = float(np.hypot(*(pos - from_w)[:2]))
        if length >= c.piece_m or self._turned >= c.piece_rad or t_s - begun_s >= c.piece_s:
            rise = float(pos[2] - from_w[2])
            rough = float(np.nan_to_num(self.surface.rough[self.surface.cell(pos)]))
            features = (length, max(rise, 0.0), max(-rise, 0.0), rough * length, self._turned)
            if c.learn:
                self.model.learn(features, energy_j - from_j)
            self._begun, self._turned = (t_s, pos, energy_j), 0.0
        self._note(t_s, pos, yaw, energy_j)

    def _note(self, t_s: float, pos: NDArray[np.float64], yaw: float, energy_j: float) -> None:
        """Tell the topological map, and an edge that was driven how rough it is."""
        if t_s - self._noded_s < self.config.node_s:
            return
        self._noded_s, before = t_s, self.graph.current
        at = self.graph.observe((*pos[:2], yaw), np.eye(3) * 1e-4, t_s, self._in_sight(pos[:2]))
        if self.graph.current == before:
            return
        edge = None if before is None else self.graph.edge(before, at)
        if edge is not None and edge.length_m > 0:
            # roughness is extra cost per metre: by how much more than even ground it took
            even = float(self.model.theta[0]) * edge.length_m
            extra = max((energy_j - self._leg[0]) / even - 1, 0.0)
            drives = edge.alpha + edge.beta - 2  # this one counts already
            edge.roughness += (extra - edge.roughness) / max(drives, 1.0)
        self._leg = (energy_j, t_s)

    def _in_sight(self, xy: NDArray[np.float64]) -> list[int]:
        """Nodes to which the straight line is open."""
        near = []
        for node in self.graph.nodes.values():
            gap = float(np.hypot(*(node.pose_w[:2] - xy)))
            line = xy + np.linspace(0, 1, max(int(gap / 0.2), 2))[:, None] * (node.pose_w[:2] - xy)
            if gap < 4.0 and not any(self.surface.stands[self.surface.cell(p)] for p in line):
                near.append(node.id)
        return near

    @property
    def weights(self) -> Weights:
        """What a way costs now."""
        if self.config.shortest:
            return shortest(self.config.turn_m)
        c = self.config
        return Weights(self.model.theta, self.model.config.least, c.unknown, c.roll_weight)

    def plan(self, pose_w: ArrayLike, goal_w: ArrayLike) -> Way:
        """The way from here to the goal over the ground as it is known now."""
        self.surface = self.elevation.surface()
        self.way = find(
            self.surface, self.bounds, pose_w, goal_w, self.weights, self.config.way,
            None if self.way is None else self.way.path_w, self.config.keep,
        )  # fmt: skip
        return self.way
