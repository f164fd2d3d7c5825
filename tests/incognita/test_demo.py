"""The demo: without ROS here; over ROS 2 where it is installed."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from episodes import EpisodeReader, EpisodeWriter, verify
from incognita import demo, demo_explore, demo_report
from incognita.recipes import RECIPES
from incognita.recipes.train import write_policy
from incognita.shipped import folder_of, names
from learning.ppo import ActorCritic
from rnd_agv.command import action_from_command, command_from_action
from ros_nodes.spin import problem
from sim import tasks, worlds
from sim.batch import BatchEnv
from sim.tasks import AgvRosMap
from sim.tasks.explore import Explore
from toponav.exploration import ExplorationConfig
from toponav.explorers import Nearest

MAP = """image: room.pgm
resolution: 0.1
origin: [0.0, 0.0, 0.0]
negate: 0
occupied_thresh: 0.65
free_thresh: 0.196
"""


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """The shipped policy, or an untrained one of the same form."""
    if demo.POLICY in names():
        return folder_of(demo.POLICY)
    torch.manual_seed(0)
    task = tasks.make("agv-warehouse")
    net = ActorCritic(task.config.observation.dim, 2, (8,))
    folder = tmp_path_factory.mktemp("policy") / "policy"
    write_policy(folder, net, task, RECIPES["agv-warehouse"], {}, "unknown")
    return folder


@pytest.fixture
def room_yaml(tmp_path):
    """An empty room of 10 m x 6 m as a map_server map."""
    cells = np.full((60, 100), 254, np.uint8)
    cells[[0, 1, -2, -1]] = 0
    cells[:, [0, 1, -2, -1]] = 0
    (tmp_path / "room.pgm").write_bytes(b"P5\n100 60\n255\n" + cells.tobytes())
    (tmp_path / "room.yaml").write_text(MAP)
    return tmp_path / "room.yaml"


@pytest.fixture
def short(monkeypatch):
    """Episodes of 8 s at most: these tests do not ask for the goal."""
    monkeypatch.setattr(demo, "TIMEOUT_S", 8.0)


def quiet():
    return Console(file=io.StringIO(), width=200)


def run(map_yaml, out, policy, **options):
    console = quiet()
    options = {"in_process": True, "tier": "kinematic", "episodes": 1} | options
    result = demo.run_demo(map_yaml, 100_001, out, console=console, policy=policy, **options)
    return result, console.file.getvalue()


def test_demo_in_one_process_crosses_a_warehouse_and_writes_a_report(tmp_path, policy):
    out = tmp_path / "report"
    result, said = run(None, out, policy, episodes=2)
    assert "one process, no ROS: asked for with --in-process" in said
    assert result["transport"] == "in-process" and len(result["outcomes"]) == 2
    assert result["outcome"] in ("success", "collision", "timeout")
    if demo.POLICY in names():
        assert result["reached"] and result["outcome"] == "success"
    json.dumps(result)
    assert EpisodeReader(out / "episodes").ids() == sorted(result["episodes"])
    assert verify(out / "episodes") == []
    page = (out / "index.html").read_text()
    assert result["report"] == str(out / "index.html")
    for heading in ("The drive", "Video", "What the lidar sees", "What the policy expects",
                    "What curiosity would seek next", "How this was made"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:video/mp4") >= 1 and page.count("<svg") >= 8
    assert all(id in page for id in result["episodes"])
    assert str(tmp_path) not in page


def test_a_second_demo_keeps_the_first_ones_episodes(room_yaml, tmp_path, policy, short):
    first, _ = run(room_yaml, tmp_path / "report", policy)
    second, _ = run(room_yaml, tmp_path / "report", policy)
    kept = EpisodeReader(tmp_path / "report" / "episodes").ids()
    assert sorted(first["episodes"] + second["episodes"]) == kept


def test_recorded_commands_are_within_the_guards_limits(room_yaml, tmp_path, policy, short):
    result, _ = run(room_yaml, tmp_path / "report", policy)
    episode = EpisodeReader(tmp_path / "report" / "episodes").open(result["episodes"][0])
    robot = demo.demo_task(room_yaml, 0).robot
    command, limits = episode.arrays["command"], robot.limits
    assert command[:, 0].max() <= limits.v_max and np.abs(command[:, 1]).max() <= limits.w_max
    held = np.flatnonzero(command.any(axis=1))[0]
    assert held * 0.05 >= 0.4  # the guard wants five good scans first
    turn = np.abs(np.diff(command[:, 1])).max()
    assert turn <= limits.accel_w * 0.05 + 1e-6
    poses = episode.arrays["pose_w"]
    driven = np.hypot(*np.diff(poses[:, :2], axis=0).T).sum()
    assert driven == pytest.approx(result["path_m"], abs=0.1)


def test_without_ros_the_demo_says_so_and_drives(room_yaml, tmp_path, policy, short, monkeypatch):
    monkeypatch.setattr(demo, "problem", lambda: "rclpy is missing")
    result, said = run(room_yaml, tmp_path / "report", policy, in_process=False)
    assert "one process, no ROS: rclpy is missing" in said
    assert result["transport"] == "in-process"


def test_demo_in_one_process_does_not_import_rclpy(room_yaml, tmp_path, policy):
    code = f"""
