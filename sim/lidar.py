"""Analytic planar lidar over boxes and discs.

Each obstacle visits only the beams that its silhouette may cover, found with a cheap arctangent
and a margin; those are then intersected exactly (boxes: slab test, Kay & Kajiya 1986). Obstacles
outside, beams inside: the inner loop runs over whole float32 vectors. Equal to MuJoCo's
``mj_multiRay`` on the same geometry within micrometres.
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
_ZERO, _TINY, _PI = np.float32(0), np.float32(1e-12), np.float32(np.pi)
_FAR_M = np.float32(1e6)
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
        increment: angle between beams, rad, > 0; the beams may go round up to twice.
        boxes: (W, K, 4) float32 [cx, cy, hx, hy] of W worlds, m; nboxes (W,) rows in use.
        discs: (W, D, 3) float32 [x, y, r], m; ndiscs (W,) rows in use.
        world_id: (N,) world of each scan.
        movers: (N, M, 3) moving discs [x, y, r] of each scan; rows with r <= 0 are unused.
        max_range: a beam that hits nothing nearer reads this, m.
        out: (N, B) float32, B beams; changed. A lidar inside an obstacle reads 0 all around.
    """
    _cast(pose_w, angle_min, increment, boxes, nboxes, discs, ndiscs, world_id, movers, max_range,
          out, None, None, None, None)  # fmt: skip


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
    _cast(pose_w, angle_min, increment, boxes, nboxes, discs, ndiscs, world_id, movers, max_range,
          out, box_labels, disc_labels, mover_labels, out_labels)  # fmt: skip


