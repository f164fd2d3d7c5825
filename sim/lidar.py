"""Analytic planar lidar over boxes and discs.

Each obstacle visits only the beams that its silhouette may cover, found with a cheap arctangent and a
margin; those are then intersected exactly (boxes: slab test, Kay & Kajiya 1986). Obstacles outside,
beams inside: the inner loop runs over whole float32 vectors. Equal to MuJoCo's ``mj_multiRay`` on the
same geometry within micrometres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv._jit import njit

_FAST = {"contract", "arcp", "nsz", "reassoc", "nnan"}
_LANES = 16
"""Rays are tested in whole chunks of this many: one AVX-512 vector of float32."""
_TWO_PI = 2 * np.pi
_ZERO = np.float32(0)
_MARGIN = np.float32(0.008)
"""Added on both sides of a silhouette, rad; twice what :func:`_atan2` is off by."""
_SEAM_M = 4e-6
"""A ray that misses a box by this still hits: touching boxes leave no gap through rounding."""


@njit(cache=True, nogil=True, fastmath=_FAST)
def cast(
    pose_w: NDArray[np.float64],
    angle_min: float,
    increment: float,
    boxes: NDArray[np.float32],
    nboxes: NDArray[np.int32],
    discs: NDArray[np.float32],
    ndiscs: NDArray[np.int32],
    world_id: NDArray[np.int32],
    movers: NDArray[Any],
    max_range: float,
    out: NDArray[np.float32],
) -> None:
    """Cast N planar scans into ``out``. Releases the GIL: callers may split rows over threads.

    Args:
        pose_w: (N, 3) float64 lidar x, y, yaw in the world, m and rad.
        angle_min: angle of beam 0 in the lidar frame, rad.
        increment: angle between beams, rad, > 0; the beams may go round once, ends included.
        boxes: (W, K, 4) float32 [cx, cy, hx, hy] of W worlds, m; nboxes (W,) rows in use.
        discs: (W, D, 3) float32 [x, y, r], m; ndiscs (W,) rows in use.
        world_id: (N,) world of each scan.
        movers: (N, M, 3) moving discs [x, y, r] of each scan; rows with r <= 0 are unused.
        max_range: a beam that hits nothing nearer reads this, m.
        out: (N, B) float32, B beams; changed. A lidar inside an obstacle reads 0 all around.
    """
    _cast(pose_w, angle_min, increment, boxes, nboxes, discs, ndiscs, world_id, movers, max_range, out,
          None, None, None, None)  # fmt: skip


@njit(cache=True, nogil=True, fastmath=_FAST)
def cast_labelled(
    pose_w: NDArray[np.float64],
    angle_min: float,
    increment: float,
    boxes: NDArray[np.float32],
    nboxes: NDArray[np.int32],
    discs: NDArray[np.float32],
    ndiscs: NDArray[np.int32],
    world_id: NDArray[np.int32],
    movers: NDArray[Any],
    max_range: float,
    box_labels: NDArray[np.int8],
    disc_labels: NDArray[np.int8],
    mover_labels: NDArray[np.int8],
    out: NDArray[np.float32],
    out_labels: NDArray[np.int8],
) -> None:
    """As :func:`cast`, and the label of what each beam hit.

    Args:
        box_labels: (W, K) int8; disc_labels (W, D) int8; mover_labels (N, M) int8.
        out_labels: (N, B) int8, changed; -1 where nothing was hit.
    """
    _cast(pose_w, angle_min, increment, boxes, nboxes, discs, ndiscs, world_id, movers, max_range, out,
          box_labels, disc_labels, mover_labels, out_labels)  # fmt: skip


@njit(cache=True, nogil=True, fastmath=_FAST)
def _cast(  # type: ignore[no-untyped-def]
    pose_w, angle_min, increment, boxes, nboxes, discs, ndiscs, world_id, movers, max_range, out,
    box_labels, disc_labels, mover_labels, out_labels,
):  # fmt: skip
    beams = out.shape[1]
    chunks = (beams + _LANES - 1) // _LANES
    around = _TWO_PI / increment  # beams in a full circle
    cos0, sin0 = np.empty(chunks * _LANES), np.empty(chunks * _LANES)
    for b in range(chunks * _LANES):
        cos0[b], sin0[b] = np.cos(angle_min + b * increment), np.sin(angle_min + b * increment)
    # rays[chunk] = directions x, y, their inverses, nearest hit: side by side for whole vectors
    rays = np.empty((chunks, 5, _LANES), np.float32)
    hit_labels = np.empty((0 if out_labels is None else chunks, _LANES), np.int8)
    # silhouette of every obstacle in beams counted from beam 0: first (in [0, around)) and length
    most = max(boxes.shape[1], discs.shape[1], movers.shape[1])
    first, length = np.empty(most, np.float32), np.empty(most, np.float32)
    per_rad, reach2 = np.float32(1 / increment), np.float32(max_range) * np.float32(max_range)
    round_f = np.float32(around)
    for n in range(out.shape[0]):
        x, y, yaw = pose_w[n, 0], pose_w[n, 1], pose_w[n, 2]
        c, s = np.cos(yaw), np.sin(yaw)
        for i in range(chunks):
            for j in range(_LANES):
                u = c * cos0[i * _LANES + j] - s * sin0[i * _LANES + j]
                v = s * cos0[i * _LANES + j] + c * sin0[i * _LANES + j]
                # 1e-18 keeps the inverse finite; a ray along an axis then misses by far or not at all
                u = u if abs(u) > 1e-18 else 1e-18
                v = v if abs(v) > 1e-18 else 1e-18
                rays[i, 0, j], rays[i, 1, j] = u, v
                rays[i, 2, j], rays[i, 3, j] = 1 / u, 1 / v
                rays[i, 4, j] = max_range
        if out_labels is not None:
            hit_labels[:] = -1
        turned = yaw + angle_min
        turned = np.float32((turned - _TWO_PI * np.floor(turned / _TWO_PI)) * per_rad)
        w = world_id[n]
        inside, label = False, -1
        for k in range(nboxes[w]):
            x0, x1 = np.float32(boxes[w, k, 0] - boxes[w, k, 2] - x), np.float32(boxes[w, k, 0] + boxes[w, k, 2] - x)
            y0, y1 = np.float32(boxes[w, k, 1] - boxes[w, k, 3] - y), np.float32(boxes[w, k, 1] + boxes[w, k, 3] - y)
            gx, gy = max(x0, -x1, _ZERO), max(y0, -y1, _ZERO)
            # silhouette corners a and b, counter-clockwise, by the side that the lidar is on
            ax = (x1 if y0 > 0 else x0) if gy > 0 else (x0 if x0 > 0 else x1)
            ay = (y0 if x0 > 0 else y1) if gx > 0 else (y0 if y0 > 0 else y1)
            bx = (x0 if y0 > 0 else x1) if gy > 0 else (x0 if x0 > 0 else x1)
            by = (y1 if x0 > 0 else y0) if gx > 0 else (y0 if y0 > 0 else y1)
            start = _atan2(ay, ax)
            span = _atan2(by, bx) - start
            span = span + np.float32(_TWO_PI) if span < 0 else span
            start = (start - _MARGIN) * per_rad - turned
            first[k] = start - round_f * np.floor(start / round_f)
            gap2 = gx * gx + gy * gy
            # -1: out of reach, -2: the lidar is inside
            length[k] = (span + 2 * _MARGIN) * per_rad if gap2 < reach2 else np.float32(-1)
            length[k] = length[k] if gap2 > 0 else np.float32(-2)
        for k in range(nboxes[w]):
            if length[k] < 0:
                if length[k] < -1:
                    inside = True
                    if out_labels is not None:
                        label = box_labels[w, k]
                    break
                continue
            x0, x1 = boxes[w, k, 0] - boxes[w, k, 2] - x, boxes[w, k, 0] + boxes[w, k, 2] - x
            y0, y1 = boxes[w, k, 1] - boxes[w, k, 3] - y, boxes[w, k, 1] + boxes[w, k, 3] - y
            # near face (0: between the two), and far faces, which are widened by the seam
            nx = np.float32(x0 if x0 > 0 else (x1 if x1 < 0 else 0.0))
            ny = np.float32(y0 if y0 > 0 else (y1 if y1 < 0 else 0.0))
            px, qx = np.float32((x1 if x0 > 0 else x0) + (_SEAM_M if x0 > 0 else -_SEAM_M)), np.float32((x0 if x1 < 0 else x1) + (-_SEAM_M if x1 < 0 else _SEAM_M))
            py, qy = np.float32((y1 if y0 > 0 else y0) + (_SEAM_M if y0 > 0 else -_SEAM_M)), np.float32((y0 if y1 < 0 else y1) + (-_SEAM_M if y1 < 0 else _SEAM_M))
            for turn in range(3):
                lo, hi = _chunks(first[k], length[k], turn, around, beams)
                for i in range(lo, hi):
                    for j in range(_LANES):
                        near = max(nx * rays[i, 2, j], ny * rays[i, 3, j])
                        far_x = max(px * rays[i, 2, j], qx * rays[i, 2, j])
                        far = min(far_x, max(py * rays[i, 3, j], qy * rays[i, 3, j]))
                        if out_labels is not None and near <= far and near < rays[i, 4, j]:
                            hit_labels[i, j] = box_labels[w, k]
                        t = near if near <= far else np.float32(max_range)
                        rays[i, 4, j] = min(rays[i, 4, j], t)
        for kind in range(2):
            count = ndiscs[w] if kind == 0 else movers.shape[1]
            for k in range(0 if inside else count):
                if kind == 0:
                    dx, dy = np.float32(discs[w, k, 0] - x), np.float32(discs[w, k, 1] - y)
                    r = np.float32(discs[w, k, 2])
                else:
                    dx, dy = np.float32(movers[n, k, 0] - x), np.float32(movers[n, k, 1] - y)
                    r = np.float32(movers[n, k, 2])
                d2 = dx * dx + dy * dy
                ratio = min(r / np.sqrt(d2 + np.float32(1e-12)), np.float32(1))
                # asin(u) <= u + (pi/2 - 1) u^3
                half = ratio + np.float32(0.5708) * ratio * ratio * ratio + _MARGIN
                start = (_atan2(dy, dx) - half) * per_rad - turned
                first[k] = start - round_f * np.floor(start / round_f)
                away = np.float32(max_range) + r
                length[k] = 2 * half * per_rad if r > 0 and d2 < away * away else np.float32(-1)
                length[k] = np.float32(-2) if r > 0 and d2 <= r * r else length[k]
            for k in range(0 if inside else count):
                if length[k] < 0:
                    if length[k] < -1:
                        inside = True
                        if out_labels is not None:
                            label = disc_labels[w, k] if kind == 0 else mover_labels[n, k]
                        break
                    continue
                if kind == 0:
                    dx, dy = np.float32(discs[w, k, 0] - x), np.float32(discs[w, k, 1] - y)
                    r = np.float32(discs[w, k, 2])
                else:
                    dx, dy = np.float32(movers[n, k, 0] - x), np.float32(movers[n, k, 1] - y)
                    r = np.float32(movers[n, k, 2])
                for turn in range(3):
                    lo, hi = _chunks(first[k], length[k], turn, around, beams)
                    for i in range(lo, hi):
                        for j in range(_LANES):
                            cross = rays[i, 0, j] * dy - rays[i, 1, j] * dx
                            chord = r * r - cross * cross
                            t = rays[i, 0, j] * dx + rays[i, 1, j] * dy
                            t = t - np.sqrt(max(chord, _ZERO))
                            hit = chord >= 0 and t >= 0
                            if out_labels is not None and hit and t < rays[i, 4, j]:
                                hit_labels[i, j] = disc_labels[w, k] if kind == 0 else mover_labels[n, k]
                            t = t if hit else np.float32(max_range)
                            rays[i, 4, j] = min(rays[i, 4, j], t)
        for i in range(chunks):
            for j in range(min(_LANES, beams - i * _LANES)):
                out[n, i * _LANES + j] = _ZERO if inside else rays[i, 4, j]
                if out_labels is not None:
                    out_labels[n, i * _LANES + j] = label if inside else hit_labels[i, j]


@njit(cache=True, nogil=True, inline="always")
def _chunks(first, length, turn, around, beams):  # type: ignore[no-untyped-def]
    """Chunks [lo, hi) of rays that a silhouette touches: as it lies, wrapped by a turn, and by one more
    for the beams of a scan that goes round past its first beam."""
    last = first + length
    if turn == 1:
        first, last = np.float32(0), last - around
    elif turn == 2:
        first, last = first + around, last + around
    lo = int(first) // _LANES
    hi = min(int(last) + 1, beams)
    hi = (hi + _LANES - 1) // _LANES if last >= 0 else 0
    return lo, hi


@njit(cache=True, nogil=True, inline="always")
def _atan2(y, x):  # type: ignore[no-untyped-def]
    """Angle of (x, y), off by less than 0.0039 rad: one division and a square (Rajan 2006, eq. 7)."""
    ax, ay = abs(x), abs(y)
    a = min(ax, ay) / max(max(ax, ay), np.float32(1e-12))
    t = a * (np.float32(0.78539816) + np.float32(0.273) * (np.float32(1) - a))
    t = np.float32(1.57079633) - t if ay > ax else t
    t = np.float32(np.pi) - t if x < 0 else t
    return -t if y < 0 else t
