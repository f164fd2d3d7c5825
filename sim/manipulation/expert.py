"""A scripted expert for every long task: a function of state and true stage, for N rows at once.

It is closed loop: where a piece slips or is put beside its place, the true stage falls back and it
tries again. Its failures are organic: the hand shakes, grasps off the middle, lets go too early,
takes the wrong piece; near-misses stop short of the stage's event and stay there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tabletop.arm import OPEN_M
from .batch import ArmBatch
from .cell import STEP_M, STEP_OPEN, STEP_RAD
from .events import ABOVE, CLOSE, LIFT, LOWER, OPEN, OVER, REACH, RETREAT, SETTLE
from .pieces import ROUGH_OVER, Plan
from .task import Floats, rotate, wrap

ABOVE_M, OVER_M, RETREAT_M = 0.10, 0.045, 0.065
"""Heights that it goes to: over a grasp point, over a place, and up again."""
CLEAR_M = 0.014
"""Gap that it leaves beside a piece on both sides."""
NEAR_MISSES = ("beside", "almost", "shut_beside", "wrong_piece")
"""Static near-misses: above a spot beside the piece, just over it without a touch, fingers shut
beside it, doing the stage with another piece."""


@dataclass(frozen=True)
class ExpertConfig:
    """How good the expert is; the defaults are its best."""

    noise: float = 0.0
    """Standard deviation added to actions."""
    grasp_m: float = 0.0
    """Standard deviation of an error in where it grasps, drawn per row and episode, m."""
    place_m: float = 0.0
    """The same of where it puts things, m."""
    drop: float = 0.0
    """Chance per episode that it lets go on the way."""
    speed: tuple[float, float] = (1.0, 1.0)
    """Share of full speed, drawn per row and episode."""

    def __post_init__(self) -> None:
        if min(self.noise, self.grasp_m, self.place_m) < 0 or not 0 <= self.drop <= 1:
            raise ValueError(f"deviations must be >= 0 and drop in 0..1, got {self}")
        if not 0 < self.speed[0] <= self.speed[1] <= 1:
            raise ValueError(f"speed must be within (0, 1], low first, got {self.speed}")


CLUMSY = ExpertConfig(noise=0.25, grasp_m=0.006, place_m=0.008, drop=0.3, speed=(0.6, 1.0))
"""Succeeds about as often as it fails."""


class Expert:
    """Acts on the rows of a batch.

    Args:
        batch: what it acts in; its true state is looked at.
        config: how good it is.
        seed: of its errors.
        near_miss: None, or one of :data:`NEAR_MISSES`, committed at ``at_pick`` of every episode.
    """

    def __init__(
        self, batch: ArmBatch, config: ExpertConfig | None = None, seed: int | list[int] = 0,
        near_miss: str | None = None, at_pick: int = 0,
    ) -> None:  # fmt: skip
        if near_miss is not None and near_miss not in NEAR_MISSES:
            raise ValueError(f"near_miss must be one of {NEAR_MISSES} or None, got {near_miss!r}")
        if not 0 <= at_pick < len(batch.task.picks):
            raise ValueError(f"at_pick must be below {len(batch.task.picks)}, got {at_pick}")
        self.batch, self.config = batch, config or ExpertConfig()
        self.near_miss, self.at_pick = near_miss, at_pick
        self.rng = np.random.default_rng(seed)
        n = batch.num_envs
        self._grasp, self._place = np.zeros((n, 3)), np.zeros((n, 3))
        self._drop, self._speed = np.full(n, -1), np.ones(n)
        self._turn = np.zeros(n)
        self._episode = np.full(n, -1)

    def act(self) -> NDArray[np.float32]:
        """(N, 5) actions in the present state of the batch."""
        self._begin()
        batch, plan = self.batch, self.batch.task.plan
        s = batch.state
        rows = np.arange(batch.num_envs)
        stage = batch.tracker.stage
        k = np.minimum(stage, plan.stages - 1)
        event = np.where(stage >= plan.stages, RETREAT, plan.event[k])
        pick = plan.pick[k]
        target = plan.target[pick]
        if self.near_miss == "wrong_piece":
            target = np.where(pick == self.at_pick, self._other(plan), target)
        at = s.at + self._late(slice(0, 3)) * STEP_M
        at_yaw = s.at_yaw + self._late(3) * STEP_RAD
        goal, yaw = self._goal(rows, pick, target, event, at)
        opening = self._opening(pick, event)
        if self.near_miss is not None:
            goal, opening = self._missing(pick, event, goal, opening)
        self._dropping(stage, opening)
        move = (goal - at) / STEP_M
        turn = wrap(yaw - at_yaw, np.pi) / STEP_RAD
        fingers = (opening - s.at_opening) / STEP_OPEN
        speed = self._speed[:, None]
        action = np.concatenate([
            np.clip(move, -speed, speed), np.stack([turn, fingers], axis=1)
        ], axis=1)  # fmt: skip
        if self.config.noise:
            action = action + self.config.noise * self.rng.standard_normal(action.shape)
        return np.asarray(np.clip(action, -1, 1), np.float32)

    def _late(self, columns: int | slice) -> Floats:
        """Sum of the actions that are on their way to the joints, where these are late."""
        batch = self.batch
        late = np.arange(batch.pending.shape[1]) < batch.delay[:, None]
        return np.asarray(np.einsum("nk,nk...->n...", late, batch.pending[..., columns]))

    def _begin(self) -> None:
        """Draw the errors of rows whose episode is new."""
        c, n = self.config, self.batch.num_envs
        new = self.batch.episode != self._episode
        if not new.any():
            return
        self._episode = self.batch.episode.copy()
        stages = self.batch.task.plan.stages
        draws = self.rng.standard_normal((n, 4))
        draws[:, 2:] *= c.place_m
        draws[:, :2] *= c.grasp_m
        unit = self.rng.random((n, 4))
        drop = np.where(unit[:, 0] < c.drop, (unit[:, 1] * stages).astype(np.int64), -1)
        self._grasp[new, :2], self._place[new, :2] = draws[new, :2], draws[new, 2:]
        self._drop[new] = drop[new]
        low, high = c.speed
        self._speed[new] = (low + unit[:, 2] * (high - low))[new]
        self._turn[new] = 2 * np.pi * unit[new, 3]

    def _goal(
        self, rows: NDArray[np.int64], pick: NDArray[np.int64], target: NDArray[np.int64],
        event: NDArray[np.int64], sent: Floats,
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """Where the grip should be sent, (N, 3), and its yaw, (N,)."""
        task, s = self.batch.task, self.batch.state
        plan = task.plan
        pos = s.pos[rows, target]
        grasp = pos + rotate(s.quat_wxyz[rows, target], plan.grasp[pick]) + self._grasp
        at, turn, reference_yaw = (part[rows, pick] for part in task._reference(s, cued=True))
        place = at + rotate(turn, plan.release[pick]) + self._place
        carried = place + s.grip - pos  # the grip when the piece is there
        goal = np.where((event == ABOVE)[:, None], grasp + [0, 0, ABOVE_M], grasp)
        still = np.isin(event, (CLOSE, SETTLE, OPEN))
        goal = np.where(still[:, None], sent, goal)
        rise = plan.lift_m[pick] + 0.012 + plan.height_m[pick] - pos[:, 2]
        lifted = np.stack([sent[:, 0], sent[:, 1], s.grip[:, 2] + rise], axis=1)
        goal = np.where((event == LIFT)[:, None], lifted, goal)
        over = (event == OVER) | (event == ROUGH_OVER)
        high = carried + [0, 0, OVER_M]
        low = np.clip((high[:, 2] - s.grip[:, 2] - 0.02) / 0.02, 0, 1)[:, None]
        along = np.where([True, True, False], sent + (high - sent) * (1 - low), high)
        goal = np.where(over[:, None], along, goal)
        goal = np.where((event == LOWER)[:, None], carried, goal)
        up = np.stack([sent[:, 0], sent[:, 1], grasp[:, 2] + RETREAT_M], axis=1)
        goal = np.where((event == RETREAT)[:, None], up, goal)
        return goal, self._yaw(rows, pick, target, event, reference_yaw)

    def _yaw(
        self, rows: NDArray[np.int64], pick: NDArray[np.int64], target: NDArray[np.int64],
        event: NDArray[np.int64], reference_yaw: Floats,
    ) -> Floats:  # fmt: skip
        """(N,) yaw of the gripper: the piece's before the grasp, then the one of its place."""
        s, plan = self.batch.state, self.batch.task.plan
        period = plan.grasp_period[pick]
        wanted = s.yaw[rows, target] + plan.grasp_yaw[pick]
        grasp = s.at_yaw + wrap(wanted - s.at_yaw, period)
        turned = wrap(s.yaw[rows, target] - reference_yaw - plan.yaw[pick], np.pi)
        carry = np.where(np.isnan(turned), s.at_yaw, s.grip_yaw - np.nan_to_num(turned))
        placing = np.isin(event, (ROUGH_OVER, OVER, LOWER))
        before = np.isin(event, (ABOVE, REACH))
        return np.where(before, grasp, np.where(placing, carry, s.at_yaw))

    def _opening(self, pick: NDArray[np.int64], event: NDArray[np.int64]) -> Floats:
        """(N,) opening of the fingers: only as wide as needed, for the neighbours' sake."""
        plan = self.batch.task.plan
        wide = np.minimum((plan.half_grip_m[pick] + CLEAR_M) / OPEN_M, 1.0)
        return np.where(np.isin(event, (ABOVE, REACH, OPEN, RETREAT)), wide, 0.0)

    def _dropping(self, stage: NDArray[np.int64], opening: Floats) -> None:
        """Open the fingers, in place, of rows that let go in this stage; once per episode."""
        now = stage == self._drop
        opening[now] = 1.0
        self._drop[stage > self._drop] = -1

    def _other(self, plan: Plan) -> NDArray[np.int64]:
        """(N,) a piece that is taken instead of the right one."""
        right = plan.target[self.at_pick]
        choice = [t for t in plan.target if t != right] or [
            i for i, p in enumerate(self.batch.task.pieces) if not p.fixed and i != right
        ]
        return np.full(self.batch.num_envs, choice[0])

    def _missing(
        self, pick: NDArray[np.int64], event: NDArray[np.int64], goal: Floats, opening: Floats
    ) -> tuple[Floats, Floats]:
        """Goal and opening of rows in the pick that is missed."""
        here = pick == self.at_pick
        half = self.batch.task.plan.half_grip_m[pick]
        aside = np.stack([np.cos(self._turn), np.sin(self._turn), np.zeros(len(half))], axis=1)
        if self.near_miss == "beside":
            goal = np.where(here[:, None], goal + 0.045 * aside, goal)
        elif self.near_miss == "almost":
            goal = np.where((here & (event == REACH))[:, None], goal + [0, 0, 0.03], goal)
        elif self.near_miss == "shut_beside":
            down = [0, 0, 0.012 - ABOVE_M]
            at = goal + (half + 0.03)[:, None] * aside + down
            goal = np.where((here & (event == ABOVE))[:, None], at, goal)
            opening = np.where(here, 0.0, opening)
        return goal, opening
