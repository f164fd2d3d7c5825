"""Which nodes make up a system, and which of their parameters its arguments set.

One table behind the launch files and :mod:`ros_nodes.bringup`, so that both start the same thing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "incognita"


@dataclass(frozen=True)
class Argument:
    """An argument of a system, ``name:=value`` on either command line."""

    name: str
    default: str
    doc: str
    sets: tuple[str, ...]
    """``node.parameter`` for each parameter that it sets; an empty value sets none."""
    kind: type = str
    """bool, float, int or str: what the parameters are."""


@dataclass(frozen=True)
class System:
    """Nodes that are started together, in this order."""

    nodes: tuple[str, ...]
    """Executables; each is the module of that name in ros_nodes and its node's name."""
    arguments: tuple[Argument, ...]
    params: str = ""
    """Parameter file in ``launch/params`` without ``.yaml``; empty: the robot's."""

    def argument(self, name: str) -> Argument:
        """The argument of this name.

        Raises:
            ValueError: there is none.
        """
        for argument in self.arguments:
            if argument.name == name:
                return argument
        known = ", ".join(a.name for a in self.arguments)
        raise ValueError(f"{name} is not an argument here, known are {known}")


COMMON = (
    Argument("policy", "", "folder of a policy file, or dwa, mppi, pure-pursuit",
             ("agv_planner.policy",)),
    Argument("robot", "agv", "agv or jackal: limits, and params_file's default",
             ("agv_planner.robot",)),
    Argument("autoarm", "false", "arm the guard as soon as all is well; simulation only",
             ("guard.autoarm",), bool),
)  # fmt: skip
STAMPED = "cmd_vel as TwistStamped and not Twist"
SIMULATED = (
    Argument("cmd_vel_stamped", "true", STAMPED,
             ("guard.cmd_vel_stamped", "sim_robot.cmd_vel_stamped"), bool),
    Argument("tier", "mujoco", "mujoco or kinematic", ("sim_robot.tier",)),
    Argument("seed", "0", "of the robot's start, goal and noise", ("sim_robot.seed",), int),
    Argument("rtf", "1.0", "simulated seconds per second", ("sim_robot.real_time_factor",), float),
    Argument("episodes", "", "folder of an episode store to record into", ("sim_robot.episodes",)),
    Argument("timeout_s", "120.0", "simulated seconds until an episode is over",
             ("sim_robot.timeout_s",), float),
    Argument("camera_hz", "0.0", "pictures per simulated second", ("sim_robot.camera_hz",), float),
)  # fmt: skip
EXPLORING = (
    Argument("explorer", "utility", "folder of an explorer's policy file, or utility, nearest, "
             "next-best-view, tour", ("topo_explorer.explorer",)),
    Argument("localize", "false", "correct odometry by matching scans",
             ("topo_explorer.localize",), bool),
    Argument("visit", "", "places to go to once all is seen: x,y or x,y;x,y and so on, m",
             ("topo_explorer.visit",)),
    Argument("folder", "maps", "where ~/save_map writes", ("topo_explorer.folder",)),
    Argument("save_at_end", "false", "do so when it is done", ("topo_explorer.save_at_end",), bool),
    Argument("max_time_s", "3600.0", "for all of it, the way home included",
             ("topo_explorer.max_time_s",), float),
    Argument("autostart", "true", "explore at once", ("topo_explorer.autostart",), bool),
)  # fmt: skip
EXPLORE_CLOCKS = ("guard.use_sim_time", "agv_planner.use_sim_time", "topo_explorer.use_sim_time")
SYSTEMS = {
    "agv": System(
        ("guard", "agv_planner"),
        (
            *COMMON,
            Argument("cmd_vel_stamped", "true", STAMPED, ("guard.cmd_vel_stamped",), bool),
            Argument("use_sim_time", "false", "follow /clock",
                     ("guard.use_sim_time", "agv_planner.use_sim_time"), bool),
        ),
    ),
    "sim_agv": System(
        ("sim_robot", "guard", "agv_planner"),
        (
            *COMMON,
            *SIMULATED,
            Argument("use_sim_time", "true", "follow the simulator's /clock",
                     ("guard.use_sim_time", "agv_planner.use_sim_time"), bool),
            Argument("world", "warehouse:100000",
                     "warehouse:SEED, barn:SEED, arena:SEED, map:FILE, a task",
                     ("sim_robot.world",)),
            Argument("exit_when_done", "false", "end with the episode",
                     ("sim_robot.exit_when_done",), bool),
        ),
    ),
    "explore": System(
        ("guard", "agv_planner", "topo_explorer"),
        (
            *COMMON,
            *EXPLORING,
            Argument("cmd_vel_stamped", "true", STAMPED, ("guard.cmd_vel_stamped",), bool),
            Argument("use_sim_time", "false", "follow /clock", EXPLORE_CLOCKS, bool),
        ),
    ),
    "sim_explore": System(
        ("sim_robot", "guard", "agv_planner", "topo_explorer"),
        (
            *COMMON,
            *SIMULATED,
            *EXPLORING,
            Argument("use_sim_time", "true", "follow the simulator's /clock", EXPLORE_CLOCKS,
                     bool),
            Argument("world", "rooms:1", "rooms:SEED, maze:SEED, cave:SEED, map:FILE or a task",
                     ("sim_robot.world",)),
            Argument("publish_goal", "false", "the simulator's own goal too",
                     ("sim_robot.publish_goal",), bool),
        ),
    ),
    "reward": System(
        ("reward_client",),
        (
            Argument("server", "http://127.0.0.1:8300", "URL of the reward service",
                     ("reward_client.server",)),
            Argument("key_file", "", "file that holds its key; else INCOGNITA_REWARD_KEY",
                     ("reward_client.key_file",)),
            Argument("instruction", "", "what the robot is told to do, until the topic says more",
                     ("reward_client.instruction",)),
            Argument("compressed", "true", "take camera/image_raw/compressed, not image_raw",
                     ("reward_client.compressed",), bool),
            Argument("deadline_s", "10.0", "an answer later than this is missing",
                     ("reward_client.deadline_s",), float),
        ),
        params="reward",
    ),
    "record": System(
        ("episode_recorder",),
        (
            Argument("episodes", "episodes", "folder of the episode store",
                     ("episode_recorder.episodes",)),
            Argument("task", "recorded", "name of the task", ("episode_recorder.task",)),
            Argument("instruction", "", "what the robot is told to do, until the topic says more",
                     ("episode_recorder.instruction",)),
            Argument("camera", "front", "name of the camera; empty records none",
                     ("episode_recorder.camera",)),
            Argument("autostart", "false", "begin an episode as soon as all topics have come",
                     ("episode_recorder.autostart",), bool),
            Argument("cmd_vel_stamped", "true", STAMPED, ("episode_recorder.cmd_vel_stamped",),
                     bool),
            Argument("use_sim_time", "false", "follow /clock", ("episode_recorder.use_sim_time",),
                     bool),
        ),
        params="record",
    ),
}  # fmt: skip


def value_of(argument: Argument, text: str) -> bool | float | int | str:
    """An argument's text as the parameters' type.

    Raises:
        ValueError: the text is none of that type.
    """
    if argument.kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{argument.name} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value: bool | float | int | str = argument.kind(text)
    except ValueError as error:
        raise ValueError(
            f"{argument.name} must be {argument.kind.__name__}, got {text!r}"
        ) from error
    return value


def params_folder() -> Path:
    """Where ``launch/params`` is: in a checkout, or the share folder of ament or the environment.

    Raises:
        FileNotFoundError: in none of them.
    """
    places = [Path(__file__).resolve().parents[1] / "launch" / "params"]
    try:
        from ament_index_python.packages import get_package_share_directory

        places.append(Path(get_package_share_directory(PACKAGE)) / "launch" / "params")
    except (ImportError, LookupError, OSError):
        pass  # no ROS here, none sourced, or not installed into it
    places.append(Path(sys.prefix) / "share" / PACKAGE / "launch" / "params")
    for place in places:
        if (place / "agv.yaml").is_file():
            return place
    raise FileNotFoundError(f"launch/params must be in one of {[str(p) for p in places]}")
