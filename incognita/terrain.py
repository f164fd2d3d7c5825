"""Cross a terrain that nobody has mapped: ways by ``toponav``, driven by ``rnd_agv``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rnd_agv.observation import full_circle
from rnd_agv.pure_pursuit import PurePursuit, PurePursuitConfig, at_distance, path_ahead
from rnd_agv.robot import JACKAL
from sim.backend import CONTROL_DT
from sim.mujoco_terrain import RingLidar, TerrainSim
from sim.worlds.terrain import Terrain
from toponav.terrain_mind import TerrainConfig, TerrainMind

GOAL_M = 0.5
"""The robot has arrived when its middle is so near to the goal."""
RIM_M = 0.6
"""The robot's middle keeps this distance from the rim of the field."""


@dataclass(frozen=True)
class DriveConfig:
    """How ways are driven, the same for every way of planning."""

    speed: float = 0.8
    """m/s."""
    scan_s: float = 0.2
    """Time between two scans, held between."""
    replan_s: float = 1.0
    """Time between two plans."""
    calm_rad: float = 0.2
    """Up to this tilt full speed,"""
    steep_rad: float = 0.5
    """... from this one on the least of it."""
    slowest: float = 0.5
    """That least, a share of the speed."""
    turn_rad: float = 0.25
    """The robot stops and turns on the spot once the way ahead bears by more than this, and drives
    straight until then: in an arc, however wide, a skid steer scrubs its tyres over every metre and
    its inner wheels brake what the outer ones drive. On the spot a radian costs a third of that."""
    turned_rad: float = 0.04
    """... until it bears by less than this."""
    brake: float = 2.0
    """m/s^2 by which the command slows down at most: who stops dead on a steep descent, tips over.
    """
    ahead_m: float = 1.0
    """The way ahead is its point so far away."""
    stuck_s: float = 4.0
    """Not having moved by ``stuck_m`` in this time, the robot backs up."""
    stuck_m: float = 0.15
    back_s: float = 1.5
    limit_s: float = 180.0
    """Simulated time by which it must have arrived."""
    pursuit: PurePursuitConfig = PurePursuitConfig(
        turn_first_rad=0.6, lookahead_min_m=0.9, slow_gap_m=0.3, stop_gap_m=0.03
    )

    def __post_init__(self) -> None:
        times = ("scan_s", "replan_s", "stuck_s", "back_s", "limit_s")
        for name in ("speed", "brake", "stuck_m", *times):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not (0 <= self.calm_rad < self.steep_rad and 0 < self.slowest <= 1):
            raise ValueError(f"calm_rad < steep_rad and slowest in (0, 1] wanted, got {self}")


@dataclass
class Crossing:
    """How a crossing went."""

    mind: TerrainMind
    success: bool
    rolled_over: bool
    touched: bool
    """Did it touch a tree?"""
    energy_j: float
    driven_m: float
    time_s: float
    worst_tilt_rad: float
    climbed_m: float
    """Sum of all ascents of half a second or longer."""
    turned_rad: float
    left_m: float
    """Straight line to the goal at the end."""
    backed_up: int
    plan_s: list[float] = field(default_factory=list)
    """Time that each plan took."""
    track_w: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """(T, 3) positions, twice a second."""


def see(sim: TerrainSim, mind: TerrainMind) -> NDArray[np.float64]:
    """Scan; enter the ground. Returns (azimuths,) the distances to what stands, in the plane."""
    lidar: RingLidar = sim.lidar
    ranges, believed = sim.scan(), sim.attitude()
    beams_b = lidar.directions_b
    mast_b = np.array([0.0, 0.0, lidar.height_m])
    points = sim.pos_w + (beams_b * ranges[..., None] + mast_b) @ believed.T
    hit = ranges < lidar.range_m
    sigma = np.hypot(lidar.sigma_m, ranges[hit] * lidar.tilt_sigma_rad) + 1e-3
    stands = np.zeros(hit.shape, np.bool_)
    stands[hit] = mind.sense(points[hit], sigma)
    flat = np.hypot(*np.moveaxis(points[..., :2] - sim.pos_w[:2], -1, 0))
    return np.asarray(np.where(stands, flat, lidar.range_m).min(axis=0))


