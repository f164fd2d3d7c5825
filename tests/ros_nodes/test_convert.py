"""Messages to arrays and back; reading needs only a message's fields."""

import math
from types import SimpleNamespace as NS

import numpy as np
import pytest

from rnd_agv.grid import OccupancyGrid
from rnd_agv.observation import ObservationConfig, ScanSpec, full_circle, sector_min
from ros_nodes import convert


def scan_msg(ranges, low=-1.0, step=0.5, high=None, **overrides):
    high = low + step * (len(ranges) - 1) if high is None else high
    fields = dict(ranges=ranges, angle_min=low, angle_max=high, angle_increment=step)
    return NS(**(fields | dict(range_min=0.1, range_max=9.0) | overrides))


def test_a_scan_keeps_its_values_and_layout():
    ranges, scan = convert.scan_from_msg(scan_msg([1.0, math.nan, math.inf, -math.inf, 0.05]))
    np.testing.assert_array_equal(ranges, np.float32([1, math.nan, math.inf, -math.inf, 0.05]))
    assert scan == ScanSpec(5, -1.0, 0.5, 0.1, 9.0)


def test_a_clockwise_scan_is_the_same_picture():
    values = np.arange(1.0, 9.0)
    ccw = convert.scan_from_msg(scan_msg(values, low=-1.75))
    cw = convert.scan_from_msg(scan_msg(values[::-1], low=1.75, step=-0.5))
    config = ObservationConfig(sectors=12)
    np.testing.assert_array_equal(*(sector_min(r[None], s, config) for r, s in (ccw, cw)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(ranges=[]), "1 to 100000 ranges, got 0"),
        (dict(ranges=[1.0] * 100_001), "got 100001"),
        (dict(ranges=[1.0] * 8, high=1.0), "5 ranges for its angles, got 8"),
        (dict(ranges=[1.0] * 5, angle_increment=math.nan), "finite"),
        (dict(ranges=[1.0] * 5, angle_increment=0.0), "increment not 0"),
        (dict(ranges=[1.0] * 5, range_max=math.inf), "finite"),
        (dict(ranges=[1.0] * 5, range_max=0.05), "range_min < range_max"),
    ],
)
def test_a_malformed_scan_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        convert.scan_from_msg(scan_msg(**change))


def pose(x=1.0, y=2.0, yaw=0.5, scale=1.0):
    q = NS(x=0.0, y=0.0, z=scale * math.sin(yaw / 2), w=scale * math.cos(yaw / 2))
    return NS(position=NS(x=x, y=y, z=0.0), orientation=q)


@pytest.mark.parametrize("yaw", [-3.1, -1.0, 0.0, 2.0, 3.1])
def test_yaw_comes_out_of_the_quaternion(yaw):
    np.testing.assert_allclose(convert.pose_from_msg(pose(yaw=yaw)), [1, 2, yaw], atol=1e-12)


@pytest.mark.parametrize(
    "bad", [dict(x=math.nan), dict(y=math.inf), dict(scale=0.0), dict(scale=2.0)]
)
def test_a_pose_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="unit quaternion"):
        convert.pose_from_msg(pose(**bad))


def test_odometry_must_have_a_finite_twist():
    twist = NS(linear=NS(x=math.nan), angular=NS(z=0.0))
    with pytest.raises(ValueError, match="twist must be finite"):
        convert.odometry_from_msg(NS(pose=NS(pose=pose()), twist=NS(twist=twist)))


def test_a_command_reads_from_either_twist():
    twist = NS(linear=NS(x=0.4), angular=NS(z=-0.2))
    for msg in (twist, NS(twist=twist)):
        np.testing.assert_array_equal(convert.command_from_twist(msg), [0.4, -0.2])


class TestMessages:
    """With real message classes."""

    @pytest.fixture(autouse=True)
    def _needs_messages(self):
        pytest.importorskip("sensor_msgs", reason="no ROS message packages here")

    def test_everything_comes_back(self):
        spec = full_circle(90, 12.0, 0.1)
        values = np.linspace(0.5, 11, 90).astype(np.float32)
        msg = convert.msg_from_scan(values, spec, 12.25, "lidar")
        back, scan = convert.scan_from_msg(msg)
        np.testing.assert_array_equal(back, values)
        assert scan.beams == 90 and scan.angle_min == pytest.approx(spec.angle_min, abs=1e-6)
        assert convert.seconds(msg.header.stamp) == 12.25 and msg.header.frame_id == "lidar"

        msg = convert.msg_from_odometry([1, 2, -3], [0.5, -0.25], 1.0)
        where, speed = convert.odometry_from_msg(msg)
        np.testing.assert_allclose(where, [1, 2, -3])
        np.testing.assert_array_equal(speed, [0.5, -0.25])

        for stamped in (True, False):
            twist = convert.twist_from_command(np.float64([0.7, 0.1]), stamped, 3.5)
            np.testing.assert_array_equal(convert.command_from_twist(twist), [0.7, 0.1])

        grid = OccupancyGrid(np.int8([[0, 100, -1], [-1, 0, 0]]), 0.05, (-1.0, 2.0))
        back = convert.grid_from_msg(convert.msg_from_grid(grid, 0.0))
        np.testing.assert_array_equal(back.data, grid.data)
        assert back.resolution == pytest.approx(0.05) and back.origin_w == (-1.0, 2.0)

    def test_arrays_never_go_into_a_message_as_they_are(self):
        msg = convert.msg_from_scan(np.ones(4), full_circle(4, 10.0), 0.0, "lidar")
        assert type(msg.ranges).__name__ == "array"

    def test_a_path_faces_along_itself(self):
        msg = convert.msg_from_path([[0, 0], [0, 1], [1, 1]], 0.0, "map")
        yaws = [convert.pose_from_msg(p.pose)[2] for p in msg.poses]
        np.testing.assert_allclose(yaws, [math.pi / 2, 0, 0], atol=1e-12)
        assert not convert.msg_from_path(np.zeros((0, 2)), 0.0, "map").poses

    def test_a_map_of_the_wrong_size_is_refused(self):
        msg = convert.msg_from_grid(OccupancyGrid(np.zeros((2, 3), np.int8), 0.1, (0, 0)), 0.0)
        msg.info.width = 4
        with pytest.raises(ValueError, match="4 x 2, 6 cells"):
            convert.grid_from_msg(msg)
