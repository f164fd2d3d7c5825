"""Ground truth of the stages: pure functions of poses and contacts, with hysteresis.

Every stage has an event that holds or does not hold at a moment. An event begins to hold within
its tolerances and ceases beyond :data:`SLACK` times them, so that trembling at a limit makes no
noise. The *true stage* moves on by one where the event of the present stage holds, and falls back
to the beginning of a pick whose piece has been lost or has left its place.

Shapes: N rows, S picks, K stages, E = :data:`sim.manipulation.pieces.N_EVENTS` events.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from evovla.stages import PRIMITIVES

from .pieces import N_EVENTS, Plan

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
SLACK = 1.5
ABOVE_M, ABOVE_XY_M = (0.06, 0.14), 0.015
"""Heights over the grasp point that count as above it, and how far off sideways."""
REACH_XY_M, REACH_Z_M = 0.010, 0.010
SETTLE_STEPS = 5
OVER_M = (0.02, 0.10)
"""Heights over the place that count as over it."""
ROUGH = 3.0
"""A rough approach may be so many times farther off."""
RETREAT_M = 0.045
TILT = 0.05
"""1 less the cosine of the tilt up to which a piece is upright."""
STRAY_STEPS = 6
"""Steps that a piece may be out of its place, while it falls or rocks, before it counts as lost."""
MISSED_M, SHUT_M = 0.05, -0.004
"""A grasp has failed where the grip is so far beside, or the fingers closer than the piece."""
SLIP_STEPS = 3
"""Steps that a piece may be out of a finger's touch while it is carried."""
ABOVE, REACH, CLOSE, SETTLE, LIFT, OVER, LOWER, OPEN, RETREAT = range(len(PRIMITIVES))


@dataclass(frozen=True)
class Evidence:
    """What events are judged by, of the piece of each pick, leading shape (N, S)."""

    reach: Floats
    """(N, S, 3) grip from the grasp point, m."""
    off: Floats
    """(N, S, 3) piece from its place, in the frame of the reference, m."""
    off_release: Floats
    """(N, S, 3) piece from where it is let go, m."""
    raised: Floats
    """(N, S) piece over its height on the table, m."""
    turned: Floats
    """(N, S) rad from the wanted yaw at the place, 0 where any will do."""
    upright: Floats
    """(N, S) cosine of the piece's z axis and the vertical."""
    aligned: Floats
    """(N, S) rad of the gripper from the yaw that the piece is grasped at."""
    opening: Floats
    """(N, S) half the gap between the fingers less half the width of the piece, m."""
    held: Bools
    """(N, S) both fingers touch the piece."""
    touched: Bools
    """(N, S) a finger touches it."""


