"""The demo: a shipped policy drives a simulated robot over ROS 2, and a report shows how.

Simulator, planner and guard run as ROS 2 nodes in processes of their own. Where there is no ROS,
the same planner and guard classes run in this process instead, in lock step with the simulator.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from episodes import Episode, EpisodeReader, EpisodeWriter, verify
from rnd_agv.command import action_from_command
from rnd_agv.policy import AgvPolicy
from rnd_agv.robot import RobotSpec
from ros_nodes.guard_core import DISARMED, GuardConfig, GuardCore
from ros_nodes.spin import problem
from sim import tasks
from sim.backend import CONTROL_DT, SCAN_EVERY
from sim.batch import BatchEnv, Tier
from sim.tasks import AgvTask, Placement
from sim.worlds import World

from .shipped import folder_of

POLICY = "agv-warehouse"
CAMERA_HZ = 10.0
CANDIDATES = 12
"""Seeds looked at; the demo drives the longest ways among them."""
EPISODE_WALL_S = 75.0
"""Nodes that run longer than this are stopped."""
DRIVE_WALL_S = 100.0
"""No further episode starts after this time."""
TIMEOUT_S = 60.0
"""Simulated seconds of an episode in one process."""
NOTHING = (1e6, 1e6, 0.0)
"""Disc in the robot's own place among those that it may meet, as the node records it."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Drive:
    """One episode of the demo, as read back from the store."""

    seed: int
    episode: Episode

    @property
    def outcome(self) -> dict[str, Any]:
        """What the simulator said of it: outcome, time_s, path_m, goal_w."""
        found: dict[str, Any] = self.episode.attrs["outcome"]
        return found

    @property
    def reached(self) -> bool:
        """Whether the goal was reached without touching anything."""
        return bool(self.outcome["outcome"] == "success")


def run_demo(
    map_yaml: Path | None,
    seed: int,
    out: Path,
    *,
    in_process: bool,
    console: Console,
    policy: str | Path = POLICY,
    episodes: int = 3,
    tier: Tier = "mujoco",
) -> dict[str, Any]:
    """Drive some episodes and write ``out/index.html``.

    Args:
        map_yaml: a map_server map to drive on; None for a warehouse.
        seed: number of the warehouse's layout.
        out: folder of the report; ``out/episodes`` is the episode store, ``out/nodes.log`` what
            the nodes said.
        in_process: no ROS even where there is one.
        console: where progress goes.
        policy: folder of a policy file, or the name of a shipped one.
        episodes: most episodes; fewer where the machine is slow.
        tier: "mujoco" or "kinematic".

    Returns:
        reached (whether any episode reached its goal), outcome, time_s and path_m of the episode
        shown, outcomes and ids of all, transport ("ros2-dds" or "in-process"), report.

    Raises:
        ValueError, FileNotFoundError: the map or the policy cannot be used.
        RuntimeError: the nodes did not drive, or an episode is damaged.
    """
    from .demo_report import write_demo_report

    began = time.monotonic()
    folder = folder_of(policy).resolve()
    name = f"warehouse:{seed}" if map_yaml is None else f"map:{Path(map_yaml).resolve()}"
    task = demo_task(map_yaml, seed)
    placements = longest_ways(task, episodes)
    why = "asked for with --in-process" if in_process else problem()
    if why:
        console.print(f"one process, no ROS: {why}", highlight=False, soft_wrap=True)
    camera_hz = CAMERA_HZ if _can_render(placements[0][1].world, task, console) else 0.0
    store, log = out.resolve() / "episodes", out.resolve() / "nodes.log"
    store.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    drives: list[Drive] = []
    with Progress(*columns, console=console, transient=True) as bar:
        job = bar.add_task("starting", total=None)
        for k, (number, placement) in enumerate(placements):
            if drives and time.monotonic() - began > DRIVE_WALL_S:
                break
            title = f"drive {k + 1} of {len(placements)}"

            def say(line: str, title: str = title) -> None:
                bar.update(job, description=f"{title}: {line}")

            known = set(EpisodeReader(store).ids())
            if why:
                attrs = {"world": name, "tier": tier, "seed": number}
                drive_in_process(task, placement, folder, store, camera_hz, attrs, say)
            else:
                _drive_nodes(name, folder, number, tier, store, camera_hz, log, say)
            drives.append(_read_back(store, known, number, log))
            bar.console.print(f"{title}: {_sentence(drives[-1])}", highlight=False)
        bar.update(job, description="writing the report")
        wall_s = time.monotonic() - began
        transport = "in-process" if why else "ros2-dds"
        shown = next((d for d in drives if d.reached), drives[0])
        report = write_demo_report(
            out / "index.html", task, placements[0][1].world, folder, drives, shown,
            transport=transport, wall_s=wall_s, command=_command(map_yaml, seed, in_process),
        )  # fmt: skip
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return {
        "reached": any(drive.reached for drive in drives),
        "outcome": shown.outcome["outcome"],
        "time_s": shown.outcome["time_s"],
        "path_m": shown.outcome["path_m"],
        "outcomes": [drive.outcome["outcome"] for drive in drives],
        "episodes": [drive.episode.id for drive in drives],
        "transport": transport,
        "world": name,
        "wall_s": round(time.monotonic() - began, 1),
        "report": str(report),
    }