import io, sys
from pathlib import Path
from rich.console import Console
from incognita.demo import run_demo
run_demo(Path({str(room_yaml)!r}), 0, Path({str(tmp_path / "r")!r}), in_process=True,
         console=Console(file=io.StringIO()), policy={str(policy)!r}, tier="kinematic", episodes=1)
print(sorted({{"rclpy", "nav_msgs"}} & set(sys.modules)))
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout.strip() == "[]"


def test_no_video_without_a_renderer_but_a_report(room_yaml, tmp_path, policy, short, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no off-screen OpenGL")

    monkeypatch.setattr("sim.render.RobotView", fail)
    result, said = run(room_yaml, tmp_path / "report", policy)
    assert "no video: no off-screen OpenGL" in said
    episode = EpisodeReader(tmp_path / "report" / "episodes").open(result["episodes"][0])
    assert not episode.cameras and (tmp_path / "report" / "index.html").is_file()


def test_longest_ways_come_first_and_are_the_nodes_own(room_yaml):
    task = demo.demo_task(room_yaml, 0)
    ways = demo.longest_ways(task, 3)
    gaps = [np.hypot(*(p.goal_w - p.start_w[:2])) for _, p in ways]
    assert gaps == sorted(gaps, reverse=True)
    again = demo.demo_task(room_yaml, 0).place(np.random.default_rng(ways[0][0]))
    assert np.array_equal(again.start_w, ways[0][1].start_w)


def test_action_gives_the_command_back():
    robot = tasks.make("agv-warehouse").robot
    for command in ((0.0, 0.0), (1.5, -1.5), (-0.5, 0.7)):
        action = action_from_command(np.array([command]), robot.limits)
        assert command_from_action(action, robot.limits)[0] == pytest.approx(command, abs=1e-6)


def test_clearance_is_from_the_footprint():
    task = tasks.make("agv-warehouse")  # 0.9 m x 0.6 m, lidar in the middle, 180 beams
    scan = np.full((2, 180), 10.0, np.float32)
    ahead = np.argmin(np.abs(task.scan.angles))
    scan[0, ahead] = 1.45
    scan[1] = 5.0
    gaps = demo_report.clearance_m(scan, task)
    assert gaps[0] == pytest.approx(1.0, abs=0.01)
    assert gaps[1] == pytest.approx(5 - np.hypot(0.45, 0.3), abs=0.01)


def test_lattice_cells_lie_on_multiples_of_the_step():
    world = SimpleNamespace(bounds=(-1.1, 0.0, 1.0, 1.2))
    lattice = demo_report.Lattice.over(world, 0.5)
    assert lattice.bounds == (-1.5, 0.0, 1.0, 1.5)
    assert lattice.x.tolist() == [-1.25, -0.75, -0.25, 0.25, 0.75] and len(lattice.y) == 3
    image = lattice.image(np.arange(15.0), np.ones(15, bool))
    assert image[1, 2] == 7 and tuple(lattice.points[7]) == (-0.25, 0.75)


def test_places_that_were_driven_through_are_dull(tmp_path):
    with EpisodeWriter(tmp_path) as writer:
        episode = writer.episode("agv", attrs={"goal_w": [4.0, 0.0]})
        for x in np.linspace(0.1, 3.9, 200):
            pose, command = np.array([x, 0.2, 0.0]), np.array([1.0, 0.0], np.float32)
            episode.append({"pose_w": pose, "command": command})
        id = episode.finish({"outcome": "success"})
    points, goal = np.array([[2.25, 0.25], [2.25, 3.25]]), np.array([4.0, 0.0])
    for bonus in demo_report.bonuses([EpisodeReader(tmp_path).open(id)]):
        seen, new = demo_report._ask(bonus, points, goal)
        assert seen < 0.5 * new


def test_value_map_is_finite_and_differs_over_the_floor(policy):
    world = worlds.hall(12.0, "simple", seed=0)
    task = AgvRosMap(world)
    points = world.free_points(np.random.default_rng(0), 20, 0.5)
    values = demo_report.state_values(policy, task, world, points[0], points[1:])
    assert values.shape == (19,) and np.isfinite(values).all() and values.std() > 0


def test_a_curve_of_another_policy_is_not_shown(tmp_path, policy):
    rows = [{"steps": 10.0 * i, "success": 0.1 * i, "collision": 0.0} for i in range(5)]
    run_file = tmp_path / "curve.jsonl"
    run_file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"steps": 5')
    curve = demo_report.thin_curve(run_file, policy)
    assert curve["steps"] == [0, 10, 20, 30, 40]
    beside = tmp_path / "place"
    beside.mkdir()
    (beside / "mine").symlink_to(policy)
    assert demo_report.training_curve(beside / "mine") == ""
    (beside / "mine.curve.json").write_text(json.dumps(curve))
    assert "<svg" in demo_report.training_curve(beside / "mine")
    (beside / "mine.curve.json").write_text(json.dumps(curve | {"policy": "another"}))
    assert demo_report.training_curve(beside / "mine") == ""


def test_nodes_that_do_not_start_are_an_error_with_their_last_words(tmp_path):
    store, log = tmp_path / "episodes", tmp_path / "nodes.log"
    store.mkdir()
    log.write_text("guard began\nworld must be warehouse:SEED\n")
    with pytest.raises(RuntimeError, match="last: world must be warehouse:SEED"):
        demo._read_back(store, set(), 0, log)


@pytest.mark.skipif(problem() is not None, reason=f"no ROS here: {problem()}")
@pytest.mark.xdist_group("ros")
@pytest.mark.slow
def test_demo_drives_over_ros(tmp_path, policy):
    result, said = run(None, tmp_path / "report", policy, in_process=False, episodes=2)
    assert result["transport"] == "ros2-dds", said
    if demo.POLICY in names():
        assert result["reached"], (result, (tmp_path / "report" / "nodes.log").read_text())
    assert "guard]: armed" in (tmp_path / "report" / "nodes.log").read_text()
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.skipif(problem() is not None, reason=f"no ROS here: {problem()}")
@pytest.mark.xdist_group("ros")
@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_its_nodes(room_yaml, tmp_path, policy):
    """As from a terminal: SIGINT to the command alone, the nodes have sessions of their own."""
    marker = f"demo-{os.getpid()}"
    line = [sys.executable, "-m", "incognita.cli", "demo", "--map", str(room_yaml)]
    line += ["--out", str(tmp_path / marker)]
    child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    log = tmp_path / marker / "nodes.log"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (log.is_file() and "armed" in log.read_text()):
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert child.returncode == 130 and "Traceback" not in said
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if marker in words_of(p)]


