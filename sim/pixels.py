"""First-person pixels of planar worlds by casting one ray per image column.

All obstacles stand on the floor and are equally high, the camera looks level from below their
tops: so the nearest hit in a column hides what is behind it, and the column is sky, wall, floor
from top to bottom (as in Wolfenstein 3D, id Software 1992). Agrees with MuJoCo's renderer pixel by
pixel, hundreds of times cheaper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv._jit import njit

from .worlds import LABELS, World

SKY, FLOOR = -1, -2
"""Pixel labels beside the indices into ``sim.worlds.LABELS``."""
PALETTE = np.array(
    [(176, 172, 165), (201, 120, 62), (190, 155, 98), (120, 96, 70), (128, 140, 150),
     (110, 104, 98), (205, 70, 80), (62, 120, 190), (150, 111, 72), (70, 72, 78), (74, 140, 70),
     (172, 140, 104), (225, 228, 232), (160, 190, 205), (238, 236, 228), (210, 40, 36),
     (96, 110, 84), (134, 128, 150)],
    np.uint8,
)  # fmt: skip
"""(labels, 3) RGB of a lit wall of each label."""
GROUND = np.array([(92, 98, 96), (118, 124, 121), (198, 216, 232)], np.uint8)
"""RGB of the dark and the light floor tile, and of the sky."""
TILE_M = 0.5
"""Side of a floor tile."""
_DARK, _LIGHT, _SKY = (np.uint32(int(r) | int(g) << 8 | int(b) << 16) for r, g, b in GROUND)
_NEAR = np.float32(1e-3)
_SEAM = np.float32(4e-6)
_TINY = np.float32(1e-12)

assert len(PALETTE) == len(LABELS)


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera. Square pixels; the optical axis is the x axis of its pose."""

    width: int = 64
    height: int = 64
    fovy_deg: float = 90.0
    """Vertical field of view, as MuJoCo's ``fovy``."""
    z_m: float = 0.4
    """Height above the floor; below the tops of the obstacles."""
    max_m: float = 50.0
    """Walls are drawn up to this depth."""

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1 or not 1 <= self.fovy_deg <= 150:
            raise ValueError(f"width, height >= 1 and fovy_deg in [1, 150] wanted, got {self}")
        if not (self.z_m > 0 and self.max_m > 0):
            raise ValueError(f"z_m and max_m must be > 0, got {self.z_m} and {self.max_m}")

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return self.height / 2 / math.tan(math.radians(self.fovy_deg) / 2)


class Frames(NamedTuple):
    """Images of n cameras."""

    rgb: NDArray[np.uint8]
    """(n, height, width, 3)."""
    labels: NDArray[np.int8]
    """(n, height, width) index into LABELS, or SKY, or FLOOR."""
    depth: NDArray[np.float32]
    """(n, height, width) distance along the optical axis, m; ``max_m`` at most."""


