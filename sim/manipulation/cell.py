"""N simulations of one cell, an arm at a table with pieces: driven, measured, set up again."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from mujoco import batch as mjb
from numpy.typing import NDArray

from ..backend import CONTROL_DT
from ..tabletop.arm import FINGERS, JOINTS, OPEN_M, SPEEDS, inverse
from ..tabletop.engine import SQUEEZE_M, SUBSTEPS
from .model import model_spec
from .pieces import Piece
from .randomization import Drawn
from .task import ArmState, Start

STEP_M, STEP_RAD, STEP_OPEN = 0.02, 0.15, 0.25
"""Most that one action moves, turns and opens the hand."""
LOW, HIGH = np.array([0.12, -0.30, 0.008]), np.array([0.50, 0.30, 0.32])
"""The grip is sent within, m."""
LEASH_M = 0.08
"""It is never sent farther from where it is, so that a hand that is held up or slow does not catch
up on its own."""


class Cell:
    """The physics under :class:`sim.manipulation.batch.ArmBatch`; writes into its state.

    Args:
        pieces: what is on the table.
        num_envs: N.
        threads: results do not depend on it.
    """

    def __init__(self, pieces: tuple[Piece, ...], num_envs: int, threads: int) -> None:
        self.pieces = pieces
        model: Any = model_spec(pieces).compile()
        self.sims = b = mjb.Batch(model, num_envs, threads)
        self._qpos, self._qvel, self._ctrl = b.bind("qpos"), b.bind("qvel"), b.bind("ctrl")
        self._mocap_pos, self._mocap_quat = b.bind("mocap_pos"), b.bind("mocap_quat")
        self._sites, self._mats = b.bind("site_xpos"), b.bind("site_xmat")
        self._sensors = b.bind("sensordata")
        self._grip = model.site("grip").id
        self._arm_q = np.array([model.joint(j).qposadr[0] for j in JOINTS])
        self._finger_q = np.array([model.joint(j).qposadr[0] for j in FINGERS])
        self._free = np.array([i for i, p in enumerate(pieces) if not p.fixed])
        self._fixed = np.array([i for i, p in enumerate(pieces) if p.fixed], np.int64)
        joints = [model.joint(f"piece{i}") for i in self._free]
        self._piece_q = np.array([j.qposadr[0] for j in joints])
        self._piece_v = np.array([j.dofadr[0] for j in joints])
        self._mocap = np.array([model.body(f"piece{i}").mocapid[0] for i in self._fixed], np.int64)
        geoms = [i for i in range(model.ngeom) if model.geom(i).name.startswith("piece")]
        self._piece_geoms = np.array(geoms)
        self._piece_bodies = np.array([model.body(f"piece{i}").id for i in self._free])

    def drive(self, s: ArmState, action: NDArray[np.float64]) -> None:
        """Move the commanded pose, ask the joints for it, and let 50 ms pass."""
        away = s.at + STEP_M * action[:, :3] - s.grip
        far = np.maximum(np.linalg.norm(away, axis=1, keepdims=True) / LEASH_M, 1.0)
        s.at = np.clip(s.grip + away / far, LOW, HIGH)
        s.at_yaw = s.at_yaw + STEP_RAD * action[:, 3]
        s.at_opening = np.clip(s.at_opening + STEP_OPEN * action[:, 4], 0, 1)
        most = SPEEDS * CONTROL_DT
        wanted = inverse(s.at, s.at_yaw, near=s.asked[:, 5])
        s.asked = s.asked + np.clip(wanted - s.asked, -most, most)
        self._ctrl[:, :6] = s.asked
        self._ctrl[:, 6:] = (s.at_opening * OPEN_M - SQUEEZE_M * (1 - s.at_opening))[:, None]
        self.sims.step(nstep=SUBSTEPS)

    def measure(self, s: ArmState, rows: NDArray[np.int64]) -> None:
        """Read what is where from the simulations."""
        qpos = self._qpos[rows]
        s.joints[rows] = qpos[:, self._arm_q]
        s.grip[rows] = self._sites[rows, self._grip]
        s.grip_yaw[rows] = s.joints[rows, 0] - s.joints[rows, 5]
        s.opening[rows] = qpos[:, self._finger_q].mean(axis=1) / OPEN_M
        free = qpos[:, self._piece_q[:, None] + np.arange(7)]
        if not np.isfinite(free).all():
            bad = rows[~np.isfinite(free).all(axis=(1, 2))]
            raise RuntimeError(f"simulations {bad.tolist()} diverged")
        at = np.ix_(rows, self._free)
        s.pos[at], s.quat_wxyz[at] = free[..., :3], free[..., 3:]
        at = np.ix_(rows, self._fixed)
        s.pos[at], s.quat_wxyz[at] = self._mocap_pos[rows], self._mocap_quat[rows]
        w, x, y, z = np.moveaxis(s.quat_wxyz[rows], -1, 0)
        s.yaw[rows] = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        s.up[rows] = 1 - 2 * (x * x + y * y)
        velocity = self._qvel[rows][:, self._piece_v[:, None] + np.arange(3)]
        s.speed[np.ix_(rows, self._free)] = np.linalg.norm(velocity, axis=2)
        touch = self._sensors[rows].reshape(len(rows), -1, 2) > 0
        s.touch[np.ix_(rows, self._free)] = touch

    def reset(self, s: ArmState, rows: NDArray[np.int64], starts: list[Start]) -> None:
        """Begin anew in these rows."""
        self.sims.reset(rows, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._place(s, rows, starts)
        self.sims.forward(rows)
        self.measure(s, rows)

    def grip_mat(self) -> NDArray[np.float64]:
        """(N, 3, 3) rotation of the grip; its z axis is along the tool."""
        return np.asarray(self._mats[:, self._grip].reshape(-1, 3, 3))

    def apply(
        self, rows: NDArray[np.int64], drawn: list[Drawn], friction: bool, mass: bool
    ) -> None:
        """Write what was drawn of friction and mass, where these vary, into the rows' models."""
        b, m = self.sims, self.sims.model
        if friction:
            scale = np.array([d.physics["friction"] for d in drawn])
            values = scale[:, None] * m.geom_friction[self._piece_geoms, 0]
            b.expand("geom_friction")[rows[:, None], self._piece_geoms, 0] = values
        if mass:
            scale = np.array([d.physics["mass"] for d in drawn])
            at = np.ix_(rows, self._piece_bodies)
            b.expand("body_mass")[at] = scale[:, None] * m.body_mass[self._piece_bodies]
            inertia = scale[:, None, None] * m.body_inertia[self._piece_bodies]
            b.expand("body_inertia")[at] = inertia
            b.set_const(rows)

    def _place(self, s: ArmState, rows: NDArray[np.int64], starts: list[Start]) -> None:
        """Put the pieces and the hand of rows where their episodes begin."""
        k = len(rows)
        xy, yaw = np.array([a.xy_m for a in starts]), np.array([a.yaw for a in starts])
        height = np.array([p.height_m for p in self.pieces])
        pose = np.zeros((k, len(height), 7))
        pose[..., :2], pose[..., 2] = xy, height
        pose[..., 3], pose[..., 6] = np.cos(yaw / 2), np.sin(yaw / 2)
        at = rows[:, None, None], (self._piece_q[:, None] + np.arange(7))[None]
        self._qpos[at] = pose[:, self._free]
        if len(self._fixed):
            there = np.ix_(rows, self._mocap)
            self._mocap_pos[there] = pose[:, self._fixed, :3]
            self._mocap_quat[there] = pose[:, self._fixed, 3:]
        s.at[rows] = np.array([a.grip_m for a in starts])
        s.at_yaw[rows], s.at_opening[rows] = [a.grip_yaw for a in starts], 1.0
        s.asked[rows] = inverse(s.at[rows], s.at_yaw[rows])
        self._qpos[rows[:, None], self._arm_q] = s.asked[rows]
        self._qpos[rows[:, None], self._finger_q] = OPEN_M
        self._ctrl[rows, :6], self._ctrl[rows, 6:] = s.asked[rows], OPEN_M
        s.cue[rows] = [a.cue for a in starts]
