"""From a policy's action in [-1, 1] to a velocity command that the base can follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CommandLimits:
    """Limits of a (v, w) base command, body frame (REP-103: x forward, counter-clockwise positive)."""

    v_min: float
    """Most negative forward speed, m/s (<= 0)."""
    v_max: float
    """Largest forward speed, m/s."""
    w_max: float
    """Largest turn rate either way, rad/s."""
    accel_v: float
    """Largest change of v, m/s^2."""
    accel_w: float
    """Largest change of w, rad/s^2."""

    def __post_init__(self) -> None:
        if not (self.v_min <= 0 < self.v_max and min(self.w_max, self.accel_v, self.accel_w) > 0):
            raise ValueError(f"limits must be v_min <= 0 < v_max and the rest > 0, got {self}")


def command_from_action(action: NDArray[np.floating], limits: CommandLimits) -> NDArray[np.float64]:
    """Scale (N, 2) actions in [-1, 1] to (N, 2) wanted (v m/s, w rad/s).

    The forward axis is affine, -1 -> v_min and 1 -> v_max; the turn axis is symmetric.
    Non-finite actions become the zero command: a policy's NaN must never move a base.
    """
    action = np.asarray(action, dtype=np.float64)
    if action.ndim != 2 or action.shape[1] != 2:
        raise ValueError(f"action must be (N, 2), got {action.shape}")
    finite = np.isfinite(action).all(axis=1, keepdims=True)
    unit = np.clip(np.where(finite, action, 0.0), -1.0, 1.0)
    v = limits.v_min + (unit[:, 0] + 1) / 2 * (limits.v_max - limits.v_min)
    command = np.stack([v, unit[:, 1] * limits.w_max], axis=1)
    return np.where(finite, command, 0.0)


def limit_rate(
    wanted: NDArray[np.float64], last: NDArray[np.float64], limits: CommandLimits, dt: float
) -> NDArray[np.float64]:
    """Clip (N, 2) wanted commands to the range and to a change of accel * dt from the last sent."""
    step = np.array([limits.accel_v * dt, limits.accel_w * dt])
    low, high = np.array([limits.v_min, -limits.w_max]), np.array([limits.v_max, limits.w_max])
    return np.clip(np.clip(wanted, last - step, last + step), low, high)