def demo_task(map_yaml: Path | None, seed: int) -> AgvTask:
    """The task that :mod:`ros_nodes.sim_robot` makes of the same world."""
    if map_yaml is None:
        return tasks.make("agv-warehouse", layouts=1, first_layout=seed)
    return tasks.make("agv-ros-map", map_yaml=Path(map_yaml).resolve())


def longest_ways(task: AgvTask, count: int) -> list[tuple[int, Placement]]:
    """Seeds and placements of the ``count`` longest ways among the first seeds, longest first."""
    placed = [(k, task.place(np.random.default_rng(k))) for k in range(max(CANDIDATES, count))]
    placed.sort(key=lambda item: -float(np.hypot(*(item[1].goal_w - item[1].start_w[:2]))))
    return placed[:count]


def _can_render(world: World, task: AgvTask, console: Console) -> bool:
    """Whether a camera can be simulated here; says why not."""
    from sim.render import RobotView

    try:
        with RobotView(world, task.robot, 32, 32) as view:
            view.frame(np.zeros(3))
    except RuntimeError as error:
        console.print(f"no video: {error}", highlight=False, soft_wrap=True)
        return False
    return True


# Over ROS 2.


def _drive_nodes(
    world: str,
    policy: Path,
    seed: int,
    tier: str,
    store: Path,
    camera_hz: float,
    log: Path,
    say: Say,
) -> None:
    """Run simulator, guard and planner as nodes until the episode is over."""
    arguments = {
        "policy": policy, "world": world, "seed": seed, "tier": tier, "episodes": store,
        "camera_hz": camera_hz, "autoarm": "true", "exit_when_done": "true", "rtf": 1,
    }  # fmt: skip
    say("starting simulator, guard and planner")
    run_nodes("sim_agv", arguments, log, EPISODE_WALL_S, say, lambda: False)


