"""Pure pursuit, DWA and MPPI drive through clutter in a small world of boxes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from rnd_agv.clearance import footprint_gap, scan_points, tile_points
from rnd_agv.command import limit_rate
from rnd_agv.dwa import DWA, DWAConfig
from rnd_agv.grid import OccupancyGrid
from rnd_agv.mppi import MPPI, MPPIConfig
from rnd_agv.observation import full_circle
from rnd_agv.planner import plan
from rnd_agv.pure_pursuit import PurePursuit, PurePursuitConfig, at_distance, path_ahead
from rnd_agv.robot import AGV, JACKAL

SCAN = full_circle(360, 10.0)
DT = 0.05
PLANNERS = {"pure_pursuit": PurePursuit, "dwa": DWA, "mppi": MPPI}


def cast(pose, boxes):
    """Ranges (beams,) of a scan among boxes (K, 4), by slabs."""
    angle = pose[2] + SCAN.angles
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
    direction = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    low = (boxes[:, :2] - boxes[:, 2:] - pose[:2]) / direction
    high = (boxes[:, :2] + boxes[:, 2:] - pose[:2]) / direction
    enter, leave = np.minimum(low, high).max(axis=2), np.maximum(low, high).min(axis=2)
    hit = np.where((enter <= leave) & (enter > 0), enter, np.inf).min(axis=1)
    return np.where(hit < SCAN.range_max, hit, np.inf)


def collides(pose, robot, boxes):
    """Whether a 2 cm raster over the footprint has a point in a box."""
    hx, hy = robot.half_extents
    x, y = np.meshgrid(np.arange(-hx, hx + 0.01, 0.02), np.arange(-hy, hy + 0.01, 0.02))
    c, s = np.cos(pose[2]), np.sin(pose[2])
    points = np.stack([c * x - s * y, s * x + c * y], axis=-1).reshape(-1, 1, 2) + pose[:2]
    return bool((np.abs(points - boxes[:, :2]) <= boxes[:, 2:]).all(axis=2).any())


def clutter(seed, robot, size=10.0, count=12):
    """Walls and random boxes (K, 4), and a path for the robot from one corner to the other."""
    rng, half = np.random.default_rng(seed), size / 2
    walls = [
        [half, 0, half, 0.1],
        [half, size, half, 0.1],
        [0, half, 0.1, half],
        [size, half, 0.1, half],
    ]
    start, goal = np.array([1.2, 1.2]), np.array([size - 1.2, size - 1.2])
    while True:
        boxes = np.concatenate(
            [rng.uniform(1, size - 1, (count, 2)), rng.uniform(0.15, 0.7, (count, 2))], 1
        )
        gap = [np.abs(boxes[:, :2] - end) - boxes[:, 2:] for end in (start, goal)]
        boxes = np.concatenate(
            [boxes[(np.max(gap, axis=2) > robot.circumscribed_m + 0.15).all(axis=0)], walls]
        )
        grid = OccupancyGrid.from_obstacles(boxes, [], (0, 0, size, size), 0.05)
        path = plan(grid, start, goal, robot.circumscribed_m + 0.05)
        if len(path):
            return boxes, path


@dataclass
class Drive:
    """What came of one drive."""

    success: bool = False
    collisions: int = 0
    time_s: float = 0.0
    act_s: list = field(default_factory=list)
    commands: list = field(default_factory=list)
    poses: list = field(default_factory=list)


def drive(planner, robot, boxes, path, start, goal, limit_s=60.0, lag_s=0.1, radius=0.3):
    """Close the loop: scan at 10 Hz, control at 20 Hz, a first-order lag of the base."""
    pose, vel, last, out = np.array(start, float), np.zeros(2), np.zeros(2), Drive()
    for tick in range(int(limit_s / DT)):
        if tick % 2 == 0:
            ranges = cast(pose, boxes)
        begin = time.thread_time()
        command = planner.act(pose, vel, ranges, SCAN, path, np.asarray(goal, float))
        out.act_s.append(time.thread_time() - begin)
        assert command.shape == (2,) and np.isfinite(command).all()
        if np.array_equal(last, vel):  # at rest the limits can be checked exactly
            np.testing.assert_allclose(
                limit_rate(command[None], last[None], robot.limits, DT)[0], command
            )
        for _ in range(10):
            vel = vel + (1 - np.exp(-0.1 * DT / lag_s)) * (command - vel)
            middle = pose[2] + 0.05 * DT * vel[1]
            pose = pose + 0.1 * DT * np.array(
                [vel[0] * np.cos(middle), vel[0] * np.sin(middle), vel[1]]
            )
        last = command
        out.commands.append(command)
        out.poses.append(pose)
        out.collisions += collides(pose, robot, boxes)
        out.time_s = (tick + 1) * DT
        if np.hypot(*(goal - pose[:2])) < radius:
            out.success = True
            break
    return out


@pytest.mark.parametrize("robot", [AGV, JACKAL], ids=lambda robot: robot.name)
@pytest.mark.parametrize("name", PLANNERS)
def test_planners_reach_goals_in_clutter_without_collision(name, robot):
    for seed in (0, 3):  # seed 3: a start that faces away from the path
        boxes, path = clutter(seed, robot)
        yaw = np.random.default_rng(seed).uniform(-np.pi, np.pi)
        out = drive(PLANNERS[name](robot), robot, boxes, path, [*path[0], yaw], path[-1])
        length = np.hypot(*np.diff(path, axis=0).T).sum()
        assert out.collisions == 0 and out.success, f"seed {seed}: {out.collisions} {out.time_s}"
        assert out.time_s < 6 + 2 * length / robot.limits.v_max


@pytest.mark.parametrize("name", ["dwa", "mppi"])
def test_planners_drive_round_a_box_that_the_path_runs_through(name):
    boxes = np.array([[4.0, 2.3, 0.4, 0.4], [4, -0.1, 4, 0.1], [4, 5.1, 4, 0.1]])
    path = np.array([[1.0, 2.5], [7.0, 2.5]])
    out = drive(PLANNERS[name](AGV), AGV, boxes, path, [1, 2.5, 0], path[-1])
    assert out.success and out.collisions == 0
    assert np.abs(np.array(out.poses)[:, 1] - 2.5).max() > 0.4  # it left the path to do so


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_stop_in_front_of_a_wall_across_the_path(name):
    boxes = np.array([[4.0, 0, 0.1, 8], [-4.0, 0, 0.1, 8], [0, 8, 4, 0.1], [0, -8, 4, 0.1]])
    path = np.array([[0.0, 0.0], [7.0, 0.0]])
    out = drive(PLANNERS[name](AGV), AGV, boxes, path, [0, 0, 0], path[-1], limit_s=8)
    assert not out.success and out.collisions == 0
    assert max(pose[0] for pose in out.poses) > 1.5  # they did drive up to it


@pytest.mark.parametrize("name", PLANNERS)
def test_commands_obey_range_and_rate_limits_whatever_the_scene(name):
    rng, limits = np.random.default_rng(5), AGV.limits
    planner = PLANNERS[name](AGV)
    for _ in range(40):
        vel = rng.uniform([limits.v_min, -limits.w_max], [limits.v_max, limits.w_max])
        planner.reset()
        ranges = rng.uniform(0.2, 12, SCAN.beams)
        ranges[:4] = np.nan, np.inf, -np.inf, 0.0
        pose, path = rng.uniform(-3, 3, 3), rng.uniform(-5, 5, (int(rng.integers(0, 6)), 2))
        first = planner.act(pose, np.zeros(2), ranges, SCAN, path, rng.uniform(-5, 5, 2))
        assert (
            abs(first[0]) <= limits.accel_v * DT + 1e-9
            and abs(first[1]) <= limits.accel_w * DT + 1e-9
        )
        second = planner.act(pose, vel, ranges, SCAN, path, rng.uniform(-5, 5, 2))
        assert limits.v_min <= second[0] <= limits.v_max and abs(second[1]) <= limits.w_max


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_rest_at_the_goal(name):
    ranges = np.full(SCAN.beams, 3.0)
    command = PLANNERS[name](AGV).act(
        np.zeros(3), np.zeros(2), ranges, SCAN, np.zeros((0, 2)), np.zeros(2)
    )
    np.testing.assert_array_equal(command, 0)


def test_pure_pursuit_steers_on_the_circle_through_the_lookahead_point():
    # at the point (0.4, 0.3) the curvature is 2 y / d^2 = 2.4 / m; v and w grow in that proportion
    planner = PurePursuit(JACKAL, PurePursuitConfig(lookahead_min_m=0.5, lookahead_max_m=0.5))
    path = np.array([[0.0, 0.0], [0.4, 0.3], [4.0, 3.0]])
    free = np.full(SCAN.beams, np.inf)
    for _ in range(10):
        v, w = planner.act(np.zeros(3), planner._last, free, SCAN, path, path[-1])
    assert w / v == pytest.approx(2 * 0.3 / 0.25, rel=0.1)


def test_mppi_repeats_itself_from_a_seed_and_after_a_reset():
    boxes, path = clutter(1, AGV)
    runs = []
    planner = MPPI(AGV, MPPIConfig(samples=64), seed=7)
    for _ in range(2):
        planner.reset()
        runs.append(drive(planner, AGV, boxes, path, [*path[0], 0], path[-1], limit_s=2).commands)
    np.testing.assert_array_equal(*runs)
    other = drive(
        MPPI(AGV, MPPIConfig(samples=64), seed=8), AGV, boxes, path, [*path[0], 0], path[-1], 2
    )
    assert not np.array_equal(other.commands, runs[0])


def test_a_smoother_mppi_plan_costs_less_when_change_is_dear():
    def jerk(weight):
        planner = MPPI(AGV, MPPIConfig(samples=256, smooth_weight=weight), seed=1)
        out = drive(planner, AGV, boxes, path, [*path[0], 0], path[-1], limit_s=4)
        return np.abs(np.diff(out.commands, axis=0)[5:, 1]).mean()

    boxes, path = clutter(2, AGV)
    assert jerk(1.0) < 0.7 * jerk(0.0)


def test_footprint_gap_is_the_distance_to_the_rectangle():
    def gap(x, yaw, points):
        return footprint_gap(x, 0.0, yaw, 0.45, 0.3, *tile_points(points, 3.0, 2.6), 2.0)

    points = np.array([[1.0, 0.0], [0.0, -1.0], [0.75, 0.7]])
    # half extents 0.45 x 0.3: 0.55 ahead, 0.7 to the side, hypot(0.3, 0.4) = 0.5 at the corner
    assert gap(0.0, 0.0, points) == pytest.approx(0.5)
    assert gap(0.0, 0.0, points[:2]) == pytest.approx(0.55)
    assert gap(0.0, np.pi / 2, points[1:2]) == pytest.approx(0.55)
    assert gap(0.7, 0.0, points[:1]) == pytest.approx(-0.15)
    assert gap(0.0, 0.0, np.zeros((0, 2))) == 2.0


def test_tiles_never_hide_a_near_point():
    rng = np.random.default_rng(0)
    points, cap, (hx, hy) = rng.uniform(-3, 3, (30, 2)), 0.4, AGV.half_extents
    tiles, packed = tile_points(points, 4.0, AGV.circumscribed_m + cap)
    for x, y, yaw in rng.uniform([-3, -3, -3], 3, (500, 3)):
        c, s = np.cos(yaw), np.sin(yaw)
        inside = np.abs((points - (x, y)) @ np.array([[c, -s], [s, c]])) - (hx, hy)
        apart = np.hypot(*np.maximum(inside, 0).T) + np.minimum(inside.max(axis=1), 0)
        got = footprint_gap(x, y, yaw, hx, hy, tiles, packed, cap)
        assert got == pytest.approx(min(apart.min(), cap), abs=1e-9)
    assert len(packed) < tiles.shape[0] ** 2 * len(points) / 4


def test_scan_points_follow_laserscan_conventions():
    ranges = np.full(SCAN.beams, np.nan)
    ranges[180], ranges[270], ranges[0], ranges[90] = 2.0, np.inf, -np.inf, 10.0
    points = scan_points(ranges, SCAN, 20.0)
    np.testing.assert_allclose(
        points, [[0, 0], 2 * np.array([np.cos(np.pi / 360), np.sin(np.pi / 360)])], atol=1e-9
    )
    with pytest.raises(ValueError, match=r"ranges must be \(360,\)"):
        scan_points(ranges[:9], SCAN, 20.0)


def test_the_path_ahead_starts_beside_the_base_and_counts_what_is_left():
    path = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 6.0]])
    points, left = path_ahead(path, path[-1], np.array([1.0, 1.0, np.pi / 2]), 4.0, 0.5)
    # from (1, 0) three metres to the corner and one up; base_link x is world y here
    np.testing.assert_allclose(points[0], [-1, 0], atol=1e-9)
    np.testing.assert_allclose(points[-1], [0, -3], atol=1e-9)
    assert left == pytest.approx(5.0)
    np.testing.assert_allclose(at_distance(points, 100.0), points[-1])


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (PurePursuitConfig, {"lookahead_min_m": 2.0}),
        (DWAConfig, {"margin_m": 0.9}),
        (DWAConfig, {"v_samples": 1}),
        (MPPIConfig, {"knots": 50}),
        (MPPIConfig, {"temperature": 0.0}),
    ],
)
def test_configs_refuse_nonsense(config, values):
    with pytest.raises(ValueError, match="got"):
        config(**values)
