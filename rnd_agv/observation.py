"""What an AGV policy sees, built by the same functions in simulation and on the robot."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._jit import njit
from .command import CommandLimits

SCAN_PERIOD_S = 0.1
"""Time between the frames of a scan stack."""
CLOSING_SCALE = 3.0
"""Closing speed that reads as 1, m/s; faster is cut."""


@dataclass(frozen=True)
class ScanSpec:
    """Layout of a planar scan, as in sensor_msgs/LaserScan. Frame: lidar, x forward, ccw."""

    beams: int
    angle_min: float
    """Angle of beam 0, rad."""
    angle_increment: float
    """Angle between beams, rad (> 0)."""
    range_min: float
    range_max: float
    """Metres. A beam beyond range_max, or inf, means nothing was hit."""

    def __post_init__(self) -> None:
        if (
            self.beams < 1
            or not self.angle_increment > 0
            or not 0 <= self.range_min < self.range_max
        ):
            raise ValueError(
                f"scan needs beams >= 1, increment > 0, range_min < range_max, got {self}"
            )

    @property
    def angles(self) -> NDArray[np.float64]:
        """(beams,) angle of every beam, rad."""
        return np.asarray(self.angle_min + self.angle_increment * np.arange(self.beams), np.float64)


def full_circle(beams: int, range_max: float, range_min: float = 0.0) -> ScanSpec:
    """A 360 degree scan whose first beam looks backwards."""
    step = 2 * np.pi / beams
    return ScanSpec(beams, -np.pi + step / 2, step, range_min, range_max)


@dataclass(frozen=True)
class ObservationConfig:
    """Parts of an AGV observation."""

    sectors: int = 36
    """Equal sectors around the robot; each holds the nearest return in it."""
    max_range: float = 10.0
    """Ranges are cut here and divided by it, m."""
    frames: int = 3
    """Scans in the stack, newest first, so that moving things can be told from still ones."""
    closing: bool = False
    """Show how fast each sector closes in, m/s, oldest less newest frame, not the older frames."""
    proximity_m: float = 0.0
    """Show ranges as exp(-r / proximity_m): what is near stands out; 0 shows r / max_range."""
    pose: bool = False
    """Append the global pose (only for a fixed, known place)."""
    pose_scale: float = 10.0
    """Length that maps to 1 in the pose part, m."""
    pose_waves: int = 0
    """Octaves of Fourier features of x and y after the pose, the longest wave twice ``pose_scale``:
    a small network cannot tell places a metre apart in a large hall otherwise (Tancik 2020)."""
    guide: bool = False
    """Append the guide point, a way point from a planner, in polar form."""

    def __post_init__(self) -> None:
        if self.closing and self.frames < 2:
            raise ValueError(f"closing needs frames >= 2, got {self.frames}")
        if (
            self.sectors < 4
            or self.frames < 1
            or self.proximity_m < 0
            or self.pose_waves < 0
            or (self.pose_waves and not self.pose)
            or not self.max_range > 0
            or not self.pose_scale > 0
        ):
            raise ValueError(
                f"sectors >= 4, frames >= 1, lengths > 0, waves only with a pose wanted, got {self}"
            )

    @property
    def scan_dim(self) -> int:
        """Length of the scan part, which comes first."""
        return self.sectors * (2 if self.closing else self.frames)

    @property
    def dim(self) -> int:
        """Length of one flat observation."""
        return self.scan_dim + 8 + 4 * self.pose + 4 * self.pose_waves + 4 * self.guide

    def spec(self, scan_period_s: float = SCAN_PERIOD_S) -> dict[str, Any]:
        """Names, shapes, units and frames for a policy file's manifest."""
        polar = "min(d/5, 2), log1p(d), cos, sin of the bearing"
        parts: list[dict[str, Any]] = [
            {"name": "scan", "shape": [self.frames, self.sectors],
             "unit": f"1/{self.max_range:g} m", "frame": "lidar", "period_s": scan_period_s,
             "order": "newest first; sector 0 at -pi, ccw"},
            {"name": "goal", "shape": [4], "unit": polar, "frame": "base_link"},
            {"name": "velocity", "shape": [2], "unit": "v/v_max, w/w_max", "frame": "base_link"},
            {"name": "last_command", "shape": [2], "unit": "v/v_max, w/w_max",
             "frame": "base_link"},
        ]  # fmt: skip
        if self.proximity_m:
            parts[0]["unit"] = f"exp(-r / {self.proximity_m:g} m), r cut at {self.max_range:g} m"
        if self.closing:
            parts[0]["shape"] = [1, self.sectors]
            unit = f"{CLOSING_SCALE:g} m/s" + (" x proximity" if self.proximity_m else "")
            closing = {"name": "closing", "shape": [self.sectors], "unit": unit, "frame": "lidar",
                       "over_s": scan_period_s * (self.frames - 1)}  # fmt: skip
            parts.insert(1, closing)
        if self.pose:
            unit = f"x/{self.pose_scale:g} m, y/{self.pose_scale:g} m, cos, sin"
            parts.append({"name": "pose", "shape": [4], "unit": unit, "frame": "map"})
        if self.pose_waves:
            unit = f"sin x, sin y, cos x, cos y, 1 = pi / ({self.pose_scale:g} m), octave by octave"
            parts.append(
                {"name": "waves", "shape": [self.pose_waves, 4], "unit": unit, "frame": "map"}
            )
        if self.guide:
            parts.append({"name": "guide", "shape": [4], "unit": polar, "frame": "base_link"})
        return {"dim": self.dim, "config": asdict(self), "parts": parts}


