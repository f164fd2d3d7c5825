"""Static obstacles of many worlds in stacked arrays, each world stored once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .worlds import World


class WorldBank:
    """Worlds by slot. Arrays grow by doubling; a slot never moves.

    Attributes:
        boxes: (W, K, 4) float32 [cx, cy, hx, hy], m; box_labels (W, K) int8; nboxes (W,) int32.
        discs: (W, D, 3) float32 [x, y, r], m; disc_labels (W, D) int8; ndiscs (W,) int32.
    """

    def __init__(self) -> None:
        self.worlds: list[World] = []
        self._slots: dict[int, int] = {}
        self.boxes = np.zeros((1, 8, 4), np.float32)
        self.box_labels = np.zeros((1, 8), np.int8)
        self.nboxes = np.zeros(1, np.int32)
        self.discs = np.zeros((1, 8, 3), np.float32)
        self.disc_labels = np.zeros((1, 8), np.int8)
        self.ndiscs = np.zeros(1, np.int32)

    def add(self, world: World) -> int:
        """Slot of ``world``, stored at its first use (by identity: worlds are immutable)."""
        slot = self._slots.get(id(world))
        if slot is not None:
            return slot
        slot = len(self.worlds)
        rows = len(self.nboxes) if slot < len(self.nboxes) else 2 * len(self.nboxes)
        self.boxes = _grown(self.boxes, rows, len(world.boxes))
        self.box_labels = _grown(self.box_labels, rows, len(world.boxes))
        self.discs = _grown(self.discs, rows, len(world.discs))
        self.disc_labels = _grown(self.disc_labels, rows, len(world.discs))
        self.nboxes = _grown(self.nboxes, rows)
        self.ndiscs = _grown(self.ndiscs, rows)
        k, d = len(world.boxes), len(world.discs)
        self.boxes[slot, :k], self.box_labels[slot, :k] = world.boxes, world.box_labels
        self.discs[slot, :d], self.disc_labels[slot, :d] = world.discs, world.disc_labels
        self.nboxes[slot], self.ndiscs[slot] = k, d
        self.worlds.append(world)
        self._slots[id(world)] = slot
        return slot


def _grown(array: NDArray[Any], rows: int, columns: int = 0) -> NDArray[Any]:
    """The array with at least this many rows and columns, new cells zero."""
    shape = list(array.shape)
    shape[0] = max(shape[0], rows)
    if array.ndim > 1:
        shape[1] = max(shape[1], columns)
    if tuple(shape) == array.shape:
        return array
    out = np.zeros(shape, array.dtype)
    out[tuple(slice(0, n) for n in array.shape)] = array
    return out
