"""Rays against a height field and upright trunks, exact on the triangles that MuJoCo collides with.

MuJoCo tests every triangle in a ray's bounding box: 40 microseconds a ray here. Walking from cell
to cell costs one or two. ``mj_ray`` is the oracle of the tests; not ``mj_multiRay``, which in
MuJoCo 4.0.0 sees no height field along some steep rays on which ``mj_ray`` does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rnd_agv._jit import njit


def cast(
    origin_w: NDArray[np.float64],
    directions_w: NDArray[np.float64],
    heights: NDArray[np.float32],
    grid_w: tuple[float, float, float],
    trunks: NDArray[np.float64],
    range_max: float,
) -> NDArray[np.float64]:
    """(R,) distance along each ray to the ground or a trunk, m; ``range_max`` if there is none.

    Args:
        origin_w: (3,) above the ground, m.
        directions_w: (R, 3) of unit length.
        heights: (H, W) m, see :class:`sim.worlds.terrain.Terrain`.
        grid_w: x and y of point (0, 0), and the distance between points, m.
        trunks: (D, 5) x, y, radius, foot, top, m.
        range_max: m.

    Raises:
        ValueError: an array has another shape.
    """
    if origin_w.shape != (3,) or directions_w.ndim != 2 or directions_w.shape[1] != 3:
        raise ValueError(
            f"origin_w (3,) and directions_w (R, 3) wanted, got {origin_w.shape}, "
            f"{directions_w.shape}"
        )
    if trunks.ndim != 2 or trunks.shape[1] != 5:
        raise ValueError(f"trunks must be (D, 5), got {trunks.shape}")
    near = np.hypot(trunks[:, 0] - origin_w[0], trunks[:, 1] - origin_w[1])
    near = near < range_max + trunks[:, 2]
    out = np.full(len(directions_w), range_max)
    _cast(origin_w, directions_w, heights, *grid_w, trunks[near], range_max, out)
    return out


@njit(cache=True, nogil=True)
def _cast(  # type: ignore[no-untyped-def]
    origin, directions, heights, x0, y0, cell, trunks, range_max, out
):  # fmt: skip
    for k in range(len(directions)):
        dx, dy, dz = directions[k]
        reach = range_max
        for t in range(len(trunks)):
            reach = min(reach, _trunk(origin, dx, dy, dz, trunks[t], reach))
        out[k] = _ground(origin, dx, dy, dz, heights, x0, y0, cell, reach)


@njit(cache=True, nogil=True)
def _trunk(origin, dx, dy, dz, trunk, reach):  # type: ignore[no-untyped-def]
    """Distance to an upright cylinder, or ``reach``."""
    px, py, r = origin[0] - trunk[0], origin[1] - trunk[1], trunk[2]
    a, b, c = dx * dx + dy * dy, px * dx + py * dy, px * px + py * py - r * r
    if c > 0 and a > 1e-12 and b < 0 and b * b >= a * c:  # from outside, through the side
        t = (-b - math.sqrt(b * b - a * c)) / a
        if trunk[3] <= origin[2] + t * dz <= trunk[4]:
            return min(t, reach)
    if origin[2] > trunk[4] and dz < 0:  # from above, onto the top
        t = (trunk[4] - origin[2]) / dz
        if (px + t * dx) ** 2 + (py + t * dy) ** 2 <= r * r:
            return min(t, reach)
    return reach


@njit(cache=True, nogil=True)
def _ground(  # type: ignore[no-untyped-def]
    origin, dx, dy, dz, heights, x0, y0, cell, reach
):  # fmt: skip
    """Distance to the ground, or ``reach``. Along a ray the gap to a triangle is linear in t."""
    height, width = heights.shape
    x, y, z = (origin[0] - x0) / cell, (origin[1] - y0) / cell, origin[2]
    u, v = dx / cell, dy / cell
    ix, iy = int(math.floor(x)), int(math.floor(y))
    step_x, step_y = (1 if u > 0 else -1), (1 if v > 0 else -1)
    every_x = abs(1 / u) if abs(u) > 1e-12 else np.inf
    every_y = abs(1 / v) if abs(v) > 1e-12 else np.inf
    next_x = ((ix + 1 - x) if u > 0 else (x - ix)) * every_x if every_x < np.inf else np.inf
    next_y = ((iy + 1 - y) if v > 0 else (y - iy)) * every_y if every_y < np.inf else np.inf
    t = 0.0
    while t < reach and 0 <= ix < width - 1 and 0 <= iy < height - 1:
        end = min(next_x, next_y, reach)
        h00, h10 = heights[iy, ix], heights[iy, ix + 1]
        h01, h11 = heights[iy + 1, ix], heights[iy + 1, ix + 1]
        if min(z + t * dz, z + end * dz) <= max(h00, h10, h01, h11):
            # where the ray crosses the diagonal a = b of the cell
            a, b = x + t * u - ix, y + t * v - iy
            split = t + (b - a) / (u - v) if abs(u - v) > 1e-12 else end
            start = t
            for part in range(2):
                low, high = (start, min(split, end)) if part == 0 else (max(split, start), end)
                if split <= start or split >= end:
                    if part == 1:
                        break
                    low, high = start, end
                middle = 0.5 * (low + high)
                first = (x + middle * u - ix) >= (y + middle * v - iy)
                gap_low = _gap(low, x, y, z, u, v, dz, ix, iy, first, h00, h10, h01, h11)
                gap_high = _gap(high, x, y, z, u, v, dz, ix, iy, first, h00, h10, h01, h11)
                if gap_low <= 0:
                    return low
                if gap_high < 0:
                    return low + (high - low) * gap_low / (gap_low - gap_high)
        t = end
        if next_x < next_y:
            ix += step_x
            next_x += every_x
        else:
            iy += step_y
            next_y += every_y
    return reach


@njit(cache=True, nogil=True)
def _gap(  # type: ignore[no-untyped-def]
    t, x, y, z, u, v, dz, ix, iy, first, h00, h10, h01, h11
):  # fmt: skip
    """Height of the ray at t above the plane of one of the cell's two triangles."""
    a, b = x + t * u - ix, y + t * v - iy
    if first:
        ground = h00 + a * (h10 - h00) + b * (h11 - h10)
    else:
        ground = h00 + b * (h01 - h00) + a * (h11 - h01)
    return z + t * dz - ground
