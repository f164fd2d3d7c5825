"""Tier M: agrees with whole worlds compiled alone, on any number of threads, and after a resume."""

import mujoco
import numpy as np
import pytest

from rnd_agv.robot import AGV, JACKAL
from sim.backend import CONTROL_DT, Dynamics
from sim.mujoco_batch import SUBSTEPS, MujocoBatch
from sim.robots import pair_friction, payload_inertia, wheel_speeds, world_spec
from sim.worlds import World


def cluttered(seed, boxes=30, discs=20, size=8.0):
    """A walled square of boxes and discs with room to start at the origin."""
    rng = np.random.default_rng(seed)
    h = size / 2
    walls = [[0, -h, h, 0.1], [0, h, h, 0.1], [-h, 0, 0.1, h], [h, 0, 0.1, h]]
    box = np.concatenate([rng.uniform(-h, h, (boxes, 2)), rng.uniform(0.1, 0.4, (boxes, 2))], 1)
    disc = np.concatenate([rng.uniform(-h, h, (discs, 2)), rng.uniform(0.05, 0.3, (discs, 1))], 1)
    box = box[np.hypot(box[:, 0], box[:, 1]) > 1.4]
    disc = disc[np.hypot(disc[:, 0], disc[:, 1]) > 1.1].astype(np.float32)
    box = np.concatenate([walls, box]).astype(np.float32)
    labels = np.zeros(len(box), np.int8), np.zeros(len(disc), np.int8)
    return World(f"cluttered{seed}", seed, (-h, -h, h, h), box, labels[0], disc, labels[1])


def open_floor():
    boxes = np.array([[50.0, 0.0, 0.5, 5.0]], np.float32)
    return World("open", 0, (-51.0, -51.0, 51.0, 51.0), boxes, np.zeros(1, np.int8))


def varied(robot, n, seed=0):
    """Random poses, commands held for half a second, and dynamics."""
    rng = np.random.default_rng(seed)
    pose = np.zeros((n, 3))
    pose[:, 2] = rng.uniform(-np.pi, np.pi, n)
    dynamics = Dynamics(
        rng.uniform(0.85, 1.0, (n, 2)), rng.uniform(0.03, 0.2, n), rng.uniform(0.4, 1.2, n),
        rng.uniform(0.0, robot.payload_kg, n),
    )  # fmt: skip
    v, w = rng.uniform(-0.3, 1.4, (12, n)), rng.uniform(-1.5, 1.5, (12, n))
    return pose, dynamics, np.repeat(np.stack([v, w], -1), 10, axis=0)


def run(backend, commands, movers=None):
    still = np.zeros((backend.num_envs, 0, 3))
    poses = []
    for t, command in enumerate(commands):
        backend.step(command, still if movers is None else movers[t])
        poses.append(np.concatenate([backend.pose_w, backend.vel_b], axis=1))
    return np.array(poses)