def sector_min(
    ranges: NDArray[np.floating], scan: ScanSpec, config: ObservationConfig
) -> NDArray[np.float32]:
    """Nearest return per sector, (N, beams) ranges in m -> (N, sectors) float32 in [0, 1].

    NaN and readings below range_min are missing and count as range_max of the scan; inf is "nothing
    hit"; -inf ("too close to measure", REP-117) counts as contact, 0 m. A sector that no beam
    looks into reads as free.
    """
    ranges = np.asarray(ranges, dtype=np.float32)
    if ranges.ndim != 2 or ranges.shape[1] != scan.beams:
        raise ValueError(f"ranges must be (N, {scan.beams}), got {ranges.shape}")
    out = np.ones((len(ranges), config.sectors), dtype=np.float32)
    _nearest(ranges, _sector_of_beam(scan, config.sectors), np.float32(scan.range_min),
             np.float32(config.max_range), out)  # fmt: skip
    return out


@lru_cache(maxsize=64)
def _sector_of_beam(scan: ScanSpec, sectors: int) -> NDArray[np.int64]:
    """(beams,) sector that each beam looks into."""
    # 1e-9: beams that lie on a sector edge must not flip with float noise
    turn = np.mod(scan.angles + np.pi, 2 * np.pi) / (2 * np.pi) * sectors
    return np.asarray(np.floor(turn + 1e-9).astype(np.int64) % sectors, np.int64)


@njit(cache=True)
def _nearest(  # type: ignore[no-untyped-def]
    ranges, sector_of_beam, range_min, max_range, out
):  # fmt: skip
    for n in range(ranges.shape[0]):
        for b in range(ranges.shape[1]):
            r = ranges[n, b]
            if r >= range_min or r == -np.inf:  # never of a NaN
                k = sector_of_beam[b]
                out[n, k] = min(out[n, k], min(max(r, np.float32(0)), max_range) / max_range)


def to_body(point_w: NDArray[np.floating], pose_w: NDArray[np.floating]) -> NDArray[np.float64]:
    """World points (N, 2) seen from poses (N, 3) [x, y, yaw], as (N, 2) in base_link."""
    dx, dy = point_w[:, 0] - pose_w[:, 0], point_w[:, 1] - pose_w[:, 1]
    c, s = np.cos(pose_w[:, 2]), np.sin(pose_w[:, 2])
    out = np.empty((len(dx), 2))
    out[:, 0], out[:, 1] = c * dx + s * dy, -s * dx + c * dy
    return out


