"""Model predictive path integral control (Williams et al. 2018, IEEE T-RO 34(6), Alg. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._jit import njit
from .clearance import HeldScan, base_command, footprint_gap, sees_behind, tile_points
from .command import limit_rate
from .kinematics import drive
from .observation import ScanSpec
from .pure_pursuit import path_ahead
from .robot import RobotSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class MPPIConfig:
    """Samples, horizon and weights of :class:`MPPI`."""

    samples: int = 640
    steps: int = 40
    period_s: float = 0.05
    """Time between two calls, and of one step of a roll-out."""
    lag_s: float = 0.1
    """Time constant with which the base follows a command in the roll-outs."""
    knots: int = 8
    """Noise is drawn here and interpolated between, so that samples are smooth."""
    v_noise: float = 0.35
    """Standard deviation of a knot, as a fraction of v_max."""
    w_noise: float = 0.5
    """Standard deviation of a knot, as a fraction of w_max."""
    temperature: float = 0.3
    """Lambda of Williams 2018."""
    control_weight: float = 0.02
    """Their gamma: price of leaving the previous plan, as a fraction of lambda."""
    margin_m: float = 0.05
    """A smaller gap counts as a collision."""
    gap_cap_m: float = 0.4
    """A larger gap costs nothing."""
    collision_cost: float = 100.0
    clearance_weight: float = 4.0
    """Per second at zero gap."""
    path_weight: float = 1.0
    """Per second and m^2 from the path."""
    progress_weight: float = 2.0
    """Per second and metre of path that is left."""
    end_weight: float = 4.0
    """Per metre of path that is left at the end."""
    reverse_weight: float = 3.0
    """Per metre driven backwards."""
    heading_weight: float = 3.0
    """Per second at half a turn from the path ahead."""
    smooth_weight: float = 0.05
    """Per squared change of the command in units of what the limits allow in one step."""
    heading_m: float = 0.8
    """The heading term looks at the path this far ahead."""
    goal_tolerance_m: float = 0.15
    """Stop this near to the goal."""

    def __post_init__(self) -> None:
        if self.samples < 8 or not 2 <= self.knots <= self.steps:
            raise ValueError(f"samples >= 8 and 2 <= knots <= steps wanted, got {self}")
        times = (self.period_s, self.v_noise, self.w_noise, self.temperature, self.goal_tolerance_m)
        if min(times) <= 0 or self.lag_s < 0 or not 0 <= self.margin_m < self.gap_cap_m:
            raise ValueError(f"positive scales and 0 <= margin_m < gap_cap_m wanted, got {self}")


class MPPI:
    r"""Average noisy roll-outs of the kinematic model, weighted by their cost.

    .. math:: u_t \leftarrow \sum_k w_k u_t^k, \quad
              w_k \propto \exp\left(-\tfrac1\lambda (S_k - \min_j S_j)\right)

    S adds obstacles, distance from the path, path left, heading and changes of the command, and
    the control cost gamma lambda u^T Sigma^-1 eps. The plan is shifted by one step and used again.
    Departures from Williams 2018: the noise is interpolated between knots; the average is over the
    commands after limits; the first samples are hand-made (the old plan, braking, turning either
    way); an average that collides gives way to the best sample.
    """

    def __init__(self, robot: RobotSpec, config: MPPIConfig | None = None, seed: int = 0) -> None:
        self.robot, self.config, self._seed = robot, config or MPPIConfig(), seed
        cfg, limits = self.config, robot.limits
        self._travel = limits.v_max * cfg.steps * cfg.period_s
        self._reach = robot.circumscribed_m + cfg.gap_cap_m
        self._scan = HeldScan(self._travel + self._reach)
        self._sigma = np.array([cfg.v_noise * limits.v_max, cfg.w_noise * limits.w_max])
        knots, steps = np.linspace(0, cfg.steps - 1, cfg.knots), np.arange(cfg.steps)
        self._interpolate = np.stack([np.interp(steps, knots, row) for row in np.eye(cfg.knots)])
        self._weights = np.array(
            [
                cfg.clearance_weight,
                cfg.path_weight,
                cfg.progress_weight,
                cfg.end_weight,
                cfg.heading_weight,
                cfg.smooth_weight,
                cfg.collision_cost,
                cfg.reverse_weight,
            ]
        )
        self._response = np.array(robot.response)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget plan, last command and scan; restart the generator (from ``seed`` if given)."""
        self._seed = self._seed if seed is None else seed
        self._rng = np.random.default_rng(self._seed)
        self._plan = np.zeros((self.config.steps, 2))
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
        """Command for the next period; arguments as :meth:`.PurePursuit.act`."""
        cfg, limits = self.config, self.robot.limits
        base = base_command(self._last, vel_b, limits)
        distance = math.hypot(goal_w[0] - pose_w[0], goal_w[1] - pose_w[1])
        if distance <= cfg.goal_tolerance_m:
            self._plan[:] = 0
            self._last = limit_rate(np.zeros((1, 2)), base[None], limits, cfg.period_s)[0]
            return np.asarray(self._last)
        points = self._scan.points(pose_w, ranges, scan)
        tiles, packed = tile_points(points, self._travel + 0.5, self._reach)
        path_b, behind = path_ahead(path_w, goal_w, pose_w, self._travel + cfg.heading_m)
        low = np.array([limits.v_min if sees_behind(scan) else 0.0, -limits.w_max])
        high = np.array([min(limits.v_max, math.sqrt(2 * limits.accel_v * distance)), limits.w_max])
        rate = np.array([limits.accel_v, limits.accel_w]) * cfg.period_s
        scene = (
            base, np.asarray(vel_b, dtype=np.float64), low, high, rate, *self.robot.half_extents,
            tiles, packed, path_b, float(np.hypot(*(path_b[1] - path_b[0]))), behind,
            self._weights, cfg.period_s, cfg.lag_s, self.robot.track_m,
            self._response, cfg.margin_m, cfg.gap_cap_m, cfg.heading_m, cfg.goal_tolerance_m,
        )  # fmt: skip
        noise = self._rng.standard_normal((cfg.samples, 2, cfg.knots)) @ self._interpolate
        wanted = self._plan + noise.transpose(0, 2, 1) * self._sigma
        wanted[0], wanted[1] = self._plan, 0.0
        wanted[2], wanted[3] = (0.0, limits.w_max), (0.0, -limits.w_max)
        used, cost, _ = _roll_out(wanted, *scene)
        price = cfg.control_weight * cfg.temperature
        pull = (self._plan * (used - self._plan) / self._sigma**2).sum(axis=(1, 2))
        weight = np.exp(-(cost + price * pull - (cost + price * pull).min()) / cfg.temperature)
        plan = np.tensordot(weight / weight.sum(), used, axes=1)
        plans, _, hits = _roll_out(np.stack([plan, used[np.argmin(cost)]]), *scene)
        plan = plans[1] if hits[0] and not hits[1] else plans[0]
        self._last = limit_rate(plan[:1], base[None], limits, cfg.period_s)[0]
        self._plan = np.concatenate([plan[1:], plan[-1:]])
        return np.asarray(self._last)


