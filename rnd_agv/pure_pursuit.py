"""Regulated pure pursuit (Coulter 1992; Macenski et al. 2023, arXiv:2305.20026)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clearance import HeldScan, arc_gap, base_command, tile_points
from .command import limit_rate
from .observation import ScanSpec, to_body
from .robot import RobotSpec

Array = NDArray[Any]


def path_ahead(
    path_w: Array, goal_w: Array, pose_w: Array, length_m: float, spacing_m: float = 0.1
) -> tuple[NDArray[np.float64], float]:
    """The piece of a path that lies ahead, resampled in base_link.

    Args:
        path_w: (L, 2) way points, m; an empty one stands for the straight line to the goal.
        goal_w: (2,) m.
        pose_w: (3,) x, y, yaw.
        length_m: length of the piece.
        spacing_m: distance between its samples.

    Returns:
        (M, 2) points, M >= 2, from the point of the path nearest to the base; and the length of
        path left behind the last of them, m.
    """
    path = np.asarray(path_w, dtype=np.float64).reshape(-1, 2)
    if len(path) == 0:
        path = np.stack(
            [np.asarray(pose_w[:2], dtype=np.float64), np.asarray(goal_w, dtype=np.float64)]
        )
    elif len(path) == 1:
        path = np.concatenate([np.asarray(pose_w[:2], dtype=np.float64)[None], path])
    delta = np.diff(path, axis=0)
    square = np.maximum((delta**2).sum(axis=1), 1e-12)
    t = np.clip(((pose_w[:2] - path[:-1]) * delta).sum(axis=1) / square, 0, 1)
    foot = path[:-1] + t[:, None] * delta
    nearest = int(np.argmin(((foot - pose_w[:2]) ** 2).sum(axis=1)))
    s = np.concatenate([[0.0], np.cumsum(np.sqrt(square))])
    start = s[nearest] + t[nearest] * np.sqrt(square[nearest])
    end = min(start + length_m, s[-1])
    samples = np.linspace(start, end, max(int(np.ceil((end - start) / spacing_m)) + 1, 2))
    points = np.stack([np.interp(samples, s, path[:, i]) for i in (0, 1)], axis=1)
    return to_body(points, np.asarray(pose_w, dtype=np.float64)[None]), float(s[-1] - end)


def at_distance(path_b: Array, distance_m: float) -> NDArray[np.float64]:
    """First point (2,) of a path in base_link ``distance_m`` from the base, else its last."""
    far = np.hypot(path_b[:, 0], path_b[:, 1]) >= distance_m
    return np.asarray(path_b[np.argmax(far) if far.any() else -1])


@dataclass(frozen=True)
class PurePursuitConfig:
    """Lookahead, slowing and stopping of :class:`PurePursuit`."""

    period_s: float = 0.05
    """Time between two calls."""
    lookahead_s: float = 0.7
    """Lookahead distance per m/s of speed."""
    lookahead_min_m: float = 0.4
    lookahead_max_m: float = 1.2
    turn_first_rad: float = 0.8
    """Turn on the spot while the path's bearing is larger than this."""
    lateral_accel: float = 0.8
    """Speed is cut so that v * w stays below this, m/s^2."""
    slow_gap_m: float = 0.6
    """Speed falls in proportion once the gap ahead is below this."""
    slow_min: float = 0.25
    """Fraction of full speed left beside an obstacle."""
    stop_gap_m: float = 0.04
    """Smallest gap that a braking arc may leave."""
    goal_tolerance_m: float = 0.15
    """Stop this near to the goal."""

    def __post_init__(self) -> None:
        lengths = [self.period_s, self.lookahead_s, self.lookahead_min_m, self.turn_first_rad]
        lengths += [self.lateral_accel, self.slow_gap_m, self.stop_gap_m, self.goal_tolerance_m]
        if (
            min(lengths) <= 0
            or self.lookahead_max_m < self.lookahead_min_m
            or not 0 < self.slow_min <= 1
        ):
            raise ValueError(
                f"positive values, lookahead min <= max, 0 < slow_min <= 1, got {self}"
            )