def build(
    config: ObservationConfig,
    limits: CommandLimits,
    *,
    sectors: NDArray[np.float32],
    pose_w: NDArray[np.floating],
    goal_w: NDArray[np.floating],
    vel_b: NDArray[np.floating],
    last_command: NDArray[np.floating],
    guide_w: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Build N flat observations.

    Args:
        sectors: (N, frames, sectors) from :func:`sector_min`, newest first.
        pose_w: (N, 3) x, y, yaw of base_link in the world, m and rad.
        goal_w: (N, 2) goal, m.
        vel_b: (N, 2) measured forward speed and turn rate, m/s and rad/s.
        last_command: (N, 2) last command sent, m/s and rad/s.
        guide_w: (N, 2) guide point, m; wanted if ``config.guide``.

    Returns:
        (N, config.dim) float32.

    Raises:
        ValueError: a shape is off, or ``guide_w`` is missing.
    """
    n = len(pose_w)
    wanted = {"sectors": (n, config.frames, config.sectors), "pose_w": (n, 3), "goal_w": (n, 2)}
    wanted |= {"vel_b": (n, 2), "last_command": (n, 2)}
    got = dict(
        sectors=sectors, pose_w=pose_w, goal_w=goal_w, vel_b=vel_b, last_command=last_command
    )
    if config.guide:
        if guide_w is None:
            raise ValueError("guide_w is wanted because config.guide is set, got None")
        wanted["guide_w"], got["guide_w"] = (n, 2), guide_w
    for name, shape in wanted.items():
        if got[name].shape != shape:
            raise ValueError(f"{name} must be {shape}, got {got[name].shape}")
    shown = sectors
    if config.proximity_m:
        shown = np.exp(sectors * (-config.max_range / config.proximity_m))
    out = np.empty((n, config.dim), np.float32)
    closing = (
        config.max_range / (SCAN_PERIOD_S * (config.frames - 1) * CLOSING_SCALE)
        if config.closing
        else 0.0
    )
    _fill(
        out, sectors, shown, pose_w, goal_w, vel_b, last_command,
        goal_w if guide_w is None else guide_w, closing, bool(config.proximity_m), limits.v_max,
        limits.w_max, config.pose, 1 / config.pose_scale, config.pose_waves, config.guide,
    )  # fmt: skip
    return out


@njit(cache=True)
def _fill(  # type: ignore[no-untyped-def]
    out, sectors, shown, pose_w, goal_w, vel_b, last_command, guide_w, closing, fades, v_max, w_max,
    pose, pose_scale, waves, guide,
):  # fmt: skip
    """Write the rows of :func:`build`."""
    frames, width = sectors.shape[1], sectors.shape[2]
    for n in range(out.shape[0]):
        k = 0
        for f in range(1 if closing > 0 else frames):
            for b in range(width):
                out[n, k + b] = shown[n, f, b]
            k += width
        if closing > 0:
            for b in range(width):
                speed = (sectors[n, frames - 1, b] - sectors[n, 0, b]) * closing
                weight = shown[n, 0, b] if fades else 1.0
                out[n, k + b] = min(max(speed, -1.0), 1.0) * weight
            k += width
        x, y, yaw = pose_w[n, 0], pose_w[n, 1], pose_w[n, 2]
        c, s = math.cos(yaw), math.sin(yaw)
        _fill_polar(out[n, k : k + 4], goal_w[n, 0] - x, goal_w[n, 1] - y, c, s)
        out[n, k + 4], out[n, k + 5] = vel_b[n, 0] / v_max, vel_b[n, 1] / w_max
        out[n, k + 6], out[n, k + 7] = last_command[n, 0] / v_max, last_command[n, 1] / w_max
        k += 8
        if pose:
            out[n, k], out[n, k + 1] = x * pose_scale, y * pose_scale
            out[n, k + 2], out[n, k + 3] = c, s
            k += 4
            ax, ay = math.pi * pose_scale * x, math.pi * pose_scale * y
            sx, sy, cx, cy = math.sin(ax), math.sin(ay), math.cos(ax), math.cos(ay)
            for _ in range(waves):
                out[n, k], out[n, k + 1], out[n, k + 2], out[n, k + 3] = sx, sy, cx, cy
                sx, cx = 2 * sx * cx, cx * cx - sx * sx  # the next octave
                sy, cy = 2 * sy * cy, cy * cy - sy * sy
                k += 4
        if guide:
            _fill_polar(out[n, k : k + 4], guide_w[n, 0] - x, guide_w[n, 1] - y, c, s)


@njit(cache=True)
def _fill_polar(out, dx, dy, c, s):  # type: ignore[no-untyped-def]
    """Write the polar form of a point (dx, dy) from a pose whose yaw has cosine c and sine s."""
    distance = math.hypot(dx, dy)
    near = max(distance, 1e-6)
    out[0], out[1] = min(distance / 5, 2.0), math.log1p(distance)
    out[2], out[3] = (c * dx + s * dy) / near, (c * dy - s * dx) / near
