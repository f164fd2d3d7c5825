"""64 x 64 first-person frames: ``mujoco.Renderer``, lean GL, and the ray caster."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import mujoco
import numpy as np
import typer
from numpy.typing import NDArray

from rnd_agv.robot import AGV
from sim.pixels import Camera, draw
from sim.render import Canvas, lean
from sim.robots import world_spec
from sim.worlds import World

from ..cli import JsonFile
from .lidar import repeat
from .maze import maze, walks
from .paired import Report, Seeds, Smoke, Timing, alternate

PIXELS = 64
CAMERA = Camera(PIXELS, PIXELS)
DEFAULTS, LEAN, CASTER = "mujoco.Renderer, defaults", "lean GL", "ray caster"


class Views:
    """One maze seen from the same poses by all three.

    Args:
        seed: of maze and poses.
        count: poses.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.world: World = maze(seed)
        rng = np.random.default_rng([seed, 3])
        places = walks(seed, (1.0, 5.0))[rng.integers(256, size=count), :2]
        yaw = rng.uniform(-np.pi, np.pi, (count, 1))
        self.poses: NDArray[np.float64] = np.concatenate([places, yaw], axis=1)
        plain = self._spec().compile()
        self.renderer = mujoco.Renderer(plain, PIXELS, PIXELS)
        self.plain_data = mujoco.MjData(plain)
        mujoco.mj_forward(plain, self.plain_data)
        model = lean(self._spec(), PIXELS, PIXELS).compile()
        self.lean_data = mujoco.MjData(model)
        mujoco.mj_forward(model, self.lean_data)
        self.canvas = Canvas(model, PIXELS, PIXELS)
        self.rgb = np.empty((count, PIXELS, PIXELS, 3), np.uint8)

    def _spec(self) -> mujoco.MjSpec:
        """The maze under one light as MuJoCo makes it: shadows are on unless switched off."""
        spec = world_spec(self.world, AGV)
        spec.worldbody.add_light(pos=[0, 0, 20], dir=[0.3, 0.4, -0.87])
        spec.visual.global_.fovy = CAMERA.fovy_deg
        spec.body("base").pos = [0, 0, -50]  # the viewer is not in the picture
        return spec

    def _view(self, pose: NDArray[np.float64]) -> mujoco.MjvCamera:
        x, y, yaw = pose
        camera = mujoco.MjvCamera()
        camera.distance, camera.elevation, camera.azimuth = 1.0, 0.0, math.degrees(yaw)
        camera.lookat[:] = x + math.cos(yaw), y + math.sin(yaw), CAMERA.z_m
        return camera

    def defaults(self, count: int) -> Callable[[], int]:
        """Work: ``count`` frames of MuJoCo's own renderer."""

        def work() -> int:
            for pose in self.poses[:count]:
                self.renderer.update_scene(self.plain_data, self._view(pose))
                self.renderer.render()
            return count

        return work

    def lean(self, count: int) -> Callable[[], int]:
        """Work: ``count`` frames with lean settings."""

        def work() -> int:
            for pose in self.poses[:count]:
                self.canvas.update(self.lean_data, self._view(pose))
                self.canvas.draw()
            return count

        return work

    def caster(self) -> int:
        """All frames by casting rays, colour only."""
        world, n = self.world, len(self.poses)
        draw(
            self.poses, CAMERA.focal_px, CAMERA.z_m, world.height_m, CAMERA.max_m,
            world.boxes[None], world.box_labels[None], np.array([len(world.boxes)], np.int32),
            np.zeros((1, 1, 3), np.float32), np.zeros((1, 1), np.int8), np.zeros(1, np.int32),
            np.zeros(n, np.int32), np.zeros((n, 0, 3)), np.zeros((n, 0), np.int8),
            self.rgb, None, None,
        )  # fmt: skip
        return n

    def close(self) -> None:
        """Free the GL contexts."""
        self.renderer.close()
        self.canvas.close()


def render(seeds: Seeds = 3, smoke: Smoke = False, json_file: JsonFile = None) -> None:
    """64 x 64 frames of a 60-box maze, software GL where there is no GPU (0.05 core-hours)."""
    rounds, slow, fast, casts = (2, 2, 4, 1) if smoke else (7, 16, 128, 10)
    about = (
        f"{PIXELS} x {PIXELS} RGB of a 60-box maze from inside, one directional light; back end "
        f"MUJOCO_GL={os.environ.get('MUJOCO_GL', 'default')}. Baseline: shadow map 4096, 4 samples "
        "(MuJoCo's defaults). The caster draws flat walls without lights. There is no arm yet."
    )
    report = Report(f"render --seeds {seeds}", seeds, about)
    timings: dict[str, Timing] = {}
    for seed in range(seeds):
        views = Views(seed, 128)
        works = {DEFAULTS: views.defaults(slow), LEAN: views.lean(fast)}
        works[CASTER] = repeat(views.caster, casts)
        alternate(works, rounds, seed, timings)
        views.close()
    report.timings(timings, "frame")
    report.ratio(DEFAULTS, LEAN, timings, 12.0, "wall")
    report.ratio(LEAN, CASTER, timings, 200.0, "wall")
    report.finish(json_file, smoke)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("render")(render)