def cross(
    terrain: Terrain, config: TerrainConfig | None = None, drive: DriveConfig | None = None,
    seed: int = 0,
) -> Crossing:  # fmt: skip
    """Drive from the terrain's start to its goal with nothing known beforehand but the bounds."""
    d = drive or DriveConfig()
    robot = replace(JACKAL, limits=replace(JACKAL.limits, v_max=d.speed))
    sim = TerrainSim(terrain, robot, seed=seed)
    x0, y0, x1, y1 = terrain.bounds
    mind = TerrainMind((x0 + RIM_M, y0 + RIM_M, x1 - RIM_M, y1 - RIM_M), config)
    driver = PurePursuit(robot, d.pursuit)
    spec = full_circle(sim.lidar.azimuths, sim.lidar.range_m)
    goal = terrain.goal_w
    plan_s: list[float] = []
    scan_every = max(round(d.scan_s / CONTROL_DT), 1)
    track = [sim.pos_w.copy()]
    moved_w, moved_t, back_until, backed = sim.pose_w[:2].copy(), 0.0, -1.0, 0
    planned, turned, success, turning, t = -np.inf, 0.0, False, False, 0.0
    ranges = np.full(sim.lidar.azimuths, sim.lidar.range_m)
    speed = 0.0
    for step in range(int(d.limit_s / CONTROL_DT)):
        t = step * CONTROL_DT
        if step % scan_every == 0:
            ranges = see(sim, mind)
        mind.drive(t, sim.pos_w, sim.pose_w[2], sim.energy_j)
        if t - planned >= d.replan_s:
            begun = time.perf_counter()
            way = mind.plan(sim.pose_w, goal)
            plan_s.append(time.perf_counter() - begun)
            planned = t
        if t < back_until:
            command = np.array([-0.3, 0.0])
        else:
            command = driver.act(sim.pose_w, sim.vel_b, ranges, spec, way.path_w, goal)
            steep = (sim.tilt_rad - d.calm_rad) / (d.steep_rad - d.calm_rad)
            command = command * (1 - (1 - d.slowest) * np.clip(steep, 0, 1))
            path_b, _ = path_ahead(way.path_w, goal, sim.pose_w, d.ahead_m + 1.0)
            x, y = at_distance(path_b, d.ahead_m)
            bearing = float(np.arctan2(y, x))
            turning = abs(bearing) > (d.turned_rad if turning else d.turn_rad)
            command[1] = 0.0
            if turning:
                command = np.array([0.0, np.copysign(np.clip(3 * abs(bearing), 0.4, 1.5), bearing)])
        if turning and speed > 0.2:
            command[1] = 0.0  # an arc scrubs the tyres
        speed = command[0] = max(command[0], speed - d.brake * CONTROL_DT)
        yaw = sim.pose_w[2]
        sim.step(command)
        turned += abs((sim.pose_w[2] - yaw + np.pi) % (2 * np.pi) - np.pi)
        if step % 10 == 9:
            track.append(sim.pos_w.copy())
        if np.hypot(*(sim.pose_w[:2] - moved_w)) > d.stuck_m:
            moved_w, moved_t = sim.pose_w[:2].copy(), t
        elif t - moved_t > d.stuck_s:
            back_until, moved_t, backed = t + d.back_s, t + d.back_s, backed + 1
            driver.reset()
        success = bool(np.hypot(*(sim.pose_w[:2] - goal)) < GOAL_M)
        if success or sim.rolled_over:
            break
    z = np.array(track)[:, 2]
    return Crossing(
        mind, success and not sim.rolled_over, sim.rolled_over, sim.touched, sim.energy_j,
        sim.driven_m, t + CONTROL_DT, sim.worst_tilt_rad, float(np.maximum(np.diff(z), 0).sum()),
        turned, float(np.hypot(*(sim.pose_w[:2] - goal))), backed, plan_s, np.array(track),
    )  # fmt: skip
