"""The whole robot path over DDS: simulator, guard and planner in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
pytest.importorskip("mujoco", reason="the simulated robot needs mujoco")

from geometry_msgs.msg import PoseStamped, TwistStamped  # noqa: E402
from nav_msgs.msg import OccupancyGrid, Odometry  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import LaserScan  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from ros_nodes import convert  # noqa: E402

KEPT = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def speed(rows):
    return abs(convert.odometry_from_msg(rows[-1][1])[1][0]) if rows else 0.0


def drive(probe, command, rows, within=20.0):
    """Send a command at 20 Hz until odometry reads half of it."""
    out = probe.node.create_publisher(TwistStamped, "cmd_vel", 1)
    begun = time.monotonic()
    while speed(rows) < 0.5 * command[0]:
        assert time.monotonic() - begun < within
        out.publish(convert.twist_from_command(command, True))
        probe.spin(0.05)
    return time.monotonic()


@pytest.mark.parametrize("tier", ["kinematic", "mujoco"])
def test_a_base_without_commands_stops_by_itself(stage, probe, tier):
    rows = probe.listen(Odometry, "odom")
    scans = probe.listen(LaserScan, "scan")
    stage.node("sim_robot", tier=tier, world="agv-simple-static", publish_goal="false")
    probe.until(lambda: rows and scans, 60.0, "odometry and scans")
    last = drive(probe, (0.4, 0.0), rows)
    probe.until(lambda: speed(rows) < 0.02, 3.0, "a base at rest")
    assert time.monotonic() - last < 0.7  # 0.25 s watchdog, then the motors' lag
    stamps = [convert.seconds(msg.header.stamp) for _, msg in rows]
    np.testing.assert_allclose(np.diff(stamps), 0.05, atol=1e-6)
    ranges, spec = convert.scan_from_msg(scans[-1][1])
    assert spec.beams == 72 and np.isfinite(ranges).all() and ranges.min() > 0.1
    x, y, _ = convert.odometry_from_msg(rows[-1][1])[0]
    probe.node.create_publisher(TwistStamped, "cmd_vel", 1).publish(
        convert.twist_from_command((float("nan"), float("nan")), True)
    )
    probe.spin(0.5)
    assert np.hypot(*(convert.odometry_from_msg(rows[-1][1])[0][:2] - (x, y))) < 0.02


def test_two_robots_share_one_world(stage, probe):
    rows = {name: probe.listen(Odometry, f"{name}/odom") for name in ("r1", "r2")}
    goals = {name: probe.listen(PoseStamped, f"{name}/goal_pose") for name in ("r1", "r2")}
    maps = probe.listen(OccupancyGrid, "r2/map", KEPT)
    stage.node("sim_robot", tier="kinematic", namespaces='["r1","r2"]')
    probe.until(lambda: all(rows.values()) and all(goals.values()) and maps, 60.0, "both robots")
    grid = convert.grid_from_msg(maps[-1][1])
    first, second = (convert.odometry_from_msg(rows[n][-1][1])[0][:2] for n in ("r1", "r2"))
    assert np.hypot(*(first - second)) > 1.9
    for at in (first, second):
        assert grid.data[grid.cell(at)] == 0
    assert rows["r1"][-1][1].child_frame_id == "r1/base_link"
    out = probe.node.create_publisher(TwistStamped, "r1/cmd_vel", 1)
    probe.until(lambda: out.get_subscription_count() == 1, what="discovery")
    for _ in range(20):
        out.publish(convert.twist_from_command((0.0, 0.5), True))
        probe.spin(0.05)
    turned = [convert.odometry_from_msg(rows[n][-1][1])[1][1] for n in ("r1", "r2")]
    assert turned[0] > 0.3 and abs(turned[1]) < 1e-6


def bringup(stage, *words):
    return stage.start("bringup", "-m", "ros_nodes.bringup", "sim_agv", *words)


def children(pid):
    """Process ids whose parent is ``pid``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("world", "tier", "rtf"),
    [("agv-simple-static", "kinematic", "3.0"), ("warehouse:100000", "mujoco", "2.0")],
)
def test_a_drive_ends_at_the_goal_and_in_the_store(stage, probe, world, tier, rtf):
    pytest.importorskip("zarr", reason="recording needs zarr")
    from episodes import EpisodeReader

    results = probe.listen(String, "outcome", KEPT)
    store = stage.folder / "store"
    words = [f"world:={world}", f"tier:={tier}", f"rtf:={rtf}", "seed:=2", f"episodes:={store}"]
    process = bringup(stage, "policy:=dwa", "autoarm:=true", "exit_when_done:=true", *words)
    probe.until(lambda: process.poll() is not None, 90.0, "the end of the drive")
    assert process.returncode == 0, stage.log("bringup")
    result = json.loads(results[-1][1].data)
    assert result["outcome"] == "success", stage.log("bringup")
    assert result["path_m"] > 3.0 and result["time_s"] < 120.0
    reader = EpisodeReader(store)
    assert list(reader.ids()) == [result["episode"]]
    episode = reader.open(result["episode"])
    poses, commands = np.asarray(episode.arrays["pose_w"]), np.asarray(episode.arrays["command"])
    assert np.hypot(*(poses[-1, :2] - result["goal_w"])) < 0.5
    assert not np.asarray(episode.arrays["contact"])[:, [0, 2]].any()
    assert (np.abs(commands) <= (1.5, 1.5)).all() and np.abs(commands[:, 0]).max() > 0.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_cleanly(stage, probe, number):
    rows = probe.listen(TwistStamped, "cmd_vel")
    process = bringup(stage, "policy:=dwa", "autoarm:=true", "tier:=kinematic")
    moving = lambda: rows and convert.command_from_twist(rows[-1][1]).any()  # noqa: E731
    probe.until(moving, 60.0, "a moving base")
    nodes = children(process.pid)
    assert len(nodes) == 3
    process.send_signal(number)
    begun = time.monotonic()
    probe.until(lambda: process.poll() is not None, 10.0, "the end")
    assert process.returncode == 0 and time.monotonic() - begun < 4.0, stage.log("bringup")
    assert not any(map(alive, nodes))
    probe.spin(0.1)
    assert not convert.command_from_twist(rows[-1][1]).any()


