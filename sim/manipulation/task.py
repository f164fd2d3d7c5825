"""A long manipulation task, written once for N rows: start, observation, reward, end of an episode.

**Observation** (N, D) float32, in metres and in the frame of the arm. First the hand, 10 columns:
grip (3), where it is sent less where it is (3), opening, opening that is asked, cosine and sine of
twice its yaw. Then 8 per piece: place from the grip (3), cosine and sine of how the gripper is
turned to it, cosine of its tilt, held by both fingers, touched. Of a cued task, 2 columns of the
cue, zero but in the first steps. Last, if ``show_stage``, the stage and what matters to it, see
:meth:`ArmTask.compose`; these columns can be made of a *believed* stage as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tabletop.arm import OPEN_M
from .events import Evidence, Tracker
from .pieces import N_EVENTS, Pick, Piece, Plan

HAND, SLOT, FOCUS = 10, 8, 13
STAGE_COLUMNS = N_EVENTS + 2 + FOCUS
FALLEN_M = -0.03
STILL = 0.03
"""m/s; a piece that is slower stands still."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArmConfig:
    """What all long tasks share. The reward is sparse by default."""

    max_steps: int = 200
    """Control steps of 50 ms until the episode is truncated."""
    success_reward: float = 1.0
    """Paid once, at strict success."""
    stage_reward: float = 0.0
    """Paid for all stages together, in equal parts as the true stage rises, taken back where it
    falls: an oracle, for ablation."""
    stable_steps: int = 10
    """Steps that everything must stand, released and still, for strict success."""
    show_stage: bool = True
    """Observations tell the true stage; otherwise these columns are missing."""
    cue_steps: int = 8
    """Steps that the cue of a cued task is seen."""
    goal_m: float = 0.02
    """A piece so near to its goal is there, for the face with goals."""

    def __post_init__(self) -> None:
        if min(self.max_steps, self.stable_steps, self.cue_steps) < 1 or not self.goal_m > 0:
            raise ValueError(
                "max_steps, stable_steps, cue_steps >= 1 and goal_m > 0 wanted, got "
                f"{self.max_steps}, {self.stable_steps}, {self.cue_steps}, {self.goal_m}"
            )


@dataclass
class Start:
    """How an episode begins."""

    xy_m: Floats
    """(P, 2)."""
    yaw: Floats
    """(P,)."""
    grip_m: Floats
    """(3,) where the hand begins."""
    grip_yaw: float = 0.0
    cue: int = -1
    """Index of the reference that is meant; -1 where there is one only."""


@dataclass
class ArmState:
    """The arrays of N episodes; the engine fills them, the task reads them."""

    grip: Floats
    """(N, 3) point between the finger tips, m."""
    grip_yaw: Floats
    """(N,) rad."""
    opening: Floats
    """(N,) share of the widest."""
    at: Floats
    """(N, 3) where the grip is sent, m."""
    at_yaw: Floats
    at_opening: Floats
    joints: Floats
    """(N, 6) measured, rad."""
    asked: Floats
    """(N, 6) joint targets that the servos were sent last, rad."""
    pos: Floats
    """(N, P, 3) of the pieces, m."""
    quat_wxyz: Floats
    """(N, P, 4)."""
    yaw: Floats
    """(N, P)."""
    up: Floats
    """(N, P) cosine of a piece's z axis and the vertical."""
    speed: Floats
    """(N, P) m/s."""
    touch: NDArray[np.bool_]
    """(N, P, 2) which finger touches which piece."""
    cue: NDArray[np.int64]
    """(N,) see :class:`Start`."""
    t: NDArray[np.int64]
    """(N,) steps since reset."""
    stable: NDArray[np.int64]
    """(N,) steps that all has stood still in its place."""
    weak: NDArray[np.bool_]
    """(N,) the weak predicate has held at some step."""
    goal: Floats
    """(N, S, 3) where the pieces of the picks belonged, by the references at the start."""
    start: Floats
    """(N, P, 3) places at the start."""
    last_stage: NDArray[np.int64]


