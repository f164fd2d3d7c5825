"""The mobile robots and their worlds as MuJoCo specs, from public dimensions.

Only two kinds of contact exist: wheels and casters against the floor, as explicit pairs, and the
footprint box against obstacles. Statics are geoms of the worldbody, movers are mocap cylinders.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from rnd_agv.robot import AGV, JACKAL, RESPONSE_STEP, RobotSpec

from .backend import PHYSICS_DT
from .worlds import World

PARKED_Z = -100.0
"""Height of unused obstacle geoms, m: out of reach of any robot."""
WALL_M = 1.0
"""Height of obstacles in the stepped model, m: taller than any robot, so contacts are planar."""
MOVER_MAX_M = 2.0
"""Largest radius of a mover, m: bodies' bounding boxes are compiled for it."""
GROUP_FLOOR, GROUP_STATIC, GROUP_ROBOT, GROUP_MOVER, GROUP_CONTACT = 0, 1, 2, 3, 4
CLEARANCE_M = 0.03
"""Gap between the floor and the footprint box."""
IMPACT = [0.0105, 1.0]
"""solref of the footprint, s and damping ratio: 2 m/s into a wall sinks in less than 1 cm."""

_CHASSIS = {  # mass kg, centre of mass m in base_link, principal inertia kg m^2
    "jackal": (16.523, (0.012, 0.002, 0.1305), (0.3136, 0.3922, 0.4485)),
}
_WHEEL_KG = {"agv": 2.0, "jackal": 0.477}
_MOTOR = {"agv": (30.0, 0.15), "jackal": (20.0, 0.1)}
"""Gain of the wheel speed loop, N m s/rad, and rotor inertia seen at the wheel, kg m^2. At least
gain * dt of inertia: below, implicit integration starves the wheels of grip while they scrub."""
_COLOURS = {
    "floor": (0.80, 0.81, 0.82, 1), "wall": (0.45, 0.47, 0.52, 1), "shelf": (0.24, 0.42, 0.64, 1),
    "pallet": (0.72, 0.53, 0.32, 1), "crate": (0.80, 0.62, 0.36, 1),
    "pillar": (0.55, 0.55, 0.58, 1), "person": (0.85, 0.36, 0.30, 1), "agv": (0.93, 0.66, 0.18, 1),
    "wheel": (0.12, 0.12, 0.13, 1),
    "robot": (0.95, 0.72, 0.10, 1), "nose": (0.15, 0.15, 0.18, 1),
}  # fmt: skip

_SINK_M = {"agv": 0.00025, "jackal": 0.0034}
"""How far wheels sink into the soft floor at rest; half of it is lost rolling radius."""


def agv_spec(robot: RobotSpec = AGV) -> mujoco.MjSpec:
    """Differential-drive AGV on a bare floor."""
    return robot_spec(robot)


def jackal_spec(robot: RobotSpec = JACKAL) -> mujoco.MjSpec:
    """Jackal-class skid steer on a bare floor."""
    return robot_spec(robot)


