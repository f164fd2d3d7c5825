"""What the robot path sees equals what the simulator sees, and poses compose."""

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
pytest.importorskip("mujoco", reason="the simulated robot needs mujoco")

from rnd_agv.observation import build, sector_min  # noqa: E402
from ros_nodes import convert  # noqa: E402
from ros_nodes.convert import compose, inverse  # noqa: E402
from ros_nodes.sim_robot import Fleet, task_of  # noqa: E402


@pytest.mark.parametrize("world", ["warehouse:100003", "barn:5", "agv-complex-static"])
def test_an_observation_survives_the_way_through_messages(world):
    fleet = Fleet(task_of(world), 1, "kinematic", seed=4, sigma_m=0.01)
    config, limits = fleet.task.config.observation, fleet.robot.limits
    for _ in range(20):
        fleet.step(np.array([[0.3, 0.2]]))
    ranges = fleet.scan()

    def observation(ranges, spec, pose, vel):
        sectors = np.repeat(sector_min(ranges, spec, config)[:, None], config.frames, axis=1)
        return build(
            config, limits, sectors=sectors, pose_w=pose, goal_w=fleet.goal_w, vel_b=vel,
            last_command=np.array([[0.3, 0.2]]), guide_w=fleet.goal_w if config.guide else None,
        )  # fmt: skip

    direct = observation(ranges, fleet.scan_spec, fleet.pose_w, fleet.vel_b)
    heard, spec = convert.scan_from_msg(convert.msg_from_scan(ranges[0], fleet.scan_spec, 1.0, ""))
    msg = convert.msg_from_odometry(fleet.pose_w[0], fleet.vel_b[0], 1.0)
    pose, vel = convert.odometry_from_msg(msg)
    through = observation(heard[None], spec, pose[None], vel[None])
    assert direct.min() < direct.max()
    np.testing.assert_allclose(through, direct, atol=1e-6)


def test_a_pose_and_its_inverse_cancel():
    a, b = np.array([1.0, -2.0, 2.5]), np.array([0.5, 0.25, -1.0])
    np.testing.assert_allclose(compose(a, inverse(a)), 0, atol=1e-12)
    np.testing.assert_allclose(compose(inverse(a), compose(a, b)), b, atol=1e-12)
    # a quarter turn: one ahead becomes one to the left
    turned = compose(np.array([0, 0, math.pi / 2]), np.array([1.0, 0, 0]))
    np.testing.assert_allclose(turned, [0, 1, math.pi / 2], atol=1e-12)


def test_robots_of_a_fleet_see_each_other():
    fleet = Fleet(task_of("agv-simple-static"), 2, "kinematic", seed=0, sigma_m=0.0)
    alone = fleet.scan()[0]
    fleet.backend.pose_w[1, :2] = fleet.pose_w[0, :2] + 1.2 * np.array(
        [math.cos(fleet.pose_w[0, 2]), math.sin(fleet.pose_w[0, 2])]
    )
    ahead = np.argmin(np.abs(fleet.scan_spec.angles))
    seen = fleet.scan()[0][ahead]
    assert seen < alone[ahead] and seen == pytest.approx(1.2 - 0.375, abs=0.05)  # mean half extent


def test_a_world_of_an_unknown_kind_is_refused():
    for world in ("swamp:1", "warehouse:x", "map:", "agv-ros-map"):
        with pytest.raises(ValueError, match="world must be warehouse:SEED"):
            task_of(world)
