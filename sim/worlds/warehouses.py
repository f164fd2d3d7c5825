"""Procedural warehouses: racks, aisles, cross aisles, a row of docks, dropped pallets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .world import CRATE, PALLET, SHELF, Draft, World, first_accepted

APRON_M = 3.2
"""Free strip in front of the docks."""
DOCK_PITCH_M = 3.0
PALLET_M = (1.2, 0.8)
"""EUR pallet, length and width."""
PASSAGE_M = 1.25
"""Least width that a dropped pallet leaves."""


def warehouse(
    seed: int,
    size: tuple[float, float] = (24.0, 16.0),
    aisle_m: tuple[float, float] = (1.2, 2.5),
    pallets: int = 6,
) -> World:
    """A warehouse whose racks run along x, with docks along its left side.

    Args:
        seed: same seed, same warehouse.
        size: inner floor (width, depth), m, at least (14, 8).
        aisle_m: narrowest and widest aisle, m; the narrowest at least 1.2.
        pallets: pallets dropped in aisles wide enough to pass them and in the apron, at most.

    Returns:
        A world in which a disc of 0.42 m radius reaches every dock and nearly all free floor.

    Raises:
        ValueError: an argument is off, or nothing passable was found.
    """
    if not (14 <= size[0] <= 200 and 8 <= size[1] <= 200):
        raise ValueError(f"size must be (14..200, 8..200) m, got {size}")
    if not 1.2 <= aisle_m[0] < aisle_m[1] <= 6:
        raise ValueError(f"aisle_m must be 1.2 <= least < most <= 6 m, got {aisle_m}")
    if pallets < 0:
        raise ValueError(f"pallets must be >= 0, got {pallets}")
    return first_accepted("warehouse", seed, lambda rng: _draw(rng, seed, size, aisle_m, pallets))


def _draw(
    rng: np.random.Generator,
    seed: int,
    size: tuple[float, float],
    aisle: tuple[float, float],
    pallets: int,
) -> World | None:
    draft = Draft(*size)
    depths, aisles = _widths(rng, size[1], aisle)
    left, right = -draft.x + APRON_M, draft.x - rng.uniform(1.4, 2.4)
    cuts = _cross_aisles(rng, left, right)
    runs = list(zip([left, *cuts[1::2]], [*cuts[::2], right], strict=True))
    floor: list[
        tuple[float, float, float, float]
    ] = []  # stretches of aisle wide enough for a pallet
    y = -draft.y
    for width, depth in zip(aisles, [*depths, 0.0], strict=True):
        if width >= PALLET_M[1] + PASSAGE_M:
            floor += [(x0, y, x1, y + width) for x0, x1 in runs if x1 - x0 > 2 * PALLET_M[0]]
        y += width
        if depth:
            for x0, x1 in runs:
                if rng.random() < 0.93:
                    draft.add(SHELF, x0, y, x1, y + depth)
            y += depth
    docks = np.arange(-draft.y + 2.0, draft.y - 1.9, DOCK_PITCH_M)
    for dock in docks[1:]:  # bumpers between the docks
        draft.add(
            CRATE,
            -draft.x,
            dock - DOCK_PITCH_M / 2 - 0.15,
            -draft.x + 0.8,
            dock - DOCK_PITCH_M / 2 + 0.15,
        )
    for _ in range(int(rng.integers(pallets + 1))):
        if floor and rng.random() < 0.75:
            x0, y0, x1, y1 = floor.pop(int(rng.integers(len(floor))))
            x, along, across = rng.uniform(x0, x1 - PALLET_M[0]), *PALLET_M
            edge = y0 if rng.random() < 0.5 else y1 - across
            draft.add(PALLET, x, edge, x + along, edge + across)
        else:
            x, edge = left - PALLET_M[1], rng.uniform(-draft.y, draft.y - PALLET_M[0])
            draft.add(PALLET, x, edge, x + PALLET_M[1], edge + PALLET_M[0])
    world = draft.world("warehouse", seed, [(-draft.x + 0.75, dock, np.pi) for dock in docks])
    corner = (draft.x - 0.7, draft.y - 0.6)
    ok = world.reachable_share() > 0.97 and world.connects([*world.docks[:, :2], corner])
    return world if ok else None


def _widths(
    rng: np.random.Generator, total: float, aisle: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depths of n racks and widths of the n + 1 aisles around them that fill ``total`` exactly."""
    low, high = aisle
    while True:
        n = int(rng.integers(1, int(total / (low + 0.9)) + 1))
        depths = rng.uniform(0.9, 1.2, n) * rng.integers(1, 3, n)  # single or back to back
        left = total - depths.sum()
        if low * (n + 1) < left < high * (n + 1):
            break
    widths = rng.uniform(low, high, n + 1)
    spare = left - widths.sum()
    # stretch all towards the widest, or shrink all towards the narrowest, until they fit
    room = (high - widths) if spare > 0 else (widths - low)
    return depths, widths + room * spare / room.sum()


def _cross_aisles(rng: np.random.Generator, left: float, right: float) -> list[float]:
    """Edges x of the cross aisles, ascending, one per 8 m of rack or so."""
    count = max(int((right - left) / rng.uniform(7, 11)), 1)
    share = (right - left) / (count + 1)
    edges: list[float] = []
    for k in range(count):
        centre = left + share * (k + 1) + rng.uniform(-0.2, 0.2) * share
        half = rng.uniform(0.75, 1.25)
        edges += [centre - half, centre + half]
    return edges
