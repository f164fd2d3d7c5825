"""Parameters come from dataclasses; tables, launch files and parameter files agree with them."""

import ast
import dataclasses
import importlib
import os
import re
import subprocess
import sys

import pytest

from rnd_agv.robot import ROBOTS
from ros_nodes import spin
from ros_nodes.bringup import commands, usage
from ros_nodes.guard_core import GuardConfig
from ros_nodes.node_table import SYSTEMS, params_folder, value_of
from ros_nodes.parameters import checked, field_docs


@dataclasses.dataclass(frozen=True)
class Config:
    """An example."""

    speed: float = dataclasses.field(default=1.0, metadata={"range": (0.0, 2.0)})
    """How fast,
    m/s."""
    name: str = "a"
    """Its name."""
    mount: tuple[float, ...] = (0.0, 0.0)
    """Where."""


def test_docs_come_from_below_the_fields():
    docs = field_docs(Config)
    assert docs == {"speed": "How fast, m/s.", "name": "Its name.", "mount": "Where."}


def test_given_values_replace_defaults():
    config = checked(Config, {"speed": 2, "mount": [1, 2.5]})
    assert config == Config(speed=2.0, mount=(1.0, 2.5)) and type(config.speed) is float


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sped": 1.0}, "sped is not a parameter of Config, known are"),
        ({"speed": 3.0}, r"speed must be in \[0.0, 2.0\], got 3.0"),
        ({"speed": True}, "speed must be float, got True"),
        ({"speed": float("nan")}, "speed must be in"),
        ({"name": 3}, "name must be str, got 3"),
    ],
)
def test_wrong_values_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        checked(Config, given)


def configs():
    """Every node's config class; needs ROS."""
    pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
    names = {
        "guard": "GuardNodeConfig",
        "agv_planner": "PlannerConfig",
        "sim_robot": "SimRobotConfig",
        "topo_explorer": "ExplorerConfig",
        "reward_client": "RewardClientConfig",
        "episode_recorder": "RecorderConfig",
    }
    return {k: getattr(importlib.import_module(f"ros_nodes.{k}"), v) for k, v in names.items()}


def test_every_parameter_is_described_and_every_number_has_a_range():
    for config in configs().values():
        docs = field_docs(config)
        for spec in dataclasses.fields(config):
            assert docs.get(spec.name), f"{config.__name__}.{spec.name} has no doc line"
            if type(spec.default) in (int, float):
                low, high = spec.metadata["range"]
                assert low <= spec.default <= high


def test_arguments_set_parameters_that_exist():
    known = configs()
    for system in SYSTEMS.values():
        for argument in system.arguments:
            for target in argument.sets:
                node, name = target.split(".")
                assert node in system.nodes
                if name == "use_sim_time":
                    continue
                default = known[node].__dataclass_fields__[name].default
                assert type(default) is argument.kind
                assert type(value_of(argument, argument.default)) is argument.kind


def yaml_numbers(path):
    """``name: number`` lines under the guard of a parameter file."""
    return {k: float(v) for k, v in re.findall(r"^    (\w+): (\S+)$", path.read_text(), re.M)}


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_parameter_files_hold_the_robots_own_numbers(name):
    robot, numbers = ROBOTS[name], yaml_numbers(params_folder() / f"{name}.yaml")
    limits = dataclasses.asdict(robot.limits)
    mount = {"half_length_m": robot.half_extents[0], "half_width_m": robot.half_extents[1]}
    assert numbers == limits | mount | {"lidar_x_m": robot.lidar_x_m}
    GuardConfig(**numbers)


@pytest.mark.parametrize(
    ("file", "node"), [("reward", "reward_client"), ("record", "episode_recorder")]
)
def test_a_nodes_own_file_holds_parameters_of_its_node(file, node):
    import yaml

    (given,) = yaml.safe_load((params_folder() / f"{file}.yaml").read_text()).values()
    checked(configs()[node], given["ros__parameters"])


def test_defaults_stop_in_time():
    config = GuardConfig()
    assert max(config.scan_timeout_s, config.odom_timeout_s, config.command_timeout_s) + 0.04 <= 0.3


def test_commands_carry_the_arguments():
    lines = commands(SYSTEMS["sim_agv"], {"policy": "dwa", "rtf": "2", "namespace": "r1"})
    assert list(lines) == ["sim_robot", "guard", "agv_planner"]
    assert 'policy:="dwa"' in lines["agv_planner"] and "real_time_factor:=2.0" in lines["sim_robot"]
    assert "autoarm:=false" in lines["guard"] and "__ns:=/r1" in lines["guard"]
    assert not any(word.startswith("episodes:=") for word in lines["sim_robot"])  # empty sets none
    assert all(a.name in usage() for s in SYSTEMS.values() for a in s.arguments)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_launch_files_are_thin_and_use_the_table(root, name):
    path = root / "launch" / f"{name}.launch.py"
    tree = ast.parse(path.read_text())
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert "ros_nodes.node_table" in modules and "launch_ros.actions" in modules
    assert f'SYSTEMS["{name}"]' in path.read_text()
    assert "generate_launch_description" in {
        n.name for n in tree.body if isinstance(n, ast.FunctionDef)
    }


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_launch_files_start_the_tables_nodes(root, name):
    pytest.importorskip("launch_ros", reason="ros2 launch is not on PyPI: needs a distribution")
    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location(name, root / "launch" / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    told = {argument.name for argument in description.get_launch_arguments()}
    assert told == {a.name for a in SYSTEMS[name].arguments} | {"namespace", "params_file"}
    context = LaunchContext()
    for entity in description.entities[:-1]:
        entity.execute(context)
    context.launch_configurations["policy"] = "dwa"
    assert len(module.nodes(context)) == len(SYSTEMS[name].nodes)


def test_a_sourced_distribution_and_the_wheels_do_not_mix():
    pytest.importorskip("ros_wheels_bootstrapper", reason="the ROS wheels are not installed")
    assert "jazzy" in spin.problem({"ROS_DISTRO": "jazzy"})
    assert spin.problem({}) is None
    line = [sys.executable, "-m", "ros_nodes.bringup", "agv", "policy:=dwa"]
    env = os.environ | {"ROS_DISTRO": "jazzy"}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3 and "do not mix" in done.stderr


BLOCKER = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rclpy", "sensor_msgs", "torch", "mujoco", "numba", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import ros_nodes, ros_nodes.convert, ros_nodes.guard_core, ros_nodes.parameters, ros_nodes.spin
import ros_nodes.node_table, ros_nodes.bringup
print(ros_nodes.spin.problem())
"""


def test_the_room_imports_without_ros_and_says_what_is_missing(root):
    line = [sys.executable, "-c", BLOCKER]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "ros-wheels" in done.stdout and "rclpy is missing" in done.stdout
