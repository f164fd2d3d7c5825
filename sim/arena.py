"""A wheeled robot among coloured landmarks, seen from a mast: rollouts with their truth.

The robot is the Jackal of :mod:`sim.robots` in MuJoCo; landmarks are solid. Two families of
instructions: to drive to a landmark, and to leave it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from rnd_agv.robot import JACKAL

from .backend import CONTROL_DT, PHYSICS_DT
from .render import Canvas, lean
from .robots import robot_spec, wheel_speeds
from .rollout import FRAMES, Rollout, Told, turning_back
from .tabletop.engine import camera_pose
from .tabletop.scene import COLOURS, Look, SceneConfig, draw_look
from .tabletop.view import project

KINDS = ("pillar", "crate", "dome")
FAMILIES = ("drive", "leave")
HALF_M = 2.6
"""Half the side of the square floor."""
LANDMARKS = 3
RADIUS_M = 0.3
NEAR_M = 0.35
"""Gap between robot and landmark at which it has arrived."""
SUBSTEPS = round(CONTROL_DT / PHYSICS_DT)
_FAILURES = ("short", "wrong_thing", "wander", "past", "undo")


@dataclass(frozen=True)
class ArenaConfig:
    """What arenas are drawn from."""

    combos: tuple[tuple[str, str], ...] = field(
        default_factory=lambda: tuple((c, k) for c in COLOURS for k in KINDS)
    )
    """(colour, kind) that occur; each at most once in an arena."""
    azimuth: tuple[float, float] = (-0.6, 0.6)
    elevation: tuple[float, float] = (0.6, 1.0)

    def __post_init__(self) -> None:
        if len(self.combos) < LANDMARKS:
            raise ValueError(f"combos must be at least {LANDMARKS}, got {len(self.combos)}")


@dataclass(frozen=True)
class Arena:
    """Landmarks, where the robot starts, and how it is seen."""

    combos: tuple[tuple[str, str], ...]
    xy: NDArray[np.float64]
    """(3, 2) m."""
    start: NDArray[np.float64]
    """(3,) x, y, yaw."""
    look: Look


def draw_arena(rng: np.random.Generator, config: ArenaConfig) -> Arena:
    """Landmarks apart from one another and from the robot."""
    while True:
        spots = rng.uniform(-HALF_M + 0.5, HALF_M - 0.5, (LANDMARKS + 1, 2))
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2)
        if gaps[np.triu_indices(LANDMARKS + 1, 1)].min() > 1.4:
            break
    picked = rng.choice(len(config.combos), LANDMARKS, replace=False)
    look = draw_look(rng, SceneConfig(azimuth=config.azimuth, elevation=config.elevation))
    far = float(rng.uniform(7.4, 8.4))
    target = (float(rng.normal(0, 0.15)), float(rng.normal(0, 0.15)), 0.1)
    return Arena(
        tuple(config.combos[i] for i in picked), spots[1:],
        np.array([*spots[0], rng.uniform(-np.pi, np.pi)]),
        Look(look.azimuth, look.elevation, far, target, look.fovy_deg, look.light, look.diffuse,
             look.ambient, "plain", look.table_rgb, look.floor_rgb, look.arm_rgb),
    )  # fmt: skip


def arena_spec() -> mujoco.MjSpec:
    """The robot on a floor, every landmark of each kind, a light and a camera."""
    spec = robot_spec(JACKAL)
    spec.modelname, world = "arena", spec.worldbody
    spec.visual.map.znear, spec.visual.map.zfar = 0.02, 40.0
    spec.visual.headlight.diffuse, spec.visual.headlight.specular = [0.1] * 3, [0.0] * 3
    world.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=(0, 0, 9), castshadow=False
    )
    world.add_camera(name="side", pos=(6, 0, 6))
    sizes = {"pillar": (RADIUS_M * 0.7, 0.5, 0), "crate": (RADIUS_M,) * 3, "dome": (RADIUS_M, 0, 0)}
    shapes = {"pillar": "CYLINDER", "crate": "BOX", "dome": "SPHERE"}
    for i in range(LANDMARKS):
        for kind in KINDS:
            world.add_geom(
                name=f"{kind}{i}", type=getattr(mujoco.mjtGeom, f"mjGEOM_{shapes[kind]}"),
                size=sizes[kind], pos=(0, 0, -50), contype=0, conaffinity=1, group=1,
            )  # fmt: skip
    return spec


class ArenaWorld:
    """See :class:`sim.rollout.World`.

    Args:
        config: what arenas are drawn from.
        side: pixels of the images.
    """

    def __init__(self, config: ArenaConfig | None = None, side: int = 96) -> None:
        self.config = config or ArenaConfig()
        self.model = lean(arena_spec(), side, side).compile()
        self.data = mujoco.MjData(self.model)
        self._canvas = Canvas(self.model, side, side)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self.model.camera("side").id
        self._ids = np.array(
            [[self.model.geom(f"{k}{i}").id for k in KINDS] for i in range(LANDMARKS)]
        )

    def rollout(self, rng: np.random.Generator) -> Rollout:
        """Draw an arena and a script, drive it, look."""
        arena = draw_arena(rng, self.config)
        told = [(family, i) for family in FAMILIES for i in range(LANDMARKS)]
        asked = int(rng.integers(len(told)))
        outcome = "success" if rng.random() < 0.4 else str(rng.choice(_FAILURES))
        way, speed = _plan(rng, arena, *told[asked], outcome), float(rng.uniform(0.6, 1.2))
        poses, images, hits = self._drive(rng, arena, way, speed)
        return _truth(arena, told, asked, outcome, images, poses, hits)

    def _drive(
        self, rng: np.random.Generator, arena: Arena, way: list[NDArray[np.float64]], speed: float
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.bool_]]:
        """Follow waypoints; poses (T, 3), images, and which landmarks had been hit by then."""
        self.dress(arena)
        d, qpos, left = self.data, [], list(way)
        hit, hits = np.zeros(LANDMARKS, np.bool_), []
        for step in range(500):
            x, y, yaw = self._pose()
            while left and np.hypot(left[0][0] - x, left[0][1] - y) < 0.15:
                left.pop(0)
            command = np.zeros(2)
            if left:
                bearing = np.arctan2(left[0][1] - y, left[0][0] - x) - yaw
                bearing = (bearing + np.pi) % (2 * np.pi) - np.pi
                ahead = max(np.cos(bearing), 0.0) * min(speed, 1.2 * len(left))
                command = np.array([ahead * (abs(bearing) < 0.8), np.clip(2.5 * bearing, -2, 2)])
                command += rng.normal(0, 0.05, 2)
            d.ctrl[:] = np.tile(wheel_speeds(JACKAL, command), self.model.nu // 2)
            mujoco.mj_step(self.model, d, nstep=SUBSTEPS)
            for pair in d.contact.geom[: d.ncon]:
                hit |= np.isin(self._ids, pair).any(axis=1)
            qpos.append(d.qpos.copy())
            hits.append(hit.copy())
            if not left and (step > 20) and not command.any():
                break
        at = np.rint(np.linspace(0, len(qpos) - 1, FRAMES)).astype(int)
        poses, images = [], []
        for k in at:
            d.qpos[:] = qpos[k]
            images.append(self._picture())
            poses.append(self._pose())
        return np.array(poses), np.stack(images), np.array(hits)[at]

    def frame(self, pose_w: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(side, side, 3) RGB of the mast camera, the robot put at (3,) x, y, yaw; a copy."""
        x, y, yaw = pose_w
        self.data.qpos[:7] = x, y, 0.0, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
        return self._picture()

    def _picture(self) -> NDArray[np.uint8]:
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self._canvas.update(self.data, self._camera)
        return self._canvas.draw()

    def _pose(self) -> tuple[float, float, float]:
        x, y, _, w, _, _, z = self.data.qpos[:7]
        return float(x), float(y), float(2 * np.arctan2(z, w))

    def dress(self, arena: Arena) -> None:
        """Write landmarks, colours, light, camera and the robot's start into model and data."""
        m, look = self.model, arena.look
        mujoco.mj_resetData(m, self.data)
        m.geom_pos[self._ids.ravel()] = (0, 0, -50)
        for i, (colour, kind) in enumerate(arena.combos):
            geom = m.geom(f"{kind}{i}")
            height = {"pillar": 0.5, "crate": RADIUS_M, "dome": 0.05}[kind]
            geom.pos[:], geom.rgba[:] = (*arena.xy[i], height), (*COLOURS[colour], 1)
        m.geom("floor").rgba[:] = (*look.table_rgb, 1)
        m.geom("hull").rgba[:3] = look.arm_rgb
        m.light_dir[0] = np.array(look.light) / np.linalg.norm(look.light)
        m.light_diffuse[0], m.light_ambient[0] = look.diffuse, look.ambient
        camera = m.camera("side")
        camera.pos[:], camera.quat[:] = camera_pose(look)
        camera.fovy[0] = look.fovy_deg
        x, y, yaw = arena.start
        self.data.qpos[:7] = x, y, 0.0, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
        mujoco.mj_forward(m, self.data)

    def close(self) -> None:
        """Free the GL resources."""
        self._canvas.close()