def robot_spec(robot: RobotSpec) -> mujoco.MjSpec:
    """A floor and one robot: differential drive with casters, or skid steer if it has a wheelbase.

    Body ``base`` (free joint) has its origin at base_link: footprint centre, on the floor. Wheel
    joints and actuators are ``left0, right0`` (and ``left1, right1``), actuator control in rad/s,
    filtered by the motor lag. Body ``payload`` carries the payload as per-simulation mass.
    """
    spec = mujoco.MjSpec()
    spec.modelname = robot.name
    option = spec.option
    option.timestep = PHYSICS_DT
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    disable = mujoco.mjtDisableBit
    option.disableflags = int(
        disable.mjDSBL_MIDPHASE | disable.mjDSBL_ISLAND | disable.mjDSBL_AUTORESET
        | disable.mjDSBL_SENSOR
    )  # fmt: skip
    _geom(spec.worldbody, "floor", "plane", (0, 0, 0.1), (0, 0, 0), _COLOURS["floor"], GROUP_FLOOR)

    skid = robot.wheelbase_m > 0
    axles = (robot.wheelbase_m / 2, -robot.wheelbase_m / 2) if skid else (0.0,)
    wheels = 2 * len(axles)
    base = spec.worldbody.add_body(name="base")
    base.add_freejoint(name="base")
    hx, hy = robot.half_extents
    mass, com, inertia = _CHASSIS.get(robot.name) or _box_inertia(
        robot.mass_kg - wheels * _WHEEL_KG[robot.name], (hx, hy, robot.height_m / 2), 0.12
    )
    base.mass, base.ipos, base.inertia, base.explicitinertial = mass, com, inertia, True
    low, high = CLEARANCE_M, robot.height_m
    footprint = _geom(
        base, "footprint", "box", (hx, hy, (high - low) / 2), (0, 0, (high + low) / 2),
        (0, 0, 0, 0), GROUP_CONTACT,
    )  # fmt: skip
    footprint.contype, footprint.solref, footprint.friction = 1, IMPACT, [0.2, 0.005, 0.0001]
    deck = 0.75 * robot.wheel_radius_m
    _geom(
        base, "hull", "box", (hx, robot.track_m / 2 - 0.03, (high - deck) / 2),
        (0, 0, (high + deck) / 2), _COLOURS["robot"], GROUP_ROBOT,
    )  # fmt: skip
    _geom(
        base, "nose", "box", (0.02, 0.6 * hy, 0.02), (hx - 0.01, 0, high), _COLOURS["nose"],
        GROUP_ROBOT,
    )  # fmt: skip
    z = robot.lidar_z_m
    _geom(
        base, "lidar", "cylinder", (0.04, 0.03, 0), (robot.lidar_x_m, 0, z), _COLOURS["nose"],
        GROUP_ROBOT,
    )  # fmt: skip

    # one unit kilogram's box inertia; the payload's mass is set per simulation
    payload = base.add_body(name="payload", pos=(0, 0, high + 0.1))
    payload.mass, payload.ipos, payload.explicitinertial = 1e-6, (0, 0, 0), True
    payload.inertia = 1e-6 * payload_inertia(robot)

    radius = robot.wheel_radius_m
    gain = _MOTOR[robot.name][0]
    torque = 1.5 * (robot.mass_kg + robot.payload_kg) * 9.81 * 0.8 * radius / wheels
    for i, x in enumerate(axles):
        for side, y in (("left", robot.track_m / 2), ("right", -robot.track_m / 2)):
            name = f"{side}{i}"
            _wheel(base, name, (x, y), radius, robot.name)
            pair = spec.add_pair(name=name, geomname1="floor", geomname2=name, condim=3)
            pair.friction = pair_friction(0.8)
            if skid:  # soft tyres: four stiff contacts under a rigid chassis chatter
                pair.solref, pair.solimp = [0.05, 1.0], [0.5, 0.9, 0.005, 0.5, 2.0]
            act = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            act.dyntype, act.dynprm[0] = mujoco.mjtDyn.mjDYN_FILTEREXACT, 0.08
            act.gainprm[0], act.biasprm[2] = gain, -gain
            act.biastype = mujoco.mjtBias.mjBIAS_AFFINE
            act.forcelimited, act.forcerange = True, [-torque, torque]
    if not skid:
        for name, x in (("caster_front", hx - 0.07), ("caster_rear", 0.07 - hx)):
            _geom(base, name, "sphere", (0.04, 0, 0), (x, 0, 0.04), _COLOURS["wheel"], GROUP_ROBOT)
            pair = spec.add_pair(name=name, geomname1="floor", geomname2=name, condim=1)
            pair.solref = [0.04, 1.0]  # sprung: most of the weight stays on the driven wheels
    return spec


