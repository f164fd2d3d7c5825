"""Planar lidar by geometry: each obstacle is visited once and looks only at the beams it can hit."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from rnd_agv._jit import njit

Array = NDArray[Any]


@njit(cache=True)
def _disc(out, i, px, py, cx, cy, r, angle0, increment, around, far):  # type: ignore[no-untyped-def]
    dx, dy = cx - px, cy - py
    d2 = dx * dx + dy * dy
    beams = out.shape[1]
    if d2 <= r * r:
        for b in range(beams):
            out[i, b] = 0.0
        return
    d = math.sqrt(d2)
    if d - r >= far:
        return
    middle, half = math.atan2(dy, dx), math.asin(r / d)
    first = int(math.ceil((middle - half - angle0) / increment))
    last = int(math.floor((middle + half - angle0) / increment))
    for k in range(first, last + 1):
        b = k % around
        if b >= beams:
            continue
        angle = angle0 + k * increment
        along = dx * math.cos(angle) + dy * math.sin(angle)
        inside = r * r - (d2 - along * along)
        t = along - math.sqrt(max(inside, 0.0))
        if t < out[i, b]:
            out[i, b] = t


@njit(cache=True)
def _box(out, i, px, py, cx, cy, hx, hy, angle0, increment, around, far):  # type: ignore[no-untyped-def]
    x0, x1, y0, y1 = cx - hx - px, cx + hx - px, cy - hy - py, cy + hy - py
    beams = out.shape[1]
    nx, ny = max(x0, -x1, 0.0), max(y0, -y1, 0.0)
    if nx * nx + ny * ny >= far * far:
        return
    if x0 < 0 < x1 and y0 < 0 < y1:
        for b in range(beams):
            out[i, b] = 0.0
        return
    # each face that looks at the sensor, as one segment: x = face or y = face
    for side in range(2):
        if side == 0:
            if not (x0 > 0 or x1 < 0):
                continue
            face = x0 if x0 > 0 else x1
            a0, a1 = math.atan2(y0, face), math.atan2(y1, face)
        else:
            if not (y0 > 0 or y1 < 0):
                continue
            face = y0 if y0 > 0 else y1
            a0, a1 = math.atan2(face, x0), math.atan2(face, x1)
        span = (a1 - a0) % (2 * math.pi)
        if span > math.pi:
            a0, span = a1, 2 * math.pi - span
        first = int(math.ceil((a0 - angle0) / increment - 1e-9))
        last = int(math.floor((a0 + span - angle0) / increment + 1e-9))
        for k in range(first, last + 1):
            b = k % around
            if b >= beams:
                continue
            angle = angle0 + k * increment
            t = face / (math.cos(angle) if side == 0 else math.sin(angle))
            if t < out[i, b]:
                out[i, b] = t


@njit(cache=True)
def cast(
    pose_w: Array, angle_min: float, increment: float, boxes: Array, nboxes: Array, discs: Array,
    ndiscs: Array, world_id: Array, movers: Array, max_range: float, out: Array,
) -> None:  # fmt: skip
    """Ranges of N scans.

    Args:
        pose_w: (N, 3) lidar x, y, yaw, m and rad.
        angle_min, increment: angle of beam 0 in the lidar frame and step between beams, rad;
            increment must divide the circle (a narrower scan has fewer beams).
        boxes, nboxes: (W, K, 4) [cx, cy, hx, hy] and (W,) used ones, m.
        discs, ndiscs: (W, D, 3) [x, y, r] and (W,), m.
        world_id: (N,) row of each scan's static obstacles.
        movers: (N, M, 3) moving discs; r = 0 is unused.
        max_range: m; a beam that hits nothing nearer reads this.
        out: (N, B) float32, written. A sensor inside an obstacle reads 0 all around.
    """
    around = int(round(2 * math.pi / increment))
    for i in range(pose_w.shape[0]):
        for b in range(out.shape[1]):
            out[i, b] = max_range
        px, py, angle0, w = pose_w[i, 0], pose_w[i, 1], pose_w[i, 2] + angle_min, world_id[i]
        for k in range(nboxes[w]):
            _box(out, i, px, py, boxes[w, k, 0], boxes[w, k, 1], boxes[w, k, 2], boxes[w, k, 3],
                 angle0, increment, around, max_range)  # fmt: skip
        for k in range(ndiscs[w]):
            _disc(out, i, px, py, discs[w, k, 0], discs[w, k, 1], discs[w, k, 2],
                  angle0, increment, around, max_range)  # fmt: skip
        for k in range(movers.shape[1]):
            if movers[i, k, 2] > 0:
                _disc(out, i, px, py, movers[i, k, 0], movers[i, k, 1], movers[i, k, 2],
                      angle0, increment, around, max_range)  # fmt: skip