def _plan(
    rng: np.random.Generator, arena: Arena, family: str, thing: int, outcome: str
) -> list[NDArray[np.float64]]:
    """Waypoints (2,) of a script."""
    start = arena.start[:2]
    if outcome == "wander":
        return list(rng.uniform(-HALF_M + 0.4, HALF_M - 0.4, (int(rng.integers(1, 4)), 2)))
    if outcome == "wrong_thing":
        thing = int(rng.choice([i for i in range(LANDMARKS) if i != thing]))
    at = arena.xy[thing]
    away = (start - at) / np.linalg.norm(start - at)
    reach = RADIUS_M + 0.5 * JACKAL.length_m + rng.uniform(0.05, NEAR_M - 0.1)
    goal = at + away * reach
    if family == "leave":
        turn = rng.normal(0, 0.5)
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        goal = np.clip(start + spin @ away * rng.uniform(1.6, 2.6), -HALF_M + 0.4, HALF_M - 0.4)
    if outcome == "short":
        goal = start + rng.uniform(0.1, 0.85) * (goal - start)
    side = np.array([-away[1], away[0]]) * rng.choice([-1, 1])
    if outcome == "past":
        return [at + side * 0.9, at + side * 0.9 - away * rng.uniform(0.6, 1.6)]
    return [goal, start] if outcome == "undo" else [goal]


