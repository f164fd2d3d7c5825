"""Images of the table, and where in them things are."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..render import Canvas, lean
from .engine import Tabletop, camera_pose, table_spec
from .scene import Look


class TableView:
    """A table and the image of its side camera, square.

    Args:
        side: pixels.
    """

    def __init__(self, side: int = 96) -> None:
        self.side = side
        self.table = Tabletop(lean(table_spec(), side, side))
        self._canvas = Canvas(self.table.model, side, side)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self.table.model.camera("side").id
        self._ghost = mujoco.MjData(self.table.model)

    def draw(self, qpos: ArrayLike | None = None) -> NDArray[np.uint8]:
        """(side, side, 3) RGB of the table now, or with other ``qpos`` of the same scene."""
        data = self.table.data
        if qpos is not None:
            data = self._ghost
            data.qpos[:] = qpos
            mujoco.mj_kinematics(self.table.model, data)
            mujoco.mj_camlight(self.table.model, data)
        self._canvas.update(data, self._camera)
        return self._canvas.draw()

    def close(self) -> None:
        """Free the GL resources."""
        self._canvas.close()


def project(points: ArrayLike, look: Look) -> NDArray[np.float64]:
    """(..., 2) x, y in a square image of the side camera, 0..1 from the top left, of (..., 3) m."""
    pos, quat = camera_pose(look)
    rot = np.zeros(9)
    mujoco.mju_quat2Mat(rot, quat)
    inside = (np.asarray(points, np.float64) - pos) @ rot.reshape(3, 3)
    scale = 0.5 / np.tan(np.radians(look.fovy_deg) / 2)
    flat = inside[..., :2] / np.maximum(-inside[..., 2:], 1e-6) * scale
    return np.stack([0.5 + flat[..., 0], 0.5 - flat[..., 1]], axis=-1)
