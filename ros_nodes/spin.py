"""Start, run and end a node: own signal handling, a last zero command, an exit code."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

INSTALL = (
    "rclpy is missing. On a robot: source its ROS 2 (for example `. /opt/ros/jazzy/setup.sh`). "
    "Elsewhere on x86_64 Linux: pip install 'incognita[ros-wheels]'"
)

SUPERVISOR = "INCOGNITA_SUPERVISOR"
"""Process id of the bringup that a node ends with, in the environment."""


def problem(env: Mapping[str, str] | None = None) -> str | None:
    """Why nodes cannot start here, in one line, or None.

    A sourced distribution and the wheels from PyPI load each other's libraries, so they never mix.
    """
    env = os.environ if env is None else env
    if _has("ros_wheels_bootstrapper") and (env.get("ROS_DISTRO") or env.get("AMENT_PREFIX_PATH")):
        return (
            f"ROS {env.get('ROS_DISTRO') or 'prefix'} is sourced and the ROS wheels are installed "
            f"in {sys.prefix}; they do not mix. Use a shell without the distribution, or an "
            "environment without the extra ros-wheels"
        )
    return None if _has("rclpy") else INSTALL


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def run(make: Callable[[], Any], args: list[str] | None = None) -> int:
    """Build one node with ``make``, spin it until a signal or its ``finished`` is set; exit code.

    rclpy's own handlers would invalidate the context before a last message could go out, so they
    are off: a signal sets a flag, the loop ends, ``node.close()`` sends what must be last.
    """
    if why := problem():
        print(why, file=sys.stderr)
        return 3
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: ended.append(n))
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # a parameter file that is missing or malformed
        print(f"ROS did not start: {error}", file=sys.stderr)
        return 2
    node = None
    try:
        node = make()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        supervisor = os.environ.get(SUPERVISOR)
        while not ended and getattr(node, "finished", None) is None:
            executor.spin_once(timeout_sec=0.05)
            if supervisor and os.getppid() != int(supervisor):
                break  # it was killed: leave no orphan
        return getattr(node, "finished", None) or 0
    except (ValueError, FileNotFoundError) as error:
        if node is not None:  # not a matter of parameters or files
            raise
        print(f"{error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
