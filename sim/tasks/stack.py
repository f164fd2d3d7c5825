"""Stack three cubes, green on blue and red on green: 18 stages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..manipulation.pieces import Pick, Piece, Place, Shape
from ..manipulation.task import ArmConfig, ArmState, ArmTask
from ..tabletop.scene import COLOURS

HALF_M = 0.018
"""Half the edge of a cube."""
WEAK_XY_M, WEAK_UP = 0.02, 0.98


def cube(
    colour: str, xy_m: tuple[float, float], spread_m: tuple[float, float], half_m: float = HALF_M
) -> Piece:
    """A cube that stands near a place, turned a little."""
    shape = Shape("box", (half_m, half_m, half_m))
    return Piece(
        f"{colour} cube", (shape,), COLOURS[colour], xy_m, half_m, spread_m=spread_m,
        spread_rad=0.35, half_grip_m=half_m, mass_kg=400.0 * (2 * half_m) ** 3,
    )  # fmt: skip


class Stack(ArmTask):
    """Two picks of nine stages.

    Args:
        overrides: fields of :class:`sim.manipulation.task.ArmConfig`.
    """

    name = "stack"
    gap_m = 0.075
    description = "Stack the green cube on the blue cube and the red cube on the green cube."

    def __init__(self, **overrides: Any) -> None:
        spread = (0.08, 0.06)
        pieces = (
            cube("blue", (0.30, 0.0), spread), cube("green", (0.30, 0.14), spread),
            cube("red", (0.30, -0.14), spread),
        )  # fmt: skip
        on_top = Place(at=(0.0, 0.0, 2 * HALF_M))
        picks = (
            Pick("green cube", ("blue cube",), on_top), Pick("red cube", ("green cube",), on_top),
        )  # fmt: skip
        super().__init__(ArmConfig(**overrides), pieces, picks)

    def weak(self, state: ArmState) -> NDArray[np.bool_]:
        """The blue cube is upright, and the others are within 2 cm of it sideways: neither their
        order in height nor the release is asked for."""
        away = np.linalg.norm(state.pos[:, 1:, :2] - state.pos[:, :1, :2], axis=2)
        return np.asarray((state.up[:, 0] > WEAK_UP) & (away < WEAK_XY_M).all(axis=1))