class ArmTask:
    """Base of the long tasks; a task names its pieces, its picks and a weak predicate.

    Args:
        config: what ends an episode and what is paid.
        pieces, picks: what is on the table, and what is to be done with it.
    """

    name = "arm"
    description = ""
    """The task in words."""
    gap_m = 0.0
    """Least distance between pieces at the start, of their frames."""

    def __init__(
        self, config: ArmConfig, pieces: tuple[Piece, ...], picks: tuple[Pick, ...]
    ) -> None:
        self.config, self.pieces, self.picks = config, pieces, picks
        self.plan = Plan(pieces, picks)
        self.steps = self.plan.steps
        """(K,) stages, as :mod:`evovla.stages` describes them."""
        self.base_dim = HAND + SLOT * len(pieces) + 2 * self.plan.cued
        self.obs_dim = self.base_dim + STAGE_COLUMNS * config.show_stage
        self._grasp_yaw = np.array([p.grasp_yaw for p in pieces])
        self._turns = np.array([2 * np.pi / p.grasp_period for p in pieces])

    def draw(self, rng: np.random.Generator, spread: float) -> Start:
        """One episode; ``spread`` 0..1 scales the ranges that pieces are put in."""
        places = np.array([p.xy_m for p in self.pieces])
        room = np.array([p.spread_m for p in self.pieces])
        turn = np.array([p.spread_rad for p in self.pieces])
        near = True
        while near:  # drawn anew where two are too close
            xy = places + spread * room * rng.uniform(-1, 1, places.shape)
            gaps = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.eye(len(xy))
            near = bool((gaps < self.gap_m).any())
        yaw = np.array([p.yaw for p in self.pieces]) + spread * turn * rng.uniform(-1, 1, len(turn))
        grip = np.array([0.28, 0.0, 0.20]) + spread * rng.uniform(-1, 1, 3) * (0.04, 0.08, 0.03)
        return Start(xy, yaw, grip)

    def weak(self, state: ArmState) -> NDArray[np.bool_]:
        """(N,) what the public benchmark would call success."""
        raise TypeError(f"{type(self).__name__} has no weak predicate")

    # evidence

    def evidence(self, state: ArmState, cued: bool = False) -> Evidence:
        """What the events of N rows are judged by.

        Where a pick has two references, it is judged by the one that its piece is nearer to, so
        that the true stage does not give the cue away; with ``cued`` by the one that is meant.
        """
        plan, s = self.plan, state
        pos, quat = s.pos[:, plan.target], s.quat_wxyz[:, plan.target]
        at, turn, yaw = self._reference(state, cued)
        local = rotate(turn, pos - at, inverse=True)
        grasp = pos + rotate(quat, np.broadcast_to(plan.grasp, pos.shape))
        piece_yaw = s.yaw[:, plan.target]
        turned = wrap(piece_yaw - yaw - plan.yaw, np.pi)
        aligned = wrap(s.grip_yaw[:, None] - piece_yaw - plan.grasp_yaw, plan.grasp_period)
        touch = s.touch[:, plan.target]
        return Evidence(
            s.grip[:, None] - grasp, local - plan.at, local - plan.release,
            pos[..., 2] - plan.height_m, np.nan_to_num(turned), s.up[:, plan.target], aligned,
            s.opening[:, None] * OPEN_M - plan.half_grip_m, np.asarray(touch.all(axis=2)),
            np.asarray(touch.any(axis=2)),
        )  # fmt: skip

    def _reference(self, s: ArmState, cued: bool) -> tuple[Floats, Floats, Floats]:
        """Place (N, S, 3), quat (N, S, 4) and yaw (N, S) of the reference of each pick."""
        rows, plan = np.arange(len(s.t))[:, None], self.plan
        which = np.broadcast_to(plan.references[:, 0], (len(s.t), len(plan.target)))
        if plan.cued:
            every = np.broadcast_to(plan.references, (len(s.t), *plan.references.shape))
            if cued:
                choice = np.broadcast_to(np.maximum(s.cue, 0)[:, None, None], (*which.shape, 1))
            else:
                gap = s.pos[rows[..., None], every, :2] - s.pos[:, plan.target, None, :2]
                choice = np.hypot(gap[..., 0], gap[..., 1]).argmin(axis=2)[..., None]
            which = np.take_along_axis(every, choice, axis=2)[..., 0]
        return s.pos[rows, which], s.quat_wxyz[rows, which], s.yaw[rows, which]

    def goals(self, state: ArmState) -> Floats:
        """(N, S, 3) where the pieces of the picks are when all is done, m, from how things are now.

        Twice through the picks: what is put into a cup goes with it.
        """
        plan, rows = self.plan, np.arange(len(state.t))
        pos, yaw = state.pos.copy(), state.yaw.copy()
        for _ in range(2):
            for s, target in enumerate(plan.target):
                which = plan.references[s, np.maximum(state.cue, 0) if plan.cued else 0]
                c, n = np.cos(yaw[rows, which]), np.sin(yaw[rows, which])
                x, y, z = plan.at[s]
                pos[:, target] = pos[rows, which] + np.stack([
                    c * x - n * y, n * x + c * y, np.full(len(rows), z)
                ], axis=1)  # fmt: skip
                if np.isfinite(plan.yaw[s]):
                    yaw[:, target] = yaw[rows, which] + plan.yaw[s]
        return pos[:, plan.target]

    # observations

    def base(self, s: ArmState) -> NDArray[np.float32]:
        """(N, base_dim) the observation without the stage."""
        n, p = s.yaw.shape
        hand = np.concatenate([
            s.grip, s.at - s.grip, s.opening[:, None], s.at_opening[:, None],
            np.cos(2 * s.grip_yaw)[:, None], np.sin(2 * s.grip_yaw)[:, None],
        ], axis=1)  # fmt: skip
        turn = self._turns * (s.grip_yaw[:, None] - s.yaw - self._grasp_yaw)
        slots = np.empty((n, p, SLOT))
        slots[..., :3] = s.pos - s.grip[:, None]
        slots[..., 3], slots[..., 4], slots[..., 5] = np.cos(turn), np.sin(turn), s.up
        slots[..., 6], slots[..., 7] = s.touch.all(axis=2), s.touch.any(axis=2)
        parts = [hand, slots.reshape(n, -1)]
        if self.plan.cued:
            seen = (s.t < self.config.cue_steps)[:, None]
            parts.append(seen * (s.cue[:, None] == np.arange(2)))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def focus(self, e: Evidence) -> NDArray[np.float32]:
        """(N, S, FOCUS) what matters to each pick: grip from the grasp point (3), piece from where
        it is let go (3) and from its place (3), how the gripper is turned (cos, sin), how the piece
        is turned, whether it is held. Of a cued task the places are left out."""
        turn = e.aligned * (2 * np.pi / self.plan.grasp_period)
        places = np.concatenate([e.off_release, e.off], axis=2)
        return np.concatenate([
            e.reach, places * (not self.plan.cued), np.cos(turn)[..., None],
            np.sin(turn)[..., None], e.turned[..., None], e.held[..., None],
        ], axis=2).astype(np.float32)  # fmt: skip

    def compose(
        self, base: NDArray[np.float32], focus: NDArray[np.float32], stage: NDArray[Any]
    ) -> NDArray[np.float32]:
        """(N, obs_dim) observations for a stage, true or believed.

        Args:
            base: (N, base_dim); focus: (N, S, FOCUS); stage: (N,) 0..K.

        The stage columns are: one for each event, and for "all done", 1 for the present one; the
        share of stages that are done; the columns of :meth:`focus` of the present pick.
        """
        if not self.config.show_stage:
            return base
        k = np.minimum(stage, self.plan.stages - 1)
        rows = np.arange(len(base))
        done = stage >= self.plan.stages
        out = np.zeros((len(base), STAGE_COLUMNS), np.float32)
        out[rows, np.where(done, N_EVENTS, self.plan.event[k])] = 1.0
        out[:, N_EVENTS + 1] = stage / self.plan.stages
        out[:, N_EVENTS + 2 :] = focus[rows, self.plan.pick[k]] * ~done[:, None]
        return np.concatenate([base, out], axis=1)

    # reward and end

    def standing(self, s: ArmState, tracker: Tracker) -> NDArray[np.bool_]:
        """(N,) all stages are done and every piece stands, released, where it belongs."""
        still = (s.speed[:, self.plan.target] < STILL).all(axis=1)
        free = ~s.touch.any(axis=(1, 2))
        done = (tracker.stage >= self.plan.stages) & tracker.placed.all(axis=1)
        return np.asarray(done & still & free & self._meant(s))

    def reward(self, s: ArmState, tracker: Tracker) -> dict[str, NDArray[Any]]:
        """Terms (N,) of the extrinsic reward; the reward is their sum."""
        c = self.config
        gain = (tracker.stage - s.last_stage) / self.plan.stages
        terms: dict[str, NDArray[Any]] = {"success": c.success_reward * self.success(s)}
        if c.stage_reward:
            terms["stage"] = c.stage_reward * gain
        return terms

    def success(self, s: ArmState) -> NDArray[np.bool_]:
        """(N,) strict success: in order, released, stable."""
        return s.stable >= self.config.stable_steps

    def done(
        self, s: ArmState, tracker: Tracker
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """(N,) terminated, (N,) truncated, and outcomes (valid where either holds)."""
        success = self.success(s)
        lost = (s.pos[..., 2] < FALLEN_M).any(axis=1)
        wrong = (tracker.stage >= self.plan.stages) & ~self._meant(s)
        terminated = success | lost | wrong
        outcome = {"success": success, "lost": lost, "wrong": wrong, "weak_success": s.weak.copy(),
                   "stage": tracker.stage.copy()}  # fmt: skip
        return terminated, ~terminated & (s.t >= self.config.max_steps), outcome

    def _meant(self, s: ArmState) -> NDArray[np.bool_]:
        """(N,) the place that each piece is nearest to is the one that is meant."""
        if not self.plan.cued:
            return np.ones(len(s.t), np.bool_)
        near, meant = self._reference(s, cued=False)[0], self._reference(s, cued=True)[0]
        return np.asarray((near == meant).all(axis=(1, 2)))


def wrap(angle: Any, period: Any) -> Any:
    """Angles within half a period of 0."""
    return (angle + period / 2) % period - period / 2


def rotate(quat_wxyz: Floats, vec: Floats, inverse: bool = False) -> Floats:
    """(..., 3) vectors turned by (..., 4) unit quaternions, or back."""
    w, u = quat_wxyz[..., :1], quat_wxyz[..., 1:]
    u = -u if inverse else u
    t = 2 * np.cross(u, vec)
    return np.asarray(vec + w * t + np.cross(u, t))
