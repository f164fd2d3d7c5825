"""Where an object is as the gripper sees it: six numbers, a rotation vector and a translation.

A rotation vector jumps at half a turn, and a tool that points down over an object that lies
upright *is* half a turn away from it. So the rotation can be counted from a grasp of one's own
(:data:`TOOL_DOWN_QUAT_WXYZ`), and a change of pose is never a difference of rotation vectors, see
:func:`evovla.pose_model.pose_change`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSE = ("turn_x", "turn_y", "turn_z", "x", "y", "z")
"""Columns of a relative pose: rotation vector, rad, at most pi long; translation, m, both in the
frame of the gripper."""
NO_TURN_QUAT_WXYZ = (1.0, 0.0, 0.0, 0.0)
TOOL_DOWN_QUAT_WXYZ = (0.0, 0.0, 1.0, 0.0)
"""An upright object in the frame of a gripper that an arm of pitch joints (about y) points down,
its z axis along the tool: half a turn about y."""


def relative_pose_wxyz(
    gripper: ArrayLike, thing: ArrayLike, zero_quat_wxyz: ArrayLike = NO_TURN_QUAT_WXYZ
) -> NDArray[np.float64]:
    r"""Pose of a thing in the frame of the gripper, :math:`T_{ee}^{-1} T_{obj}` as six numbers.

    Args:
        gripper, thing: (..., 7) x, y, z, quat_wxyz (MuJoCo's order) in any one frame, m.
        zero_quat_wxyz: the rotation of the thing in the frame of the gripper that is called none.

    Returns:
        (..., 6) float64, see :data:`POSE`.

    Raises:
        ValueError: wrong shape, a number that is not finite, or a quaternion without length.
    """
    hand, body = _checked("gripper", gripper), _checked("thing", thing)
    back = _conjugate(_unit("gripper", hand[..., 3:]))
    zero = _unit("zero_quat_wxyz", np.asarray(zero_quat_wxyz, np.float64))
    turn = _times(_conjugate(zero), _times(back, _unit("thing", body[..., 3:])))
    away = _turned(back, body[..., :3] - hand[..., :3])
    vector = rotation_vector(turn)
    lead = np.broadcast_shapes(vector.shape, away.shape)
    return np.concatenate([np.broadcast_to(v, lead) for v in (vector, away)], axis=-1)


def relative_pose_xyzw(
    gripper: ArrayLike, thing: ArrayLike, zero_quat_wxyz: ArrayLike = NO_TURN_QUAT_WXYZ
) -> NDArray[np.float64]:
    """:func:`relative_pose_wxyz` of poses (..., 7) whose quaternions are in the order of ROS."""
    order = [0, 1, 2, 6, 3, 4, 5]
    hand, body = _checked("gripper", gripper), _checked("thing", thing)
    return relative_pose_wxyz(hand[..., order], body[..., order], zero_quat_wxyz)


def rotation_vector(quat_wxyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) axis times angle, at most pi long, of (..., 4) unit quaternions."""
    quat = np.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)
    sine = np.linalg.norm(quat[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quat[..., :1])
    return np.asarray(quat[..., 1:] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0))


def _checked(name: str, pose: ArrayLike) -> NDArray[np.float64]:
    value = np.asarray(pose, np.float64)
    if value.ndim < 1 or value.shape[-1] != 7:
        raise ValueError(f"{name} must be (..., 7), position and quaternion, got {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return value


def _unit(name: str, quat: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(quat, axis=-1, keepdims=True)
    if quat.shape[-1] != 4 or bool((length < 1e-6).any()):
        raise ValueError(f"{name} must have four numbers and a length, got {quat.tolist()}")
    return np.asarray(quat / length)


def _conjugate(quat: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(quat * np.array([1.0, -1.0, -1.0, -1.0]))


def _times(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of quaternions, wxyz."""
    va, vb = a[..., 1:], b[..., 1:]
    real = a[..., :1] * b[..., :1] - (va * vb).sum(axis=-1, keepdims=True)
    return np.concatenate([real, a[..., :1] * vb + b[..., :1] * va + np.cross(va, vb)], axis=-1)


def _turned(quat: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) vectors turned by unit quaternions, wxyz."""
    twice = 2 * np.cross(quat[..., 1:], vector)
    return np.asarray(vector + quat[..., :1] * twice + np.cross(quat[..., 1:], twice))
