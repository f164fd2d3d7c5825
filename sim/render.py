"""Lean off-screen rendering: EGL, no shadows, no multisampling, buffer as large as the image.

Shadow maps and multisampling are most of MuJoCo's default cost in software GL; without them a
frame is about 18 times cheaper and looks nearly the same.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
from typing import Any, Literal

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.robot import RobotSpec

from .robots import GROUP_CONTACT, WALL_M, world_spec
from .worlds import World

MARKS = 1500
"""Most decorative shapes (goal, path) in a scene."""
_GOAL, _PATH = np.array([0.10, 0.62, 0.30, 1.0]), np.array([0.85, 0.20, 0.45, 1.0])
_EYE = np.eye(3).ravel()


def lean(spec: mujoco.MjSpec, width: int, height: int) -> mujoco.MjSpec:
    """Set a spec's visual quality to the lean settings, in place, and return it."""
    quality, screen = spec.visual.quality, spec.visual.global_
    quality.shadowsize, quality.offsamples = 0, 0
    screen.offwidth, screen.offheight = width, height
    for light in spec.lights:
        light.castshadow = False
    return spec


class Canvas:
    """Draws a model compiled from a :func:`lean` spec into (height, width, 3) uint8 images.

    Args:
        model: its off-screen buffer must be exactly this large.
        width, height: pixels.

    Raises:
        ValueError: the model's buffer has another size.
        RuntimeError: no off-screen OpenGL; says what to install.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        screen = model.vis.global_
        if (screen.offwidth, screen.offheight) != (width, height):
            raise ValueError(
                f"model must have an off-screen buffer of {width} x {height}, see lean(), "
                f"got {screen.offwidth} x {screen.offheight}"
            )
        self._gl = _gl_context(width, height)
        self._gl.make_current()
        self.model = model
        self.scene = mujoco.MjvScene(model, maxgeom=model.ngeom + MARKS)
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self.option = mujoco.MjvOption()
        self.option.geomgroup[:] = 1
        self.option.geomgroup[GROUP_CONTACT] = 0
        self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._image = np.empty((height, width, 3), np.uint8)

    def update(self, data: mujoco.MjData, camera: mujoco.MjvCamera) -> None:
        """Take over the scene of ``data``; marks added before are gone."""
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, self.option, None, camera, everything, self.scene)

    def mark(self, kind: int, size: ArrayLike, pos: ArrayLike, rgba: NDArray[np.float64]) -> None:
        """Add a decorative shape until the next update; beyond :data:`MARKS` it is left out."""
        if self.scene.ngeom < self.scene.maxgeom:
            geom = self.scene.geoms[self.scene.ngeom]
            mujoco.mjv_initGeom(
                geom, kind, np.asarray(size, float), np.asarray(pos, float), _EYE,
                rgba.astype(np.float32),
            )  # fmt: skip
            self.scene.ngeom += 1

    def draw(self) -> NDArray[np.uint8]:
        """The scene as a new image."""
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self.scene, self._context)
        mujoco.mjr_readPixels(self._image, None, self._rect, self._context)
        return self._image[::-1].copy()

    def close(self) -> None:
        """Free the GL resources; twice is once."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._context = None
            self._gl.free()

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RobotView:
    """A robot in its world, drawn from poses alone, so that it serves both tiers.

    Args:
        world, robot: what is drawn.
        width, height: image, pixels.
        n_movers: most moving obstacles.
    """

    def __init__(
        self, world: World, robot: RobotSpec, width: int = 640, height: int = 480, n_movers: int = 0
    ) -> None:
        spec = lean(world_spec(world, robot, n_movers), width, height)
        spec.visual.headlight.ambient = [0.5, 0.5, 0.5]
        spec.visual.headlight.diffuse = [0.3, 0.3, 0.3]
        spec.visual.headlight.specular = [0.0, 0.0, 0.0]
        sun = spec.worldbody.add_light(pos=[0, 0, 20], dir=[0.3, 0.4, -0.87], castshadow=False)
        sun.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        sun.diffuse, sun.specular = [0.35, 0.35, 0.35], [0.0, 0.0, 0.0]
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.world, self.size = world, (width, height)
        self._movers = [self.model.geom(f"mover{i}").id for i in range(n_movers)]
        self.canvas = Canvas(self.model, width, height)

    def frame(
        self,
        pose_w: ArrayLike,
        movers: NDArray[np.float64] | None = None,
        view: Literal["top", "chase"] = "top",
        goal_w: ArrayLike | None = None,
        path_w: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint8]:
        """One (height, width, 3) image.

        Args:
            pose_w: (3,) x, y, yaw of base_link.
            movers: (M, 3) [x, y, r], unused rows r = 0.
            view: "top" is the whole world from above, "chase" follows the robot.
            goal_w: (2,) drawn as a disc on the floor.
            path_w: (L, 2) drawn as dots.
        """
        x, y, yaw = np.asarray(pose_w, np.float64)
        data = self.data
        data.qpos[:2] = x, y
        data.qpos[3:7] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)
        data.mocap_pos[:, 2] = -10.0
        for slot, (mx, my, r) in enumerate(np.zeros((0, 3)) if movers is None else movers):
            if r > 0:
                if slot >= len(self._movers):
                    raise ValueError(f"movers must be at most {len(self._movers)}, got {slot + 1}")
                self.model.geom_size[self._movers[slot], :2] = r, 0.85
                data.mocap_pos[slot] = mx, my, 0.85
        mujoco.mj_kinematics(self.model, data)
        self.canvas.update(data, self._camera(x, y, yaw, view))
        if goal_w is not None:
            gx, gy = np.asarray(goal_w, np.float64)
            kind = int(mujoco.mjtGeom.mjGEOM_CYLINDER)
            self.canvas.mark(kind, (0.3, 0.01, 0), (gx, gy, 0.01), _GOAL)
        for px, py in np.zeros((0, 2)) if path_w is None else path_w[-MARKS + 1 :]:
            kind = int(mujoco.mjtGeom.mjGEOM_SPHERE)
            self.canvas.mark(kind, (0.05, 0.05, 0.05), (px, py, 0.02), _PATH)
        return self.canvas.draw()

    def _camera(self, x: float, y: float, yaw: float, view: str) -> mujoco.MjvCamera:
        screen = self.model.vis.global_
        camera = mujoco.MjvCamera()
        if view == "top":
            xmin, ymin, xmax, ymax = self.world.bounds
            width, height = self.size
            camera.orthographic = 1
            screen.fovy = 1.04 * max(ymax - ymin, (xmax - xmin) * height / width)
            camera.lookat[:] = (xmin + xmax) / 2, (ymin + ymax) / 2, 0
            camera.distance, camera.azimuth, camera.elevation = 10 * WALL_M, 90, -90
        elif view == "chase":
            screen.fovy = 60
            camera.lookat[:] = x + 0.8 * math.cos(yaw), y + 0.8 * math.sin(yaw), 0.2
            camera.distance, camera.azimuth, camera.elevation = 3.2, math.degrees(yaw), -38
        else:
            raise ValueError(f'view must be "top" or "chase", got {view!r}')
        return camera

    def close(self) -> None:
        """Free the GL resources."""
        self.canvas.close()

    def __enter__(self) -> RobotView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _gl_context(width: int, height: int) -> Any:
    """An off-screen context: MUJOCO_GL if set, else EGL on Linux and CGL on macOS."""
    default = {"Darwin": "cgl", "Windows": "glfw"}.get(platform.system(), "egl")
    name = os.environ.get("MUJOCO_GL", "").lower() or default
    try:
        return importlib.import_module(f"mujoco.{name}").GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise RuntimeError(
            f"no off-screen OpenGL through {name!r} ({error}): install it with "
            "'apt install libegl1 libgl1-mesa-dri' or set MUJOCO_GL to osmesa or glfw"
        ) from error