def frames(
    world: World,
    camera: Camera,
    pose_w: ArrayLike,
    movers: ArrayLike | None = None,
    mover_label: int = 6,
) -> Frames:
    """Images seen from (n, 3) camera poses [x, y, yaw] in one world.

    Args:
        world: what is seen.
        camera: shared by all poses.
        pose_w: (n, 3) m and rad.
        movers: (M, 3) discs [x, y, r] beside the world's own, m; None for none.
        mover_label: their label, a person unless told.

    Raises:
        ValueError: a shape is off, or the camera is not below the obstacles' tops.
    """
    pose = np.ascontiguousarray(pose_w, dtype=np.float64)
    if pose.ndim != 2 or pose.shape[1] != 3:
        raise ValueError(f"pose_w must be (n, 3), got {pose.shape}")
    if not camera.z_m < world.height_m:
        raise ValueError(f"camera.z_m must be below {world.height_m} m, got {camera.z_m}")
    moving = (
        np.zeros((0, 3)) if movers is None else np.asarray(movers, dtype=np.float64).reshape(-1, 3)
    )
    n, shape = len(pose), (len(pose), camera.height, camera.width)
    out = Frames(
        np.empty((*shape, 3), np.uint8), np.empty(shape, np.int8), np.empty(shape, np.float32)
    )
    draw(
        pose, camera.focal_px, camera.z_m, world.height_m, camera.max_m,
        world.boxes[None], world.box_labels[None], np.array([len(world.boxes)], np.int32),
        world.discs[None], world.disc_labels[None], np.array([len(world.discs)], np.int32),
        np.zeros(n, np.int32), np.broadcast_to(moving, (n, *moving.shape)).copy(),
        np.full((n, len(moving)), mover_label, np.int8), out.rgb, out.labels, out.depth,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz", "reassoc", "nnan"})
def draw(  # type: ignore[no-untyped-def]
    pose_w, focal_px, z_m, height_m, max_m, boxes, box_labels, nboxes, discs, disc_labels, ndiscs,
    world_id, movers, mover_labels, rgb, labels, depth,
):  # fmt: skip
    """Draw N images into ``rgb`` (N, H, W, 3) uint8, and into ``labels`` (N, H, W) int8 and
    ``depth`` (N, H, W) float32 unless they are None. Releases the GIL.

    Args:
        pose_w: (N, 3) float64 camera poses, m and rad.
        focal_px, z_m, max_m: see :class:`Camera`; height_m: of every obstacle.
        boxes, nboxes, discs, ndiscs, world_id, movers: as in :func:`sim.lidar.cast`.
        box_labels, disc_labels, mover_labels: (W, K), (W, D), (N, M) int8.
    """
    rows, columns = rgb.shape[1], rgb.shape[2]
    dx, dy = np.empty(columns, np.float32), np.empty(columns, np.float32)
    ix, iy = np.empty(columns, np.float32), np.empty(columns, np.float32)
    hit, what = np.empty(columns, np.float32), np.empty(columns, np.int32)
    top, bottom = np.empty(columns, np.float32), np.empty(columns, np.float32)
    paint, label = np.empty(columns, np.uint32), np.empty(columns, np.int8)
    # colours of a row as words of red, green and blue from the lowest byte up, and packed
    colour = np.zeros(-(-columns // 4) * 4, np.uint32)
    words = np.empty(3 * (len(colour) // 4), np.uint32)
    packed, lines = words.view(np.uint8), rgb.reshape(rgb.shape[0], rows, 3 * columns)
    tile = np.float32(1 / TILE_M)
    for n in range(rgb.shape[0]):
        x, y, yaw, w = pose_w[n, 0], pose_w[n, 1], pose_w[n, 2], world_id[n]
        c, s = np.cos(yaw), np.sin(yaw)
        for b in range(columns):
            # a ray of depth 1: forward plus its share to the right, (s, -c)
            side = (b + 0.5 - 0.5 * columns) / focal_px
            u, v = c + side * s, s - side * c
            u, v = (u if abs(u) > 1e-18 else 1e-18), (v if abs(v) > 1e-18 else 1e-18)
            dx[b], dy[b], ix[b], iy[b] = u, v, 1 / u, 1 / v
            hit[b], what[b] = max_m, -1
        half = 0.5 * columns / focal_px
        for k in range(nboxes[w]):
            cx, cy, hx, hy = boxes[w, k, 0] - x, boxes[w, k, 1] - y, boxes[w, k, 2], boxes[w, k, 3]
            # outside the wedge that the camera sees?
            ahead = c * cx + s * cy + abs(c) * hx + abs(s) * hy
            right = abs(s * cx - c * cy) - abs(s) * hx - abs(c) * hy
            if ahead <= 0 or right > ahead * half:
                continue
            x0, x1 = np.float32(cx - hx), np.float32(cx + hx)
            y0, y1 = np.float32(cy - hy), np.float32(cy + hy)
            for b in range(columns):
                tx0, tx1, ty0, ty1 = x0 * ix[b], x1 * ix[b], y0 * iy[b], y1 * iy[b]
                near = max(max(min(tx0, tx1), min(ty0, ty1)), _NEAR)
                far = min(max(tx0, tx1), max(ty0, ty1))
                nearer = (near <= far + _SEAM) and (near < hit[b])
                hit[b] = near if nearer else hit[b]
                what[b] = k if nearer else what[b]
        fixed = ndiscs[w]
        for k in range(fixed + movers.shape[1]):
            if k < fixed:
                px, py = np.float32(discs[w, k, 0] - x), np.float32(discs[w, k, 1] - y)
                r = discs[w, k, 2]
            else:
                m = k - fixed
                px, py = np.float32(movers[n, m, 0] - x), np.float32(movers[n, m, 1] - y)
                r = np.float32(movers[n, m, 2])
            if r <= 0 or c * px + s * py + r <= 0:
                continue
            for b in range(columns):
                length2 = dx[b] * dx[b] + dy[b] * dy[b]
                along = dx[b] * px + dy[b] * py
                cross = dx[b] * py - dy[b] * px
                chord = r * r * length2 - cross * cross
                root = np.sqrt(max(chord, np.float32(0)))
                near = max((along - root) / length2, _NEAR)
                nearer = (chord >= 0) and (along + root > 0) and (near < hit[b])
                hit[b] = near if nearer else hit[b]
                what[b] = k + nboxes[w] if nearer else what[b]
        for b in range(columns):
            k = what[b]
            if k < 0:
                top[b], bottom[b], label[b] = 0.5 * rows, 0.5 * rows, SKY
                continue
            top[b] = 0.5 * rows - focal_px * (height_m - z_m) / hit[b]
            bottom[b] = 0.5 * rows + focal_px * z_m / hit[b]
            if k < nboxes[w]:
                label[b] = box_labels[w, k]
                # which face: x where the entry through the x slab is the later one
                a = abs(boxes[w, k, 0] - x - hit[b] * dx[b]) - boxes[w, k, 2]
                e = abs(boxes[w, k, 1] - y - hit[b] * dy[b]) - boxes[w, k, 3]
                nx = 1.0 if a > e else 0.0
            else:
                k -= nboxes[w]
                if k < fixed:
                    label[b] = disc_labels[w, k]
                    nx = abs(x + hit[b] * dx[b] - discs[w, k, 0]) / discs[w, k, 2]
                else:
                    label[b] = mover_labels[n, k - fixed]
                    nx = abs(x + hit[b] * dx[b] - movers[n, k - fixed, 0]) / movers[n, k - fixed, 2]
            light = 0.72 + 0.28 * min(nx, 1.0)
            paint[b] = np.uint32(0)
            for i in range(3):
                paint[b] |= np.uint32(PALETTE[label[b], i] * light) << np.uint32(8 * i)
        for row in range(rows):
            at = np.float32(row + 0.5)
            down = at - np.float32(0.5 * rows)
            # depth at which this row meets the floor
            ground = np.float32(z_m * focal_px) / max(down, _TINY)
            reached = down > 0 and ground < max_m
            x_tile, y_tile = np.float32(x) * tile, np.float32(y) * tile
            step = ground * tile
            for b in range(columns):
                ground_paint = _SKY if down <= 0 else _DARK
                if reached:
                    fx = np.int32(np.floor(x_tile + step * dx[b]))
                    fy = np.int32(np.floor(y_tile + step * dy[b]))
                    ground_paint = _LIGHT if (fx + fy) & np.int32(1) else _DARK
                wall = (at >= top[b]) and (at < bottom[b])
                colour[b] = paint[b] if wall else ground_paint
            for q in range(len(words) // 3):  # four pixels of 3 bytes fill three words
                p0, p1 = colour[4 * q], colour[4 * q + 1]
                p2, p3 = colour[4 * q + 2], colour[4 * q + 3]
                words[3 * q] = p0 | (p1 << np.uint32(24))
                words[3 * q + 1] = (p1 >> np.uint32(8)) | (p2 << np.uint32(16))
                words[3 * q + 2] = (p2 >> np.uint32(16)) | (p3 << np.uint32(8))
            for b in range(3 * columns):  # a loop: numba's slice assignment takes twice the rest
                lines[n, row, b] = packed[b]
            if labels is not None:
                for b in range(columns):
                    wall = (at >= top[b]) and (at < bottom[b])
                    labels[n, row, b] = label[b] if wall else (FLOOR if down > 0 else SKY)
            if depth is not None:
                for b in range(columns):
                    wall = (at >= top[b]) and (at < bottom[b])
                    behind = min(ground, np.float32(max_m)) if down > 0 else np.float32(max_m)
                    depth[n, row, b] = hit[b] if wall else behind
