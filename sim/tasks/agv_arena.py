"""Drive to a coloured landmark of :mod:`sim.arena`, told in words and as a goal point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnd_agv.observation import ObservationConfig
from rnd_agv.robot import JACKAL

from ..arena import HALF_M, NEAR_M, RADIUS_M, Arena, ArenaConfig, draw_arena
from ..rollout import Told
from ..words import say
from ..worlds import LABELS, World
from .agv import AgvConfig, AgvTask, Placement

REACH_M = RADIUS_M + 0.5 * JACKAL.length_m + NEAR_M
"""Distance of centres at which a landmark is reached: where the rubric of the arena gives 5."""
_RADIUS_M = {"pillar": 0.7 * RADIUS_M, "dome": RADIUS_M}


@dataclass
class ArenaPlacement(Placement):
    """An episode and the arena that it is drawn from."""

    arena: Arena | None = None


def world_of(arena: Arena, seed: int) -> World:
    """The landmarks as obstacles of a planar world: crates are boxes, the others discs."""
    boxes = [(*xy, RADIUS_M, RADIUS_M) for (_, kind), xy in _landmarks(arena) if kind == "crate"]
    discs = [(*xy, _RADIUS_M[kind]) for (_, kind), xy in _landmarks(arena) if kind != "crate"]
    half = HALF_M + 1.0
    return World(
        f"arena-{seed}", seed, (-half, -half, half, half),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), LABELS.index("crate"), np.int8),
        np.array(discs, np.float32).reshape(-1, 3),
        np.full(len(discs), LABELS.index("pillar"), np.int8),
    )  # fmt: skip


def _landmarks(arena: Arena) -> Any:
    return zip(arena.combos, arena.xy, strict=True)


class AgvArena(AgvTask):
    """A Jackal among three landmarks without walls; the goal is the centre of one of them.

    Args:
        layouts: arenas to draw from, numbered from ``first_layout``; an arena and the landmark
            to drive to are the same wherever their number comes up.
        arenas: what they are drawn from.
    """

    name = "agv-arena"

    def __init__(
        self, layouts: int = 100_000, first_layout: int = 0, arenas: ArenaConfig | None = None,
        **overrides: Any,
    ) -> None:  # fmt: skip
        if layouts < 1 or first_layout < 0:
            raise ValueError(f"layouts >= 1, first_layout >= 0 wanted, got {layouts, first_layout}")
        base = AgvConfig(
            robot="jackal", v_max=1.0, goal_radius_m=REACH_M, max_steps=400, scan_range_m=6.0,
            observation=ObservationConfig(sectors=36, max_range=6.0, frames=1, proximity_m=1.0),
            terminal_collision=True,
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.layouts, self.first_layout = layouts, first_layout
        self.arenas = arenas or ArenaConfig()

    def place(self, rng: np.random.Generator) -> ArenaPlacement:
        """Draw the number of an arena; all else follows from it."""
        seed = self.first_layout + int(rng.integers(self.layouts))
        own = np.random.default_rng([seed, 4])
        arena = draw_arena(own, self.arenas)
        wanted = int(own.integers(len(arena.combos)))
        told = say(Told("drive", arena.combos[wanted]), own)
        return ArenaPlacement(
            world_of(arena, seed), arena.start, arena.xy[wanted], seed, instruction=told,
            arena=arena,
        )  # fmt: skip
