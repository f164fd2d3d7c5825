"""Put a jujube into a cup and the cup on a plate: 19 stages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..manipulation.pieces import Pick, Piece, Place, Shape, box_ring
from ..manipulation.task import ArmConfig, ArmState, ArmTask

JUJUBE_M = (0.016, 0.0125, 0.0125)
"""Half its axes."""
INNER_M, WALL_M, CUP_HALF_M, FLOOR_M = 0.032, 0.004, 0.032, 0.003
"""Of the cup: inner radius, wall, half its height, half the thickness of its floor."""
PLATE_M, PLATE_HALF_M = 0.06, 0.003
HANDLE_X_M = INNER_M + WALL_M + 0.017
WEAK_XY_M, WEAK_UP = 0.02, 0.98
RIM_M = CUP_HALF_M + JUJUBE_M[2] + 0.008
"""Height over the middle of the cup at which the jujube is let go."""


def _cup() -> Piece:
    """A ring of boxes, a floor, and a handle that a gripper takes from above."""
    floor = INNER_M + WALL_M
    shapes = (
        *box_ring(INNER_M, WALL_M, CUP_HALF_M, 10),
        Shape("cylinder", (floor, floor, FLOOR_M), (0, 0, -CUP_HALF_M + FLOOR_M)),
        Shape("box", (0.016, 0.006, 0.012), (HANDLE_X_M, 0, 0.015)),
    )
    return Piece(
        "white cup", shapes, (0.92, 0.92, 0.90), (0.30, -0.11), CUP_HALF_M, yaw=-0.6,
        spread_m=(0.04, 0.03), spread_rad=0.4, grasp=(HANDLE_X_M + 0.004, 0, 0.013),
        grasp_period=np.pi, half_grip_m=0.006, mass_kg=0.06,
    )  # fmt: skip


class JujubeCup(ArmTask):
    """A pick of nine stages and one of ten.

    Args:
        overrides: fields of :class:`sim.manipulation.task.ArmConfig`.
    """

    name = "jujube-cup"
    description = "Put the red jujube into the white cup and set the white cup on the green plate."

    def __init__(self, **overrides: Any) -> None:
        pieces = (
            Piece(
                "red jujube", (Shape("ellipsoid", JUJUBE_M),), (0.62, 0.12, 0.10), (0.27, 0.12),
                JUJUBE_M[2], spread_m=(0.05, 0.05), spread_rad=0.5, grasp_period=np.pi,
                half_grip_m=JUJUBE_M[1], mass_kg=0.008,
            ),
            _cup(),
            Piece(
                "green plate", (Shape("cylinder", (PLATE_M, PLATE_M, PLATE_HALF_M)),),
                (0.20, 0.42, 0.30), (0.39, 0.05), PLATE_HALF_M, spread_m=(0.02, 0.04), fixed=True,
            ),
        )  # fmt: skip
        # inside: no farther aside than the wall lets it, from the floor up to under the rim
        inside = Place(
            at=(0.0, 0.0, 0.0), xy_m=INNER_M - 0.008, z_m=CUP_HALF_M - 0.004,
            release=(0.0, 0.0, RIM_M), upright=False, release_m=0.012,
        )  # fmt: skip
        on_plate = Place(at=(0.0, 0.0, PLATE_HALF_M + CUP_HALF_M), xy_m=0.02, z_m=0.006)
        picks = (
            Pick("red jujube", ("white cup",), inside),
            Pick("white cup", ("green plate",), on_plate, lift_m=0.05, overs=2),
        )
        super().__init__(
            ArmConfig(**({"max_steps": 240, "goal_m": 0.03} | overrides)), pieces, picks
        )

    def weak(self, state: ArmState) -> NDArray[np.bool_]:
        """The cup is upright and within 2 cm of the plate's middle sideways: nobody asks for the
        jujube, nor whether the cup is let go."""
        away = np.linalg.norm(state.pos[:, 1, :2] - state.pos[:, 2, :2], axis=1)
        return np.asarray((state.up[:, 1] > WEAK_UP) & (away < WEAK_XY_M))
