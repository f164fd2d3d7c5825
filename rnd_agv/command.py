"""From a policy's action in [-1, 1] to a velocity command that the base can follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._jit import njit


@dataclass(frozen=True)
class CommandLimits:
    """Limits of a (v, w) base command, body frame (REP-103: x forward, counter-clockwise > 0)."""

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
    out = np.empty((len(action), 2))
    _scale(action, limits.v_min, limits.v_max, limits.w_max, out)
    return out


def action_from_command(command: NDArray[np.float64], limits: CommandLimits) -> NDArray[np.float32]:
    """(N, 2) actions that :func:`command_from_action` makes these commands of, m/s and rad/s."""
    v = 2 * (command[:, 0] - limits.v_min) / (limits.v_max - limits.v_min) - 1
    return np.stack([v, command[:, 1] / limits.w_max], axis=1).astype(np.float32)


@njit(cache=True)
def _scale(action, v_min, v_max, w_max, out):  # type: ignore[no-untyped-def]
    for i in range(len(action)):
        a, b = action[i, 0], action[i, 1]
        out[i, 0] = out[i, 1] = 0.0
        if math.isfinite(a) and math.isfinite(b):
            out[i, 0] = v_min + (min(max(a, -1.0), 1.0) + 1) / 2 * (v_max - v_min)
            out[i, 1] = min(max(b, -1.0), 1.0) * w_max


def limit_rate(
    wanted: NDArray[np.float64], last: NDArray[np.float64], limits: CommandLimits, dt: float
) -> NDArray[np.float64]:
    """Clip (N, 2) wanted commands to the range and to a change of accel * dt from the last sent."""
    out = np.empty((len(wanted), 2))
    step = limits.accel_v * dt, limits.accel_w * dt
    _limit(wanted, last, *step, limits.v_min, limits.v_max, limits.w_max, out)
    return out


@njit(cache=True)
def _limit(wanted, last, step_v, step_w, v_min, v_max, w_max, out):  # type: ignore[no-untyped-def]
    for i in range(len(wanted)):
        v = min(max(wanted[i, 0], last[i, 0] - step_v), last[i, 0] + step_v)
        w = min(max(wanted[i, 1], last[i, 1] - step_w), last[i, 1] + step_w)
        out[i, 0], out[i, 1] = min(max(v, v_min), v_max), min(max(w, -w_max), w_max)
