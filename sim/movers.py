"""Moving obstacles, all discs: constant velocity, waypoint loops, people who avoid, other AGVs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv._jit import njit

Array = NDArray[Any]
UNUSED, CONSTANT, LOOP, PERSON, VEHICLE = 0, 1, 2, 3, 4
PATIENCE_S = 4.0
"""A vehicle that the robot has blocked this long turns round."""


@dataclass(frozen=True)
class Mover:
    """One moving disc that travels between two points."""

    kind: int
    """CONSTANT bounces off walls; LOOP goes to and fro.

    PERSON walks round the robot; VEHICLE waits for it.
    """
    radius_m: float
    speed: float
    """m/s."""
    a_w: tuple[float, float]
    b_w: tuple[float, float]
    """End points, m; it starts at the first."""


@njit(cache=True)
def step(
    xy: Array, vel: Array, radius: Array, kind: Array, speed: Array, way: Array, leg: Array,
    wait: Array, robot: Array, robot_radius: float, world: Array, boxes: Array, nboxes: Array,
    discs: Array, ndiscs: Array, dt: float,
) -> None:  # fmt: skip
    """Move (N, M) discs by ``dt`` seconds, in place.

    Args:
        xy, vel: (N, M, 2) m and m/s; radius, speed (N, M); kind, leg (N, M) int; wait (N, M) s.
        way: (N, M, 2, 2) end points, m.
        robot: (N, 3) robot poses; ``robot_radius`` m, the room that people and vehicles give it.
        world, boxes, nboxes, discs, ndiscs: static obstacles, as in ``rnd_agv.kinematics.advance``.
    """
    for i in range(xy.shape[0]):
        w = world[i]
        for m in range(xy.shape[1]):
            if kind[i, m] == UNUSED:
                continue
            x, y, r = xy[i, m, 0], xy[i, m, 1], radius[i, m]
            rx, ry = x - robot[i, 0], y - robot[i, 1]
            near = math.hypot(rx, ry) + 1e-9
            if kind[i, m] == CONSTANT:
                vx, vy = vel[i, m, 0], vel[i, m, 1]
            else:
                tx, ty = way[i, m, leg[i, m], 0] - x, way[i, m, leg[i, m], 1] - y
                left = math.hypot(tx, ty)
                if left < 0.2:
                    leg[i, m] = 1 - leg[i, m]
                    tx, ty = way[i, m, leg[i, m], 0] - x, way[i, m, leg[i, m], 1] - y
                    left = math.hypot(tx, ty)
                left += 1e-9
                wanted = speed[i, m]
                if kind[i, m] == VEHICLE:
                    ahead = -(tx * rx + ty * ry) / (left * near)
                    if near < r + robot_radius + 1.0 and ahead > 0.5:
                        wanted = 0.0
                        wait[i, m] += dt
                        if wait[i, m] > PATIENCE_S:
                            leg[i, m] = 1 - leg[i, m]
                            wait[i, m] = 0.0
                    else:
                        wait[i, m] = 0.0
                gx, gy = wanted * tx / left, wanted * ty / left
                if kind[i, m] == PERSON:
                    # social force (Helbing 1995): pushed away from the robot, a little to the right
                    force = 1.5 * math.exp((r + robot_radius - near) / 0.4)
                    ux, uy = rx / near, ry / near
                    gx += force * (ux + 0.4 * uy)
                    gy += force * (uy - 0.4 * ux)
                    pace = math.hypot(gx, gy)
                    if pace > 1.3 * speed[i, m]:
                        gx, gy = gx / pace * 1.3 * speed[i, m], gy / pace * 1.3 * speed[i, m]
                blend = min(1.0, dt / 0.3)
                vx = vel[i, m, 0] + blend * (gx - vel[i, m, 0])
                vy = vel[i, m, 1] + blend * (gy - vel[i, m, 1])
            x, y = x + dt * vx, y + dt * vy
            hit = False
            for k in range(nboxes[w]):
                cx, cy, bx, by = boxes[w, k, 0], boxes[w, k, 1], boxes[w, k, 2], boxes[w, k, 3]
                if abs(x - cx) < bx + r and abs(y - cy) < by + r:
                    qx, qy = min(max(x, cx - bx), cx + bx), min(max(y, cy - by), cy + by)
                    d = math.hypot(x - qx, y - qy)
                    if 1e-9 < d < r:
                        nx, ny = (x - qx) / d, (y - qy) / d
                        x, y, hit = qx + nx * r, qy + ny * r, True
                        into = vx * nx + vy * ny
                        if into < 0:
                            bounce = 2.0 if kind[i, m] == CONSTANT else 1.0
                            vx, vy = vx - bounce * into * nx, vy - bounce * into * ny
            for k in range(ndiscs[w]):
                qx, qy, q = discs[w, k, 0], discs[w, k, 1], discs[w, k, 2]
                d = math.hypot(x - qx, y - qy)
                if 1e-9 < d < r + q:
                    nx, ny = (x - qx) / d, (y - qy) / d
                    x, y, hit = qx + nx * (r + q), qy + ny * (r + q), True
                    into = vx * nx + vy * ny
                    if into < 0:
                        bounce = 2.0 if kind[i, m] == CONSTANT else 1.0
                        vx, vy = vx - bounce * into * nx, vy - bounce * into * ny
            if hit and kind[i, m] != CONSTANT:
                wait[i, m] += dt
                if wait[i, m] > PATIENCE_S:  # a walk that runs into a shelf ends there
                    leg[i, m] = 1 - leg[i, m]
                    wait[i, m] = 0.0
            xy[i, m, 0], xy[i, m, 1], vel[i, m, 0], vel[i, m, 1] = x, y, vx, vy


def place(movers: list[Mover], count: int) -> dict[str, Array]:
    """Initial arrays of one row of at most ``count`` movers, see :func:`step` for shapes less N."""
    if len(movers) > count:
        raise ValueError(f"movers must be at most {count}, got {len(movers)}")
    out: dict[str, Array] = {
        "xy": np.full((count, 2), 1e6), "vel": np.zeros((count, 2)), "radius": np.zeros(count),
        "kind": np.zeros(count, np.int64), "speed": np.zeros(count), "way": np.zeros((count, 2, 2)),
        "leg": np.ones(count, np.int64), "wait": np.zeros(count),
    }  # fmt: skip
    for m, mover in enumerate(movers):
        a, b = np.array(mover.a_w), np.array(mover.b_w)
        out["xy"][m], out["way"][m] = a, (a, b)
        out["vel"][m] = (b - a) / max(float(np.hypot(*(b - a))), 1e-9) * mover.speed
        out["radius"][m], out["kind"][m], out["speed"][m] = mover.radius_m, mover.kind, mover.speed
    return out
