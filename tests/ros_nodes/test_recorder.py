"""The recorder over DDS: topics in, whole episodes in the store."""

import json
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
pytest.importorskip("zarr", reason="recording needs zarr")

import cv2  # noqa: E402
from geometry_msgs.msg import PoseStamped, TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CompressedImage, LaserScan  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from episodes import EpisodeReader, EpisodeWriter, verify  # noqa: E402
from rnd_agv.observation import full_circle  # noqa: E402
from ros_nodes import convert  # noqa: E402
from ros_nodes.recording import Begin, End, Recording, Step  # noqa: E402

SCAN = full_circle(12, 6.0)
KEPT = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def grey(level):
    data = cv2.imencode(".jpg", np.full((16, 24, 3), level, np.uint8))[1].tobytes()
    return CompressedImage(format="jpeg", data=data)


def step(k, beams=12, frame=None):
    return Step(
        0.05 * k, convert.msg_from_scan(np.full(beams, 1.0 + k), full_circle(beams, 99.0), 0, "l"),
        convert.msg_from_odometry((k, 0, 0), (0.5, 0), 0), None, None, frame,
    )  # fmt: skip


class Robot:
    """Sensors and guard, played by the probe at 20 Hz; the k-th round carries k in every topic."""

    def __init__(self, probe):
        self.probe, self.k = probe, 0
        make = probe.node.create_publisher
        self.outs = [
            make(LaserScan, "scan", 5), make(Odometry, "odom", 5),
            make(TwistStamped, "cmd_vel", 5),
            make(CompressedImage, "camera/image_raw/compressed", 5),
        ]  # fmt: skip
        self.goal = make(PoseStamped, "goal_pose", 5)
        self.told, self.episode = make(String, "instruction", KEPT), make(Bool, "episode", 5)
        self.outcome = make(String, "outcome", KEPT)
        self.stored = probe.listen(String, "episode_recorder/stored")

    def ready(self):
        outs = (*self.outs, self.goal, self.episode, self.outcome)
        self.probe.until(lambda: all(o.get_subscription_count() for o in outs), 30.0, "discovery")
        self.probe.spin(0.3)
        return self

    def play(self, rounds):
        for _ in range(rounds):
            k, scan, odom, command, camera = self.k, *self.outs
            scan.publish(convert.msg_from_scan(np.full(12, 1 + 0.01 * k), SCAN, 0.05 * k, "lidar"))
            odom.publish(convert.msg_from_odometry((0.01 * k, 0, 0), (0.2, 0), 0.05 * k))
            command.publish(convert.twist_from_command((0.01 * k, -0.5), True))
            if k % 4 == 0:
                camera.publish(grey(min(k, 255)))
            self.goal.publish(convert.msg_from_pose((3.0, 4.0, 0), 0.0, "odom"))
            self.k += 1
            self.probe.spin(0.05)


