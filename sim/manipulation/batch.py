"""The batch engine of the long tasks: N arms in MuJoCo under one clock, resetting by themselves.

**Action** (N, 5) in [-1, 1]: displacement of the grip along x, y, z, its turn about the vertical,
and how fast the fingers open (-1 shuts), each up to the limits in :mod:`sim.manipulation.cell`.
They move a commanded pose of the hand with the tool pointing down; the closed inverse kinematics of
:mod:`sim.tabletop.arm` turns it into targets of the six joints, limited in speed, which is what a
trajectory controller of ros2_control takes and what is recorded beside the actions. Displacements
train well: a demonstrated action depends on where the hand is from the object, not on where in the
cell; near a place the right action is a small one, so that noise of exploration averages out. The
fingers are sent by rate, not by place, so that the same noise never drops what is held. A closed
solution needs no damping: damped least squares would give the same joints with a lag.

Row i depends on the seed and on i alone, never on N nor on the number of threads.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from learning.vec_env import EnvSpec, Step

from ..backend import CONTROL_DT
from .cell import Cell
from .events import Tracker, advance, stage_events
from .randomization import ARM_NOMINAL, MAX_DELAY, ArmRandomization, Drawn
from .task import ArmState, ArmTask

ACTION_DIM, POSE_DIM = 5, 6


class ArmBatch:
    """N episodes of one long task; implements :class:`learning.vec_env.VecEnv`.

    ``Step.explore`` (N, 6) is the pose of the *present stage's* object in the frame of the gripper:
    place (3), m, and turn as axis times angle (3), rad. ``Step.terms`` hold "stage" (N,), the true
    stage that the step led to, beside reward terms and outcomes.

    Args:
        task: what is simulated.
        num_envs: N.
        seed: of everything drawn.
        randomization: ranges of the domain randomization, drawn per episode.
        threads: results do not depend on it.
        first_row: number of row 0, so that several batches can share one seed.

    Attributes:
        state, tracker: what is where now, and which stage is true.
        final_state, final_tracker: the same that the last step led to, before any reset.
        looks, final_looks: (N,) what each row's randomization drew, now and for the step before.
    """

    def __init__(
        self, task: ArmTask, num_envs: int, seed: int = 0,
        randomization: ArmRandomization = ARM_NOMINAL, threads: int = 1, first_row: int = 0,
    ) -> None:  # fmt: skip
        if num_envs < 1 or threads < 0:
            raise ValueError(
                f"num_envs must be >= 1 and threads >= 0, got {num_envs} and {threads}"
            )
        self.task, self.seed, self.first_row = task, int(seed), int(first_row)
        self.num_envs, self.randomization = num_envs, randomization
        n, p, s = num_envs, len(task.pieces), len(task.picks)
        self.spec = EnvSpec(
            n, task.obs_dim, ACTION_DIM, POSE_DIM, CONTROL_DT, task.config.max_steps
        )
        self.cell = Cell(task.pieces, n, threads)
        zero = np.zeros
        self.state = ArmState(
            grip=zero((n, 3)), grip_yaw=zero(n), opening=zero(n), at=zero((n, 3)), at_yaw=zero(n),
            at_opening=zero(n), joints=zero((n, 6)), asked=zero((n, 6)), pos=zero((n, p, 3)),
            quat_wxyz=zero((n, p, 4)), yaw=zero((n, p)), up=zero((n, p)), speed=zero((n, p)),
            touch=zero((n, p, 2), bool), cue=zero(n, np.int64), t=zero(n, np.int64),
            stable=zero(n, np.int64), weak=zero(n, bool), goal=zero((n, s, 3)),
            start=zero((n, p, 3)), last_stage=zero(n, np.int64),
        )  # fmt: skip
        self.tracker = Tracker.start(n, s)
        self.final_state, self.final_tracker = self.state, self.tracker
        self.episode = zero(n, np.int64)
        self.layout = zero(n, np.int64)
        """(N,) number of the running episode of each row, for faces that show it."""
        self.looks: list[Drawn] = [randomization.draw(np.random.default_rng(0), p)] * n
        self.final_looks = list(self.looks)
        self.delay = zero(n, np.int64)
        self.pending = zero((n, MAX_DELAY + 1, ACTION_DIM))

    # the VecEnv contract

    def reset(self) -> NDArray[np.float32]:
        """Start the next episode of every row, so ``reset`` twice differs."""
        self._reset_rows(np.arange(self.num_envs))
        self._keep_final()
        return self.observe()

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance all by 50 ms under (N, 5) actions in [-1, 1].

        Raises:
            ValueError: the actions have another shape.
            RuntimeError: a simulation diverged.
        """
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (self.num_envs, ACTION_DIM):
            raise ValueError(f"action must be ({self.num_envs}, {ACTION_DIM}), got {wanted.shape}")
        wanted = np.clip(np.nan_to_num(wanted), -1, 1)
        if self.delay.any():
            self.pending = np.roll(self.pending, 1, axis=1)
            self.pending[:, 0] = wanted
            wanted = self.pending[np.arange(self.num_envs), self.delay]
        s, task = self.state, self.task
        self.cell.drive(s, wanted)
        self.cell.measure(s, np.arange(self.num_envs))
        s.t += 1
        s.last_stage = self.tracker.stage.copy()
        self.tracker = advance(self.tracker, task.evidence(s), task.plan)
        s.stable = np.where(task.standing(s, self.tracker), s.stable + 1, 0)
        s.weak |= task.weak(s)
        terms = task.reward(s, self.tracker)
        terminated, truncated, outcome = task.done(s, self.tracker)
        reward = np.sum(list(terms.values()), axis=0).astype(np.float32)
        explore, obs = self.explore(), self.observe()
        final_obs, done = obs, terminated | truncated
        info: dict[str, NDArray[Any]] = {f"reward/{name}": value for name, value in terms.items()}
        info |= outcome | {"episode_length": s.t.copy()}
        self._keep_final()
        if done.any():
            self._reset_rows(np.flatnonzero(done))
            obs = np.where(done[:, None], self.observe(), obs)
        return Step(obs, reward, terminated, truncated, final_obs, explore, info)

    def observe(self, stage: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """(N, D) observations to act on next, for the true or a believed stage (N,)."""
        return self._composed(self.state, self.tracker, stage)

    def observe_final(self, stage: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """(N, D) observations that the last step led to, before any reset."""
        return self._composed(self.final_state, self.final_tracker, stage)

    def _composed(
        self, state: ArmState, tracker: Tracker, stage: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        base = self.task.base(state)
        if not self.task.config.show_stage:
            return base
        focus = self.task.focus(self.task.evidence(state))
        return self.task.compose(base, focus, tracker.stage if stage is None else stage)

    def explore(self) -> NDArray[np.float32]:
        """(N, 6) pose of the present stage's object in the frame of the gripper."""
        return self.relative_pose(self.tracker.stage)

    def relative_pose(self, stage: NDArray[Any]) -> NDArray[np.float32]:
        """(N, 6) pose of the object of a stage (N,), true or believed, seen from the gripper."""
        rows, plan = np.arange(self.num_envs), self.task.plan
        piece = plan.target[plan.pick[np.minimum(stage, plan.stages - 1)]]
        mat = self.cell.grip_mat()
        away = np.einsum("nji,nj->ni", mat, self.state.pos[rows, piece] - self.state.grip)
        quat = self.grip_pose[:, 3:]
        other = self.state.quat_wxyz[rows, piece]
        w = (quat * other).sum(axis=1)
        vec = quat[:, :1] * other[:, 1:] - other[:, :1] * quat[:, 1:]
        vec = (vec - np.cross(quat[:, 1:], other[:, 1:])) * np.where(w < 0, -1, 1)[:, None]
        length = np.linalg.norm(vec, axis=1)
        angle = 2 * np.arctan2(length, np.abs(w))
        turn = vec * (angle / np.maximum(length, 1e-9))[:, None]
        return np.concatenate([away, turn], axis=1).astype(np.float32)

    @property
    def stage(self) -> NDArray[np.int64]:
        """(N,) true stage now, 0..K."""
        return self.tracker.stage.copy()

    @property
    def events(self) -> NDArray[np.bool_]:
        """(N, K) whether the event of each stage holds now, whatever the order."""
        return stage_events(self.tracker, self.task.plan)

    @property
    def object_pose(self) -> NDArray[np.float64]:
        """(N, P, 7) place, m, and quat_wxyz of the pieces."""
        return np.concatenate([self.state.pos, self.state.quat_wxyz], axis=2)

    @property
    def grip_pose(self) -> NDArray[np.float64]:
        """(N, 7) place, m, and quat_wxyz of the grip; its z axis is along the tool."""
        out = np.zeros((self.num_envs, 7))
        out[:, :3] = self.state.grip
        for row, mat in zip(out, self.cell.grip_mat(), strict=True):
            mujoco.mju_mat2Quat(row[3:], mat.ravel())
        return out

    @property
    def proprioception(self) -> NDArray[np.float32]:
        """(N, 14) what a robot knows of itself: joints (6) and joint targets (6), rad, the opening
        and the opening that is asked, shares of the widest."""
        s = self.state
        hand = np.stack([s.opening, s.at_opening], axis=1)
        return np.concatenate([s.joints, s.asked, hand], axis=1).astype(np.float32)

    # the clock

    def _keep_final(self) -> None:
        """Remember what the last step led to: rows are about to be reset in place."""
        arrays = {f.name: getattr(self.state, f.name).copy() for f in fields(self.state)}
        self.final_state = ArmState(**arrays)
        kept = {f.name: getattr(self.tracker, f.name).copy() for f in fields(self.tracker)}
        self.final_tracker, self.final_looks = Tracker(**kept), list(self.looks)

    # episodes

    def _reset_rows(self, rows: NDArray[np.int64]) -> None:
        """Begin the next episode of each row."""
        starts = []
        for row in rows:
            key = [self.seed, self.first_row + int(row), int(self.episode[row])]
            rng = np.random.default_rng(key)
            self.layout[row] = self.episode[row]
            self.episode[row] += 1
            look = self.randomization.draw(rng, len(self.task.pieces))
            self.looks[row], self.delay[row] = look, look.delay_steps
            starts.append(self.task.draw(rng, look.physics["pose"]))
        r, s = self.randomization, self.state
        drawn = [self.looks[row] for row in rows]
        self.cell.apply(rows, drawn, r.friction != (1.0, 1.0), r.mass != (1.0, 1.0))
        self.cell.reset(s, rows, starts)
        s.t[rows] = s.stable[rows] = s.last_stage[rows] = 0
        s.weak[rows] = False
        s.start[rows] = s.pos[rows]
        s.goal[rows] = self.task.goals(s)[rows]
        self.tracker.reset(rows)
        self.pending[rows] = 0.0

    def episode_parameters(self, row: int) -> dict[str, float]:
        """What the domain randomization drew for the physics of the row's episode."""
        return dict(self.looks[row].physics)

    # saving

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; looks and models are not stored but drawn again."""
        out: dict[str, Any] = {
            f.name: getattr(self.state, f.name).copy() for f in fields(self.state)
        }
        kept = {f"tracker_{f.name}": getattr(self.tracker, f.name) for f in fields(self.tracker)}
        out |= {name: value.copy() for name, value in kept.items()}
        out |= {"episode": self.episode.copy(), "pending": self.pending.copy()}
        out |= {"integration": self.cell.sims.state.copy(), "seed": self.seed}
        return out | {"first_row": self.first_row, "num_envs": self.num_envs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, bit for bit.

        Raises:
            ValueError: it is of another seed, first row or number of rows.
        """
        for name in ("seed", "first_row", "num_envs"):
            if int(state[name]) != getattr(self, name):
                raise ValueError(
                    f"{name} must be {getattr(self, name)} as in this env, got {state[name]}"
                )
        self.episode[:] = state["episode"] - 1
        self._reset_rows(np.arange(self.num_envs))
        for field in fields(self.state):
            setattr(self.state, field.name, np.array(state[field.name]))
        kept = {f.name: np.array(state[f"tracker_{f.name}"]) for f in fields(self.tracker)}
        self.tracker = Tracker(**kept)
        self.pending = np.array(state["pending"])
        self.cell.sims.state[:] = state["integration"]
        self.cell.sims.forward()
        self._keep_final()