@njit(cache=True, nogil=True, fastmath=_FAST)
def _cast(  # type: ignore[no-untyped-def]
    pose_w, angle_min, increment, boxes, nboxes, discs, ndiscs, world_id, movers, max_range, out,
    box_labels, disc_labels, mover_labels, out_labels,
):  # fmt: skip
    beams = out.shape[1]
    chunks = (beams + _LANES - 1) // _LANES
    cos0, sin0 = np.empty(chunks * _LANES), np.empty(chunks * _LANES)
    for b in range(chunks * _LANES):
        cos0[b], sin0[b] = np.cos(angle_min + b * increment), np.sin(angle_min + b * increment)
    # rays[chunk] = directions x, y, their inverses, nearest hit: side by side for whole vectors
    rays = np.empty((chunks, 5, _LANES), np.float32)
    labels = np.empty((0 if out_labels is None else chunks, _LANES), np.int8)
    # obstacles column by column, and their silhouettes: first beam and number of beams
    walls = np.empty((4, boxes.shape[1] + _LANES), np.float32)
    circles = np.empty((discs.shape[1] + movers.shape[1], 3))
    posts = np.empty((3, len(circles) + _LANES), np.float32)
    span = np.empty((2, max(walls.shape[1], posts.shape[1])), np.float32)
    per_rad, around = np.float32(1 / increment), np.float32(_TWO_PI / increment)
    reach, last_world = np.float32(max_range), -1
    for n in range(out.shape[0]):
        x, y, yaw, w = pose_w[n, 0], pose_w[n, 1], pose_w[n, 2], world_id[n]
        xf, yf = np.float32(x), np.float32(y)
        c, s = np.cos(yaw), np.sin(yaw)
        for i in range(chunks):
            for j in range(_LANES):
                u = c * cos0[i * _LANES + j] - s * sin0[i * _LANES + j]
                v = s * cos0[i * _LANES + j] + c * sin0[i * _LANES + j]
                # 1e-18 keeps the inverse finite; an axis-parallel ray misses by far or not at all
                u = u if abs(u) > 1e-18 else 1e-18
                v = v if abs(v) > 1e-18 else 1e-18
                rays[i, 0, j], rays[i, 1, j] = u, v
                rays[i, 2, j], rays[i, 3, j] = 1 / u, 1 / v
                rays[i, 4, j] = reach
        if out_labels is not None:
            labels[:] = -1
        turned = yaw + angle_min
        turned = np.float32((turned - _TWO_PI * np.floor(turned / _TWO_PI)) / increment)
        inside, label = False, -1

        if w != last_world:  # scans of one world often follow each other
            last_world = w
            _lay_out(walls, boxes[w], nboxes[w])
            circles[: ndiscs[w]] = discs[w, : ndiscs[w]]
        _box_spans(walls, nboxes[w], xf, yf, turned, per_rad, around, reach, span)
        for k in range(nboxes[w]):
            first, length = span[0, k], span[1, k]
            if length < -1:
                inside = True
                if out_labels is not None:
                    label = box_labels[w, k]
                break
            if length < 0:
                continue
            cx, cy, hx, hy = boxes[w, k, 0] - x, boxes[w, k, 1] - y, boxes[w, k, 2], boxes[w, k, 3]
            x0, x1, y0, y1 = cx - hx, cx + hx, cy - hy, cy + hy
            # near faces (0: the lidar is between the two), and far ones, pushed out by the seam
            near_x = np.float32(x0 if x0 > _SEAM_M else (x1 if x1 < -_SEAM_M else 0.0))
            near_y = np.float32(y0 if y0 > _SEAM_M else (y1 if y1 < -_SEAM_M else 0.0))
            px = np.float32(x1 + _SEAM_M if x0 > _SEAM_M else x0 - _SEAM_M)
            qx = np.float32(x0 - _SEAM_M if x1 < -_SEAM_M else x1 + _SEAM_M)
            py = np.float32(y1 + _SEAM_M if y0 > _SEAM_M else y0 - _SEAM_M)
            qy = np.float32(y0 - _SEAM_M if y1 < -_SEAM_M else y1 + _SEAM_M)
            for turn in range(3):
                lo, hi = _chunks(first, first + length, turn, around, beams)
                for i in range(lo, hi):
                    for j in range(_LANES):
                        ix, iy = rays[i, 2, j], rays[i, 3, j]
                        near = max(near_x * ix, near_y * iy)
                        far = min(max(px * ix, qx * ix), max(py * iy, qy * iy))
                        t = near if near <= far else reach
                        if out_labels is not None and t < rays[i, 4, j]:
                            labels[i, j] = box_labels[w, k]
                        rays[i, 4, j] = min(rays[i, 4, j], t)

        fixed, count = ndiscs[w], ndiscs[w] + movers.shape[1]
        for k in range(fixed, count):
            circles[k] = movers[n, k - fixed]
        _lay_out(posts, circles, 0 if inside else count)
        _disc_spans(posts, 0 if inside else count, xf, yf, turned, per_rad, around, reach, span)
        for k in range(0 if inside else count):
            first, length = span[0, k], span[1, k]
            if length < -1:
                inside = True
                if out_labels is not None:
                    label = disc_labels[w, k] if k < fixed else mover_labels[n, k - fixed]
                break
            if length < 0:
                continue
            dx, dy = np.float32(circles[k, 0] - x), np.float32(circles[k, 1] - y)
            r2 = np.float32(circles[k, 2] * circles[k, 2])
            for turn in range(3):
                lo, hi = _chunks(first, first + length, turn, around, beams)
                for i in range(lo, hi):
                    for j in range(_LANES):
                        cross = rays[i, 0, j] * dy - rays[i, 1, j] * dx
                        chord = r2 - cross * cross
                        t = rays[i, 0, j] * dx + rays[i, 1, j] * dy - np.sqrt(max(chord, _ZERO))
                        t = t if chord >= _ZERO else reach
                        t = t if t >= _ZERO else reach
                        if out_labels is not None and t < rays[i, 4, j]:
                            labels[i, j] = (
                                disc_labels[w, k] if k < fixed else mover_labels[n, k - fixed]
                            )
                        rays[i, 4, j] = min(rays[i, 4, j], t)

        for i in range(chunks):
            for j in range(min(_LANES, beams - i * _LANES)):
                out[n, i * _LANES + j] = _ZERO if inside else rays[i, 4, j]
                if out_labels is not None:
                    out_labels[n, i * _LANES + j] = label if inside else labels[i, j]


