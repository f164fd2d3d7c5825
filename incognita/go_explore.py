"""Go-Explore in a simulated world, and its control: the same random actions, always from the start.

Tier K without sensors: random actions look at nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.planner import line_of_sight
from sim.backend import CONTROL_DT
from sim.bank import WorldBank
from sim.kinematic import Kinematic
from sim.randomization import NOMINAL, dynamics
from sim.tasks import AgvTask, Placement
from toponav.go_explore import Cell
from toponav.h_dqn import PRIMITIVES

HOLD_S = 0.5
"""An action is a primitive held for so long; the last one, driving back, is none of them."""
ACTIONS = len(PRIMITIVES) - 1


class RandomBody:
    """A robot of tier K that does what it is told; see :class:`toponav.go_explore.Body`."""

    def __init__(self, task: AgvTask, placement: Placement) -> None:
        self.goal_w, self.radius_m = placement.goal_w, task.config.goal_radius_m
        self.backend = Kinematic(task.robot, 1, WorldBank())
        drawn = NOMINAL.draw(np.random.default_rng(0))[None]
        self.backend.reset(
            np.array([0]), [placement.world], placement.start_w[None],
            dynamics(drawn, task.robot.payload_kg),
        )  # fmt: skip
        self._grid = placement.world.grid(0.1)
        self._movers = np.zeros((1, 0, 3))

    def pose_w(self) -> NDArray[np.float64]:
        """See :class:`toponav.go_explore.Body`."""
        return np.array(self.backend.pose_w[0], np.float64)

    def snapshot(self) -> dict[str, Any]:
        """The state of the robot; nothing else moves."""
        return self.backend.state_dict()

    def go_back(self, cell: Cell, way_w: NDArray[np.float64] | None) -> float:
        """Restore: costs nothing."""
        self.backend.load_state_dict(cell.snapshot)
        return 0.0

    def act(self, action: int) -> tuple[float, bool]:
        """Hold a primitive: +1 and the end at the goal."""
        for _ in range(round(HOLD_S / CONTROL_DT)):
            self.backend.step(PRIMITIVES[action : action + 1], self._movers)
            if np.hypot(*(self.goal_w - self.backend.pose_w[0, :2])) < self.radius_m:
                return 1.0, True
        return 0.0, False

    def sees(self, xy_w: NDArray[np.float64]) -> bool:
        """See :class:`toponav.go_explore.Body`."""
        here = self._grid.cell(self.backend.pose_w[0, :2])
        return line_of_sight(self._grid.data != 0, *here, *self._grid.cell(xy_w))


def restarting(
    body: RandomBody, horizon: int, limit: int, repeat: float, seed: int = 0
) -> tuple[bool, int]:
    """The control: random actions, repeated as often, from the start again after ``horizon``.

    Returns:
        Whether the goal was found, and actions used.
    """
    rng, start = np.random.default_rng([seed, 1901]), body.snapshot()
    left = action = 0
    for used in range(1, limit + 1):
        if left == 0:
            action = int(rng.integers(ACTIONS))
            left = int(rng.geometric(1 / repeat))
        left -= 1
        if body.act(action)[1]:
            return True, used
        if used % horizon == 0:
            body.backend.load_state_dict(start)
    return False, limit
