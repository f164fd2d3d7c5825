"""A six-axis arm with a parallel gripper: our own MJCF from capsules and boxes, and its kinematics.

Base yaw, shoulder, elbow, forearm roll, wrist, tool roll; links of 0.27 and 0.29 m as the
six-axis arms of its class have them. With the tool pointing down the inverse kinematics is closed:
the wrist's place fixes shoulder and elbow, the wrist turns what is left, the tool roll the yaw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

SHOULDER_M, UPPER_M, FORE_M, TOOL_M = 0.20, 0.27, 0.29, 0.17
"""Height of the shoulder over the table, lengths of the links, wrist axis to the grasp point."""
JOINTS = ("yaw", "shoulder", "elbow", "forearm", "wrist", "tool")
FINGERS = ("finger_left", "finger_right")
OPEN_M = 0.04
"""Travel of each finger: the gripper opens by twice this."""
FINGER_HALF = (0.007, 0.005, 0.022)
RANGES = np.array([
    (-2.8, 2.8), (-1.8, 1.8), (-0.2, 2.7), (-2.8, 2.8), (-2.0, 2.6), (-6.2, 6.2),
])  # fmt: skip
"""(6, 2) limits of the joints, rad."""
SPEEDS = np.array([2.0, 2.0, 2.5, 3.0, 3.0, 3.0])
"""(6,) largest speeds, rad/s."""
HOME = np.array([0.0, -0.35, 1.9, 0.0, np.pi - 1.55, 0.0])
"""(6,) rad: over the table, the tool down."""


@dataclass(frozen=True)
class ArmColours:
    """RGBA of the parts."""

    link: tuple[float, float, float, float] = (0.86, 0.87, 0.88, 1)
    joint: tuple[float, float, float, float] = (0.25, 0.27, 0.30, 1)
    finger: tuple[float, float, float, float] = (0.15, 0.15, 0.17, 1)


def add_arm(spec: mujoco.MjSpec, colours: ArmColours | None = None) -> None:
    """Put the arm onto the table at the origin, looking along x.

    Joints and position actuators are named after :data:`JOINTS` and :data:`FINGERS`; site ``grip``
    is between the finger tips, its z axis along the tool. Only palm and fingers touch anything.
    """
    c = colours or ArmColours()
    foot = spec.worldbody.add_body(name="arm")
    _link(foot, "foot", (0, 0, 0), (0, 0, 0.10), 0.055, c.joint)
    bodies = [foot]
    frames = [
        ("yaw", (0, 0, 0.10), (0, 0, 1)), ("shoulder", (0, 0, SHOULDER_M - 0.10), (0, 1, 0)),
        ("elbow", (0, 0, UPPER_M), (0, 1, 0)), ("forearm", (0, 0, 0.10), (0, 0, 1)),
        ("wrist", (0, 0, FORE_M - 0.10), (0, 1, 0)), ("tool", (0, 0, 0.05), (0, 0, 1)),
    ]  # fmt: skip
    ends = [SHOULDER_M - 0.10, UPPER_M, 0.10, FORE_M - 0.10, 0.05, 0.05]
    masses = [1.5, 1.5, 0.7, 0.7, 0.4, 0.3]
    for (name, pos, axis), end, mass, radius in zip(
        frames, ends, masses, (0.05, 0.042, 0.036, 0.034, 0.03, 0.028), strict=True
    ):
        body = bodies[-1].add_body(name=name, pos=pos, gravcomp=1)
        low, high = RANGES[JOINTS.index(name)]
        body.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, range=(low, high),
            limited=True, armature=0.05, damping=[2.0, 0, 0],
        )  # fmt: skip
        _link(body, name, (0, 0, 0), (0, 0, end), radius, c.link, mass)
        gain = 300.0 if name in ("yaw", "shoulder", "elbow") else 100.0
        _servo(spec, name, gain, gain / 10, (low, high), 80.0)
        bodies.append(body)
    _gripper(spec, bodies[-1], c)


def _gripper(spec: mujoco.MjSpec, tool: Any, c: ArmColours) -> None:
    palm = tool.add_geom(
        name="palm", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 0.05, 0.012), pos=(0, 0, 0.062),
        rgba=c.joint, mass=0.2, contype=1, conaffinity=1, group=2,
    )  # fmt: skip
    palm.friction = [0.5, 0.005, 0.0001]
    tip = TOOL_M - 0.05
    for name, side in zip(FINGERS, (1, -1), strict=True):
        body = tool.add_body(name=name, pos=(0, 0, tip - FINGER_HALF[2] + 0.006), gravcomp=1)
        body.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, side, 0), range=(0, OPEN_M),
            limited=True, armature=0.2, damping=[5.0, 0, 0],
        )  # fmt: skip
        pad = body.add_geom(
            name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=FINGER_HALF,
            pos=(0, side * FINGER_HALF[1], 0), rgba=c.finger, mass=0.05, contype=1, conaffinity=1,
            group=2,
        )  # fmt: skip
        pad.friction, pad.condim = [1.5, 0.05, 0.001], 4
        body.add_geom(
            name=f"{name}_back", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.006, 0.004, 0.016),
            pos=(0, side * FINGER_HALF[1], -0.036), rgba=c.finger, mass=0.02, contype=0,
            conaffinity=0, group=2,
        )  # fmt: skip
        _servo(spec, name, 400.0, 20.0, (-0.01, OPEN_M), 12.0)
    tool.add_site(name="grip", pos=(0, 0, tip))


def _link(
    body: Any, name: str, start: Any, end: Any, radius: float, rgba: Any, mass: float = 0.5
) -> None:
    body.add_geom(
        name=f"{name}_link", type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=(*start, *end),
        size=(radius, 0, 0), rgba=rgba, mass=mass, contype=0, conaffinity=0, group=2,
    )  # fmt: skip


def _servo(
    spec: mujoco.MjSpec, name: str, kp: float, kv: float, limits: tuple[float, float], force: float
) -> None:
    act = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    act.gainprm[0], act.biasprm[1], act.biasprm[2] = kp, -kp, -kv
    act.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    act.ctrllimited, act.ctrlrange = True, limits
    act.forcelimited, act.forcerange = True, [-force, force]


def inverse(xyz: ArrayLike, yaw: ArrayLike, near: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Joint angles that hold the grip at points with the tool pointing straight down.

    Args:
        xyz: (..., 3) of the grip in the frame of the arm, m.
        yaw: (...) of the gripper about the vertical, rad; fingers close along its y axis.
        near: (...) angle of the tool joint, rad. Half a turn is the same to a gripper: of the
            angles that do, the one nearest to this is taken.

    Returns:
        (..., 6) rad, elbow up. A point out of reach is drawn in to the nearest that can be reached
        along the same bearing.
    """
    x, y, z = np.moveaxis(np.asarray(xyz, np.float64), -1, 0)
    bearing = np.arctan2(y, x)
    r, up = np.hypot(x, y), z + TOOL_M - SHOULDER_M
    far, most = np.hypot(r, up), UPPER_M + FORE_M - 1e-3
    drawn_in = np.where(far > most, most / far, 1.0)
    r, up = r * drawn_in, up * drawn_in
    far = np.clip(far, abs(UPPER_M - FORE_M) + 0.05, most)
    elbow = np.arccos(np.clip(
        (far**2 - UPPER_M**2 - FORE_M**2) / (2 * UPPER_M * FORE_M), -1, 1
    ))  # fmt: skip
    inner = np.arctan2(FORE_M * np.sin(elbow), UPPER_M + FORE_M * np.cos(elbow))
    shoulder = np.arctan2(r, up) - inner
    roll = bearing - np.asarray(yaw) - near
    roll = (roll + np.pi / 2) % np.pi - np.pi / 2 + near
    zero = np.zeros_like(bearing)
    angles = np.stack([bearing, shoulder, elbow, zero, np.pi - shoulder - elbow, roll], axis=-1)
    return np.asarray(np.clip(angles, RANGES[:, 0], RANGES[:, 1]), np.float64)
