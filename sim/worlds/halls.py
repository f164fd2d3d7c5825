"""Halls of the RND-AGV scenes (arXiv 2404.12594 gives no layout: our reading), and larger ones."""

from __future__ import annotations

import numpy as np

from .world import CRATE, SHELF, Draft, World, first_accepted

CORNER_M = 1.0
"""Route ends are judged this far from the walls of two opposite corners."""
SIDE_M = 2.4
"""Corridor left free between the shelf rows and the side walls."""
DEPTH_M = 0.8
"""Depth of a shelf."""


def hall(size_m: float = 12.0, complexity: str = "simple", seed: int = 0) -> World:
    """A square hall with a route from its lower left to its upper right corner.

    Args:
        size_m: side of the inner floor, at least 8 m (simple) or 16 m (complex).
        complexity: "simple": a few shelves and crates; "complex": shelf rows with dead ends.
        seed: same seed, same hall.

    Raises:
        ValueError: complexity or size is off.
    """
    least = {"simple": 8.0, "complex": 16.0}
    if complexity not in least:
        raise ValueError(f'complexity must be "simple" or "complex", got {complexity!r}')
    if not least[complexity] <= size_m <= 100:
        raise ValueError(
            f"size_m must be in [{least[complexity]:g}, 100] for {complexity}, got {size_m}"
        )
    name = f"hall-{complexity}"
    if complexity == "simple":
        return first_accepted(name, seed, lambda rng: _simple(rng, size_m, seed))
    return first_accepted(name, seed, lambda rng: _rows(rng, name, size_m, seed, dead_ends=5))


def far(size_m: float = 30.0, seed: int = 0) -> World:
    """A hall of 30 to 40 m with shelf rows: a goal far out of sight, behind many gaps.

    Raises:
        ValueError: size_m is not in [16, 100].
    """
    if not 16 <= size_m <= 100:
        raise ValueError(f"size_m must be in [16, 100], got {size_m}")
    return first_accepted(
        "far", seed, lambda rng: _rows(rng, "far", size_m, seed, dead_ends=int(size_m // 6))
    )


def _simple(rng: np.random.Generator, size: float, seed: int) -> World | None:
    draft = Draft(size, size)
    # three shelves, left, right, left, that a straight drive between the corners would hit
    for k, side in enumerate((-1, 1, -1)):
        y = (k - 1) * 0.23 * size + rng.uniform(-0.2, 0.2)
        x = side * 0.1 * size + rng.uniform(-0.4, 0.4)
        draft.add(SHELF, x - 0.2 * size, y - DEPTH_M / 2, x + 0.2 * size, y + DEPTH_M / 2)
    for side in (-1, 1):
        x, y = -side * rng.uniform(0.25, 0.35) * size, side * rng.uniform(0.32, 0.38) * size
        draft.add(CRATE, x - 0.4, y - 0.4, x + 0.4, y + 0.4)
    return _accepted(draft, "hall-simple", seed)


def _rows(
    rng: np.random.Generator, name: str, size: float, seed: int, dead_ends: int
) -> World | None:
    """Shelf rows along x with two gaps each, and blocks that close aisles and corridors."""
    draft = Draft(size, size)
    half = size / 2
    count = int((size - 2.4) // 3.2)
    pitch = (size - 2 * 2.2 - DEPTH_M) / (count - 1)  # 2.2 m aisles at the first and last wall
    ys = -half + 2.2 + DEPTH_M / 2 + pitch * np.arange(count)
    left, right = -half + SIDE_M, half - SIDE_M
    for y in ys:
        gap = rng.uniform(1.6, 2.2, 2)
        # one gap in each half of the row
        centre = rng.uniform([left + 2.0, 1.5], [-1.5, right - 2.0])
        edges = [left, centre[0] - gap[0] / 2, centre[0] + gap[0] / 2]
        edges += [centre[1] - gap[1] / 2, centre[1] + gap[1] / 2, right]
        for x0, x1 in zip(edges[::2], edges[1::2], strict=True):
            draft.add(SHELF, x0, y - DEPTH_M / 2, x1, y + DEPTH_M / 2)
    world = _accepted(draft, name, seed)
    if world is None:
        return None
    # corridors at the sides are shut once each, away from the route's ends: no way around the rows
    for x0, x1, low, high in ((-half, left, 1, count - 1), (right, half, 0, count - 2)):
        y = ys[rng.integers(low, max(high, low + 1))]
        world = _shut(draft, world, (x0, y - DEPTH_M / 2, x1, y + DEPTH_M / 2)) or world
    shut = 0
    for _ in range(6 * dead_ends):
        if shut == dead_ends:
            break
        k = int(rng.integers(count - 1))
        x = rng.uniform(left + 0.4, right - 0.4)
        box = (x - 0.4, ys[k] + DEPTH_M / 2, x + 0.4, ys[k + 1] - DEPTH_M / 2)
        longer = _shut(draft, world, box)
        if longer is not None:
            world, shut = longer, shut + 1
    return world if shut == dead_ends else None


def _shut(draft: Draft, world: World, box: tuple[float, float, float, float]) -> World | None:
    """The world with one more closing shelf, or None (and the draft as it was) if that cuts it."""
    draft.add(SHELF, *box)
    shut = _accepted(draft, world.name, world.seed)
    if shut is None:
        draft.drop()
    return shut


def _accepted(draft: Draft, name: str, seed: int) -> World | None:
    """The draft as a world if its corners are connected and next to nothing is walled off."""
    world = draft.world(name, seed)
    end = draft.x - CORNER_M
    ok = world.reachable_share() > 0.99 and world.connects([(-end, -end), (end, end)])
    return world if ok else None
