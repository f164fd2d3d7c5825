"""Cover occupied cells with few rectangles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv._jit import njit


def cover(full: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Few rectangles whose union is exactly the full cells; they may overlap.

    Greedy: from each cell not yet covered two rectangles are grown, along its row first and along
    its column first, each as far as cells are full; the one that covers more new cells is kept.

    Args:
        full: (H, W) bool.

    Returns:
        (R, 4) int32 [ix0, iy0, ix1, iy1], upper ends exclusive.
    """
    if full.ndim != 2 or full.dtype != np.bool_:
        raise ValueError(f"full must be (H, W) bool, got {full.shape} {full.dtype}")
    return _cover(np.ascontiguousarray(full))  # type: ignore[no-any-return]


@njit(cache=True)
def _cover(full):  # type: ignore[no-untyped-def]
    height, width = full.shape
    total = np.zeros(
        (height + 1, width + 1), np.int32
    )  # summed area: a row or column check is O(1)
    for y in range(height):
        line = 0
        for x in range(width):
            line += full[y, x]
            total[y + 1, x + 1] = total[y, x + 1] + line
    done = np.zeros((height, width), np.bool_)
    out = np.empty((256, 4), np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            if done[y, x] or not full[y, x]:
                continue
            a = _grow(total, x, y, True)
            b = _grow(total, x, y, False)
            best = a if _new(done, a) >= _new(done, b) else b
            done[best[1] : best[3], best[0] : best[2]] = True
            if count == len(out):
                longer = np.empty((2 * count, 4), np.int32)
                longer[:count] = out
                out = longer
            out[count] = best
            count += 1
    return out[:count].copy()


@njit(cache=True)
def _grow(total, x, y, along_row):  # type: ignore[no-untyped-def]
    """The largest full rectangle around a full cell that grows along one axis first."""
    box = np.array([x, y, x + 1, y + 1], np.int32)
    limits = np.array([0, 0, total.shape[1] - 1, total.shape[0] - 1])
    for k in range(2):
        axis = k if along_row else 1 - k
        for side in (axis, axis + 2):
            step = -1 if side < 2 else 1
            while box[side] != limits[side]:
                strip = box.copy()  # one more row or column, outside the box
                strip[side] += step
                strip[(side + 2) % 4] = box[side]
                want = (strip[2] - strip[0]) * (strip[3] - strip[1])
                if _sum(total, strip) != want:
                    break
                box[side] += step
    return box


@njit(cache=True)
def _sum(total: Any, box: Any) -> Any:
    """Full cells in a box."""
    return (
        total[box[3], box[2]]
        - total[box[1], box[2]]
        - total[box[3], box[0]]
        + total[box[1], box[0]]
    )


@njit(cache=True)
def _new(done, box):  # type: ignore[no-untyped-def]
    """Cells of a box that nothing covers yet."""
    count = 0
    for y in range(box[1], box[3]):
        for x in range(box[0], box[2]):
            count += not done[y, x]
    return count