def world_spec(world: World, robot: RobotSpec, n_movers: int = 0) -> mujoco.MjSpec:
    """The robot in one whole world: what the batch must agree with, and what is rendered.

    Statics are ``box0..`` and ``disc0..`` in the world's order, movers are ``mover0..``.
    """
    from .worlds import LABELS

    spec = robot_spec(robot)
    add_obstacles(spec, len(world.boxes), len(world.discs), n_movers)
    xmin, ymin, xmax, ymax = world.bounds
    floor = spec.geom("floor")
    floor.size, floor.pos = ((xmax - xmin) / 2, (ymax - ymin) / 2, 0.1), (
        (xmin + xmax) / 2, (ymin + ymax) / 2, 0,
    )  # fmt: skip
    z = WALL_M / 2
    for i, (cx, cy, hx, hy) in enumerate(world.boxes.astype(np.float64)):
        geom = spec.geom(f"box{i}")
        geom.pos, geom.size = (cx, cy, z), (hx, hy, z)
        geom.rgba = _COLOURS.get(LABELS[world.box_labels[i]], _COLOURS["wall"])
    for i, (cx, cy, r) in enumerate(world.discs.astype(np.float64)):
        geom = spec.geom(f"disc{i}")
        geom.pos, geom.size = (cx, cy, z), (r, z, 0)
        geom.rgba = _COLOURS.get(LABELS[world.disc_labels[i]], _COLOURS["pillar"])
    return spec


def add_obstacles(spec: mujoco.MjSpec, boxes: int, discs: int, movers: int) -> None:
    """Add parked boxes, discs (worldbody) and movers (mocap cylinders) to fill in later."""
    for i in range(boxes):
        _obstacle(spec.worldbody, f"box{i}", "box", "wall", GROUP_STATIC)
    for i in range(discs):
        _obstacle(spec.worldbody, f"disc{i}", "cylinder", "pillar", GROUP_STATIC)
    for i in range(movers):
        body = spec.worldbody.add_body(name=f"mover{i}", mocap=True, pos=(0, 0, PARKED_Z))
        geom = _obstacle(body, f"mover{i}", "cylinder", "person", GROUP_MOVER)
        geom.pos, geom.size = (0, 0, 0), (MOVER_MAX_M, WALL_M, 0)


def pair_friction(friction: Any) -> NDArray[np.float64]:
    """Contact-pair friction (..., 5) of a wheel from its sliding friction (...)."""
    friction = np.asarray(friction, np.float64)
    out = np.empty((*friction.shape, 5))
    out[..., :2] = friction[..., None]
    out[..., 2:] = (0.005, 0.0001, 0.0001)
    return out


def payload_inertia(robot: RobotSpec) -> NDArray[np.float64]:
    """(3,) inertia of one kilogram of payload, a 0.2 m high box on two thirds of the deck, m^2."""
    hx, hy = robot.half_extents
    return np.array(_box_inertia(1.0, (hx * 2 / 3, hy * 2 / 3, 0.1), 0.0)[2])


def _box_inertia(mass: float, half: tuple[float, float, float], z: float) -> tuple[Any, Any, Any]:
    """Mass, centre of mass and inertia of a solid box."""
    x, y, h = (2 * side for side in half)
    inertia = tuple(mass / 12 * v for v in (y * y + h * h, x * x + h * h, x * x + y * y))
    return mass, (0.0, 0.0, z), inertia


def _geom(body: Any, name: str, kind: str, size: Any, pos: Any, rgba: Any, group: int) -> Any:
    """A geom without mass and without contacts."""
    return body.add_geom(
        name=name, type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"), size=size, pos=pos,
        rgba=rgba, group=group, contype=0, conaffinity=0, mass=0,
    )  # fmt: skip


def _obstacle(body: Any, name: str, kind: str, colour: str, group: int) -> Any:
    size = (0.01, 0.01, 0.01) if kind == "box" else (0.01, 0.01, 0)
    geom = _geom(body, name, kind, size, (0, 0, PARKED_Z), _COLOURS[colour], group)
    geom.conaffinity, geom.solref, geom.friction = 1, IMPACT, [0.2, 0.005, 0.0001]
    return geom


