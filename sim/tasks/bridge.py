"""Build a bridge: lay two bars over the gap between its halves, then put cubes on the bars."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..manipulation.pieces import Pick, Piece, Place, Shape
from ..manipulation.task import ArmConfig, ArmState, ArmTask
from ..tabletop.scene import COLOURS

BAR_M = (0.0125, 0.060, 0.010)
"""Half a bar's extent."""
CUBE_M = 0.0125
DECK_M = 0.03
"""Height of the halves."""
SIDE_M = 0.032
"""Of a bar's axis from the middle of the bridge."""
SPACING_M = 0.036
"""Between cubes on a bar."""
WEAK_FLAT, WEAK_MOVED_M = 0.98, 0.0104


def _bridge() -> Piece:
    """Two halves of three boxes: a deck between two legs, with a gap of 6 cm between the halves."""
    shapes: list[Shape] = []
    for side in (-1, 1):
        shapes.append(Shape("box", (0.05, 0.022, 0.006), (0, side * 0.052, DECK_M - 0.006)))
        for leg in (-1, 1):
            at = (leg * 0.04, side * 0.052, (DECK_M - 0.012) / 2)
            shapes.append(Shape("box", (0.008, 0.018, (DECK_M - 0.012) / 2), at))
    return Piece(
        "grey bridge", tuple(shapes), (0.45, 0.46, 0.48), (0.345, 0.0), 0.0,
        spread_m=(0.008, 0.01), fixed=True,
    )  # fmt: skip


def _bar(name: str, colour: str, y_m: float) -> Piece:
    return Piece(
        f"{name} bar", (Shape("box", BAR_M),), COLOURS[colour], (0.215, y_m), BAR_M[2],
        spread_m=(0.012, 0.01), spread_rad=0.12, grasp_yaw=np.pi / 2, grasp_period=np.pi,
        half_grip_m=BAR_M[0], mass_kg=0.06,
    )  # fmt: skip


def _cube(colour: str, xy_m: tuple[float, float]) -> Piece:
    half = (CUBE_M, CUBE_M, CUBE_M)
    return Piece(
        f"{colour} cube", (Shape("box", half),), COLOURS[colour], xy_m, CUBE_M,
        spread_m=(0.01, 0.01), spread_rad=0.15, grasp_yaw=np.pi / 2, half_grip_m=CUBE_M,
        mass_kg=0.008,
    )  # fmt: skip


CUBES = ("red", "green", "blue", "yellow", "purple", "orange")
BARS = ("left", "right")


class Bridge(ArmTask):
    """Two picks of ten stages, then nine for each cube: 74 stages with 6 cubes, 38 with 2.

    Args:
        cubes: 2, 4 or 6, as many on each bar.
        overrides: fields of :class:`sim.manipulation.task.ArmConfig`.
    """

    def __init__(self, cubes: int = 6, **overrides: Any) -> None:
        if cubes not in (2, 4, 6):
            raise ValueError(f"cubes must be 2, 4 or 6, got {cubes}")
        self.name = {2: "bridge-lite", 6: "bridge"}.get(cubes, f"bridge-{cubes}")
        self.description = (
            "Lay the left bar and the right bar over the gap of the grey bridge and put "
            f"{cubes} cubes on the bars."
        )
        pieces = [_bridge(), _bar("left", "yellow", 0.08), _bar("right", "orange", -0.08)]
        picks = []
        for k, name in enumerate(BARS):
            place = Place(
                at=((2 * k - 1) * SIDE_M, 0.0, DECK_M + BAR_M[2]), xy_m=0.012, z_m=0.006, yaw=0.0,
                yaw_rad=0.15,
            )  # fmt: skip
            picks.append(Pick(f"{name} bar", ("grey bridge",), place, lift_m=0.06, overs=2))
        for k in range(cubes):
            bar, slot = k % 2, k // 2
            y = (0.0, -SPACING_M, SPACING_M)[slot]
            x = (0.27, 0.34, 0.41)[slot]
            pieces.append(_cube(CUBES[k], (x, (0.17, -0.17)[bar])))
            place = Place(at=(0.0, y, BAR_M[2] + CUBE_M), xy_m=0.010, z_m=0.006)
            picks.append(Pick(f"{CUBES[k]} cube", (f"{BARS[bar]} bar",), place))
        steps = {2: 450, 4: 700, 6: 950}[cubes]
        super().__init__(ArmConfig(**({"max_steps": steps} | overrides)), tuple(pieces),
                         tuple(picks))  # fmt: skip

    def draw(self, rng: np.random.Generator, spread: float) -> Any:
        """One episode; the gripper begins across the bars."""
        start = super().draw(rng, spread)
        start.grip_yaw = np.pi / 2
        return start

    def weak(self, state: ArmState) -> NDArray[np.bool_]:
        """The bars lie flat, wherever, and a distance between bars and first cubes is 1.04 cm under
        what it was at the start: as in the public benchmark, moving one cube a little does."""
        first = 3  # the first cube; bars are 1 and 2
        flat = (state.up[:, 1:3] > WEAK_FLAT).all(axis=1)
        now, before = (
            np.hypot(p[:, 1, 0] - p[:, first, 0], p[:, 2, 1] - p[:, first + 1, 1])
            for p in (state.pos, state.start)
        )
        return np.asarray(flat & (now < before - WEAK_MOVED_M))