def run_nodes(
    system: str, arguments: Mapping[str, object], log: Path, wall_s: float, say: Say,
    done: Callable[[], bool],
) -> None:  # fmt: skip
    """Run a system of :mod:`ros_nodes.node_table` until it ends, is ``done`` or ``wall_s`` is over.

    The nodes get a DDS domain of their own on this machine alone: a demo must never meet a robot.
    Ctrl-C ends them all.
    """
    env = os.environ | {
        "ROS_DOMAIN_ID": str(1 + secrets.randbelow(100)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",  # killed processes leave no shared memory behind
    }
    line = [sys.executable, "-m", "ros_nodes.bringup", system]
    line += [f"{name}:={value}" for name, value in arguments.items()]
    deadline = time.monotonic() + wall_s
    with log.open("ab") as file:
        start = file.tell()
        nodes = subprocess.Popen(
            line, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            while nodes.poll() is None and time.monotonic() < deadline and not done():
                time.sleep(0.1)
                if heard := _last_line(log, start):
                    say(heard)
        finally:
            _end(nodes)


def _last_line(log: Path, start: int) -> str:
    """What a node said last, without level and time."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if found := re.match(r"\[\w+\] \[[\d.]+\] \[([\w./]+)\]: ([^{]*)", line):
            return f"{found[1]}: {found[2].strip()}".rstrip(":")[:70]
    return ""


def _end(nodes: subprocess.Popen[bytes]) -> None:
    """Stop the supervisor, which stops its nodes; they end by themselves if it has to be killed."""
    try:
        if nodes.poll() is None:
            nodes.send_signal(signal.SIGINT)
            nodes.wait(6.0)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if nodes.poll() is None:
            os.killpg(nodes.pid, signal.SIGKILL)
            nodes.wait()


def _read_back(store: Path, known: set[str], seed: int, log: Path) -> Drive:
    """The episode that was added to the store, every byte of it checked."""
    reader = EpisodeReader(store)
    new = sorted(set(reader.ids()) - known)
    if not new:
        said = log.read_text(errors="replace").splitlines() if log.is_file() else []
        last = said[-1] if said else "nothing"
        raise RuntimeError(f"no episode was recorded; the nodes said last: {last} (see {log})")
    if damage := verify(store, new[-1]):
        raise RuntimeError(f"episode {new[-1]} is damaged: {damage[0]}")
    return Drive(seed, reader.open(new[-1]))


# In one process.


class _Endless(AgvTask):
    """One placement of a task, whose episode the caller ends."""

    def __init__(self, task: AgvTask, placement: Placement) -> None:
        never = replace(
            task.config, goal_radius_m=1e-9, max_steps=1 << 30, terminal_collision=False
        )
        super().__init__(never)
        self.name, self._placement = task.name, placement

    def place(self, rng: np.random.Generator) -> Placement:
        return self._placement


def guard_config(robot: RobotSpec) -> GuardConfig:
    """The guard's limits for a robot."""
    half_length, half_width = robot.half_extents
    return GuardConfig(
        **asdict(robot.limits), half_length_m=half_length, half_width_m=half_width,
        lidar_x_m=robot.lidar_x_m,
    )  # fmt: skip


def drive_in_process(
    task: AgvTask,
    placement: Placement,
    policy: Path,
    store: Path,
    camera_hz: float,
    attrs: dict[str, Any],
    say: Say,
) -> str:
    """Drive one episode with planner and guard called in turn, and record it as the node does.

    Args:
        task, placement: where.
        policy: folder of a policy file.
        store: episode store.
        camera_hz: pictures per simulated second, 0 for none.
        attrs: of the episode; ``tier`` is read from it.
        say: told how far it is.

    Returns:
        Outcome: success, collision or timeout.
    """
    say("loading")
    env = BatchEnv(_Endless(task, placement), 1, attrs["tier"], attrs["seed"])
    env.reset()
    state, robot, goal = env.state, task.robot, placement.goal_w
    planner, guard = AgvPolicy(str(policy)), GuardCore(guard_config(robot))
    if task.config.guide == "known":
        planner.set_map(task.planning(placement.world)[0])
    planner.set_goal(goal, state.pose_w[0])
    view = None
    if camera_hz:
        from sim.render import RobotView

        view = RobotView(placement.world, robot, 320, 240, task.config.max_movers)
    shot_every = max(round(1 / CONTROL_DT / camera_hz), 1) if camera_hz else 0
    attrs = attrs | {"robot": robot.name, "namespace": "", "goal_w": goal.tolist()}
    instruction = "Drive to the goal without touching anything."
    outcome, k, stamp = "", 0, 0.0
    with EpisodeWriter(store) as writer:
        episode = writer.episode(task=task.name, instruction=instruction, attrs=attrs)
        while not outcome:
            now = k * CONTROL_DT
            if k % SCAN_EVERY == 0:
                stamp = now
                guard.on_scan(env.ranges[0], task.scan, now, now, now)
            guard.on_odom(state.pose_w[0], now, now, now)
            if guard.state == DISARMED:
                guard.arm(True, now)
            pose, vel = state.seen_pose_w[0], state.vel_b[0]
            guard.on_command(planner.act(pose, vel, env.ranges[0], task.scan, stamp), now)
            sent = guard.tick(now)
            state.last_command[0] = sent  # the guard has limited its rate, or braked harder
            env.step(action_from_command(sent[None], robot.limits))
            k += 1
            frames = {}
            if view is not None and k % shot_every == 1 % shot_every:
                frames["chase"] = view.frame(state.pose_w[0], env.obstacles()[0], "chase", goal)
            step = {
                "time_s": np.float64(k * CONTROL_DT),
                "command": sent.astype(np.float32),
                "pose_w": state.pose_w[0],
                "vel_b": state.vel_b[0].astype(np.float32),
                "contact": state.contact[0],
                "scan": env.ranges[0],
                "discs": np.vstack([env.obstacles()[0], NOTHING]).astype(np.float32),
            }
            episode.append(step, frames)
            gap = float(np.hypot(*(goal - state.pose_w[0, :2])))
            if gap < task.config.goal_radius_m:
                outcome = "success"
            elif state.contact[0, 0] or state.contact[0, 2]:
                outcome = "collision"
            elif k * CONTROL_DT >= TIMEOUT_S:
                outcome = "timeout"
            if k % 20 == 0:
                say(f"{gap:.1f} m to the goal")
        result = {
            "outcome": outcome,
            "time_s": round(k * CONTROL_DT, 3),
            "path_m": round(float(env.path_m[0]), 3),
            "goal_w": goal.tolist(),
            "world": attrs["world"],
        }
        episode.finish(result)
    if view is not None:
        view.close()
    return outcome


def _sentence(drive: Drive) -> str:
    words = {"success": "goal reached"}
    outcome = drive.outcome
    said = words.get(outcome["outcome"], outcome["outcome"])
    return f"{said} after {outcome['time_s']:.1f} s and {outcome['path_m']:.1f} m"


def _command(map_yaml: Path | None, seed: int, in_process: bool) -> str:
    words = ["incognita demo"]
    words += ["--map", Path(map_yaml).name] if map_yaml is not None else ["--seed", str(seed)]
    return " ".join(words + ["--in-process"] * in_process)
