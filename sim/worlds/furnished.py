"""Floors of an office building: corridors, rooms of types in zones, things of classes in them.

Two parallel corridors and one or two that join them, rooms on both sides. Each of the four wings
is of a zone; a room's type is drawn for its zone, what stands in it for its type, both from a
:class:`toponav.prior.Prior`. Things are low boxes at the walls, labelled with their class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toponav.prior import Prior, office_floor

from .buildings import THICK_M
from .world import LABELS, WALL, Draft, World

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1, m."""
DOOR_M = (1.1, 1.4)
"""Narrowest and widest door."""
CLEAR_M = 0.9
"""Things keep this far from the middle of a door's leaf."""
GAP_M = 0.15
"""Things are this far apart, or touch the wall they stand at."""
WIDTH_M = {"office": (3.0, 4.5), "meeting": (4.0, 6.0), "kitchen": (3.2, 4.5), "wc": (2.7, 3.3),
           "lab": (5.0, 8.0), "storage": (2.9, 4.5)}  # fmt: skip
"""How far rooms reach along their corridor; their depth is the row's."""
SIZE_M = {"desk": (1.4, 0.7), "printer": (0.6, 0.5), "plant": (0.4, 0.4), "table": (1.4, 0.8),
          "fridge": (0.6, 0.6), "sink": (0.6, 0.45), "toilet": (0.4, 0.6),
          "extinguisher": (0.3, 0.25), "workbench": (1.8, 0.7),
          "cabinet": (0.9, 0.45)}  # fmt: skip
"""Length along the wall and depth of things."""


@dataclass(frozen=True)
class Room:
    """A room or a corridor."""

    type: str
    zone: str
    """"" for corridors."""
    box: Box
    """Inner floor."""


@dataclass(frozen=True)
class Door:
    """An opening in a wall."""

    x: float
    y: float
    along_y: bool
    """Does the wall run along y?"""
    width_m: float


@dataclass(frozen=True, eq=False)
class Building:
    """A world and what is where in it."""

    world: World
    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    things: NDArray[np.int64]
    """(M,) which of the world's boxes are things."""

    def boxes_of(self, name: str) -> NDArray[np.float64]:
        """(k, 4) [cx, cy, hx, hy] of the things of a class, m."""
        label = LABELS.index(name)
        rows = self.things[self.world.box_labels[self.things] == label]
        return np.asarray(self.world.boxes[rows], np.float64)

    def room_at(self, xy: NDArray[np.float64]) -> Room | None:
        """The room that a point (2,) lies in."""
        for room in self.rooms:
            x0, y0, x1, y1 = room.box
            if x0 <= xy[0] <= x1 and y0 <= xy[1] <= y1:
                return room
        return None


def furnished(
    seed: int, size: tuple[float, float] = (34.0, 24.0), prior: Prior | None = None
) -> Building:
    """A furnished floor; equal seeds give equal floors.

    Args:
        seed: >= 0.
        size: inner floor (width, depth), m, at least (24, 20).
        prior: what rooms and things are drawn from; its types and classes are ours.

    Raises:
        ValueError: an argument is off.
    """
    if seed < 0 or size[0] < 24 or size[1] < 20:
        raise ValueError(f"seed >= 0 and size >= (24, 20) wanted, got {seed} and {size}")
    prior = prior or office_floor()
    for attempt in range(20):
        plan = _Plan(np.random.default_rng([seed, attempt, 77]), size, prior)
        building = plan.build(seed)
        if building.world.reachable_share() > 0.98:
            return building
    raise ValueError(f"seed {seed} gave no floor whose rooms can be reached, size {size}")


