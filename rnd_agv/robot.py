"""The mobile robots: footprint, mass, wheels and limits, one record each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .command import CommandLimits


@dataclass(frozen=True)
class RobotSpec:
    """A differential-drive or skid-steer base. Frame: base_link at the centre of the footprint, on the floor."""

    name: str
    length_m: float
    width_m: float
    """Outer footprint, wheels included."""
    height_m: float
    mass_kg: float
    payload_kg: float
    """Largest payload."""
    wheel_radius_m: float
    track_m: float
    """Distance between left and right wheel contact lines."""
    wheelbase_m: float
    """Distance between axles; 0 for one driven axle."""
    separation_multiplier: float
    """Effective track / track: 1 for differential drive, calibrated in simulation for skid steer."""
    lidar_x_m: float
    lidar_z_m: float
    """Lidar mount in base_link, facing forward."""
    limits: CommandLimits

    @property
    def half_extents(self) -> tuple[float, float]:
        """Half length and half width of the footprint, m."""
        return self.length_m / 2, self.width_m / 2

    @property
    def circumscribed_m(self) -> float:
        """Radius of the circle around the footprint."""
        return math.hypot(self.length_m, self.width_m) / 2

    @property
    def inscribed_m(self) -> float:
        """Radius of the largest circle inside the footprint."""
        return min(self.length_m, self.width_m) / 2


AGV = RobotSpec(
    name="agv", length_m=0.9, width_m=0.6, height_m=0.3, mass_kg=60.0, payload_kg=100.0,
    wheel_radius_m=0.1, track_m=0.5, wheelbase_m=0.0, separation_multiplier=1.0,
    lidar_x_m=0.0, lidar_z_m=0.35,
    limits=CommandLimits(v_min=-0.5, v_max=1.5, w_max=1.5, accel_v=1.5, accel_w=3.0),
)  # fmt: skip
"""Warehouse AGV of our own design: two driven wheels on the centre axle, casters front and rear."""

JACKAL = RobotSpec(
    name="jackal", length_m=0.46, width_m=0.42, height_m=0.25, mass_kg=16.523 + 4 * 0.477,
    payload_kg=20.0, wheel_radius_m=0.098, track_m=0.37559, wheelbase_m=0.262,
    separation_multiplier=1.39, lidar_x_m=0.12, lidar_z_m=0.3,
    limits=CommandLimits(v_min=-0.5, v_max=2.0, w_max=4.0, accel_v=20.0, accel_w=25.0),
)  # fmt: skip
"""Jackal-class skid steer, published dimensions, masses and limits. The chassis is 0.42 x 0.31 m; the
footprint counts the wheels. The separation multiplier was measured in tier M
(:func:`sim.robots.calibrate_separation`); it varies with speed, from 1.2 to 1.8."""

ROBOTS = {robot.name: robot for robot in (AGV, JACKAL)}