@pytest.mark.parametrize("robot", [AGV, JACKAL], ids=lambda robot: robot.name)
def test_equals_the_whole_world_compiled_alone(robot):
    n = 6
    worlds = [cluttered(i) for i in range(n)]
    pose, dynamics, commands = varied(robot, n)
    backend = MujocoBatch(robot, n, nthread=2)
    backend.reset(np.arange(n), worlds, pose, dynamics)
    start = backend.batch.bind("qpos").copy()
    got = run(backend, commands)
    contacts = 0
    for i in range(n):
        spec = world_spec(worlds[i], robot)
        model = spec.compile()
        # the oracle uses the midphase, with bounding volumes compiled for this world
        model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        model.actuator_dynprm[:, 0] = dynamics.motor_lag_s[i]
        for k in range(model.npair):
            if not model.pair(k).name.startswith("caster"):
                model.pair_friction[k] = pair_friction(dynamics.friction[i])
        body = model.body("payload").id
        model.body_mass[body] = dynamics.payload_kg[i]
        model.body_inertia[body] = dynamics.payload_kg[i] * payload_inertia(robot)
        data = mujoco.MjData(model)
        mujoco.mj_setConst(model, data)
        data.qpos[:] = start[i]
        hull = model.geom("footprint").id
        for t, command in enumerate(commands[:, i]):
            wheels = wheel_speeds(robot, command) * dynamics.slip[i]
            data.ctrl[:] = np.tile(wheels, model.nu // 2)
            mujoco.mj_step(model, data, SUBSTEPS)
            contacts += any(hull in (c.geom1, c.geom2) for c in data.contact)
            np.testing.assert_allclose(got[t, i, :2], data.qpos[:2], rtol=0, atol=1e-9)
    assert contacts > 20  # or the comparison would say little


def test_threads_and_batch_size_do_not_change_a_row():
    n = 16
    worlds = [cluttered(i % 4) for i in range(n)]
    pose, dynamics, commands = varied(AGV, n)

    def poses(rows, nthread):
        backend = MujocoBatch(AGV, len(rows), nthread=nthread)
        part = Dynamics(
            dynamics.slip[rows], dynamics.motor_lag_s[rows], dynamics.friction[rows],
            dynamics.payload_kg[rows],
        )  # fmt: skip
        backend.reset(np.arange(len(rows)), [worlds[i] for i in rows], pose[rows], part)
        return run(backend, commands[:, rows])

    every = np.arange(n)
    whole = poses(every, 1)
    np.testing.assert_array_equal(whole, poses(every, 3))
    np.testing.assert_array_equal(whole[:, [5]], poses(every[[5]], 1))


def test_resume_is_bit_exact_and_needs_no_luck_with_resets():
    n = 8
    worlds = [cluttered(i) for i in range(n)]
    pose, dynamics, commands = varied(AGV, n)
    movers = np.zeros((len(commands), n, 2, 3))
    movers[:, :, 0] = [1.2, 0.4, 0.3]
    movers[:, :, 0, 0] -= np.linspace(0, 2, len(commands))[:, None]
    first = MujocoBatch(AGV, n, n_movers=2)
    first.reset(np.arange(n), worlds, pose, dynamics)
    run(first, commands[:40], movers[:40])
    first.reset(np.array([2, 5]), [worlds[5], worlds[2]], pose[[2, 5]], Dynamics.nominal(2))
    run(first, commands[40:60], movers[40:60])
    state = first.state_dict()
    went_on = run(first, commands[60:], movers[60:])
    second = MujocoBatch(AGV, n, n_movers=2, nthread=1)
    order = [worlds[i] for i in (0, 1, 5, 3, 4, 2, 6, 7)]
    second.reset(np.arange(n), order, np.zeros((n, 3)), Dynamics.nominal(n))
    second.load_state_dict(state)
    np.testing.assert_array_equal(went_on, run(second, commands[60:], movers[60:]))


def test_state_of_another_size_is_refused():
    state = MujocoBatch(AGV, 2).state_dict()
    with pytest.raises(ValueError, match="state must have arrays of shapes"):
        MujocoBatch(AGV, 3).load_state_dict(state)


def test_a_reset_row_starts_as_a_fresh_one_and_leaves_the_others_alone():
    worlds = [cluttered(0), cluttered(1), cluttered(2)]
    pose, dynamics, commands = varied(AGV, 3)
    backend = MujocoBatch(AGV, 3)
    backend.reset(np.arange(3), worlds, pose, dynamics)
    run(backend, commands[:30])
    before = backend.pose_w.copy()
    at = np.array([[0.1, -0.1, 7.0]])
    backend.reset(np.array([1]), [worlds[2]], at, Dynamics.nominal(1))
    np.testing.assert_array_equal(backend.pose_w[[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(backend.pose_w[1], [0.1, -0.1, 7.0 - 2 * np.pi])
    np.testing.assert_array_equal(backend.vel_b[1], 0)
    fresh = MujocoBatch(AGV, 1)
    fresh.reset(np.array([0]), [worlds[2]], at, Dynamics.nominal(1))
    got = run(backend, commands[30:])
    np.testing.assert_array_equal(got[:, [1]], run(fresh, commands[30:, [1]]))


def test_slots_grow_where_obstacles_crowd_and_nothing_else_changes():
    ring = [[0.65 * np.cos(a), 0.65 * np.sin(a), 0.02] for a in np.linspace(0, 2 * np.pi, 40)]
    crowd = World(
        "ring", 0, (-5.0, -5.0, 5.0, 5.0), np.array([[4.5, 0, 0.5, 5]], np.float32),
        np.zeros(1, np.int8), np.array(ring, np.float32), np.zeros(40, np.int8),
    )  # fmt: skip
    pose, _, commands = varied(AGV, 2)
    pose[1, 0] = -3.0
    alone = MujocoBatch(AGV, 1)
    alone.reset(np.array([0]), [crowd], pose[[1]], Dynamics.nominal(1))
    both = MujocoBatch(AGV, 2)
    both.reset(np.arange(2), [crowd, crowd], pose, Dynamics.nominal(2))
    slots = both.batch.model.ngeom
    got = run(both, commands[:30])
    assert both.batch.model.ngeom >= slots + 30
    assert np.hypot(*got[-1, 0, :2]) < 0.3  # the ring holds it
    np.testing.assert_array_equal(got[:, [1]], run(alone, commands[:30, [1]]))


def test_velocity_is_measured_in_the_body_frame():
    backend = MujocoBatch(AGV, 1)
    backend.reset(np.array([0]), [open_floor()], np.array([[0.0, 0.0, 2.0]]), Dynamics.nominal(1))
    poses = run(backend, np.tile([0.8, 0.5], (60, 1, 1)))[:, 0]
    step = np.hypot(*np.diff(poses[-2:, :2], axis=0)[0]) / CONTROL_DT
    turn = (poses[-1, 2] - poses[-2, 2]) / CONTROL_DT
    np.testing.assert_allclose(poses[-1, 3:], [step, turn], rtol=0.01)
    np.testing.assert_allclose(poses[-1, 3:], [0.8, 0.5], rtol=0.03)


def test_motor_lag_delays_and_slip_slows():
    backend = MujocoBatch(AGV, 3)
    dynamics = Dynamics.nominal(3)
    dynamics.motor_lag_s[:] = 0.03, 0.2, 0.03
    dynamics.slip[2] = 0.9
    backend.reset(np.arange(3), [open_floor()] * 3, np.zeros((3, 3)), dynamics)
    poses = run(backend, np.tile([0.5, 0.0], (60, 3, 1)))
    # first-order lag: after 0.2 s, 1 - exp(-0.2 / 0.2) of the command
    assert poses[3, 1, 3] == pytest.approx(0.5 * (1 - np.exp(-1)), rel=0.1)
    assert poses[3, 0, 3] > 0.48
    np.testing.assert_allclose(poses[-1, :, 3], [0.5, 0.5, 0.45], rtol=0.01)


def test_creeps_less_than_a_millimetre_in_10_s():
    for robot in (AGV, JACKAL):
        backend = MujocoBatch(robot, 1)
        at = np.array([[1.0, 2.0, 0.5]])
        backend.reset(np.array([0]), [open_floor()], at, Dynamics.nominal(1))
        poses = run(backend, np.zeros((200, 1, 2)))[:, 0]
        assert np.abs(poses[:, :3] - at).max() < 1e-3


def test_a_mover_pushes_the_robot_along_its_path_and_an_unused_one_does_not():
    backend = MujocoBatch(AGV, 2, n_movers=2)
    backend.reset(np.arange(2), [open_floor()] * 2, np.zeros((2, 3)), Dynamics.nominal(2))
    movers = np.zeros((80, 2, 2, 3))
    movers[:, :, 0, 0] = np.linspace(1.5, 0.3, 80)[:, None]
    movers[:, 0, 0, 2] = 0.3
    poses = run(backend, np.zeros((80, 2, 2)), movers)
    # its edge ends at x = 0: the front of the robot, from 0.45 m, is pushed back there
    assert poses[-1, 0, 0] == pytest.approx(-0.45, abs=0.02)
    np.testing.assert_allclose(poses[-1, 1, :2], 0, atol=1e-3)


def test_a_large_mover_is_felt_after_a_reset_beside_a_small_one():
    backend = MujocoBatch(AGV, 1, n_movers=1)
    at, world = np.zeros((1, 3)), open_floor()
    small = np.array([[[0.7, 0.0, 0.05]]])
    for _ in range(2):
        backend.reset(np.array([0]), [world], at, Dynamics.nominal(1))
        backend.step(np.zeros((1, 2)), small)
    backend.reset(np.array([0]), [world], at, Dynamics.nominal(1))
    movers = np.zeros((60, 1, 1, 3))
    movers[:, 0, 0, 0] = np.linspace(2.5, 1.6, 60)
    movers[..., 2] = 1.5
    poses = run(backend, np.zeros((60, 1, 2)), movers)
    assert poses[-1, 0, 0] == pytest.approx(1.6 - 1.5 - 0.45, abs=0.02)


def test_a_mover_put_elsewhere_sweeps_nothing_on_its_way():
    backend = MujocoBatch(AGV, 1, n_movers=1)
    backend.reset(np.array([0]), [open_floor()], np.zeros((1, 3)), Dynamics.nominal(1))
    movers = np.zeros((2, 1, 1, 3))
    movers[0, 0, 0] = [1.2, 0.0, 0.3]
    movers[1, 0, 0] = [-1.2, 0.0, 0.3]
    poses = run(backend, np.zeros((2, 1, 2)), movers)
    np.testing.assert_allclose(poses[-1, 0, :2], 0, atol=1e-3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_envs must be >= 1"):
        MujocoBatch(AGV, 0)
    backend = MujocoBatch(AGV, 1, n_movers=1)
    still = np.zeros((1, 0, 3))
    with pytest.raises(ValueError, match="pose_w must be"):
        backend.reset(
            np.array([0]), [open_floor()], np.array([[0, 0, np.nan]]), Dynamics.nominal(1)
        )
    backend.reset(np.array([0]), [open_floor()], np.zeros((1, 3)), Dynamics.nominal(1))
    with pytest.raises(ValueError, match="command must be"):
        backend.step(np.array([[np.nan, 0.0]]), still)
    with pytest.raises(ValueError, match="movers must be at most 1"):
        backend.step(np.zeros((1, 2)), np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match="friction must be > 0"):
        dynamics = Dynamics.nominal(1)
        dynamics.friction[:] = 0
        backend.reset(np.array([0]), [open_floor()], np.zeros((1, 3)), dynamics)
