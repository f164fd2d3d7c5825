"""The tracker in a floor of rooms, with odometry that drifts and a robot that is carried away."""

import numpy as np
import pytest

from sim import worlds
from sim.lidar import cast
from sim.odometry import Odometer
from toponav import io
from toponav.exploration import Exploration, ExplorationConfig, Reason, Task
from toponav.localizer import between, compose
from toponav.tracker import Tracker, TrackerConfig, clear_way

ANGLES = np.linspace(-np.pi, np.pi, 180, endpoint=False)
RANGE_M, LIDAR_B = 10.0, (0.12, 0.0, 0.0)
WORLD = worlds.rooms(4)


def scan(pose):
    """(180,) from a base pose."""
    lidar = compose(pose, LIDAR_B)
    out, zero = np.empty((1, 180), np.float32), np.zeros(1, np.int32)
    cast(lidar[None], ANGLES[0], ANGLES[1] - ANGLES[0], WORLD.boxes[None],
         np.array([len(WORLD.boxes)], np.int32), np.zeros((1, 1, 3), np.float32), zero, zero,
         np.zeros((1, 0, 3)), RANGE_M, out)  # fmt: skip
    return out[0]


def square(centre, side=1.6, step=0.1):
    """(T, 3) poses around a square, turning at its corners."""
    x, y = centre
    poses = []
    for k in range(4):
        yaw = k * np.pi / 2
        ahead = np.array([np.cos(yaw), np.sin(yaw)])
        corner = np.array([x, y]) - side / 2 * (ahead + (-ahead[1], ahead[0]))
        poses += [[*(corner + s * ahead), yaw] for s in np.arange(0, side, step)]
        poses += [[*(corner + side * ahead), yaw + a] for a in np.linspace(0, np.pi / 2, 6)]
    return np.array(poses)


def room(seed):
    """A point with room around it."""
    rng = np.random.default_rng(seed)
    return WORLD.free_points(rng, 1, 1.3)[0]


@pytest.fixture(scope="module")
def tracked():
    """A tracker that has been about one place, its odometer, and its errors, m."""
    poses = square(room(0))
    odometer, tracker, errors = Odometer(poses[0], 0.03, np.random.default_rng(1)), Tracker(), []
    for pose in np.concatenate([poses, poses]):
        fix = tracker.follow(odometer.step(pose), scan(pose), ANGLES, RANGE_M, LIDAR_B)
        errors.append(np.hypot(*between(pose, fix.pose_w)[:2]))
        assert fix.sure and not fix.lost
    return tracker, odometer, errors


def test_odometry_drifts_and_the_tracker_does_not(tracked) -> None:
    tracker, odometer, errors = tracked
    last = square(room(0))[-1]
    assert np.hypot(*between(last, odometer.pose)[:2]) > 0.1
    assert max(errors) < 0.05 and errors[-1] < 0.05
    assert 1 <= len(tracker.localizer) < 20


def test_a_robot_that_is_carried_away_notices_and_is_found_only_once_it_has_driven(tracked) -> None:
    tracker, odometer, _ = tracked
    away, poses = square(room(0)), square(room(0))
    odometer.carried(away[30])
    # it believes to stand elsewhere: beside the first pose, turned
    tracker.localizer.place(compose(tracker.localizer.pose_w, (0.0, 0.0, 2.0)))
    fixes, way = [], 0.0
    for k, pose in enumerate([away[30]] * 8 + list(poses[31:]) + list(poses) + list(poses)):
        before = odometer.pose.copy()
        fix = tracker.follow(odometer.step(pose), scan(pose), ANGLES, RANGE_M, LIDAR_B)
        fixes.append(fix)
        way += np.hypot(*(odometer.pose - before)[:2])
        if k > 8 and not fix.lost:
            break
    lost = [fix.lost for fix in fixes]
    assert not lost[0] and lost[8] and not lost[-1]
    assert not any(fix.sure for fix in fixes[:-1])  # nothing is written down before
    assert way >= tracker.config.trial_m
    assert np.hypot(*between(pose, fixes[-1].pose_w)[:2]) < 0.1 and tracker.answers == 1