def test_what_was_sensed_and_sent_is_stored_between_begin_and_end(stage, probe):
    store = stage.folder / "store"
    robot = Robot(probe)
    stage.node("episode_recorder", episodes=store, task="drill")
    robot.ready().told.publish(String(data="drive on"))
    robot.play(5)  # before the episode: not stored
    assert probe.call(Trigger, "episode_recorder/start").success
    assert not probe.call(Trigger, "episode_recorder/start").success
    first = robot.k
    robot.play(30)
    robot.outcome.publish(String(data=json.dumps({"outcome": "success", "time_s": 1.5})))
    probe.until(lambda: robot.stored, what="the episode")
    robot.play(5)  # after it: not stored
    (id,) = EpisodeReader(store).ids()
    episode = EpisodeReader(store).open(id)
    assert (episode.attrs["task"], episode.attrs["instruction"]) == ("drill", "drive on")
    lost = {"cut": False, "dropped": 0, "refused": 0}
    assert episode.attrs["outcome"] == {"outcome": "success", "time_s": 1.5} | lost
    a = {name: np.asarray(values) for name, values in episode.arrays.items()}
    k = a["pose_w"][:, 0] / 0.01
    assert 20 <= len(k) <= 33 and first <= k[0] < first + 8 and (np.diff(k) >= -1e-9).all()
    assert k[-1] < first + 30
    np.testing.assert_allclose(a["scan"].mean(axis=1), 1 + 0.01 * k, atol=0.021)  # in flight
    np.testing.assert_allclose(a["command"][:, 0], 0.01 * k, atol=0.011)
    np.testing.assert_allclose(a["goal_w"], [[3.0, 4.0]] * len(k))
    np.testing.assert_allclose(np.diff(a["time_s"]), 0.05, atol=0.03)
    light = [episode.frame("front", i).mean() for i in range(len(k))]
    np.testing.assert_allclose(light, 4 * (k // 4), atol=5.0)  # the last frame holds
    assert verify(store) == []
    robot.episode.publish(Bool(data=True))
    robot.play(8)
    robot.episode.publish(Bool(data=False))
    probe.until(lambda: len(robot.stored) == 2, what="the second episode")
    assert json.loads(robot.stored[1][1].data)["outcome"] == "ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_a_whole_episode_or_none(stage, probe, number):
    store = stage.folder / "store"
    robot = Robot(probe)
    stage.node("episode_recorder", episodes=store, autostart="true")
    robot.ready().play(25)
    code, took = stage.end("episode_recorder", number)
    ids = EpisodeReader(store).ids()
    assert verify(store) == []
    if number == signal.SIGKILL:
        assert ids == []
        return
    assert code == 0 and took < 3.0, stage.log("episode_recorder")
    episode = EpisodeReader(store).open(ids[0])
    assert episode.attrs["outcome"]["outcome"] == "interrupted" and len(episode) > 10


def recording(store, lines, **options):
    writer = EpisodeWriter(store, byte_budget=options.pop("byte_budget", 1 << 20))
    return Recording(writer, "t", options.pop("camera", ""), 20.0, 64, lines.append)


def test_an_episode_is_cut_at_its_budget_and_says_so(tmp_path):
    lines = []
    r = recording(tmp_path / "s", lines, byte_budget=1000)
    for item in (Begin("go"), *map(step, range(30)), End("ended", 0)):
        assert r.put(item)
    assert r.close(5.0)
    (found,) = r.done
    assert found["cut"] and 0 < found["steps"] < 12 and "cut" in lines[0]


def test_a_step_that_does_not_fit_is_refused_and_counted(tmp_path):
    lines = []
    r = recording(tmp_path / "s", lines)
    steps = [step(0), step(1, beams=13), step(2), step(3)]
    for item in (Begin("go"), *steps, End('{"outcome": "success"}', 2), End("again", 0)):
        r.put(item)
    assert r.close(5.0)
    (found,) = r.done
    assert (found["outcome"], found["steps"], found["refused"], found["dropped"]) == (
        "success", 3, 1, 2,
    )  # fmt: skip
    assert "scan must be (12,)" in lines[0] and "no episode runs" in lines[1]
    arrays = EpisodeReader(tmp_path / "s").open(found["episode"]).arrays
    assert np.isnan(arrays["command"]).all() and np.isnan(arrays["goal_w"]).all()


def test_memory_is_bounded_while_the_disk_is_slow(tmp_path):
    """A writer that stands still: a full queue takes no more steps, yet the end gets through."""
    r = recording(tmp_path / "s", [])
    real, gate = r.writer._commit, []

    def slow(files):
        while not gate:
            time.sleep(0.01)
        return real(files)

    r.writer._commit = slow
    for item in (Begin("one"), step(0), End("ended", 0), Begin("two")):
        assert r.put(item)
    taken = sum(r.put(step(k)) for k in range(500))
    assert taken < 64 and not r.put(Begin("three")) and r.put(End("ended", 500 - taken))
    gate.append(True)
    assert r.close(5.0)
    assert [d["steps"] for d in r.done] == [1, taken] and r.done[1]["dropped"] == 500 - taken


def test_an_arena_is_driven_and_recorded_with_its_camera(stage, probe):
    pytest.importorskip("mujoco", reason="the simulated robot needs mujoco")
    store = stage.folder / "store"
    stored = probe.listen(String, "episode_recorder/stored")
    told = probe.listen(String, "instruction", KEPT)
    stage.node("episode_recorder", episodes=store, camera="mast", autostart="true",
               use_sim_time="true", task="agv-arena")  # fmt: skip
    probe.until(lambda: probe.node.count_publishers("episode_recorder/stored"), 30.0, "recorder")
    words = ["world:=arena:3", "robot:=jackal", "rtf:=2.0", "camera_hz:=5.0", "autoarm:=true"]
    stage.start("bringup", "-m", "ros_nodes.bringup", "sim_agv", "policy:=dwa", *words)
    probe.until(lambda: stored, 60.0, "a stored episode")
    result = json.loads(stored[0][1].data)
    assert result["outcome"] == "success" and result["refused"] == 0, stage.log("bringup")
    episode = EpisodeReader(store).open(result["episode"])
    assert episode.attrs["instruction"] == told[-1][1].data != ""
    assert episode.cameras["mast"].shape == (96, 96, 3) and episode.frame("mast", 0).std() > 10
    a = {name: np.asarray(values) for name, values in episode.arrays.items()}
    assert np.hypot(*(a["pose_w"][-1, :2] - a["goal_w"][-1])) < 1.0
    assert np.nanmax(a["command"][:, 0]) > 0.3
