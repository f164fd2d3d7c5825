"""Floors of rooms: binary space partition (BSP), a door in every wall, some furniture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .world import CRATE, WALL, Draft, World, first_accepted

THICK_M = 0.2
"""Thickness of inner walls."""


@dataclass(frozen=True)
class _Wall:
    """A wall from ``low`` to ``high`` along one axis, at ``at`` on the other."""

    along_y: bool
    at: float
    low: float
    high: float

    def box(self, low: float, high: float) -> tuple[float, float, float, float]:
        """The stretch [low, high] of it as (x0, y0, x1, y1)."""
        a, b = self.at - THICK_M / 2, self.at + THICK_M / 2
        return (a, low, b, high) if self.along_y else (low, a, high, b)


def rooms(
    seed: int,
    size: tuple[float, float] = (20.0, 14.0),
    room_m: float = 3.5,
    door_m: tuple[float, float] = (1.1, 1.6),
    loop_factor: float = 0.3,
    crates: int = 6,
) -> World:
    """A floor split into rooms with doors, which :meth:`World.shut` shuts.

    Args:
        seed: same seed, same floor.
        size: inner floor (width, depth), m.
        room_m: least side of a room, m, at least twice the widest door.
        door_m: narrowest and widest door, m; at least 1.1.
        loop_factor: share of walls with a second door.
        crates: at most so many crates stand about.

    Raises:
        ValueError: an argument is off, or nothing passable was found.
    """
    if not 1.1 <= door_m[0] <= door_m[1] or room_m < 2 * door_m[1]:
        raise ValueError(f"1.1 <= door_m and room_m >= 2 doors wanted, got {door_m}, {room_m}")
    if not all(2 * room_m <= side <= 200 for side in size):
        raise ValueError(f"size must be within [2 rooms, 200] m, got {size}")
    if not 0 <= loop_factor <= 1 or crates < 0:
        raise ValueError(f"loop_factor in [0, 1], crates >= 0 wanted, got {loop_factor}, {crates}")

    def draw(rng: np.random.Generator) -> World | None:
        draft = Draft(*size)
        walls: list[_Wall] = []
        cells: list[tuple[float, float, float, float]] = []
        _split(rng, (-draft.x, -draft.y, draft.x, draft.y), room_m, walls, cells)
        for wall in walls:
            doors = _doors(rng, wall, walls, door_m, loop_factor)
            edges = [wall.low, *(edge for door in doors for edge in door), wall.high]
            for low, high in zip(edges[::2], edges[1::2], strict=True):
                if high - low > 1e-6:
                    draft.add(WALL, *wall.box(low, high))
            for door in doors:
                draft.door(*wall.box(*door))
        world = draft.world("rooms", seed)
        centres = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in cells]
        if not world.connects(centres):
            return None
        for _ in range(int(rng.integers(crates + 1))):
            x0, y0, x1, y1 = cells[int(rng.integers(len(cells)))]
            hx, hy = rng.uniform(0.25, 0.5, 2)
            x, y = rng.uniform([x0 + 1, y0 + 1], [x1 - 1, y1 - 1])
            draft.add(CRATE, x - hx, y - hy, x + hx, y + hy)
            more = draft.world("rooms", seed)
            if more.reachable_share() > 0.99:
                world = more
            else:
                draft.drop()
        return world

    return first_accepted("rooms", seed, draw)


def _split(
    rng: np.random.Generator,
    cell: tuple[float, float, float, float],
    room: float,
    walls: list[_Wall],
    cells: list[tuple[float, float, float, float]],
) -> None:
    """Split a cell across its longer side until rooms are small, into ``walls`` and ``cells``."""
    x0, y0, x1, y1 = cell
    width, depth = x1 - x0, y1 - y0
    along_y = width > depth  # a wall along y splits the width
    if max(width, depth) < 2 * room or (max(width, depth) < 2.6 * room and rng.random() < 0.3):
        cells.append(cell)
        return
    low, high = (x0, x1) if along_y else (y0, y1)
    at = float(rng.uniform(low + room, high - room))
    walls.append(_Wall(along_y, at, *((y0, y1) if along_y else (x0, x1))))
    parts = (
        ((x0, y0, at, y1), (at, y0, x1, y1)) if along_y else ((x0, y0, x1, at), (x0, at, x1, y1))
    )
    for part in parts:
        _split(rng, part, room, walls, cells)


def _doors(
    rng: np.random.Generator,
    wall: _Wall,
    walls: list[_Wall],
    door_m: tuple[float, float],
    again: float,
) -> list[tuple[float, float]]:
    """One or two door openings, ascending, clear of every wall that ends at this one."""
    joints = [
        other.at for other in walls
        if other.along_y != wall.along_y and wall.low < other.at < wall.high
        and min(abs(other.low - wall.at), abs(other.high - wall.at)) < 1e-9
    ]  # fmt: skip
    edges = sorted([wall.low, *joints, wall.high])
    spans = [(a + 0.4, b - 0.4) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    spans = [(a, b) for a, b in spans if b - a >= door_m[1]]
    count = min(1 + int(rng.random() < again), len(spans))
    doors = []
    for k in sorted(rng.choice(len(spans), count, replace=False)) if spans else ():
        width = rng.uniform(*door_m)
        low = rng.uniform(spans[k][0], spans[k][1] - width)
        doors.append((float(low), float(low + width)))
    return doors
