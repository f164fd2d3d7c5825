"""The robots' MJCF: published figures, rest, command following, walls, the calibrated track."""

import mujoco
import numpy as np
import pytest

from rnd_agv.robot import AGV, JACKAL, ROBOTS
from sim.robots import (
    calibrate_response,
    calibrate_separation,
    payload_inertia,
    robot_spec,
    wheel_speeds,
    world_spec,
)
from sim.worlds import World

BOTH = pytest.mark.parametrize("robot", [AGV, JACKAL], ids=lambda robot: robot.name)


def drive(robot, command, seconds, model=None, multiplier=None):
    """Ramp to a constant command and return the data at the end."""
    model = robot_spec(robot).compile() if model is None else model
    data = mujoco.MjData(model)
    wheels = np.tile(wheel_speeds(robot, command, multiplier), model.nu // 2)
    for k in range(round(seconds / model.opt.timestep)):
        data.ctrl[:] = wheels * min(1.0, k / 200)
        mujoco.mj_step(model, data)
    return data


def forward_speed(data):
    w, x, y, z = data.qpos[3:7]
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return data.qvel[0] * np.cos(yaw) + data.qvel[1] * np.sin(yaw)


def wall_at(x):
    boxes = np.array([[x + 0.5, 0.0, 0.5, 5.0]], np.float32)
    return World("wall", 0, (-3.0, -5.0, x + 1.0, 5.0), boxes, np.zeros(1, np.int8))


@BOTH
def test_mass_and_wheels_are_the_published_ones(robot):
    model = robot_spec(robot).compile()
    assert model.body_subtreemass[0] == pytest.approx(robot.mass_kg, abs=1e-3)
    left, right = model.body("left0").pos, model.body("right0").pos
    assert left[1] - right[1] == pytest.approx(robot.track_m)
    if robot.wheelbase_m:
        front, rear = model.body("left0").pos, model.body("left1").pos
        assert front[0] - rear[0] == pytest.approx(robot.wheelbase_m)
    size = model.geom("footprint").size
    assert tuple(size[:2]) == pytest.approx(robot.half_extents)


def test_wheel_speeds_by_hand():
    # 1 m/s and 2 rad/s, half track .25 m: .5 and 1.5 m/s at a radius of .1 m
    np.testing.assert_allclose(wheel_speeds(AGV, (1.0, 2.0), 1.0), [5.0, 15.0])
    np.testing.assert_allclose(wheel_speeds(AGV, (0.0, 1.0), 1.5), [-3.75, 3.75])


def test_payload_inertia_by_hand():
    # a box of .6 x .4 x .2 m: (ly^2 + lz^2) / 12 and so on
    want = np.array([0.16 + 0.04, 0.36 + 0.04, 0.36 + 0.16]) / 12
    np.testing.assert_allclose(payload_inertia(AGV), want)


@BOTH
def test_stands_still(robot):
    model = robot_spec(robot).compile()
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 400)
    start = data.qpos[:7].copy()
    mujoco.mj_step(model, data, 2000)  # 10 s
    assert np.abs(data.qpos[:3] - start[:3]).max() < 1e-3
    assert np.abs(data.qpos[3:7] - start[3:7]).max() < 1e-3
    assert np.abs(data.qvel).max() < 1e-4


@pytest.mark.parametrize("command", [(1.5, 0.0), (-0.5, 0.0), (0.0, 1.5), (0.0, -0.7), (1.0, 0.8)])
def test_agv_reaches_the_command_within_3_percent(command):
    data = drive(AGV, command, 4.0)
    v, w = command
    assert forward_speed(data) == pytest.approx(v, rel=0.03, abs=0.005)
    assert data.qvel[5] == pytest.approx(w, rel=0.03, abs=0.005)


def test_jackal_drives_straight_at_the_commanded_speed():
    data = drive(JACKAL, (1.5, 0.0), 4.0)
    assert forward_speed(data) == pytest.approx(1.5, rel=0.03)
    assert abs(data.qvel[5]) < 0.01


def test_separation_is_1_for_differential_drive_and_more_for_skid_steer():
    assert calibrate_separation(AGV) == pytest.approx(1.0, abs=0.01)
    jackal = calibrate_separation(JACKAL)
    # Coulomb scrub without motor droop, turning in place: 1 + (wheelbase / track)^2 = 1.49
    assert 1.3 < jackal < 1.5
    # and with it the robot turns at the rate it is told to, at the middle of the calibrated range
    data = drive(JACKAL, (0.5, 1.2), 4.0, multiplier=jackal)
    assert data.qvel[5] == pytest.approx(1.2, rel=0.1)


def test_calibrated_multipliers_are_the_ones_in_the_specs():
    for robot in ROBOTS.values():
        assert calibrate_separation(robot) == pytest.approx(robot.separation_multiplier, rel=0.02)
    assert np.abs(calibrate_response(JACKAL) - np.array(JACKAL.response)).max() < 0.015


@BOTH
def test_does_not_tip_when_it_brakes_hard_with_payload(robot):
    model = robot_spec(robot).compile()
    body = model.body("payload").id
    model.body_mass[body] = robot.payload_kg
    model.body_inertia[body] = robot.payload_kg * payload_inertia(robot)
    data = mujoco.MjData(model)
    mujoco.mj_setConst(model, data)
    tilt = 0.0
    for k in range(800):
        v = robot.limits.v_max if k < 400 else 0.0
        data.ctrl[:] = np.tile(wheel_speeds(robot, (v, 0.0)), model.nu // 2)
        mujoco.mj_step(model, data)
        tilt = max(tilt, 2 * np.hypot(data.qpos[4], data.qpos[5]))
    assert abs(data.qvel[0]) < 0.05
    assert tilt < np.radians(5)


@BOTH
def test_stops_at_a_wall_without_sinking_in(robot):
    model = world_spec(wall_at(2.0), robot).compile()
    data = mujoco.MjData(model)
    wall, deepest, touched = model.geom("box0").id, 0.0, False
    for _ in range(1000):
        data.ctrl[:] = robot.limits.v_max / robot.wheel_radius_m
        mujoco.mj_step(model, data)
        for contact in data.contact:
            if wall in (contact.geom1, contact.geom2):
                touched, deepest = True, max(deepest, -contact.dist)
    assert touched
    assert deepest < 0.01
    assert data.qpos[0] == pytest.approx(2.0 - robot.length_m / 2, abs=0.02)


def test_nothing_but_footprint_and_obstacles_collides_beyond_the_floor_pairs():
    boxes = np.array([[0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.2, 0.2]], np.float32)
    world = World("overlap", 0, (-3.0, -3.0, 3.0, 3.0), boxes, np.zeros(2, np.int8))
    model = world_spec(world, AGV, n_movers=2).compile()
    data = mujoco.MjData(model)
    data.mocap_pos[:, 2] = 0.5  # movers inside the boxes, and in each other
    mujoco.mj_forward(model, data)
    names = [{model.geom(c.geom1).name, model.geom(c.geom2).name} for c in data.contact]
    assert any("footprint" in pair for pair in names)
    assert all("footprint" in pair or "floor" in pair for pair in names)
