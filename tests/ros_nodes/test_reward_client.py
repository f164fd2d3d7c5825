"""The reward client over DDS: frames in, reward out, and no reward where there is none."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")

import cv2  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Bool, Float32, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from ros_nodes import convert  # noqa: E402


def grey(brightness, side=16):
    return np.full((side, side, 3), round(255 * brightness), np.uint8)


def compressed(image):
    return CompressedImage(format="jpeg", data=cv2.imencode(".jpg", image)[1].tobytes())


def server(root, folder, script, *options):
    """(process, its last word on the first line: URL or port)."""
    line = [sys.executable, root / "tests/reward_vlm" / script, *options]
    env = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, env=env, text=True, cwd=folder)
    return process, process.stdout.readline().split()[-1]


@pytest.fixture(scope="module")
def gateway(root, tmp_path_factory):
    """URL of the real gateway with a model that takes brightness for progress, and its key file."""
    folder = tmp_path_factory.mktemp("gray")
    process, url = server(root, folder, "gray_server.py", folder)
    yield url, folder / "key"
    process.terminate()
    process.wait(15)
    process.stdout.close()


@pytest.fixture(scope="module")
def faulty(root, tmp_path_factory):
    """URL of a service that misbehaves as the instruction says."""
    process, port = server(root, tmp_path_factory.mktemp("faulty"), "fault_server.py", "0")
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait(10)
    process.stdout.close()


class Robot:
    """A camera and an operator, played by the probe; what the node answered."""

    def __init__(self, probe, kind=CompressedImage, topic="camera/image_raw/compressed"):
        self.probe = probe
        self.camera = probe.node.create_publisher(kind, topic, 5)
        self.episode = probe.node.create_publisher(Bool, "episode", 10)
        self.told = probe.node.create_publisher(String, "instruction", 1)
        self.rewards = probe.listen(Float32, "reward")
        self.results = probe.listen(String, "reward_client/result")

    def ready(self):
        outs = (self.camera, self.episode, self.told)
        self.probe.until(
            lambda: (
                all(out.get_subscription_count() for out in outs)
                and self.probe.node.count_publishers("reward_client/result")
            ),
            what="discovery",
        )
        self.probe.spin(0.3)
        return self

    def play(self, messages, task=None, seconds=0.05, within=15.0):
        """One episode: (reward, result, seconds from its end to the reward)."""
        before = len(self.results)
        if task is not None:
            self.told.publish(String(data=task))
        self.probe.spin(0.1)
        self.episode.publish(Bool(data=True))
        self.probe.spin(0.2)
        for msg in messages:
            self.camera.publish(msg)
            self.probe.spin(seconds)
        self.probe.spin(0.2)
        self.episode.publish(Bool(data=False))
        taken = self.probe.until(
            lambda: len(self.results) > before and len(self.rewards) > before, within, "a reward"
        )
        return self.rewards[-1][1].data, json.loads(self.results[-1][1].data), taken


def test_an_episode_goes_in_and_a_reward_comes_out(stage, probe, gateway):
    stage.node("reward_client", server=gateway[0], key_file=gateway[1], frame_hz=30.0)
    robot = Robot(probe).ready()
    frames = [compressed(grey(b)) for b in np.linspace(0.1, 0.8, 12)]
    reward, result, _ = robot.play(frames, "turn the light up")
    assert reward == pytest.approx(0.8, abs=0.01) and result["reward"] == pytest.approx(reward)
    assert not result["missing"] and result["score"] == 4 and result["model"] == "gray"
    assert result["task"] == "turn the light up" and result["episode"] == 1
    assert np.all(np.diff(result["progress"]) > 0)
    reward, result, _ = robot.play(frames[:6])  # the instruction stays
    assert reward < 0.5 and result["episode"] == 2
    assert gateway[1].read_text() not in stage.log("reward_client")


def test_raw_images_and_services_do_as_well(stage, probe, gateway):
    options = dict(server=gateway[0], key_file=gateway[1], compressed="false", instruction="go")
    stage.node("reward_client", **options)
    robot = Robot(probe, Image, "camera/image_raw").ready()
    assert not probe.call(Trigger, "reward_client/end").success
    assert probe.call(Trigger, "reward_client/start").success
    assert probe.call(Trigger, "reward_client/start").message == "an episode runs already"
    for b in (0.1, 0.6):
        data = grey(b).tobytes()
        robot.camera.publish(Image(height=16, width=16, encoding="bgr8", step=48, data=data))
        probe.spin(0.3)
    assert probe.call(Trigger, "reward_client/end").success
    probe.until(lambda: robot.rewards, what="a reward")
    assert robot.rewards[0][1].data == pytest.approx(0.6, abs=0.01)


def test_without_a_service_the_reward_is_missing_in_time_and_not_zero(stage, probe):
    reports = probe.listen(DiagnosticArray, "diagnostics")
    stage.node("reward_client", server="http://127.0.0.1:9", deadline_s=1.0, instruction="go")
    robot = Robot(probe).ready()
    for _ in range(2):
        reward, result, taken = robot.play([compressed(grey(0.5))])
        assert math.isnan(reward) and taken < 1.5
        assert result["missing"] and result["reason"] == "refused" and "reward" not in result
    reward, result, _ = robot.play([compressed(grey(0.5))])
    assert result["reason"] == "breaker_open"
    reports.clear()
    probe.until(lambda: reports, 3.0, "diagnostics")
    status = reports[-1][1].status[0]
    assert status.level == DiagnosticStatus.ERROR and "does not answer" in status.message
    assert {v.key: v.value for v in status.values}["missing"] == "3"


def test_what_is_wrong_is_said_and_the_node_goes_on(stage, probe, faulty, monkeypatch):
    monkeypatch.setenv("INCOGNITA_REWARD_KEY", "test-key-1")
    node = stage.node("reward_client", server=faulty, deadline_s=0.7, queue_size=1)
    robot = Robot(probe).ready()
    good = compressed(grey(0.5))
    bomb = cv2.imencode(".png", np.zeros((8000, 8000), np.uint8))[1].tobytes()
    junk = [CompressedImage(format="jpeg", data=d) for d in (b"", b"\xff\xd8\xff\xe0", b"x" * 99)]
    assert robot.play([good])[1]["reason"] == "no_instruction"
    assert robot.play([], "ok")[1]["reason"] == "no_frames"
    bad = [*junk, CompressedImage(format="png", data=bomb)]
    assert robot.play(bad, "ok")[1]["reason"] == "no_frames"
    assert robot.play([*bad, good], "ok")[0] == pytest.approx(0.7)
    for task, reason in (("422", "rejected"), ("prose", "bad_answer"), ("hang", "timeout")):
        reward, result, taken = robot.play([good], task)
        assert math.isnan(reward) and result["reason"] == reason and taken < 1.5
    assert node.poll() is None


def test_episodes_that_come_too_fast_are_missing_and_sigint_ends_it_all(
    stage, probe, faulty, monkeypatch
):
    monkeypatch.setenv("INCOGNITA_REWARD_KEY", "test-key-1")
    stage.node("reward_client", server=faulty, deadline_s=60.0, queue_size=1, instruction="hang")
    robot = Robot(probe).ready()
    for _ in range(3):  # one is asked about, one waits
        robot.episode.publish(Bool(data=True))
        probe.spin(0.3)
        robot.camera.publish(compressed(grey(0.5)))
        probe.spin(0.3)
        robot.episode.publish(Bool(data=False))
        probe.spin(0.3)
    probe.until(lambda: robot.results, 3.0, "a refusal")
    result = json.loads(robot.results[0][1].data)
    assert result["reason"] == "queue_full" and result["episode"] == 3
    code, took = stage.end("reward_client", signal.SIGINT)
    assert code == 0 and took < 3.0 and "Traceback" not in stage.log("reward_client")


@pytest.mark.slow
def test_a_dead_service_costs_the_control_loop_nothing(stage, probe, faulty, monkeypatch):
    monkeypatch.setenv("INCOGNITA_REWARD_KEY", "test-key-1")
    rows = probe.listen(TwistStamped, "cmd_vel")
    stage.node("guard", autoarm="true")
    stage.feed()
    probe.until(lambda: len(rows) > 20, what="cmd_vel")

    def rate():
        rows.clear()
        probe.spin(3.0)
        return (len(rows) - 1) / (rows[-1][0] - rows[0][0])

    alone = rate()
    stage.node("reward_client", server=faulty, deadline_s=30.0, instruction="hang")
    robot = Robot(probe).ready()
    robot.episode.publish(Bool(data=True))
    stop = time.monotonic() + 1.0
    while time.monotonic() < stop:
        robot.camera.publish(compressed(grey(0.5, 480)))
        probe.spin(0.1)
    robot.episode.publish(Bool(data=False))
    asked = rate()  # the client hangs on the service all the while
    print(f"cmd_vel at {alone:.1f} Hz alone, {asked:.1f} Hz beside a client of a dead service")
    assert asked >= 0.95 * min(alone, 50.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(server="gpu-box:8300"), "url must be http://"),
        (dict(key_file="/nowhere/key"), "No such file"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(stage, given, words):
    node = stage.node("reward_client", **given)
    assert node.wait(20.0) == 2
    assert words in stage.log("reward_client") and "Traceback" not in stage.log("reward_client")


def image(coding, channels, **wrong):
    data = np.arange(2 * 3 * channels, dtype=np.uint8).tobytes()
    sizes = dict(height=2, width=3, step=3 * channels, encoding=coding, data=data) | wrong
    return Image(**sizes)


def test_encodings_come_out_as_rgb():
    rgb = convert.rgb_from_msg(image("rgb8", 3))
    assert rgb.shape == (2, 3, 3) and rgb[0, 1].tolist() == [3, 4, 5]
    assert convert.rgb_from_msg(image("bgr8", 3))[0, 1].tolist() == [5, 4, 3]
    assert convert.rgb_from_msg(image("bgra8", 4))[0, 1].tolist() == [6, 5, 4]
    assert convert.rgb_from_msg(image("mono8", 1))[1, 0].tolist() == [3, 3, 3]
    padded = image("rgb8", 3, step=12, data=bytes(range(24)))
    assert convert.rgb_from_msg(padded)[1, 0].tolist() == [12, 13, 14]


@pytest.mark.parametrize(
    "wrong",
    [dict(encoding="yuv422"), dict(width=0), dict(step=4), dict(data=b"12"),
     dict(height=2**31, width=2**31)],
)  # fmt: skip
def test_an_image_that_is_none_is_an_error(wrong):
    with pytest.raises(ValueError, match="must"):
        convert.rgb_from_msg(image("rgb8", 3, **wrong))
