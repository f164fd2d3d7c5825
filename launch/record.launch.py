"""Records what the robot senses and is sent into an episode store.

ros2 launch incognita record.launch.py episodes:=/data/episodes camera:=front
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ros_nodes.node_table import PACKAGE, SYSTEMS, value_of

SYSTEM = SYSTEMS["record"]
PARAMS = Path(__file__).resolve().parent / "params"


def nodes(context):
    """The system's nodes, once the arguments are known."""

    def value(name):
        return LaunchConfiguration(name).perform(context)

    file = value("params_file") or str(PARAMS / f"{SYSTEM.params}.yaml")
    started = []
    for name in SYSTEM.nodes:
        own = {
            target.split(".")[1]: value_of(argument, value(argument.name))
            for argument in SYSTEM.arguments
            for target in argument.sets
            if target.split(".")[0] == name and value(argument.name) != ""
        }
        started.append(
            Node(
                package=PACKAGE,
                executable=name,
                name=name,
                namespace=value("namespace"),
                parameters=[file, own],
                output="screen",
            )
        )
    return started


def generate_launch_description():
    """What ``ros2 launch`` calls."""
    arguments = [
        DeclareLaunchArgument(a.name, default_value=a.default, description=a.doc)
        for a in SYSTEM.arguments
    ]
    arguments += [
        DeclareLaunchArgument("namespace", default_value="", description="of all nodes"),
        DeclareLaunchArgument(
            "params_file", default_value="", description="YAML, by default params/record.yaml"
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])