class PurePursuit:
    """Follow a path by steering on the arc to a point ahead on it; slow and stop for obstacles.

    It never leaves the path: in front of something that stands on it, it waits.
    """

    def __init__(self, robot: RobotSpec, config: PurePursuitConfig | None = None) -> None:
        self.robot, self.config = robot, config or PurePursuitConfig()
        limits = robot.limits
        # as far as an arc is looked ahead: to a stop, or 0.6 m
        self._travel = max(limits.v_max * (limits.v_max / limits.accel_v + 0.2), 1.0)
        self._reach = robot.circumscribed_m + self.config.slow_gap_m
        self._scan = HeldScan(self._travel + self._reach)
        self.reset()

    def reset(self) -> None:
        """Forget the last command and scan."""
        self._last = np.zeros(2)
        self._scan.forget()

    def act(
        self,
        pose_w: Array,
        vel_b: Array,
        ranges: Array,
        scan: ScanSpec,
        path_w: Array,
        goal_w: Array,
    ) -> NDArray[np.float64]:
        """Command for the next period.

        Args:
            pose_w: (3,) x, y, yaw, m and rad.
            vel_b: (2,) measured forward speed and turn rate.
            ranges: (beams,) m; scan: their layout.
            path_w: (L, 2) way points to the goal, m.
            goal_w: (2,) m.

        Returns:
            (2,) v m/s and w rad/s, inside the robot's range and rate limits.
        """
        cfg, limits = self.config, self.robot.limits
        hx, hy = self.robot.half_extents
        base = base_command(self._last, vel_b, limits)
        points = self._scan.points(pose_w, ranges, scan)
        tiles, packed = tile_points(points, self._travel, self._reach)
        path_b, _ = path_ahead(path_w, goal_w, pose_w, cfg.lookahead_max_m + 1.0)
        ahead = np.clip(cfg.lookahead_s * abs(vel_b[0]), cfg.lookahead_min_m, cfg.lookahead_max_m)
        x, y = at_distance(path_b, float(ahead))
        distance = math.hypot(goal_w[0] - pose_w[0], goal_w[1] - pose_w[1])
        bearing = math.atan2(y, x)
        wanted = np.zeros(2)
        if distance > cfg.goal_tolerance_m:
            if abs(bearing) > cfg.turn_first_rad:
                # as fast as still lets it stop at the bearing
                rate = min(limits.w_max, math.sqrt(2 * 0.5 * limits.accel_w * abs(bearing)))
                wanted[1] = math.copysign(rate, bearing)
            else:
                curvature = 2 * y / max(x * x + y * y, 1e-6)
                gap = arc_gap(0.5, 0.5 * curvature, 1.2, 0.1, hx, hy, tiles, packed, cfg.slow_gap_m)
                v = limits.v_max * max(cfg.slow_min, gap / cfg.slow_gap_m)
                v = min(v, math.sqrt(cfg.lateral_accel / max(abs(curvature), 1e-6)))
                v = min(v, limits.w_max / max(abs(curvature), 1e-6))
                v = min(v, math.sqrt(limits.accel_v * distance))
                wanted[:] = v, v * curvature
        command = limit_rate(wanted[None], base[None], limits, cfg.period_s)[0]
        stop_s = abs(command[0]) / limits.accel_v + 3 * cfg.period_s
        now = arc_gap(0.0, 0.0, 0.1, 0.1, hx, hy, tiles, packed, cfg.stop_gap_m)
        if (
            arc_gap(command[0], command[1], stop_s, 0.05, hx, hy, tiles, packed, cfg.stop_gap_m)
            < now - 1e-3
        ):
            brake = np.zeros((1, 2)) if wanted[0] == 0 else np.array([[0.0, command[1]]])
            command = limit_rate(brake, base[None], limits, cfg.period_s)[0]
        self._last = command
        return np.asarray(command)
