"""The table in MuJoCo: one compiled model for every scene, loaded with things and stepped at 20 Hz.

Shapes, sizes, colours, camera and light are written into the model, so that a new scene costs a
fraction of a millisecond instead of a compilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..backend import CONTROL_DT, PHYSICS_DT
from .arm import FINGERS, JOINTS, OPEN_M, SPEEDS, ArmColours, add_arm, inverse
from .scene import PAD_M, TABLES, Look, Scene

SUBSTEPS = round(CONTROL_DT / PHYSICS_DT)
MOST_THINGS, MOST_PADS = 4, 2
SQUEEZE_M = 0.005
"""Shut fingers are sent so far beyond one another, so that they hold what is between them."""
DENSITY = 400.0
"""kg/m^3, wood."""
GONE = (0.0, 3.0, -0.5)
"""Where unused things and pads are."""
_KINDS = {"cube": "BOX", "brick": "BOX", "cylinder": "CYLINDER", "ball": "SPHERE"}


def bench_spec(name: str) -> mujoco.MjSpec:
    """A table with its textures, a floor, a light and the camera ``side``; no arm yet."""
    spec = mujoco.MjSpec()
    spec.modelname, spec.compiler.degree = name, False
    option = spec.option
    option.timestep, option.integrator = PHYSICS_DT, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10.0
    spec.visual.map.znear, spec.visual.map.zfar = 0.05, 20.0
    spec.visual.headlight.diffuse, spec.visual.headlight.specular = [0.1] * 3, [0.0] * 3
    spec.worldbody.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=(0, 0, 3), castshadow=False
    )
    spec.worldbody.add_camera(name="side", pos=(1, 0, 1))
    _materials(spec)
    world = spec.worldbody
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(5, 5, 0.1), pos=(0, 0, -0.75),
        contype=0, conaffinity=0, group=1,
    )  # fmt: skip
    for i, table in enumerate(TABLES):
        solid = i == 0
        world.add_geom(
            name=f"table_{table}", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.42, 0.48, 0.02),
            pos=(0.26, 0, -0.02), contype=int(solid), conaffinity=int(solid), material=table,
            group=1, friction=(0.8, 0.005, 0.0001),
        )  # fmt: skip
    return spec


def table_spec() -> mujoco.MjSpec:
    """The bench with the arm, and places for things and pads."""
    spec = bench_spec("tabletop")
    world = spec.worldbody
    for i in range(MOST_PADS):
        for kind in ("CYLINDER", "BOX"):
            world.add_geom(
                name=f"pad{i}_{kind.lower()}", type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"),
                size=(PAD_M, 0.0008, 0) if kind == "CYLINDER" else (PAD_M, PAD_M, 0.0008),
                pos=GONE, contype=0, conaffinity=0, group=1,
            )  # fmt: skip
    add_arm(spec, ArmColours())
    for i in range(MOST_THINGS):
        body = world.add_body(name=f"thing{i}", pos=(GONE[0], GONE[1] + 0.2 * i, GONE[2]))
        body.add_freejoint(name=f"thing{i}")
        body.mass, body.ipos, body.explicitinertial = 0.02, (0, 0, 0), True
        body.inertia = (1e-5, 1e-5, 1e-5)
        geom = body.add_geom(
            name=f"thing{i}", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.04, 0.04, 0.04), mass=0,
            condim=4, group=1,
        )  # fmt: skip
        geom.friction = [1.0, 0.02, 0.0005]
    return spec


def _materials(spec: mujoco.MjSpec) -> None:
    builtin, mark = mujoco.mjtBuiltin, mujoco.mjtMark
    kinds = {
        "checker": (builtin.mjBUILTIN_CHECKER, mark.mjMARK_NONE, (6, 6)),
        "grain": (builtin.mjBUILTIN_GRADIENT, mark.mjMARK_EDGE, (3, 12)),
        "speckle": (builtin.mjBUILTIN_FLAT, mark.mjMARK_RANDOM, (2, 2)),
    }
    spec.add_material(name="plain")
    for name, (kind, marked, repeat) in kinds.items():
        spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=kind, mark=marked, width=64,
            height=64, rgb1=(1, 1, 1), rgb2=(0.78, 0.78, 0.78), markrgb=(0.6, 0.6, 0.6),
            random=0.06,
        )  # fmt: skip
        material = spec.add_material(name=name, texrepeat=repeat, texuniform=False)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


@dataclass(frozen=True)
class TableState:
    """What is where. Arrays are copies; the frame is that of the arm."""

    things: NDArray[np.float64]
    """(n, 7) x, y, z, quat_wxyz of each thing, m."""
    grip: NDArray[np.float64]
    """(3,) point between the finger tips, m."""
    opening: float
    """Between the fingers, 0 shut .. 1 open."""
    touched: NDArray[np.bool_]
    """(n,) things that a finger or the palm touches."""
    held: NDArray[np.bool_]
    """(n,) things that both fingers touch."""
    speed: NDArray[np.float64]
    """(n,) m/s of each thing."""


class Tabletop:
    """A table with an arm, for one scene after another."""

    def __init__(self, spec: mujoco.MjSpec | None = None) -> None:
        self.model: Any = (spec or table_spec()).compile()
        self.data = mujoco.MjData(self.model)
        m = self.model
        self._arm_q = np.array([m.joint(j).qposadr[0] for j in JOINTS])
        self._finger_q = np.array([m.joint(j).qposadr[0] for j in FINGERS])
        self._thing_q = np.array([m.joint(f"thing{i}").qposadr[0] for i in range(MOST_THINGS)])
        self._thing_v = np.array([m.joint(f"thing{i}").dofadr[0] for i in range(MOST_THINGS)])
        self._thing_geom = np.array([m.geom(f"thing{i}").id for i in range(MOST_THINGS)])
        self._hand = [m.geom(name).id for name in (*FINGERS, "palm")]
        self._links = [i for i in range(m.ngeom) if m.geom(i).name.endswith("_link")]
        self._grip = m.site("grip").id
        self.scene: Scene | None = None

    def reset(self, scene: Scene) -> TableState:
        """Load a scene; the gripper is open at its start."""
        self.scene = scene
        mujoco.mj_resetData(self.model, self.data)
        self._dress(scene)
        for i in range(MOST_THINGS):
            self._load(i, scene)
        mujoco.mj_setConst(self.model, self.data)
        mujoco.mj_resetData(self.model, self.data)
        q = self.data.qpos
        for i, thing in enumerate(scene.things):
            z = thing.half_size[2]
            q[self._thing_q[i] : self._thing_q[i] + 7] = (
                *thing.xy_m, z, np.cos(thing.yaw / 2), 0, 0, np.sin(thing.yaw / 2)
            )  # fmt: skip
        self._asked = inverse(scene.start_m, 0.0)
        q[self._arm_q], q[self._finger_q] = self._asked, OPEN_M
        self.data.ctrl[:6], self.data.ctrl[6:] = self._asked, OPEN_M
        mujoco.mj_forward(self.model, self.data)
        return self.state()

    def _load(self, i: int, scene: Scene) -> None:
        """Write thing ``i`` into the model: its shape, size, mass; nothing where there is none."""
        m, geom = self.model, self._thing_geom[i]
        body = m.geom_bodyid[geom]
        if i >= len(scene.things):
            m.geom_contype[geom] = m.geom_conaffinity[geom] = 0
            m.body_gravcomp[body] = 1.0
            m.geom_rgba[geom, 3] = 0
            return
        thing = scene.things[i]
        x, y, z = thing.half_size
        m.geom_contype[geom] = m.geom_conaffinity[geom] = 1
        m.body_gravcomp[body] = 0.0
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{_KINDS[thing.shape]}")
        m.geom_type[geom] = kind
        m.geom_size[geom] = {"cylinder": (x, z, 0), "ball": (x, 0, 0)}.get(thing.shape, (x, y, z))
        m.geom_rbound[geom] = np.linalg.norm((x, y, z))
        m.geom_aabb[geom] = (0, 0, 0, x, y, z)
        m.geom_rgba[geom] = (*thing.rgb, 1)
        mass = DENSITY * 8 * x * y * z
        m.body_mass[body] = mass
        m.body_inertia[body] = mass / 3 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])
        roll = 0.002 if thing.shape == "ball" else 0.0005
        m.geom_friction[geom] = (1.0, 0.02, roll)
        m.geom_condim[geom] = 6 if thing.shape == "ball" else 4

    def _dress(self, scene: Scene) -> None:
        """Write pads, colours, light and camera into the model."""
        m, look = self.model, scene.look
        for i in range(MOST_PADS):
            for kind, name in (("plate", f"pad{i}_cylinder"), ("mat", f"pad{i}_box")):
                geom = m.geom(name)
                here = i < len(scene.pads) and scene.pads[i].kind == kind
                geom.pos[:] = (*scene.pads[i].xy_m, 0.0005) if here else GONE
                if here:
                    geom.rgba[:] = (*scene.pads[i].rgb, 1)
        dress(m, look, self._links)

    def step(self, xyz: ArrayLike, yaw: float, opening: float) -> TableState:
        """Drive the gripper towards a pose for 50 ms, no joint faster than it may.

        Args:
            xyz: (3,) m, in the frame of the arm.
            yaw: of the gripper, rad.
            opening: 0 shut .. 1 open.

        Raises:
            ValueError: not finite.
        """
        wanted = np.asarray(xyz, np.float64)
        if wanted.shape != (3,) or not np.isfinite([*wanted, yaw, opening]).all():
            raise ValueError(f"a finite pose and opening wanted, got {wanted}, {yaw}, {opening}")
        return self.step_joints(inverse(wanted, yaw), opening)

    def step_joints(self, joints: ArrayLike, opening: float) -> TableState:
        """The same with (6,) joint angles, rad."""
        most = SPEEDS * CONTROL_DT
        self._asked = self._asked + np.clip(np.asarray(joints) - self._asked, -most, most)
        self.data.ctrl[:6] = self._asked
        self.data.ctrl[6:] = np.clip(opening, 0, 1) * OPEN_M - SQUEEZE_M
        mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        return self.state()

    @property
    def joints(self) -> NDArray[np.float64]:
        """(6,) angles, rad."""
        return np.array(self.data.qpos[self._arm_q])

    @property
    def asked(self) -> NDArray[np.float64]:
        """(6,) angles that the servos were sent last, rad."""
        return np.array(self._asked)

    def state(self) -> TableState:
        """What is where now."""
        assert self.scene is not None, "reset first"
        n, d = len(self.scene.things), self.data
        at = self._thing_q[:n, None] + np.arange(7)
        speed = np.linalg.norm(d.qvel[self._thing_v[:n, None] + np.arange(3)], axis=1)
        pairs = d.contact.geom[: d.ncon]
        touching = np.zeros((len(self._hand), n), np.bool_)
        if len(pairs):
            for h, hand in enumerate(self._hand):
                other = pairs[(pairs == hand).any(axis=1)]
                touching[h] = np.isin(self._thing_geom[:n], other)
        gap = d.qpos[self._finger_q].mean() / (OPEN_M - SQUEEZE_M)
        return TableState(
            d.qpos[at].copy(), d.site_xpos[self._grip].copy(), float(np.clip(gap, 0, 1)),
            np.any(touching, 0), np.all(touching[:2], 0), speed,
        )  # fmt: skip


def dress(model: Any, look: Look, links: list[int]) -> None:
    """Write a look into a model of :func:`bench_spec`; ``links`` are the geoms of the arm."""
    for table in TABLES:
        model.geom(f"table_{table}").rgba[:] = (*look.table_rgb, float(table == look.table))
    model.geom("floor").rgba[:] = (*look.floor_rgb, 1)
    model.geom_rgba[links, :3] = look.arm_rgb
    model.light_dir[0] = np.array(look.light) / np.linalg.norm(look.light)
    model.light_diffuse[0], model.light_ambient[0] = look.diffuse, look.ambient
    pos, quat = camera_pose(look)
    camera = model.camera("side")
    camera.pos[:], camera.quat[:], camera.fovy[0] = pos, quat, look.fovy_deg


def camera_pose(look: Look) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3,) position and (4,) quat_wxyz of the side camera of a look."""
    a, e = look.azimuth, look.elevation
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    axes = np.stack([right, np.cross(back, right), back], axis=1)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, axes.ravel())
    return np.asarray(look.target_m) + look.distance_m * back, quat
