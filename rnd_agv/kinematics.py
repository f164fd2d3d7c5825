"""Batched kinematic model of the mobile bases: wheel lag, wheel slip and sliding contact.

Tier K of the simulator, the tests' oracle of tier M, and without contact the model that MPPI
samples (:func:`drive` in :mod:`.mppi`). Wheels follow their target speed with a first-order lag;
the base moves along the arc that the slipping wheels give (Siegwart 2011, Sec. 3.2, instantaneous
centre of rotation). A footprint that enters an obstacle is pushed out along the axis of least
penetration, turning as its inertia allows (position-based dynamics, Mueller 2007, Eqs. 6 to 9):
contact slides and never sticks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._jit import njit
from .robot import RESPONSE_STEP

Array = NDArray[Any]
CONTACT_STATIC, CONTACT_MOVER, CONTACT_AT_FAULT = 0, 1, 2
_PUSH_M = 0.5
"""More than contact can push a footprint within one call."""
AT_FAULT_SPEED = 0.05
"""A contact is the robot's fault if its footprint moves into the other faster than this, m/s."""


@njit(cache=True)
def _disc_gap(px, py, yaw, hx, hy, cx, cy, r):  # type: ignore[no-untyped-def]
    """Gap between footprint and disc (m, < 0 inside), with the outward normal and contact point."""
    c, s = math.cos(yaw), math.sin(yaw)
    bx, by = c * (cx - px) + s * (cy - py), -s * (cx - px) + c * (cy - py)
    qx, qy = min(max(bx, -hx), hx), min(max(by, -hy), hy)
    dx, dy = bx - qx, by - qy
    d = math.hypot(dx, dy)
    if d > 1e-9:
        gap, nx, ny = d - r, -dx / d, -dy / d
    else:  # the disc's centre is inside the footprint: leave through the nearest side
        ex, ey = hx - abs(bx), hy - abs(by)
        if ex < ey:
            gap, nx, ny = -ex - r, (-1.0 if bx > 0 else 1.0), 0.0
        else:
            gap, nx, ny = -ey - r, 0.0, (-1.0 if by > 0 else 1.0)
    return gap, c * nx - s * ny, s * nx + c * ny, px + c * qx - s * qy, py + s * qx + c * qy


