"""Dynamic window approach (Fox, Burgard & Thrun 1997) with a path and an exact footprint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._jit import njit
from .clearance import (
    HeldScan,
    arc_gap,
    base_command,
    footprint_gap,
    sees_behind,
    tile_points,
)
from .command import limit_rate
from .observation import ScanSpec
from .pure_pursuit import at_distance, path_ahead
from .robot import RobotSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class DWAConfig:
    """Samples, horizon and weights of :class:`DWA`."""

    period_s: float = 0.05
    """Time between two calls."""
    window_s: float = 0.5
    """The window holds the velocities that can be reached in this time."""
    horizon_s: float = 2.0
    """How far a candidate is looked ahead."""
    step_s: float = 0.1
    v_samples: int = 12
    w_samples: int = 25
    margin_m: float = 0.05
    """A smaller gap counts as a collision."""
    gap_cap_m: float = 0.5
    """A larger gap is as good as this one."""
    reaction_s: float = 0.3
    """A candidate must stay free for this long on top of its braking time."""
    heading_m: float = 1.0
    """The heading term looks at the path point this far away."""
    path_weight: float = 0.8
    """Per metre of mean distance from the path."""
    goal_weight: float = 2.5
    """Per metre of path that is left, averaged over the horizon."""
    heading_weight: float = 1.0
    """Per half turn between the heading and the path ahead, averaged over the horizon."""
    clearance_weight: float = 0.6
    """At zero gap."""
    velocity_weight: float = 0.1
    """At full speed."""
    reverse_weight: float = 1.0
    """At full speed backwards: cheaper than standing still, dearer than turning round."""
    smooth_weight: float = 0.05
    """Per change of the turn rate by w_max: no dithering between two turns of equal cost."""
    goal_tolerance_m: float = 0.15
    """Stop this near to the goal."""

    def __post_init__(self) -> None:
        times = (self.period_s, self.window_s, self.horizon_s, self.step_s, self.gap_cap_m)
        if min(times) <= 0 or self.v_samples < 2 or self.w_samples < 3 or self.margin_m < 0:
            raise ValueError(
                f"positive times, v_samples >= 2 and w_samples >= 3 wanted, got {self}"
            )
        if self.margin_m >= self.gap_cap_m or self.goal_tolerance_m <= 0:
            raise ValueError(f"margin_m < gap_cap_m and goal_tolerance_m > 0 wanted, got {self}")


class DWA:
    r"""Score every velocity in the window by its roll-out, send a rate-limited step to the best.

    .. math:: J = w_p \bar e + w_g \bar r + w_h \overline{|\psi|} / \pi + w_c (1 - g / g_{cap})
              - w_v v / v_{max} + w_r \max(-v, 0) + w_s |w - w_0|

    with the distance e from the path, the path length r left and the heading error psi to the path
    ahead, averaged over the roll-out, and the smallest gap g. Departures from Fox 1997: the window
    spans ``window_s`` with the ramp towards the candidate rolled out, not one period; gaps are
    those of the rectangular footprint along the roll-out. A candidate is admissible if it
    stays free for its braking time and ``reaction_s``. Without any, the base turns on the spot, or
    backs off.
    """

    def __init__(self, robot: RobotSpec, config: DWAConfig | None = None) -> None:
        self.robot, self.config = robot, config or DWAConfig()
        self._travel = robot.limits.v_max * self.config.horizon_s
        self._reach = robot.circumscribed_m + self.config.gap_cap_m
        self._scan = HeldScan(self._travel + self._reach)
        self._weights = np.array(
            [
                self.config.path_weight,
                self.config.goal_weight,
                self.config.heading_weight,
                self.config.clearance_weight,
                self.config.velocity_weight,
                self.config.reverse_weight / max(-robot.limits.v_min, 1e-6),
                self.config.smooth_weight / robot.limits.w_max,
            ]
        )
        self.reset()

    def reset(self) -> None:
        """Forget the last command and scan."""
        self._last = np.zeros(2)
        self._turn = 0.0
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
        """Command for the next period; arguments as :meth:`.PurePursuit.act`."""
        cfg, limits = self.config, self.robot.limits
        hx, hy = self.robot.half_extents
        base = base_command(self._last, vel_b, limits)
        distance = math.hypot(goal_w[0] - pose_w[0], goal_w[1] - pose_w[1])
        wanted = np.zeros(2)
        if distance > cfg.goal_tolerance_m:
            points = self._scan.points(pose_w, ranges, scan)
            tiles, packed = tile_points(points, self._travel + 0.5, self._reach)
            path_b, behind = path_ahead(path_w, goal_w, pose_w, self._travel + cfg.heading_m)
            spacing = float(np.hypot(*(path_b[1] - path_b[0])))
            # no faster than still lets it stop at the goal
            top = min(limits.v_max, math.sqrt(2 * limits.accel_v * distance))
            low = limits.v_min if sees_behind(scan) else 0.0
            span_v, span_w = limits.accel_v * cfg.window_s, limits.accel_w * cfg.window_s
            v = np.linspace(
                min(max(low, base[0] - span_v), top),
                min(top, max(base[0] + span_v, low)),
                cfg.v_samples,
            )
            w = np.linspace(
                max(-limits.w_max, base[1] - span_w),
                min(limits.w_max, base[1] + span_w),
                cfg.w_samples,
            )
            # zero itself belongs to both axes: stopping and driving straight
            v[np.argmin(np.abs(v))] *= float(np.abs(v).min() > np.ptp(v) / cfg.v_samples)
            w[np.argmin(np.abs(w))] *= float(np.abs(w).min() > np.ptp(w) / cfg.w_samples)
            best_v, best_w, found = _best(
                v, w, base, limits.accel_v, limits.accel_w, limits.v_max, hx, hy, tiles, packed,
                path_b, spacing, behind, self._weights, cfg.horizon_s, cfg.step_s, cfg.margin_m,
                cfg.gap_cap_m, cfg.reaction_s, cfg.heading_m, cfg.goal_tolerance_m,
            )  # fmt: skip
            if found:
                wanted[:], self._turn = (best_v, best_w), 0.0
            else:
                wanted = self._recover(at_distance(path_b, cfg.heading_m), tiles, packed, low < 0)
        self._last = limit_rate(wanted[None], base[None], limits, cfg.period_s)[0]
        return np.asarray(self._last)

    def _recover(self, target_b: Array, tiles: Array, packed: Array, reverse: bool) -> Array:
        """Turn towards the path, the other way round, or back off: the first that keeps the gap."""
        cfg, limits = self.config, self.robot.limits
        hx, hy = self.robot.half_extents
        now = arc_gap(0.0, 0.0, 0.1, 0.1, hx, hy, tiles, packed, cfg.margin_m)
        rate = 0.5 * limits.w_max
        first = self._turn or math.copysign(rate, math.atan2(target_b[1], target_b[0]))
        tries = [(0.0, first), (0.0, -first)]
        if reverse:
            tries += [(0.4 * limits.v_min, turn) for turn in (0.0, first, -first)]
        for v, w in tries:
            if arc_gap(v, w, 0.6, 0.1, hx, hy, tiles, packed, cfg.margin_m) >= now - 1e-3:
                self._turn = w if v == 0 else 0.0  # keep turning one way while it lasts
                return np.array([v, w])
        self._turn = 0.0
        return np.zeros(2)


@njit(cache=True)
def _best(  # type: ignore[no-untyped-def]
    vs, ws, base, accel_v, accel_w, v_max, hx, hy, tiles, packed, path, spacing, behind, weights,
    horizon, dt, margin, cap, reaction, heading_m, tolerance,
):  # fmt: skip
    """The admissible (v, w) of least cost, and whether there is any."""
    steps, last = int(round(horizon / dt)), len(path) - 1
    ahead = max(int(heading_m / max(spacing, 1e-6)), 1)
    now = footprint_gap(0.0, 0.0, 0.0, hx, hy, tiles, packed, cap)
    limit = min(margin, now - 1e-3)  # a gap that is too small already must only not shrink
    best, best_v, best_w, found = np.inf, 0.0, 0.0, False
    for i in range(len(vs)):
        for j in range(len(ws)):
            x, y, yaw, v, w = 0.0, 0.0, 0.0, base[0], base[1]
            free_s, gap, off, left, turned, near, n = horizon, cap, 0.0, 0.0, 0.0, 0, 0
            for k in range(steps):
                v += min(max(vs[i] - v, -accel_v * dt), accel_v * dt)
                w += min(max(ws[j] - w, -accel_w * dt), accel_w * dt)
                x += v * dt * math.cos(yaw + 0.5 * w * dt)
                y += v * dt * math.sin(yaw + 0.5 * w * dt)
                yaw += w * dt
                g = footprint_gap(x, y, yaw, hx, hy, tiles, packed, cap)
                gap = min(gap, g)
                if g < limit:
                    free_s = k * dt
                    break
                # the nearest path sample is found by walking from the last one
                d = (path[near, 0] - x) ** 2 + (path[near, 1] - y) ** 2
                for move in (1, -1):
                    while 0 <= near + move <= last:
                        e = (path[near + move, 0] - x) ** 2 + (path[near + move, 1] - y) ** 2
                        if e > d:
                            break
                        near, d = near + move, e
                n += 1
                off += math.sqrt(d)
                remaining = (last - near) * spacing + behind
                if near == last:
                    remaining += math.sqrt(d)
                    if behind == 0 and d < tolerance * tolerance:
                        break  # at the goal: the rest of the time costs nothing
                left += remaining
                target = min(near + ahead, last)
                tx, ty = path[target, 0] - x, path[target, 1] - y
                if tx * tx + ty * ty > tolerance * tolerance:
                    psi = math.atan2(ty, tx) - yaw
                    turned += abs((psi + math.pi) % (2 * math.pi) - math.pi) / math.pi
            if free_s < min(abs(v) / accel_v + reaction, horizon):
                continue
            if free_s < horizon:  # what is not driven counts as standing there
                left += (steps - n) * ((last - near) * spacing + behind)
            n = max(n, 1)
            cost = weights[0] * off / n + weights[1] * left / steps + weights[2] * turned / n
            cost += weights[3] * (1 - max(gap, 0.0) / cap) - weights[4] * v / v_max
            cost += weights[5] * max(-v, 0.0) + weights[6] * abs(ws[j] - base[1])
            if cost < best:
                best, best_v, best_w, found = cost, vs[i], ws[j], True
    return best_v, best_w, found
