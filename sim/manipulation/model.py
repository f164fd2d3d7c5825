"""The MuJoCo model of a task: the bench, the arm with a camera at its wrist, and the pieces."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from ..tabletop.arm import FINGERS, add_arm
from ..tabletop.engine import bench_spec
from .pieces import Piece, Shape

CAMERAS = ("side", "wrist")
WRIST_TILT = 0.42
"""rad that the wrist camera is turned towards the finger tips."""
WRIST_FOVY_DEG = 62.0
PIECE_FRICTION = (1.0, 0.02, 0.0005)
LAMP_M = (0.22, -0.21, 0.015)
"""Where the lamp of a cue stands."""
LAMP_OFF = (0.35, 0.35, 0.36)


def model_spec(pieces: tuple[Piece, ...], lamp: bool = False) -> mujoco.MjSpec:
    """Body ``i`` of the pieces is named ``piece{i}``; sensors tell which of them a finger touches.

    Args:
        lamp: also a lamp beside the workplace, whose colour is a cue.
    """
    spec = bench_spec("manipulation")
    add_arm(spec)
    spec.body("tool").add_camera(
        name="wrist", pos=(0.075, 0, 0.0), fovy=WRIST_FOVY_DEG, quat=_wrist_quat()
    )
    for i, piece in enumerate(pieces):
        _add_piece(spec, i, piece)
    for i, piece in enumerate(pieces):
        if not piece.fixed:
            for finger in FINGERS:
                _add_touch(spec, finger, i)
    if lamp:
        spec.worldbody.add_geom(
            name="lamp", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.028, 0.015, 0), pos=LAMP_M,
            rgba=(*LAMP_OFF, 1), contype=0, conaffinity=0, group=1,
        )  # fmt: skip
    return spec


def _wrist_quat() -> list[float]:
    """Looking along the tool (its +z), tilted back to the fingers; a camera looks along -z."""
    c, s = np.cos(WRIST_TILT), np.sin(WRIST_TILT)
    forward = np.array([-s, 0.0, c])
    right = np.array([0.0, 1.0, 0.0])
    up = np.cross(right, forward)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, up, -forward], axis=1).ravel())
    return [float(x) for x in quat]


def _add_piece(spec: mujoco.MjSpec, i: int, piece: Piece) -> None:
    """A free body, or for a fixed piece a mocap body, which is placed but never moves."""
    at = (*piece.xy_m, piece.height_m)
    body = spec.worldbody.add_body(name=f"piece{i}", pos=at, mocap=piece.fixed)
    if not piece.fixed:
        body.add_freejoint(name=f"piece{i}")
    volume = sum(_volume(shape) for shape in piece.shapes)
    for k, shape in enumerate(piece.shapes):
        x, y, z = shape.half
        size = {"cylinder": (x, z, 0.0)}.get(shape.kind, (x, y, z))
        rolls = shape.kind == "ellipsoid"
        geom = body.add_geom(
            name=f"piece{i}_{k}", type=getattr(mujoco.mjtGeom, f"mjGEOM_{shape.kind.upper()}"),
            size=size, pos=shape.at, quat=(np.cos(shape.yaw / 2), 0, 0, np.sin(shape.yaw / 2)),
            rgba=(*piece.rgb, 1), mass=piece.mass_kg * _volume(shape) / volume,
            condim=6 if rolls else 4, group=1,
        )  # fmt: skip
        geom.friction = [*PIECE_FRICTION[:2], 0.002 if rolls else PIECE_FRICTION[2]]


def _volume(shape: Shape) -> float:
    x, y, z = shape.half
    return x * y * z * {"box": 8.0, "cylinder": 2 * np.pi, "ellipsoid": 4 / 3 * np.pi}[shape.kind]


def _add_touch(spec: mujoco.MjSpec, finger: str, i: int) -> None:
    sensor: Any = spec.add_sensor(
        name=f"{finger}_piece{i}", type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_GEOM, objname=finger, reftype=mujoco.mjtObj.mjOBJ_XBODY,
        refname=f"piece{i}",
    )  # fmt: skip
    found = 1 << int(mujoco.mjtConDataField.mjCONDATA_FOUND)
    sensor.intprm[:3] = [found, 0, 1]
