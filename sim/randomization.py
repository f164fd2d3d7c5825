"""Domain randomization: a range per parameter, drawn once per episode and recorded with it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .backend import CONTROL_DT, Dynamics

Range = tuple[float, float]


@dataclass(frozen=True)
class Randomization:
    """Uniform ranges (low, high); low == high is a constant. The defaults are the nominal robot."""

    action_delay_s: Range = (0.0, 0.0)
    """From policy output to wheel target, rounded to control periods; at most 0.2 s."""
    scan_delay_s: Range = (0.0, 0.0)
    """Age of the newest scan beyond the hold, rounded to scan periods; at most 0.1 s."""
    slip: Range = (1.0, 1.0)
    """Efficiency of each wheel side, drawn apart."""
    motor_lag_s: Range = (0.08, 0.08)
    friction: Range = (0.8, 0.8)
    payload: Range = (0.0, 0.0)
    """Share of the robot's largest payload."""
    lidar_sigma_m: Range = (0.01, 0.01)
    lidar_dropout: Range = (0.0, 0.0)
    """Share of beams that return nothing."""
    lidar_yaw_rad: Range = (0.0, 0.0)
    """Mounting error of the lidar."""
    odometry_drift: Range = (0.0, 0.0)
    """Relative error of travelled distance and turned angle."""

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = getattr(self, field.name)
            if not low <= high:
                raise ValueError(
                    f"{field.name} must be (low, high) with low <= high, got {(low, high)}"
                )
        if self.action_delay_s[1] > 0.2 or self.scan_delay_s[1] > 0.1:
            raise ValueError("delays must be at most 0.2 s (action) and 0.1 s (scan)")

    @cached_property
    def _bounds(self) -> NDArray[np.float64]:
        """(2, len(PARAMETERS)) low, and high less low."""
        ranges = [getattr(self, "slip" if p.startswith("slip") else p) for p in PARAMETERS]
        low, high = np.array(ranges).T
        return np.array([low, high - low])

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(len(PARAMETERS),) of one episode; symmetric ones (yaw, drift) get a random sign."""
        low, span = self._bounds
        unit = rng.random(len(PARAMETERS) + len(SYMMETRIC))
        out: NDArray[np.float64] = low + unit[: len(PARAMETERS)] * span
        for k, coin in zip(SYMMETRIC, unit[len(PARAMETERS) :], strict=True):
            if coin < 0.5:
                out[k] = -out[k]
        return out


PARAMETERS = (
    "action_delay_s", "scan_delay_s", "slip_left", "slip_right", "motor_lag_s", "friction",
    "payload", "lidar_sigma_m", "lidar_dropout", "lidar_yaw_rad", "odometry_drift",
)  # fmt: skip
"""Columns of what is drawn."""
SYMMETRIC = [PARAMETERS.index("lidar_yaw_rad"), PARAMETERS.index("odometry_drift")]

NOMINAL = Randomization()
TRAINING = Randomization(
    action_delay_s=(0.0, 0.15), scan_delay_s=(0.0, 0.1), slip=(0.9, 1.0), motor_lag_s=(0.03, 0.2),
    friction=(0.4, 1.2), payload=(0.0, 1.0), lidar_sigma_m=(0.005, 0.03), lidar_dropout=(0.0, 0.05),
    lidar_yaw_rad=(0.0, 0.0175), odometry_drift=(0.0, 0.05),
)  # fmt: skip
"""Ranges that the shipped policies are trained with."""


def dynamics(drawn: NDArray[np.float64], payload_kg: float) -> Dynamics:
    """The backend's share of (k, len(PARAMETERS)) drawn rows."""
    column = {name: drawn[:, i] for i, name in enumerate(PARAMETERS)}
    slip = np.stack([column["slip_left"], column["slip_right"]], axis=1)
    return Dynamics(slip, column["motor_lag_s"], column["friction"], column["payload"] * payload_kg)


def delay_steps(drawn: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Action delay in control periods and scan delay in scan periods, (k,) each."""
    action = np.rint(drawn[:, PARAMETERS.index("action_delay_s")] / CONTROL_DT).astype(np.int64)
    scan = np.rint(drawn[:, PARAMETERS.index("scan_delay_s")] / (2 * CONTROL_DT)).astype(np.int64)
    return action, scan