def test_nodes_do_not_outlive_a_killed_bringup(stage, probe):
    rows = probe.listen(TwistStamped, "cmd_vel")
    process = bringup(stage, "policy:=dwa", "tier:=kinematic")
    probe.until(lambda: rows, 60.0, "the guard")
    nodes = children(process.pid)
    process.kill()
    probe.until(lambda: not any(map(alive, nodes)), 15.0, "the end of the nodes")


def test_a_dead_guard_ends_the_system_and_the_base_stands(stage, probe):
    rows = probe.listen(Odometry, "odom")
    process = bringup(stage, "policy:=dwa", "autoarm:=true", "tier:=kinematic")
    probe.until(lambda: speed(rows) > 0.3, 60.0, "a moving base")
    guard = next(p for p in children(process.pid) if b"ros_nodes.guard" in cmdline(p))
    os.kill(guard, signal.SIGKILL)
    probe.until(lambda: process.poll() is not None, 10.0, "the end")
    assert process.returncode == signal.SIGKILL, stage.log("bringup")
    assert "guard ended with -9" in stage.log("bringup")


def test_a_base_whose_guard_died_comes_to_rest(stage, probe):
    rows = probe.listen(Odometry, "odom")
    stage.node("sim_robot", tier="kinematic", world="agv-simple-static")
    stage.node("guard", autoarm="true", use_sim_time="true")
    stage.node("agv_planner", policy="dwa", use_sim_time="true")
    probe.until(lambda: speed(rows) > 0.3, 60.0, "a moving base")
    stage.kill("guard")
    before = convert.seconds(rows[-1][1].header.stamp)
    probe.until(lambda: speed(rows) < 0.1, 5.0, "a base at rest")
    # the base's own clock: 0.25 s to the brakes, the rest is inertia
    slow = next(
        m for _, m in rows if convert.seconds(m.header.stamp) > before and speed([(0, m)]) < 0.1
    )
    assert convert.seconds(slow.header.stamp) - before < 0.65


def cmdline(pid):
    return (Path("/proc") / str(pid) / "cmdline").read_bytes()


@pytest.mark.parametrize(
    ("node", "given", "words"),
    [
        ("agv_planner", {}, "policy must be a folder or one of"),
        ("agv_planner", {"policy": "/nowhere"}, "/nowhere"),
        ("sim_robot", {"world": "swamp:3"}, "world must be warehouse:SEED"),
        ("sim_robot", {"world": "map:/nowhere.yaml"}, "/nowhere.yaml"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_a_line(stage, node, given, words):
    process = stage.node(node, **given)
    assert process.wait(60.0) == 2, stage.log(node)
    assert words in stage.log(node) and "Traceback" not in stage.log(node)


def test_bringup_refuses_what_it_does_not_know(stage):
    for words, told in (
        (["sim_agv", "polcy:=dwa"], "polcy is not an argument"),
        (["sim_agv", "rtf:=fast"], "rtf must be float, got 'fast'"),
        (["boat"], "system must be one of"),
        (["agv", "policy"], "name:=value"),
        (["agv", "params_file:=/nowhere.yaml"], "/nowhere.yaml"),
    ):
        line = [sys.executable, "-m", "ros_nodes.bringup", *words]
        done = subprocess.run(line, env=stage.env(), capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


def test_a_policy_file_drives_over_dds(stage, probe):
    """The network is untrained: what counts is that its file is read and its commands arrive."""
    pytest.importorskip("torch", reason="writing a policy file needs torch")
    from learning.policy_file import save_policy
    from learning.ppo import ActorCritic
    from rnd_agv.policy import AgvPolicy
    from ros_nodes.sim_robot import task_of

    task = task_of("agv-simple-static")
    folder = stage.folder / "policy"
    save_policy(
        folder, ActorCritic(task.config.observation.dim, 2, (16,), seed=3),
        observation=task.config.observation.spec(),
        action={"dim": 2, "robot": "agv", "limits": vars(task.robot.limits), "goal_radius_m": 0.5},
        recipe={}, seeds=[3], evaluation={}, rate_hz=20.0,
    )  # fmt: skip
    raw, sent = probe.listen(TwistStamped, "cmd_vel_raw"), probe.listen(TwistStamped, "cmd_vel")
    process = bringup(
        stage, f"policy:={folder}", "autoarm:=true", "world:=agv-simple-static", "tier:=kinematic"
    )
    moved = lambda: sent and convert.command_from_twist(sent[-1][1]).any()  # noqa: E731
    probe.until(moved, 60.0, "a command that passed the guard")
    probe.until(lambda: len(raw) > 20, 15.0, "raw commands")
    commands = np.array([convert.command_from_twist(msg) for _, msg in raw])
    assert np.isfinite(commands).all() and len(np.unique(commands, axis=0)) > 5
    assert np.median(np.diff([at for at, _ in raw])) == pytest.approx(0.05, abs=0.01)  # 20 Hz
    assert AgvPolicy(str(folder)).limits == task.robot.limits and process.poll() is None