@dataclass(frozen=True)
class Tracker:
    """What is remembered of the events of N rows."""

    stage: NDArray[np.int64]
    """(N,) true stage, 0..K."""
    events: Bools
    """(N, S, E) events that hold, with hysteresis."""
    placed: Bools
    """(N, S) the piece is in its place, held or not, with hysteresis."""
    held_steps: NDArray[np.int64]
    """(N, S) steps that the piece has been held without a pause."""
    slipping: NDArray[np.int64]
    """(N, S) steps since it was held."""
    straying: NDArray[np.int64]
    """(N, S) steps since it was in its place."""

    @classmethod
    def start(cls, n: int, picks: int) -> Tracker:
        """Of n rows at the start of an episode."""
        none = np.zeros((n, picks), np.int64)
        gone = np.full((n, picks), 10_000)
        flags = np.zeros((n, picks), np.bool_)
        return cls(np.zeros(n, np.int64), np.zeros((n, picks, N_EVENTS), np.bool_), flags,
                   none, gone.copy(), gone)  # fmt: skip

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget these rows, in place."""
        fresh = Tracker.start(len(rows), self.placed.shape[1])
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(fresh, field.name)


def in_place(e: Evidence, plan: Plan, slack: float = 1.0) -> Bools:
    """(N, S) the piece is where it belongs and upright, whoever holds it."""
    near = np.hypot(e.off[..., 0], e.off[..., 1]) <= slack * plan.xy_m
    level = np.abs(e.off[..., 2]) <= slack * plan.z_m
    stands = (e.upright > 1 - TILT * slack) | (plan.upright == 0)
    return np.asarray(near & level & (np.abs(e.turned) <= slack * plan.yaw_rad) & stands)


def hold(
    e: Evidence, plan: Plan, held_steps: NDArray[np.int64], placed: Bools, slack: float = 1.0
) -> Bools:
    """(N, S, E) events that hold by these tolerances; two arguments are of :class:`Tracker`.

    In the order of :data:`evovla.stages.PRIMITIVES`, then the rough "over".
    """
    beside = np.hypot(e.reach[..., 0], e.reach[..., 1])
    up = e.reach[..., 2]
    free = ~e.touched & (e.opening > 0.002 / slack)
    turned = np.abs(e.aligned) <= 0.25 * slack
    low, high = ABOVE_M
    above = (beside <= slack * ABOVE_XY_M) & (up >= low / slack) & (up <= high * slack)
    reach = (beside <= slack * REACH_XY_M) & (np.abs(up) <= slack * REACH_Z_M)
    settle = e.held & (held_steps >= SETTLE_STEPS)
    lift = e.held & (e.raised >= plan.lift_m / slack)
    aside = np.hypot(e.off_release[..., 0], e.off_release[..., 1])
    height = e.off_release[..., 2]
    low, high = OVER_M
    over = e.held & (height >= low / slack) & (height <= high * slack)
    exact = (aside <= slack * plan.release_m) & (np.abs(e.turned) <= slack * plan.yaw_rad)
    rough = over & (aside <= slack * ROUGH * plan.release_m)
    lower = e.held & exact & (np.abs(height) <= slack * np.minimum(plan.z_m, 0.008))
    left = placed & ~e.touched
    away = left & (up >= RETREAT_M / slack)
    return np.stack([
        above & free & turned, reach & free & turned, e.held, settle, lift, over & exact, lower,
        left, away, rough,
    ], axis=-1)  # fmt: skip


def advance(tracker: Tracker, e: Evidence, plan: Plan) -> Tracker:
    """The tracker one step later, a new one; ``tracker`` is left as it is."""
    held_steps = np.where(e.held, tracker.held_steps + 1, 0)
    placed = in_place(e, plan) | (tracker.placed & in_place(e, plan, SLACK))
    loose = hold(e, plan, held_steps, placed, SLACK)
    events = hold(e, plan, held_steps, placed) | (tracker.events & loose)
    slipping = np.where(e.held, 0, tracker.slipping + 1)
    straying = np.where(placed, 0, tracker.straying + 1)
    beside = np.hypot(e.reach[..., 0], e.reach[..., 1])
    missed = (beside > MISSED_M) | (~e.touched & (e.opening < SHUT_M))
    stage = _fall_back(tracker.stage, missed, slipping, straying, plan)
    rows = np.flatnonzero((stage < plan.stages) & (stage == tracker.stage))
    now = stage[rows]
    stage[rows] += events[rows, plan.pick[now], plan.event[now]]
    return Tracker(stage, events, placed, held_steps, slipping, straying)


def _fall_back(
    stage: NDArray[np.int64], missed: Bools, slipping: NDArray[np.int64],
    straying: NDArray[np.int64], plan: Plan,
) -> NDArray[np.int64]:  # fmt: skip
    """(N,) stages, set back to the start of the first pick that has been undone."""
    done = stage[:, None] >= plan.first[1:]  # (N, S)
    undone = done & (straying >= STRAY_STEPS)
    k = np.minimum(stage, plan.stages - 1)
    pick, event = plan.pick[k], plan.event[k]
    rows = np.arange(len(stage))
    running = stage < plan.stages
    grasping = running & np.isin(event, (REACH, CLOSE))
    carried = running & (event > CLOSE) & ~np.isin(event, (OPEN, RETREAT))
    released = running & np.isin(event, (OPEN, RETREAT))
    lost = slipping[rows, pick] >= SLIP_STEPS
    gone = lost & (straying[rows, pick] >= STRAY_STEPS) & (slipping[rows, pick] >= STRAY_STEPS)
    undone[rows, pick] |= (grasping & missed[rows, pick]) | (carried & lost) | (released & gone)
    first = np.where(undone, plan.first[:-1], plan.stages + 1).min(axis=1)
    return np.asarray(np.minimum(stage, first), np.int64)


def stage_events(tracker: Tracker, plan: Plan) -> Bools:
    """(N, K) whether the event of each stage holds now, whatever the order."""
    return tracker.events[:, plan.pick, plan.event]
