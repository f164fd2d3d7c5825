"""Remember a lamp: put the green cube on the cube whose colour was shown at the start. 9 stages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..manipulation.pieces import Pick, Place
from ..manipulation.task import ArmConfig, ArmState, ArmTask, Start
from .stack import HALF_M, WEAK_UP, WEAK_XY_M, cube

BASES = ("blue cube", "red cube")


class StackCue(ArmTask):
    """One pick with two possible places; a lamp tells which is meant, in the first steps only.

    A memoryless policy does it at most half the time: the true stage counts either cube as the
    place, so that it does not tell; the places are left out of the stage columns; and an episode
    whose cube is let go on the wrong one is over. Which cube stands left is drawn apart.

    Args:
        overrides: fields of :class:`sim.manipulation.task.ArmConfig`.
    """

    name = "stack-cue"
    description = "Stack the green cube on the cube of the colour that the lamp showed at first."

    def __init__(self, **overrides: Any) -> None:
        spread = (0.03, 0.02)
        pieces = (
            cube("green", (0.25, 0.0), (0.03, 0.03)), cube("blue", (0.36, 0.11), spread),
            cube("red", (0.36, -0.11), spread),
        )  # fmt: skip
        picks = (Pick("green cube", BASES, Place(at=(0.0, 0.0, 2 * HALF_M))),)
        super().__init__(ArmConfig(**({"max_steps": 140} | overrides)), pieces, picks)

    def draw(self, rng: np.random.Generator, spread: float) -> Start:
        """One episode: the lamp's colour and the sides of the cubes are drawn apart."""
        start = super().draw(rng, spread)
        start.cue = int(rng.integers(2))
        if rng.random() < 0.5:
            start.xy_m[[1, 2]] = start.xy_m[[2, 1]]
        return start

    def weak(self, state: ArmState) -> NDArray[np.bool_]:
        """The green cube is within 2 cm sideways of the cube that is meant, which is upright."""
        rows = np.arange(len(state.t))
        base = 1 + state.cue
        away = np.linalg.norm(state.pos[:, 0, :2] - state.pos[rows, base, :2], axis=1)
        return np.asarray((state.up[rows, base] > WEAK_UP) & (away < WEAK_XY_M))
