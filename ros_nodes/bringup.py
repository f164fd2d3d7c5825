"""Start a system's nodes as processes of their own, without ``ros2 launch``.

    python -m ros_nodes.bringup sim_agv policy:=dwa world:=warehouse:7 exit_when_done:=true

Ends, and ends all nodes, on SIGINT or SIGTERM or when one of them ends. The exit code is that of
the node that ended first, 0 after a signal, 1 if a node had to be killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .node_table import SYSTEMS, System, params_folder, value_of
from .spin import SUPERVISOR, problem

GRACE_S = 6.0
"""Time that nodes have to end after SIGINT, before SIGKILL. One second is common; after a peer was
killed, Fast DDS may take up to four to take a node down (its last messages are out by then)."""


def commands(system: System, given: dict[str, str]) -> dict[str, list[str]]:
    """Command line of every node.

    Args:
        system: what to start.
        given: values of its arguments, and ``namespace``, ``params_file``.

    Raises:
        ValueError: an unknown argument, or a value of the wrong type.
        FileNotFoundError: the parameter file is not there.
    """
    given = dict(given)
    namespace, file = given.pop("namespace", ""), given.pop("params_file", "")
    values = {argument.name: argument.default for argument in system.arguments}
    for name, text in given.items():
        values[system.argument(name).name] = text
    params = Path(file) if file else params_folder() / f"{system.params or values['robot']}.yaml"
    if not params.is_file():
        raise FileNotFoundError(f"params_file must be a file, got {params}")
    out = {}
    for node in system.nodes:
        line = [
            sys.executable,
            "-m",
            f"ros_nodes.{node}",
            "--ros-args",
            "--params-file",
            str(params),
        ]
        if namespace:
            line += ["-r", f"__ns:=/{namespace.strip('/')}"]
        for argument in system.arguments:
            if values[argument.name] == "":
                continue
            value = json.dumps(value_of(argument, values[argument.name]))
            for target in argument.sets:
                owner, parameter = target.split(".")
                if owner == node:
                    line += ["-p", f"{parameter}:={value}"]
        out[node] = line
    return out


class Supervisor:
    """Processes that live and end together."""

    def __init__(self, lines: dict[str, list[str]]) -> None:
        self.lines = lines
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ended: list[int] = []

    def run(self) -> int:
        """Start all, wait for a signal or the first to end, end the others; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda n, _: self.ended.append(n))
        env = os.environ | {SUPERVISOR: str(os.getpid())}
        code = 0
        try:
            for name, line in self.lines.items():
                self.processes[name] = subprocess.Popen(line, env=env, start_new_session=True)
            while not self.ended:
                over = {n: p.returncode for n, p in self.processes.items() if p.poll() is not None}
                if over:
                    name, code = next(iter(over.items()))
                    print(f"{name} ended with {code}: the others follow", file=sys.stderr)
                    break
                time.sleep(0.05)
        finally:
            killed = self.stop()
        return 1 if killed else abs(code)

    def stop(self) -> list[str]:
        """End all that run; names of those that had to be killed."""
        killed, deadline = [], time.monotonic() + GRACE_S
        for process in self.processes.values():
            _signal(process, signal.SIGINT)
        for name, process in self.processes.items():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                killed.append(name)
                _signal(process, signal.SIGKILL)
                process.wait()
        if killed:
            print(f"killed after {GRACE_S} s: {', '.join(killed)}", file=sys.stderr)
        return killed


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process's own group, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def usage() -> str:
    """What can be started, with every argument."""
    lines = ["python -m ros_nodes.bringup SYSTEM [name:=value ...]", ""]
    for name, system in SYSTEMS.items():
        lines.append(f"{name}: {', '.join(system.nodes)}")
        shown = [(a.name, a.default, a.doc) for a in system.arguments]
        shown += [
            ("namespace", "", "of all nodes"),
            ("params_file", "", "YAML, by default the robot's"),
        ]
        lines += [f"  {n + ':=' + d:32} {doc}" for n, d, doc in shown]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m ros_nodes.bringup``"""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if why := problem():
        print(why, file=sys.stderr)
        return 3
    try:
        if words[0] not in SYSTEMS:
            raise ValueError(f"system must be one of {sorted(SYSTEMS)}, got {words[0]!r}")
        given = dict(word.split(":=", 1) for word in words[1:] if ":=" in word)
        if wrong := [word for word in words[1:] if ":=" not in word]:
            raise ValueError(f"arguments must be name:=value, got {wrong}")
        lines = commands(SYSTEMS[words[0]], given)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return Supervisor(lines).run()


if __name__ == "__main__":
    raise SystemExit(main())
