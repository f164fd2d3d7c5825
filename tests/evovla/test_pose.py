"""Relative poses against the composition of matrices, half turns included."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from evovla.pose import (
    TOOL_DOWN_QUAT_WXYZ,
    relative_pose_wxyz,
    relative_pose_xyzw,
    rotation_vector,
)
from evovla.pose_model import pose_change
from sim.tabletop.arm import inverse
from sim.tabletop.engine import Tabletop, table_spec

ANGLES = (0.0, 1e-9, 1e-4, 0.3, 2.0, np.pi - 1e-3, np.pi - 1e-7, np.pi)


def matrix_of_vector(turn):
    """Rodrigues' formula."""
    angle = np.linalg.norm(turn)
    if angle == 0:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def matrix_of_pose(pose):
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, np.asarray(pose[3:]) / np.linalg.norm(pose[3:]))
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = out.reshape(3, 3), pose[:3]
    return whole


def matrix_of_six(z):
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = matrix_of_vector(z[:3]), z[3:]
    return whole


def poses(rng, count):
    return rng.normal(size=(count, 7))


def test_a_relative_pose_is_the_product_of_matrices():
    rng = np.random.default_rng(0)
    gripper, thing = poses(rng, 200), poses(rng, 200)
    z = relative_pose_wxyz(gripper, thing)
    assert z.shape == (200, 6) and np.linalg.norm(z[:, :3], axis=1).max() <= np.pi + 1e-9
    for one, g, t in zip(z, gripper, thing, strict=True):
        want = np.linalg.inv(matrix_of_pose(g)) @ matrix_of_pose(t)
        np.testing.assert_allclose(matrix_of_six(one), want, atol=1e-9)


@pytest.mark.parametrize("angle", ANGLES)
def test_every_angle_up_to_half_a_turn_comes_back(angle):
    rng = np.random.default_rng(1)
    for _ in range(20):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        gripper = poses(rng, 1)[0]
        turned = matrix_of_pose(gripper)[:3, :3] @ matrix_of_vector(angle * axis)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, turned.ravel())
        z = relative_pose_wxyz(gripper, [*gripper[:3], *quat])
        assert np.linalg.norm(z[:3]) == pytest.approx(angle, abs=1e-7)
        np.testing.assert_allclose(
            matrix_of_vector(z[:3]), matrix_of_vector(angle * axis), atol=1e-7
        )
        np.testing.assert_allclose(z[3:], 0, atol=1e-12)


def test_by_hand():
    """Gripper at (1, 0, 0) turned a quarter left; the thing 2 m along y from it, not turned."""
    half = np.sqrt(0.5)
    z = relative_pose_wxyz([1, 0, 0, half, 0, 0, half], [1, 2, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(z, [0, 0, -np.pi / 2, 2, 0, 0], atol=1e-12)


def test_the_order_of_ros_gives_the_same_and_so_does_the_other_sign():
    rng = np.random.default_rng(2)
    gripper, thing = poses(rng, 50), poses(rng, 50)
    want = relative_pose_wxyz(gripper, thing)
    order = [0, 1, 2, 4, 5, 6, 3]
    np.testing.assert_allclose(relative_pose_xyzw(gripper[:, order], thing[:, order]), want)
    flipped = thing * [1, 1, 1, -1, -1, -1, -1]
    np.testing.assert_allclose(relative_pose_wxyz(gripper, flipped), want, atol=1e-12)


def test_one_gripper_and_many_things_broadcast():
    rng = np.random.default_rng(3)
    gripper, things = poses(rng, 1)[0], poses(rng, 5)
    z = relative_pose_wxyz(gripper, things)
    np.testing.assert_allclose(z[3], relative_pose_wxyz(gripper, things[3]))


def test_under_our_arm_an_upright_thing_is_half_a_turn_away_and_counted_from_there_it_is_none():
    table = Tabletop(table_spec())
    table.data.qpos[table._arm_q] = inverse((0.3, 0.1, 0.1), 0.0)
    mujoco.mj_kinematics(table.model, table.data)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, table.data.site_xmat[table._grip])
    gripper = [*table.data.site_xpos[table._grip], *quat]
    cube = [0.3, 0.1, 0.02, 1, 0, 0, 0]
    plain = relative_pose_wxyz(gripper, cube)
    assert np.linalg.norm(plain[:3]) == pytest.approx(np.pi, abs=1e-3)
    z = relative_pose_wxyz(gripper, cube, TOOL_DOWN_QUAT_WXYZ)
    np.testing.assert_allclose(z, [0, 0, 0, 0, 0, 0.08], atol=1e-3)


def test_a_change_of_pose_is_the_product_of_matrices_and_does_not_jump_at_half_a_turn():
    rng = np.random.default_rng(4)
    for angle in ANGLES:
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        small = 0.02 * rng.normal(size=3)
        before = np.array([*(angle * axis), 0.1, 0.2, 0.3])
        turned = matrix_of_vector(before[:3]) @ matrix_of_vector(small)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, turned.ravel())
        after = np.array([*rotation_vector(quat), 0.11, 0.2, 0.28])
        change = pose_change(torch.tensor(before), torch.tensor(after)).numpy()
        np.testing.assert_allclose(change, [*small, 0.01, 0, -0.02], atol=1e-6)


def test_no_change_is_zero_and_has_a_gradient():
    z = torch.tensor([[0.0, 0.0, 0.0, 0.1, 0.2, 0.3], [3.0, 0.5, 0.0, 0.0, 0.0, 0.0]])
    z.requires_grad_(True)
    change = pose_change(z, z.detach())
    assert float(change.detach().abs().max()) < 1e-6
    change.sum().backward()
    assert bool(z.grad.isfinite().all())


def test_a_bad_pose_is_named():
    good = [0, 0, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match=r"thing must be \(..., 7\).*got \(6,\)"):
        relative_pose_wxyz(good, [0] * 6)
    with pytest.raises(ValueError, match="gripper must be finite"):
        relative_pose_wxyz([np.nan, *good[1:]], good)
    with pytest.raises(ValueError, match="thing must have four numbers and a length"):
        relative_pose_wxyz(good, [0] * 7)
