"""Images of a long task from its ``side`` and ``wrist`` cameras."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..render import Canvas, lean
from ..tabletop.arm import FINGERS, JOINTS, OPEN_M
from ..tabletop.engine import dress
from .batch import ArmBatch
from .model import CAMERAS, LAMP_OFF, WRIST_FOVY_DEG, model_spec
from .randomization import Drawn
from .task import ArmState, ArmTask


class ArmView:
    """Draws rows of a state; square images.

    Args:
        task: what is drawn.
        side: pixels.

    Raises:
        RuntimeError: no off-screen OpenGL.
    """

    def __init__(self, task: ArmTask, side: int = 96) -> None:
        self.task, self.side = task, side
        spec = lean(model_spec(task.pieces, lamp=task.plan.cued), side, side)
        self._model: Any = spec.compile()
        m = self._model
        self._data = mujoco.MjData(m)
        self._canvas = Canvas(m, side, side)
        self._canvas.option.sitegroup[:] = 0
        self._cameras = {}
        for name in CAMERAS:
            camera = mujoco.MjvCamera()
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, m.camera(name).id
            self._cameras[name] = camera
        self._arm_q = np.array([m.joint(j).qposadr[0] for j in JOINTS])
        self._finger_q = np.array([m.joint(j).qposadr[0] for j in FINGERS])
        self._links = [i for i in range(m.ngeom) if m.geom(i).name.endswith("_link")]
        self._geoms = [
            [i for i in range(m.ngeom) if m.geom(i).name.startswith(f"piece{k}_")]
            for k in range(len(task.pieces))
        ]
        self._dressed: Drawn | None = None

    def draw(
        self, state: ArmState, row: int, drawn: Drawn, cameras: tuple[str, ...] = CAMERAS
    ) -> NDArray[np.uint8]:
        """(C, side, side, 3) RGB of one row of a state, one image per camera.

        Raises:
            ValueError: no such camera.
        """
        if unknown := set(cameras) - set(CAMERAS):
            raise ValueError(f"cameras must be of {CAMERAS}, got {sorted(unknown)}")
        if self._dressed is not drawn:
            self._dress(drawn)
        self._pose(state, row)
        out = np.empty((len(cameras), self.side, self.side, 3), np.uint8)
        for k, name in enumerate(cameras):
            self._canvas.update(self._data, self._cameras[name])
            out[k] = self._canvas.draw()
        return out

    def images(
        self, batch: ArmBatch, final: bool = False, cameras: tuple[str, ...] = CAMERAS
    ) -> NDArray[np.uint8]:
        """(N, C, side, side, 3) RGB of all rows now, or with ``final`` of what the last step led to
        before any reset."""
        state = batch.final_state if final else batch.state
        looks = batch.final_looks if final else batch.looks
        return np.stack([self.draw(state, i, looks[i], cameras) for i in range(batch.num_envs)])

    def _dress(self, drawn: Drawn) -> None:
        m = self._model
        dress(m, drawn.look, self._links)
        m.camera("wrist").fovy[0] = WRIST_FOVY_DEG * drawn.wrist_fovy
        for piece, geoms, tint in zip(self.task.pieces, self._geoms, drawn.tint, strict=True):
            m.geom_rgba[geoms, :3] = np.clip(np.array(piece.rgb) + tint, 0.02, 1.0)
        self._dressed = drawn

    def _pose(self, state: ArmState, row: int) -> None:
        """Put the arm and the pieces where a row of a state has them."""
        d, m = self._data, self._model
        d.qpos[self._arm_q] = state.joints[row]
        d.qpos[self._finger_q] = state.opening[row] * OPEN_M
        for k, piece in enumerate(self.task.pieces):
            if piece.fixed:
                body = m.body(f"piece{k}").mocapid[0]
                d.mocap_pos[body], d.mocap_quat[body] = state.pos[row, k], state.quat_wxyz[row, k]
            else:
                at = m.joint(f"piece{k}").qposadr[0]
                d.qpos[at : at + 7] = *state.pos[row, k], *state.quat_wxyz[row, k]
        if self.task.plan.cued:
            lit = state.t[row] < self.task.config.cue_steps
            meant = self.task.plan.references[0, max(int(state.cue[row]), 0)]
            rgb = self.task.pieces[meant].rgb if lit else LAMP_OFF
            m.geom("lamp").rgba[:3] = rgb
        mujoco.mj_kinematics(m, d)
        mujoco.mj_camlight(m, d)

    def close(self) -> None:
        """Free the GL resources."""
        self._canvas.close()