@njit(cache=True, nogil=True, inline="always")
def _chunks(first, last, turn, around, beams):  # type: ignore[no-untyped-def]
    """Chunks [lo, hi) of rays in a span of beams: as it lies, what of it passes a full circle, and
    one circle on, for scans that end where they began."""
    if turn == 1:
        if last < around:
            return 0, 0
        first, last = _ZERO, last - around
    elif turn == 2:
        if beams <= around:
            return 0, 0
        first, last = first + around, last + around
    return int(first) // _LANES, (min(int(last) + 1, beams) + _LANES - 1) // _LANES


@njit(cache=True, nogil=True)
def _lay_out(columns, rows, count):  # type: ignore[no-untyped-def]
    """Write (count, c) rows as (c, count) columns, filled up to whole vectors from far away."""
    for c in range(columns.shape[0]):
        for k in range(count):
            columns[c, k] = rows[k, c]
        columns[c, count : _whole(count)] = _FAR_M


@njit(cache=True, nogil=True, inline="always")
def _whole(count):  # type: ignore[no-untyped-def]
    """The next multiple of a vector's length."""
    return (count + _LANES - 1) // _LANES * _LANES


@njit(cache=True, nogil=True, fastmath=_FAST)
def _box_spans(walls, count, x, y, turned, per_rad, around, reach, span):  # type: ignore[no-untyped-def]
    """First beam in [0, around) and length of each box; -1: out of reach, -2: lidar inside."""
    for k in range(_whole(count)):
        cx, cy, hx, hy = walls[0, k] - x, walls[1, k] - y, walls[2, k], walls[3, k]
        # mirrored into the first quadrant: nearest faces, then the corners at either end
        near_x, near_y = abs(cx) - hx, abs(cy) - hy
        ax = abs(cx) + hx if near_y > _ZERO else near_x
        by = abs(cy) + hy if near_x > _ZERO else near_y
        low, high = _atan2(near_y, ax), _atan2(by, near_x)
        middle = (low + high) * np.float32(0.5)
        middle = middle if cx >= _ZERO else _PI - middle
        middle = middle if cy >= _ZERO else -middle
        half = (high - low) * np.float32(0.5) + _MARGIN
        first = (middle - half) * per_rad - turned
        span[0, k] = first - around * np.floor(first / around)
        gap_x, gap_y = max(near_x, _ZERO), max(near_y, _ZERO)
        gap2 = gap_x * gap_x + gap_y * gap_y
        length = np.float32(2) * half * per_rad if gap2 < reach * reach else np.float32(-1)
        span[1, k] = length if gap2 > _ZERO else np.float32(-2)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _disc_spans(posts, count, x, y, turned, per_rad, around, reach, span):  # type: ignore[no-untyped-def]
    """As :func:`_box_spans`; a disc without a radius is out of reach."""
    for k in range(_whole(count)):
        dx, dy, r = posts[0, k] - x, posts[1, k] - y, posts[2, k]
        d2 = dx * dx + dy * dy
        ratio = min(r / np.sqrt(d2 + _TINY), np.float32(1))
        # asin(u) <= u + (pi/2 - 1) u^3
        half = ratio + np.float32(0.5708) * ratio * ratio * ratio + _MARGIN
        first = (_atan2(dy, dx) - half) * per_rad - turned
        span[0, k] = first - around * np.floor(first / around)
        length = (
            np.float32(2) * half * per_rad if d2 < (reach + r) * (reach + r) else np.float32(-1)
        )
        length = np.float32(-2) if d2 <= r * r else length
        span[1, k] = length if r > _ZERO else np.float32(-1)


@njit(cache=True, nogil=True, inline="always")
def _atan2(y, x):  # type: ignore[no-untyped-def]
    """Angle of (x, y), off by less than 0.0039 rad (Rajan 2006, eq. 7)."""
    ax, ay = abs(x), abs(y)
    a = min(ax, ay) / max(max(ax, ay), _TINY)
    t = a * (np.float32(0.78539816) + np.float32(0.273) * (np.float32(1) - a))
    t = _PI * np.float32(0.5) - t if ay > ax else t
    t = _PI - t if x < _ZERO else t
    return -t if y < _ZERO else t