def words_of(cmdline):
    """A process's command line; empty once it has ended."""
    try:
        return cmdline.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_an_exploration_is_reported_beside_a_classical_one(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_explore, "CLASSICAL", {"nearest frontier": Nearest()})
    found = demo_explore.run_explore_demo(2, tmp_path, in_process=True, console=Console(quiet=True))
    assert found["reason"] == "complete" and found["transport"] == "in-process"
    assert found["coverage"] > 0.97 and found["home_m"] < 0.6 and found["goal_reached"]
    page = (tmp_path / "index.html").read_text()
    assert "nearest frontier" in page and "nothing unknown was left to see" in page


def test_a_growing_map_is_drawn_again_from_scans_and_poses():
    world, config = worlds.rooms(2), ExplorationConfig()
    env = BatchEnv(Explore(world), 1, "kinematic", 0)
    env.reset()
    rows = {"pose_w": [], "scan": [], "time_s": []}
    for k in range(100):
        rows["pose_w"].append(env.state.pose_w[0].copy())
        rows["scan"].append(env.ranges[0].copy())
        rows["time_s"].append(0.05 * k)
        env.step(np.float32([[-0.2, 0.6]]))
    arrays = {name: np.array(values) for name, values in rows.items()}
    replay = demo_explore.replayed(SimpleNamespace(arrays=arrays), world, config)
    seen = [share for _, share in replay.curve]
    assert len(seen) == 6 and 0 < seen[0] < seen[-1] < 1 and seen == sorted(seen)
    assert replay.curve[-1][0] > 0.3
    first, last = replay.frames[0], replay.frames[-1]
    white = [(frame == 255).all(axis=2).mean() for frame in (first, last)]
    assert white[0] < white[1] and first.shape == last.shape and first.dtype == np.uint8
