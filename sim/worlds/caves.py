"""Caves by cellular automata: random rock, smoothed until it is smooth (Johnson 2010)."""

from __future__ import annotations

import cv2
import numpy as np

from .merge import cover
from .world import ROBOT_RADIUS_M, ROCK, Draft, World, first_accepted


def cave(
    seed: int, size: tuple[float, float] = (20.0, 20.0), cell_m: float = 0.5, fill: float = 0.43
) -> World:
    """A cave with one connected floor; pockets that nobody reaches are filled with rock.

    Args:
        seed: same seed, same cave.
        size: inner floor (width, depth), m.
        cell_m: side of a cell of rock, m.
        fill: share of rock before smoothing, in [0.2, 0.5].

    Raises:
        ValueError: an argument is off, or nothing passable was found.
    """
    if not (0.2 <= cell_m <= 2 and all(10 * cell_m <= side <= 200 for side in size)):
        raise ValueError(
            f"cell_m in [0.2, 2] and sides in [10 cells, 200 m] wanted, got {cell_m}, {size}"
        )
    if not 0.2 <= fill <= 0.5:
        raise ValueError(f"fill must be in [0.2, 0.5], got {fill}")
    shape = tuple(int(side / cell_m + 1e-9) for side in size[::-1])

    def draw(rng: np.random.Generator) -> World | None:
        rock = rng.random(shape) < fill
        for _ in range(5):
            padded = np.pad(rock, 1, constant_values=True).astype(np.uint8)
            around = cv2.filter2D(padded, -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)[
                1:-1, 1:-1
            ]
            rock = around >= 5
        # what the robot's disc reaches from the largest hall, grown by its radius, stays floor
        fine = max(int(np.ceil(cell_m / 0.1)), 1)
        floor = np.pad(np.kron(~rock, np.ones((fine, fine), bool)), 1).astype(np.uint8)
        radius = ROBOT_RADIUS_M * fine / cell_m + 1
        wide = (cv2.distanceTransform(floor, cv2.DIST_L2, 5) > radius).astype(np.uint8)
        count, region, stats, _ = cv2.connectedComponentsWithStats(wide, connectivity=4)
        if count < 2:
            return None
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        reach = (
            cv2.distanceTransform((region != largest).astype(np.uint8), cv2.DIST_L2, 5) <= radius
        )
        kept = reach[1:-1, 1:-1].reshape(shape[0], fine, shape[1], fine).any(axis=(1, 3)) & ~rock
        if kept.mean() < 0.3:
            return None
        draft = Draft(shape[1] * cell_m, shape[0] * cell_m)
        for x0, y0, x1, y1 in cover(~kept) * cell_m - (draft.x, draft.y, draft.x, draft.y):
            draft.add(ROCK, x0, y0, x1, y1)
        world = draft.world("cave", seed)
        if world.reachable_share() < 0.9:
            return None
        ends = world.free_points(rng, 8, ROBOT_RADIUS_M + 0.05)
        return world if world.connects(ends) else None

    return first_accepted("cave", seed, draw)