def test_a_lost_exploration_writes_nothing_and_looks_for_its_place_and_gives_up() -> None:
    poses = square(room(0))
    tracker = Tracker()
    mind = Exploration(ExplorationConfig(lost_s=20.0, stand_s=1e3), tracker=tracker)
    for k, pose in enumerate(poses[:20]):
        mind.observe(0.1 * k, pose, scan(pose), ANGLES, RANGE_M, LIDAR_B)
    assert mind.decide(2.0).task != Task.LOCATE and not mind.lost
    tracker.lose()
    empty = np.full(180, np.nan)  # and sees nothing: no answer
    cells, nodes = mind.map.data.copy(), len(mind.graph)
    mind.observe(2.1, poses[20], empty, ANGLES, RANGE_M, LIDAR_B)
    decision = mind.decide(2.2)
    assert mind.lost and decision.task == Task.LOCATE
    mind.observe(3.0, poses[40], empty, ANGLES, RANGE_M, LIDAR_B)
    assert np.array_equal(mind.map.data, cells) and len(mind.graph) == nodes
    assert mind.graph.current is None
    assert mind.decide(30.0).task == Task.DONE and mind.reason == Reason.LOST


def test_the_most_open_way_by_hand() -> None:
    wall = [(1.0, y) for y in np.arange(-1, 1.01, 0.1)]
    assert clear_way(wall, 0.3, 2.0)[1] == pytest.approx(2.0)
    around = [(np.cos(a), np.sin(a)) for a in np.linspace(-3.1, 3.1, 200)]
    yaw, way = clear_way(around, 0.3, 2.0)
    assert yaw == pytest.approx(0.0) and 0.6 < way < 0.75  # as open all round: ahead
    assert clear_way(np.zeros((0, 2)), 0.3, 2.0) == (0.0, 2.0)


def test_odometry_is_off_by_its_drift() -> None:
    exact = Odometer((1.0, 2.0, 0.3), 0.0, np.random.default_rng(0))
    assert exact.step((2.0, 2.5, -0.4)) == pytest.approx((2.0, 2.5, -0.4))
    exact.carried((9.0, 9.0, 0.0))
    assert exact.step((9.0, 9.0, 0.0)) == pytest.approx((2.0, 2.5, -0.4))
    off = Odometer((0.0, 0.0, 0.0), 0.03, np.random.default_rng(0))
    assert np.abs(off.scale - 1) == pytest.approx([0.03, 0.03])
    with pytest.raises(ValueError, match="drift must be >= 0"):
        Odometer((0.0, 0.0, 0.0), -1.0, np.random.default_rng(0))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="lost must be False on a map without scans"):
        Tracker(lost=True)
    with pytest.raises(ValueError, match="spacing_m must be > 0, got 0"):
        TrackerConfig(spacing_m=0.0)


def test_scans_are_saved_and_loaded_for_another_visit(tracked, tmp_path) -> None:
    path = tmp_path / "scans.npz"
    io.save_scans(path, tracked[0].localizer)
    again = io.load_scans(path)
    assert again.ids() == tracked[0].localizer.ids()
    kept, state = again.state_dict(), tracked[0].localizer.state_dict()
    assert all(np.array_equal(kept[name], state[name], equal_nan=True) for name in state)
    tracker = Tracker(again, lost=True)  # switched on somewhere on the map, on a clock of its own
    for pose in np.tile(square(room(0))[20:], (3, 1)):
        odom = between(square(room(0))[20], pose)
        fix = tracker.follow(odom, scan(pose), ANGLES, RANGE_M, LIDAR_B)
        if not fix.lost:
            break
    assert not fix.lost and np.hypot(*between(pose, fix.pose_w)[:2]) < 0.1
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be scans of a localizer"):
        io.load_scans(path)