def _wheel(base: Any, name: str, xy: tuple[float, float], radius: float, kind: str) -> None:
    """A wheel turning about y; it meets the floor as a sphere, in one point on its contact line.

    Grip is isotropic: an axle capsule (the one shape with an aligned friction frame) makes two
    contacts a wheel and costs 2.4 times the step. With Coulomb friction the effective track of a
    skid steer is then 1 + (wheelbase / track)^2 of the track, 1.49 for the Jackal.
    """
    mass, tyre = _WHEEL_KG[kind], radius + _SINK_M[kind] / 2
    wheel = base.add_body(name=name, pos=(*xy, tyre))
    joint = wheel.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 1, 0))
    joint.armature = _MOTOR[kind][1]
    spin, tilt = mass * radius**2 / 2, mass * radius**2 / 4
    wheel.mass, wheel.ipos, wheel.explicitinertial = mass, (0, 0, 0), True
    wheel.inertia = (tilt, spin, tilt)
    _geom(wheel, name, "sphere", (tyre, 0, 0), (0, 0, 0), (0, 0, 0, 0), GROUP_CONTACT)
    drawn = _geom(
        wheel, f"{name}_drawn", "cylinder", (radius, 0.02, 0), (0, 0, 0), _COLOURS["wheel"],
        GROUP_ROBOT,
    )  # fmt: skip
    drawn.quat = (np.sqrt(0.5), -np.sqrt(0.5), 0, 0)  # z to y


def wheel_speeds(robot: RobotSpec, command: Any, multiplier: float | None = None) -> Any:
    """Wheel rates (..., 2) left and right, rad/s, of (..., 2) commands (v m/s, w rad/s).

    The track is widened by ``multiplier``, by default the robot's.
    """
    multiplier = robot.separation_multiplier if multiplier is None else multiplier
    command = np.asarray(command, np.float64)
    half = command[..., 1:] * (robot.track_m * multiplier / 2)
    return (command[..., :1] + half * np.array([-1.0, 1.0])) / robot.wheel_radius_m


def calibrate_separation(robot: RobotSpec) -> float:
    """Effective track over track, measured: drive constant commands, fit the yaw rates.

    Commands at multiplier 1 turn the robot at w / m; least squares over a grid of (v, w).
    """
    model = robot_spec(robot).compile()
    asked, got = [], []
    for v in np.array([0.0, 0.25, 0.5]) * robot.limits.v_max:
        for w in np.array([-0.45, -0.3, -0.15, 0.15, 0.3, 0.45]) * robot.limits.w_max:
            data = mujoco.MjData(model)
            rates = np.tile(wheel_speeds(robot, (v, w), 1.0), model.nu // 2)
            for k in range(800):
                data.ctrl[:] = rates * min(1.0, k / 200)  # ramp of 1 s, then steady
                mujoco.mj_step(model, data)
                if k >= 400:
                    asked.append(w)
                    got.append(data.qvel[5])
    a, b = np.array(asked), np.array(got)
    return float(a @ b / (b @ b))


def calibrate_response(robot: RobotSpec) -> NDArray[np.float64]:
    """:attr:`RobotSpec.response` of a skid steer, measured: (nv, nw, 3) over its range of commands.

    Every command is held for 5 s, of which the last 3 count.
    """
    model = robot_spec(robot).compile()
    limits = robot.limits
    speeds = np.arange(0.0, limits.v_max + 1e-9, RESPONSE_STEP)
    rates = np.arange(0.0, limits.w_max + 1e-9, RESPONSE_STEP)
    out = np.ones((len(speeds), len(rates), 3))
    for i, v in enumerate(speeds):
        for j, w in enumerate(np.maximum(rates, 0.1)):  # w = 0 shows what becomes of a small one
            data = mujoco.MjData(model)
            data.ctrl[:] = np.tile(wheel_speeds(robot, (v, w)), model.nu // 2)
            mujoco.mj_step(model, data, nstep=round(2.0 / PHYSICS_DT))
            total = np.zeros(3)  # forward m, turned rad, sideways m
            count = round(3.0 / PHYSICS_DT)
            for _ in range(count):
                qw, qx, qy, qz = data.qpos[3:7]
                yaw = np.arctan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
                c, s = np.cos(yaw), np.sin(yaw)
                vx, vy = data.qvel[:2]
                total += (c * vx + s * vy, data.qvel[5], c * vy - s * vx)
                mujoco.mj_step(model, data)
            along, turn, aside = total / count
            out[i, j] = (along / v if v > 0 else 1.0, turn / w, aside / w)
    return out