@njit(cache=True)
def _roll_out(  # type: ignore[no-untyped-def]
    wanted, base, vel, low, high, rate, hx, hy, tiles, packed, path, spacing, behind, weights, dt,
    lag, track, response, margin, cap, heading_m, tolerance,
):  # fmt: skip
    """Commands after limits (K, T, 2), costs and collisions (K,) of wanted commands (K, T, 2)."""
    samples, steps = wanted.shape[0], wanted.shape[1]
    used, cost = np.empty_like(wanted), np.zeros(samples)
    hits = np.zeros(samples, dtype=np.bool_)
    last = len(path) - 1
    ahead = max(int(heading_m / max(spacing, 1e-6)), 1)
    blend = 1.0 - math.exp(-dt / max(lag, 1e-6))
    now = footprint_gap(0.0, 0.0, 0.0, hx, hy, tiles, packed, cap)
    limit = min(margin, now - 1e-3)  # a gap that is too small already must only not shrink
    for k in range(samples):
        x, y, yaw, uv, uw = 0.0, 0.0, 0.0, base[0], base[1]
        wl, wr = vel[0] - 0.5 * track * vel[1], vel[0] + 0.5 * track * vel[1]
        near, total, left, driving = 0, 0.0, 0.0, True
        for t in range(steps):
            dv = min(max(wanted[k, t, 0] - uv, -rate[0]), rate[0])
            dw = min(max(wanted[k, t, 1] - uw, -rate[1]), rate[1])
            dv, dw = (
                min(max(uv + dv, low[0]), high[0]) - uv,
                min(max(uw + dw, low[1]), high[1]) - uw,
            )
            uv += dv
            uw += dw
            used[k, t, 0], used[k, t, 1] = uv, uw
            if not driving:
                continue
            total += weights[5] * ((dv / rate[0]) ** 2 + (dw / rate[1]) ** 2)
            x, y, yaw, wl, wr, v = drive(
                x, y, yaw, wl, wr, uv - 0.5 * track * uw, uv + 0.5 * track * uw, blend, 1.0, 1.0,
                track, response, dt,
            )  # fmt: skip
            gap = footprint_gap(x, y, yaw, hx, hy, tiles, packed, cap)
            # the nearest path sample is found by walking from the last one
            d = (path[near, 0] - x) ** 2 + (path[near, 1] - y) ** 2
            for move in (1, -1):
                while 0 <= near + move <= last:
                    e = (path[near + move, 0] - x) ** 2 + (path[near + move, 1] - y) ** 2
                    if e > d:
                        break
                    near, d = near + move, e
            left = (last - near) * spacing + behind
            if near == last:
                left += math.sqrt(d)
            if gap < limit:
                hits[k], driving = True, False
                # sooner is worse; the rest of the horizon counts as standing there
                total += weights[6] * (2.0 - t / steps) + weights[2] * dt * left * (steps - t)
                continue
            if near == last and behind == 0 and d < tolerance * tolerance:
                left, driving = 0.0, False
                continue
            near_wall = 1.0 - max(gap, 0.0) / cap
            total += dt * (weights[0] * near_wall * near_wall + weights[1] * d + weights[2] * left)
            total += dt * weights[7] * max(-v, 0.0)
            target = min(near + ahead, last)
            tx, ty = path[target, 0] - x, path[target, 1] - y
            far = math.sqrt(tx * tx + ty * ty)
            if far > tolerance:
                cosine = (tx * math.cos(yaw) + ty * math.sin(yaw)) / far
                total += dt * weights[4] * 0.5 * (1.0 - cosine)
        cost[k] = total + weights[3] * left
    return used, cost, hits
