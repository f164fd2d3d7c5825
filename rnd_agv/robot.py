"""The mobile robots: footprint, mass, wheels and limits, one record each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .command import CommandLimits

RESPONSE_STEP = 0.5
"""Grid of :attr:`RobotSpec.response`, m/s and rad/s."""


@dataclass(frozen=True)
class RobotSpec:
    """A differential-drive or skid-steer base.

    Frame: base_link at the centre of the footprint, on the floor.
    """

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
    """Effective track / track: 1 in differential drive, calibrated in simulation for skid steer."""
    lidar_x_m: float
    lidar_z_m: float
    """Lidar mount in base_link, facing forward."""
    limits: CommandLimits
    response: tuple[tuple[tuple[float, float, float], ...], ...] = (((1.0, 1.0, 0.0),),)
    """What becomes of a command in steady state, over |v| (rows) and |w| in steps of RESPONSE_STEP.

    Each entry holds a factor on v, a factor on w, and the sideways speed per commanded turn rate,
    m (a skid steer turns about a point ahead of its centre or behind it). One entry: the base does
    as told.
    """

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

_JACKAL_RESPONSE = (
    (
        (1, 0.76, -0.01), (1, 0.89, -0.04), (1, 0.93, -0.03), (1, 0.94, -0.03), (1, 0.95, -0.03),
        (1, 0.94, -0.03), (1, 0.94, -0.02), (1, 0.94, -0.02), (1, 0.93, -0.02),
    ),
    (
        (1, 0.76, -0.02), (1, 0.91, -0.06), (1.01, 0.97, -0.08), (0.99, 1.02, -0.09),
        (0.97, 1.05, -0.1), (0.93, 1.06, -0.1), (0.89, 1.06, -0.1), (0.84, 1.03, -0.1),
        (0.76, 1.01, -0.09),
    ),
    (
        (1, 0.76, -0.03), (1, 0.94, -0.09), (1.01, 1.06, -0.13), (1, 1.12, -0.15),
        (0.98, 1.17, -0.16), (0.96, 1.19, -0.17), (0.92, 1.2, -0.17), (0.88, 1.19, -0.17),
        (0.82, 1.13, -0.15),
    ),
    (
        (1, 0.76, -0.04), (1, 0.98, -0.12), (1.01, 1.14, -0.17), (0.99, 1.22, -0.2),
        (0.98, 1.24, -0.2), (0.97, 1.26, -0.21), (0.94, 1.27, -0.21), (0.89, 1.25, -0.21),
        (0.81, 1.16, -0.2),
    ),
    (
        (1, 0.76, -0.04), (1, 1, -0.14), (1, 1.17, -0.2), (0.99, 1.28, -0.23),
        (0.98, 1.31, -0.24), (0.97, 1.31, -0.24), (0.88, 1.26, -0.28), (0.79, 1.16, -0.27),
        (0.74, 1.06, -0.24),
    ),
)  # fmt: skip
"""At 0, 0.5, ... 2 m/s and 0, 0.5, ... 4 rad/s, measured in tier M on nominal friction
(:func:`sim.robots.calibrate_response`): tyres scrub, and tight turns run out of grip."""

JACKAL = RobotSpec(
    name="jackal", length_m=0.46, width_m=0.42, height_m=0.25, mass_kg=16.523 + 4 * 0.477,
    payload_kg=20.0, wheel_radius_m=0.098, track_m=0.37559, wheelbase_m=0.262,
    separation_multiplier=1.39, lidar_x_m=0.12, lidar_z_m=0.3,
    limits=CommandLimits(v_min=-0.5, v_max=2.0, w_max=4.0, accel_v=20.0, accel_w=25.0),
    response=_JACKAL_RESPONSE,
)  # fmt: skip
"""Jackal-class skid steer, published dimensions, masses and limits.

The chassis is 0.42 x 0.31 m; the footprint counts the wheels. The separation multiplier was
measured in tier M (:func:`sim.robots.calibrate_separation`); it varies with speed, from 1.2 to 1.8.
"""

ROBOTS = {robot.name: robot for robot in (AGV, JACKAL)}