def _truth(
    arena: Arena, told: list[tuple[str, int]], asked: int, outcome: str,
    images: NDArray[np.uint8], poses: NDArray[np.float64], hits: NDArray[np.bool_],
) -> Rollout:  # fmt: skip
    """Labels, pixels and probes of a drive, for every instruction."""
    gaps = np.linalg.norm(poses[:, None, :2] - arena.xy[None], axis=2)  # (T, landmarks)
    surface = gaps - RADIUS_M - 0.5 * JACKAL.length_m
    robot = np.column_stack([poses[:, :2], np.full(len(poses), 0.15)])
    smooth = 1 - turning_back(poses[:, :2])
    near = np.cumsum(surface < 2 * NEAR_M, axis=0)
    labels, points, probes = [], [], []
    for family, i in told:
        labels.append(_scores(family, gaps[:, i], surface[:, i]))
        mark = np.tile((*arena.xy[i], 0.25), (len(poses), 1))
        points.append(np.stack([mark, mark, robot], axis=1))
        others = [j for j in range(LANDMARKS) if j != i]
        most = near.max(axis=1)
        probes.append(np.column_stack([
            near[:, i] > 0, ~hits[:, others].any(axis=1), smooth,
            (most > 0) & (near[:, i] == most),
        ]))  # fmt: skip
    return Rollout(
        images, tuple(Told(family, arena.combos[i]) for family, i in told), asked, outcome,
        np.array(labels, np.int8), project(np.array(points), arena.look).astype(np.float32),
        np.array(probes, np.float32),
    )  # fmt: skip


def _scores(family: str, gaps: NDArray[np.float64], surface: NDArray[np.float64]) -> list[int]:
    """1..5 at each frame: by the share of the way, and for the last two by what is left of it."""
    if family == "leave":
        moved = gaps - gaps[0]
        return [1 + int(np.searchsorted([0.15, 0.5, 0.95, 1.4], m)) for m in moved]
    out = []
    for gap, left in zip(gaps, surface, strict=True):
        done = (gaps[0] - gap) / gaps[0]
        if left < NEAR_M:
            out.append(5)
        elif left < 2 * NEAR_M:
            out.append(4)
        else:
            out.append(3 if done >= 0.5 else 2 if done > 0.12 else 1)
    return out