@njit(cache=True)
def _box_gap(px, py, yaw, hx, hy, cx, cy, bx, by):  # type: ignore[no-untyped-def]
    """As :func:`_disc_gap` for an axis-aligned box (separating axes; the gap is a lower bound)."""
    c, s = math.cos(yaw), math.sin(yaw)
    dx, dy = px - cx, py - cy
    ac, as_ = abs(c), abs(s)
    gap, nx, ny, mine = -1e30, 1.0, 0.0, False
    g = abs(dx) - bx - hx * ac - hy * as_
    if g > gap:
        gap, nx, ny = g, (1.0 if dx > 0 else -1.0), 0.0
    g = abs(dy) - by - hx * as_ - hy * ac
    if g > gap:
        gap, nx, ny = g, 0.0, (1.0 if dy > 0 else -1.0)
    u = dx * c + dy * s
    g = abs(u) - hx - bx * ac - by * as_
    if g > gap + 1e-9:
        sign = 1.0 if u > 0 else -1.0
        gap, nx, ny, mine = g, sign * c, sign * s, True
    u = -dx * s + dy * c
    g = abs(u) - hy - bx * as_ - by * ac
    if g > gap + 1e-9:
        sign = 1.0 if u > 0 else -1.0
        gap, nx, ny, mine = g, -sign * s, sign * c, True
    # contact point: mean of the deepest corners of whichever body does not own the axis
    best, sx, sy, k = 1e30, 0.0, 0.0, 0
    for i in range(4):
        ix, iy = (1.0 if i % 2 else -1.0), (1.0 if i // 2 else -1.0)
        if mine:
            qx, qy = cx + ix * bx, cy + iy * by
            depth = -(qx * nx + qy * ny)
        else:
            qx, qy = px + ix * hx * c - iy * hy * s, py + ix * hx * s + iy * hy * c
            depth = qx * nx + qy * ny
        if depth < best - 2e-3:
            best, sx, sy, k = depth, qx, qy, 1
        elif depth < best + 2e-3:
            best, sx, sy, k = min(best, depth), sx + qx, sy + qy, k + 1
    return gap, nx, ny, sx / k, sy / k


@njit(cache=True)
def _near_boxes(x, y, reach, boxes, w, count, near):  # type: ignore[no-untyped-def]
    """Write which boxes of world ``w`` may be within ``reach`` of a point; return how many.

    Without branches: most obstacles are far off.
    """
    close = 0
    for k in range(count):
        near[close] = k
        close += (abs(x - boxes[w, k, 0]) < boxes[w, k, 2] + reach) & (
            abs(y - boxes[w, k, 1]) < boxes[w, k, 3] + reach
        )
    return close


@njit(cache=True)
def _near_discs(x, y, reach, discs, w, count, near, close, first):  # type: ignore[no-untyped-def]
    """As :func:`_near_boxes` for discs: numbered from ``first``, behind the ``close`` there are."""
    for k in range(count):
        near[close] = first + k
        close += (abs(x - discs[w, k, 0]) < discs[w, k, 2] + reach) & (
            abs(y - discs[w, k, 1]) < discs[w, k, 2] + reach
        )
    return close


@njit(cache=True)
def _push(pose, i, gap, nx, ny, qx, qy, k2):  # type: ignore[no-untyped-def]
    """Move footprint ``i`` out by ``-gap``, turning by its lever arm; ``k2`` is inertia / mass."""
    arm = (qx - pose[i, 0]) * ny - (qy - pose[i, 1]) * nx
    step = -gap / (1.0 + arm * arm / k2)
    pose[i, 0] += nx * step
    pose[i, 1] += ny * step
    pose[i, 2] += arm / k2 * step


@njit(cache=True)
def _skid(v, turn, response):  # type: ignore[no-untyped-def]
    """Speed, turn rate and sideways speed that come of what the wheels ask for, bilinear."""
    a = min(abs(v) / RESPONSE_STEP, response.shape[0] - 1.001)
    b = min(abs(turn) / RESPONSE_STEP, response.shape[1] - 1.001)
    i, j = int(a), int(b)
    a, b = a - i, b - j
    along = around = aside = 0.0
    for p, q, weight in (
        (i, j, (1 - a) * (1 - b)), (i, j + 1, (1 - a) * b), (i + 1, j, a * (1 - b)),
        (i + 1, j + 1, a * b),
    ):  # fmt: skip
        along += weight * response[p, q, 0]
        around += weight * response[p, q, 1]
        aside += weight * response[p, q, 2]
    return v * along, turn * around, turn * aside


@njit(cache=True)
def drive(  # type: ignore[no-untyped-def]
    x, y, yaw, left, right, to_left, to_right, blend, slip_left, slip_right, track, response, dt
):  # fmt: skip
    """One step of a base where nothing is in its way.

    Args:
        x, y, yaw: pose, m and rad.
        left, right: rim speeds, m/s; to_left, to_right: those that are asked for.
        blend: share of the way to those within the step, 1 - exp(-dt / lag).
        slip_left, slip_right: wheel efficiency; track: effective track width, m.
        response: (nv, nw, 3) of the robot, see :attr:`.robot.RobotSpec.response`.

    Returns:
        New x, y, yaw (not wrapped), left, right, and the forward speed driven.
    """
    left += blend * (to_left - left)
    right += blend * (to_right - right)
    vl, vr = slip_left * left, slip_right * right
    v, turn, side = 0.5 * (vl + vr), (vr - vl) / track, 0.0
    if response.shape[0] > 1:
        v, turn, side = _skid(v, turn, response)
    middle = yaw + 0.5 * dt * turn
    c, s = math.cos(middle), math.sin(middle)
    x, y, yaw = x + dt * (v * c - side * s), y + dt * (v * s + side * c), yaw + dt * turn
    return x, y, yaw, left, right, v


@njit(cache=True)
def advance(
    pose: Array, wheels: Array, vel: Array, command: Array, slip: Array, lag: Array, track: float,
    half: Array, world: Array, boxes: Array, nboxes: Array, discs: Array, ndiscs: Array,
    movers: Array, dt: float, substeps: int, response: Array,
) -> None:  # fmt: skip
    """Advance N bases in place by ``substeps`` of ``dt`` seconds.

    Args:
        pose: (N, 3) float64 x, y, yaw in the world frame; changed in place.
        wheels: (N, 2) float64 left and right rim speed, m/s; changed in place.
        vel: (N, 2) float64 out: forward speed and turn rate over the last substep, m/s and rad/s.
        command: (N, 2) wanted forward speed and turn rate, m/s and rad/s.
        slip: (N, 2) wheel efficiency; lag: (N,) time constant of the wheel loop, s.
        track: effective track width, m; half: (2,) half length and half width of the footprint, m.
        world: (N,) int, row of the stacked static obstacles of each base.
        boxes, discs: (W, K, 4) [cx, cy, hx, hy] and (W, D, 3) [x, y, r], m.
        nboxes, ndiscs: (W,) how many of them each world has.
        movers: (N, M, 3) [x, y, r] moving discs; r = 0 is unused.
        response: (nv, nw, 3) of the robot, see :attr:`.robot.RobotSpec.response`.
    """
    hx, hy = half[0], half[1]
    reach = math.hypot(hx, hy)
    k2 = (hx * hx + hy * hy) / 3.0
    near_boxes, near_discs = np.empty(boxes.shape[1], np.int64), np.empty(discs.shape[1], np.int64)
    for i in range(pose.shape[0]):
        blend = 1.0 - math.exp(-dt / max(lag[i], 1e-4))
        left = command[i, 0] - 0.5 * track * command[i, 1]
        right = command[i, 0] + 0.5 * track * command[i, 1]
        w = world[i]
        # only what the footprint can get to within this call is looked at in every substep
        fastest = max(abs(left), abs(right), abs(wheels[i, 0]), abs(wheels[i, 1]))
        far = reach + _PUSH_M + dt * substeps * fastest * max(slip[i, 0], slip[i, 1])
        x0, y0, yaw0 = pose[i, 0], pose[i, 1], pose[i, 2]
        close = _near_boxes(x0, y0, far, boxes, w, nboxes[w], near_boxes)
        close_discs = _near_discs(x0, y0, far, discs, w, ndiscs[w], near_discs, 0, 0)
        for _ in range(substeps):
            x0, y0, yaw0 = pose[i, 0], pose[i, 1], pose[i, 2]
            pose[i, 0], pose[i, 1], pose[i, 2], wheels[i, 0], wheels[i, 1], _ = drive(
                x0, y0, yaw0, wheels[i, 0], wheels[i, 1], left, right, blend, slip[i, 0],
                slip[i, 1], track, response, dt,
            )  # fmt: skip
            for k in near_boxes[:close]:
                cx, cy, bx, by = boxes[w, k, 0], boxes[w, k, 1], boxes[w, k, 2], boxes[w, k, 3]
                if abs(pose[i, 0] - cx) < bx + reach and abs(pose[i, 1] - cy) < by + reach:
                    gap, nx, ny, qx, qy = _box_gap(
                        pose[i, 0], pose[i, 1], pose[i, 2], hx, hy, cx, cy, bx, by
                    )
                    if gap < 0:
                        _push(pose, i, gap, nx, ny, qx, qy, k2)
            for k in near_discs[:close_discs]:
                cx, cy, r = discs[w, k, 0], discs[w, k, 1], discs[w, k, 2]
                if abs(pose[i, 0] - cx) < r + reach and abs(pose[i, 1] - cy) < r + reach:
                    gap, nx, ny, qx, qy = _disc_gap(
                        pose[i, 0], pose[i, 1], pose[i, 2], hx, hy, cx, cy, r
                    )
                    if gap < 0:
                        _push(pose, i, gap, nx, ny, qx, qy, k2)
            for k in range(movers.shape[1]):
                cx, cy, r = movers[i, k, 0], movers[i, k, 1], movers[i, k, 2]
                if r > 0 and abs(pose[i, 0] - cx) < r + reach and abs(pose[i, 1] - cy) < r + reach:
                    gap, nx, ny, qx, qy = _disc_gap(
                        pose[i, 0], pose[i, 1], pose[i, 2], hx, hy, cx, cy, r
                    )
                    if gap < 0:
                        _push(pose, i, gap, nx, ny, qx, qy, k2)
        dx, dy = pose[i, 0] - x0, pose[i, 1] - y0
        vel[i, 0] = (dx * math.cos(yaw0) + dy * math.sin(yaw0)) / dt
        vel[i, 1] = (pose[i, 2] - yaw0) / dt
        pose[i, 2] = (pose[i, 2] + math.pi) % (2 * math.pi) - math.pi


@njit(cache=True)
def touching(
    pose: Array, command: Array, half: Array, world: Array, boxes: Array, nboxes: Array,
    discs: Array, ndiscs: Array, movers: Array, margin: float, out: Array,
) -> None:  # fmt: skip
    """Which bases touch something, judged from geometry alone, so alike in both tiers.

    Args:
        pose, half, world, boxes, nboxes, discs, ndiscs, movers: as in :func:`advance`.
        command: (N, 2) command that was sent, for the question of fault.
        margin: a gap below this counts as contact, m.
        out: (N, 3) bool out: static contact, contact with a mover, at fault (the footprint was
            commanded into the other at more than :data:`AT_FAULT_SPEED`).
    """
    hx, hy = half[0], half[1]
    reach = math.hypot(hx, hy) + margin
    near = np.empty(boxes.shape[1] + discs.shape[1] + movers.shape[1], np.int64)
    for i in range(pose.shape[0]):
        px, py, yaw = pose[i, 0], pose[i, 1], pose[i, 2]
        c, s = math.cos(yaw), math.sin(yaw)
        v, turn, w = command[i, 0], command[i, 1], world[i]
        out[i, 0] = out[i, 1] = out[i, 2] = False
        nd, nb = ndiscs[w], nboxes[w]
        close = _near_boxes(px, py, reach, boxes, w, nb, near)
        close = _near_discs(px, py, reach, discs, w, nd, near, close, nb)
        close = _near_discs(px, py, reach, movers, i, movers.shape[1], near, close, nb + nd)
        for k in near[:close]:
            if k < nb:
                cx, cy, bx, by = boxes[w, k, 0], boxes[w, k, 1], boxes[w, k, 2], boxes[w, k, 3]
                gap, nx, ny, qx, qy = _box_gap(px, py, yaw, hx, hy, cx, cy, bx, by)
            elif k < nb + nd:
                cx, cy, r = discs[w, k - nb, 0], discs[w, k - nb, 1], discs[w, k - nb, 2]
                gap, nx, ny, qx, qy = _disc_gap(px, py, yaw, hx, hy, cx, cy, r)
            else:
                j = k - nb - nd
                cx, cy, r = movers[i, j, 0], movers[i, j, 1], movers[i, j, 2]
                if r <= 0:
                    continue
                gap, nx, ny, qx, qy = _disc_gap(px, py, yaw, hx, hy, cx, cy, r)
            if gap < margin:
                out[i, 0 if k < nb + nd else 1] = True
                ux, uy = v * c - turn * (qy - py), v * s + turn * (qx - px)
                if -(ux * nx + uy * ny) > AT_FAULT_SPEED:
                    out[i, 2] = True


def arc(pose: Array, command: Array, dt: float, steps: int) -> Array:
    """Ideal motion without lag, slip or contact: where (N, 3) poses end after ``steps``, (N, 3).

    The (N, 2) commands are held all the while. This is the closed form that the tests hold
    :func:`advance` against.
    """
    t = dt * steps
    v, w = command[:, 0], command[:, 1]
    straight = np.abs(w) < 1e-9
    safe = np.where(straight, 1.0, w)
    yaw = pose[:, 2]
    dx = np.where(straight, v * t * np.cos(yaw), v / safe * (np.sin(yaw + w * t) - np.sin(yaw)))
    dy = np.where(straight, v * t * np.sin(yaw), -v / safe * (np.cos(yaw + w * t) - np.cos(yaw)))
    turned = (yaw + w * t + np.pi) % (2 * np.pi) - np.pi
    return np.stack([pose[:, 0] + dx, pose[:, 1] + dy, turned], axis=1)