class _Plan:
    """One floor while it is drawn."""

    def __init__(self, rng: np.random.Generator, size: tuple[float, float], prior: Prior) -> None:
        self.rng, self.prior, self.draft = rng, prior, Draft(*size)
        self.rooms: list[Room] = []
        self.doors: list[Door] = []
        self.things: list[int] = []
        self.gaps: dict[float, list[tuple[float, float]]] = {}  # openings of walls along x, by y

    def build(self, seed: int) -> Building:
        """Corridors, rooms, walls, then things."""
        x, y = self.draft.x, self.draft.y
        wide = self.rng.uniform(1.9, 2.4, 3)
        depth = (2 * y - wide[0] - wide[1] - 5 * THICK_M) / 4
        depths = depth + self.rng.uniform(-0.5, 0.5, 4)
        depths *= 4 * depth / depths.sum()
        edges = [-y]  # y where row, corridor, row, row, corridor, row begin
        for step in (depths[0], wide[0], depths[1], depths[2], wide[1], depths[3]):
            edges.append(edges[-1] + step + THICK_M)
        self.crossing = [self._crossing(wide[2])]
        if self.rng.random() < 0.5:  # and one at an end, so that there is a loop
            low = -x if self.rng.random() < 0.5 else x - wide[2]
            self.crossing.append((low, low + wide[2]))
        zones = self.rng.choice(len(self.prior.zones), 4, p=self.prior.zone)
        for corridor, (below, above) in enumerate(((0, 1), (2, 3))):
            # rows 0 and 1 lie at corridor 0; edges 0, 2 | 3, 5 begin them
            first = 3 * corridor
            y0, y1 = edges[first + 1], edges[first + 2] - THICK_M
            self.rooms.append(Room("corridor", "", (-x, y0, x, y1)))
            self._row(edges[first], y0 - THICK_M, y0 - THICK_M / 2, zones[2 * corridor :][:2],
                      crossed=below == 2)  # fmt: skip
            self._row(edges[first + 2], edges[first + 3] - THICK_M, y1 + THICK_M / 2,
                      zones[2 * corridor :][:2], crossed=above == 1)  # fmt: skip
        for a, b in self.crossing:
            y0, y1 = edges[2] - THICK_M, edges[4]
            self.rooms.append(Room("corridor", "", (a, y0, b, y1)))
        self._walls_along_x(edges)
        for room in self.rooms:
            self._furnish(room)
        world = self.draft.world("furnished", seed)
        return Building(world, tuple(self.rooms), tuple(self.doors), np.array(self.things))

    def _crossing(self, width: float) -> tuple[float, float]:
        """Span in x of the corridor that joins the two, somewhere in the middle."""
        low = self.rng.uniform(-0.2, 0.2) * self.draft.x - width / 2
        return float(low), float(low + width)

    def _row(
        self, y0: float, y1: float, door_y: float, zones: NDArray[np.int64], crossed: bool
    ) -> None:
        """Rooms side by side between y0 and y1, their doors in the wall along x at ``door_y``."""
        x = self.draft.x
        spans = [(-x, x)]
        if crossed:
            cuts = sorted(self.crossing)
            edges = [-x, *(e for a, b in cuts for e in (a - THICK_M, b + THICK_M)), x]
            spans = list(zip(edges[::2], edges[1::2], strict=True))
            for a, b in cuts:
                self.gaps.setdefault(door_y, []).append((a, b))
                for wall in (a - THICK_M, b):
                    if -x < wall < x - THICK_M:
                        self.draft.add(WALL, wall, y0 - THICK_M, wall + THICK_M, y1 + THICK_M)
        middle = sum(self.crossing[0]) / 2
        for low, high in spans:
            if high - low >= WIDTH_M["wc"][0]:
                self._rooms(low, high, (y0, y1), door_y, zones, middle)

    def _rooms(
        self, low: float, high: float, ys: tuple[float, float], door_y: float,
        zones: NDArray[np.int64], middle: float,
    ) -> None:  # fmt: skip
        """Fill a stretch of a row from the left."""
        rng, prior = self.rng, self.prior
        while high - low > 1e-6:
            zone = int(zones[int(low + 1.5 > middle)])
            kind = prior.types[int(rng.choice(len(prior.types), p=prior.type_in_zone[zone]))]
            end = low + float(rng.uniform(*WIDTH_M[kind]))
            if high - end < WIDTH_M["wc"][0] + THICK_M:
                end = high
            self.rooms.append(Room(kind, prior.zones[zone], (low, ys[0], end, ys[1])))
            width = float(rng.uniform(*DOOR_M))
            left = float(rng.uniform(low + 0.4, end - 0.4 - width))
            self.gaps.setdefault(door_y, []).append((left, left + width))
            self.doors.append(Door(left + width / 2, door_y, False, width))
            if end < high:
                self._side_wall(end, ys)
            low = end + THICK_M if end < high else high

    def _side_wall(self, x: float, ys: tuple[float, float]) -> None:
        """The wall between two rooms of a row, now and then with a door."""
        y0, y1 = ys
        if self.rng.random() < 0.12:
            width = float(self.rng.uniform(*DOOR_M))
            low = float(self.rng.uniform(y0 + 1.0, y1 - 1.0 - width))
            self.draft.add(WALL, x, y0, x + THICK_M, low)
            self.draft.add(WALL, x, low + width, x + THICK_M, y1)
            self.doors.append(Door(x + THICK_M / 2, low + width / 2, True, width))
        else:
            self.draft.add(WALL, x, y0, x + THICK_M, y1)

    def _walls_along_x(self, edges: list[float]) -> None:
        """The corridors' walls with their doors, and the one between the rows back to back."""
        x = self.draft.x
        self.gaps[edges[3] - THICK_M / 2] = list(self.crossing)
        for y, gaps in self.gaps.items():
            ends = [-x, *(e for gap in sorted(gaps) for e in gap), x]
            for low, high in zip(ends[::2], ends[1::2], strict=True):
                if high - low > 1e-6:
                    self.draft.add(WALL, low, y - THICK_M / 2, high, y + THICK_M / 2)

    def _furnish(self, room: Room) -> None:
        """Put things at the walls of a room, as many as the prior says."""
        rng, prior = self.rng, self.prior
        x0, y0, x1, y1 = room.box
        kind = prior.types.index(room.type)
        share = (x1 - x0) * (y1 - y0) / prior.area_m2[0] if kind == 0 else 1.0
        for c, name in enumerate(prior.classes):
            mean = prior.count[kind, c] * share
            for _ in range(int(mean) + int(rng.random() < mean % 1)):
                for _ in range(30):
                    box = self._at_wall(room.box, *SIZE_M[name])
                    if self._fits(box):
                        self.things.append(len(self.draft.rows))
                        self.draft.add(LABELS.index(name), *box)
                        break

    def _at_wall(self, room: Box, length: float, depth: float) -> Box:
        """A place for a thing at a random wall of a room."""
        x0, y0, x1, y1 = room
        side, along_x = int(self.rng.integers(2)), bool(self.rng.random() < 0.5)
        if min(x1 - x0, y1 - y0) < 2.5:  # never across a corridor
            along_x = x1 - x0 > y1 - y0
        low, high = (x0, x1) if along_x else (y0, y1)
        at = float(self.rng.uniform(low + 0.05, max(high - length - 0.05, low + 0.06)))
        if along_x:
            y = y0 if side == 0 else y1 - depth
            return at, y, at + length, y + depth
        x = x0 if side == 0 else x1 - depth
        return x, at, x + depth, at + length

    def _fits(self, box: Box) -> bool:
        """Is the box clear of doors, crossings and other things?"""
        x0, y0, x1, y1 = box
        for door in self.doors:
            half = door.width_m / 2 + 0.1
            hx, hy = (CLEAR_M, half) if door.along_y else (half, CLEAR_M)
            if x0 < door.x + hx and door.x - hx < x1 and y0 < door.y + hy and door.y - hy < y1:
                return False
        for a, b in self.crossing:
            (_, low, _, high) = self.rooms[-1].box
            reach = 2.4  # a crossing's mouth stays open
            if x0 < b and a < x1 and y0 < high + reach and low - reach < y1:
                inside = a - 1e-6 <= x0 and x1 <= b + 1e-6 and low + 0.3 < y0 and y1 < high - 0.3
                if not inside:
                    return False
        for k in self.things:
            cx, cy, hx, hy = self.draft.rows[k]
            if (
                x0 < cx + hx + GAP_M and cx - hx - GAP_M < x1
                and y0 < cy + hy + GAP_M and cy - hy - GAP_M < y1
            ):  # fmt: skip
                return False
        return True
