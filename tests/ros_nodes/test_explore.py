"""A robot explores a floor nobody has mapped, over DDS: simulator, guard, planner, explorer."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
pytest.importorskip("mujoco", reason="the simulated robot needs mujoco")

from geometry_msgs.msg import PoseStamped, TwistStamped  # noqa: E402
from nav_msgs.msg import OccupancyGrid, Odometry, Path  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from ros_nodes import convert  # noqa: E402
from ros_nodes.topo_explorer import ExplorerConfig, moved, pose_at  # noqa: E402
from sim import worlds  # noqa: E402
from sim.worlds import from_ros_map  # noqa: E402
from toponav import io  # noqa: E402
from toponav.exploration import Decision, Task  # noqa: E402

KEPT = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def bringup(stage, *words):
    common = ["policy:=dwa", "robot:=jackal", "autoarm:=true", "tier:=kinematic"]
    line = ["-m", "ros_nodes.bringup", "sim_explore", *common, f"folder:={stage.folder}", *words]
    return stage.start("bringup", *line)


def position(rows):
    return convert.odometry_from_msg(rows[-1][1])[0]


def test_a_floor_is_explored_and_the_robot_comes_home_with_its_map(stage, probe):
    states = probe.listen(String, "topo_explorer/state", KEPT)
    maps = probe.listen(OccupancyGrid, "topo_explorer/map", KEPT)
    graphs = probe.listen(MarkerArray, "topo_explorer/graph", KEPT)
    plans = probe.listen(Path, "topo_explorer/plan", KEPT)
    rows = probe.listen(Odometry, "odom")
    bringup(stage, "world:=rooms:2", "seed:=1")
    probe.until(lambda: rows, 60.0, "odometry")
    start, world = position(rows), worlds.rooms(seed=2)
    points = world.free_points(np.random.default_rng(0), 64, 0.6)
    near = points[np.hypot(*(points - start[:2]).T).argmin()]
    visits = probe.node.create_publisher(PoseStamped, "explore/visit", 1)
    probe.until(lambda: visits.get_subscription_count() > 0, 30.0, "whoever takes visits")
    visits.publish(convert.msg_from_pose((*near, 0.0), 0.0, "odom"))

    def done():
        return states and states[-1][1].data.startswith("done")

    probe.until(done, 150.0, "the end of the exploration")
    told = "done: complete, 1 of 1 places visited"
    assert states[-1][1].data == told, stage.log("bringup")
    assert np.hypot(*(position(rows) - start)[:2]) < 0.8
    probe.spin(2.5)  # the map is shown every two seconds
    seen = convert.grid_from_msg(maps[-1][1])
    truth = world.grid(0.1)
    floor = truth.centre(*np.nonzero(~truth.inflate(0.3)))
    free = [seen.data[seen.cell(point)] == 0 for point in floor]
    assert np.mean(free) > 0.97
    nodes, edges = graphs[-1][1].markers
    assert len(nodes.points) >= 5 and len(edges.points) >= 2 * (len(nodes.points) - 1)
    assert plans and all(np.isfinite([p.pose.position.x for p in plans[-1][1].poses]))
    answer = probe.call(Trigger, "topo_explorer/save_map")
    assert answer.success, answer.message
    data, resolution, _ = io.load_map(answer.message)
    assert resolution == pytest.approx(0.1) and (data == 0).sum() > 0.9 * len(floor)
    again = from_ros_map(answer.message)
    assert again.clearance(position(rows)[None, :2])[0] > 0.2
    route = json.loads((stage.folder / "exploration.geojson").read_text())
    io.validate_geojson(route)
    assert len(io.load_graph(stage.folder / "exploration.json").nodes) == len(nodes.points)


def test_it_can_be_paused_resumed_and_called_home(stage, probe):
    states = probe.listen(String, "topo_explorer/state", KEPT)
    goals = probe.listen(PoseStamped, "goal_pose")
    commands = probe.listen(TwistStamped, "cmd_vel")
    rows = probe.listen(Odometry, "odom")
    bringup(stage, "world:=maze:1", "autostart:=false")
    probe.until(lambda: states and states[-1][1].data == "paused", 60.0, "a paused explorer")
    probe.until(lambda: rows, 30.0, "odometry")
    start = position(rows)
    assert not goals
    assert probe.call(Trigger, "topo_explorer/resume").success
    far = lambda: np.hypot(*(position(rows) - start)[:2]) > 1.5  # noqa: E731
    probe.until(far, 60.0, "a robot on its way")
    resume = probe.node.create_publisher(Bool, "explore/resume", 1)
    probe.until(lambda: resume.get_subscription_count() == 1, what="discovery")
    resume.publish(Bool(data=False))
    probe.until(lambda: states[-1][1].data == "paused", what="a paused explorer")
    count = len(goals)
    still = lambda: abs(convert.odometry_from_msg(rows[-1][1])[1][0]) < 0.02  # noqa: E731
    probe.until(still, what="a robot at rest")
    probe.spin(1.5)
    assert len(goals) <= count + 1 and still()
    assert commands  # the guard goes on holding it
    assert probe.call(Trigger, "topo_explorer/return_home").success
    probe.until(lambda: states[-1][1].data == "done: stopped", 60.0, "a robot at home")
    assert np.hypot(*(position(rows) - start)[:2]) < 0.8


def test_a_map_is_not_saved_before_there_is_one(stage, probe):
    stage.node("topo_explorer")
    begun = time.monotonic()
    answer = probe.call(Trigger, "topo_explorer/save_map")
    assert not answer.success and "no map yet" in answer.message
    assert time.monotonic() - begun < 20


def test_a_scan_is_entered_where_it_was_taken():
    track = [(1.0, np.array([0.0, 0.0, 3.0])), (1.1, np.array([1.0, 2.0, -3.0]))]
    np.testing.assert_allclose(pose_at(track, 1.0), track[0][1])
    np.testing.assert_allclose(pose_at(track, 1.1)[:2], (1.0, 2.0))
    x, y, yaw = pose_at(track, 1.05)
    assert (x, y) == pytest.approx((0.5, 1.0))
    assert abs(yaw) == pytest.approx(np.pi, abs=1e-9)  # half way over the seam


def test_a_decision_on_the_map_is_sent_in_the_frame_of_odometry():
    by = np.array([1.0, 2.0, np.pi / 2])
    path = np.array([[0.0, 0.0], [3.0, 0.0]])
    sent = moved(Decision(Task.EXPLORE, path[-1], path), by)
    assert sent.task == Task.EXPLORE and sent.heading_w is None
    assert sent.target_w == pytest.approx((1.0, 5.0))
    np.testing.assert_allclose(sent.path_w, [[1.0, 2.0], [1.0, 5.0]])
    assert moved(Decision(Task.TURN, heading_w=0.3), by).heading_w == pytest.approx(0.3 + np.pi / 2)
    msg = convert.msg_from_transform(by, 3.5, "map", "odom")
    assert (msg.header.frame_id, msg.child_frame_id) == ("map", "odom")
    at = msg.transform
    assert (at.translation.x, at.translation.y) == pytest.approx((1.0, 2.0))
    assert 2 * np.arctan2(at.rotation.z, at.rotation.w) == pytest.approx(np.pi / 2)


def test_two_that_correct_odometry_are_one_too_many():
    with pytest.raises(ValueError, match="localize must be false where use_pose is true"):
        ExplorerConfig(localize=True, use_pose=True)
