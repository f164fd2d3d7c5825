"""The exploring demo: over ROS 2 a robot maps a floor that nobody has mapped, goes to a place on it
that it was not told the way to, and comes home."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from episodes import Episode, EpisodeReader
from rnd_agv.dwa import DWA
from ros_nodes.spin import problem
from sim.tasks.explore import Explore
from sim.worlds import World, rooms
from toponav import io
from toponav.exploration import Exploration, ExplorationConfig
from toponav.explorers import Explorer, Nearest, NextBestView, Tour, Utility
from toponav.graph import TopologicalMap
from toponav.meta import explorer_of

from .demo import run_nodes
from .explore import Walk, explore_world, floor_cells, seen_share
from .report import (
    Section,
    draw_curves,
    machine_table,
    picture,
    table,
    text,
    video,
    video_bytes,
    write_report,
)
from .shipped import folder_of

GOAL_CLEAR_M = 0.6
"""The goal is this far from walls."""
WALL_S = 200.0
"""Nodes that run longer than this are stopped."""
FRAME_S = 1.0
"""Time between two pictures of the growing map."""
VIDEO_HZ = 8.0
CLASSICAL: dict[str, Explorer] = {
    "nearest frontier": Nearest(), "size and distance": Utility(), "next best view": NextBestView(),
    "tour of all": Tour(),
}  # fmt: skip
"""What the demo's curve is drawn beside."""
INK, PATH, NODE, EDGE = (27, 36, 49), (37, 98, 234), (232, 89, 12), (240, 160, 110)


@dataclass
class Replay:
    """An exploration as it grew, from the scans and poses of its episode."""

    mind: Exploration
    frames: list[NDArray[np.uint8]]
    curve: list[tuple[float, float]]
    """Distance driven, m, and share of the floor seen."""


def run_explore_demo(seed: int, out: Path, *, in_process: bool, console: Console) -> dict[str, Any]:
    """Explore rooms of layout ``seed`` and write ``out/index.html``.

    Returns:
        reason the exploration ended for, coverage, driven_m, time_s, home_m, transport, report.

    Raises:
        RuntimeError: the nodes explored nothing.
    """
    began = time.monotonic()
    world, config = rooms(seed), ExplorationConfig()
    goal = _goal(world)
    why = "asked for with --in-process" if in_process else problem()
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        job = bar.add_task("starting", total=None)
        if why:
            console.print(f"one process, no ROS: {why}", highlight=False, soft_wrap=True)
            bar.update(job, description="exploring")
            walk = explore_world(
                world, config, explorer_of(_explorer()), drive=DWA, start_w=_start(world),
                limit_s=600.0, visit_w=goal,
            )  # fmt: skip
            replay = Replay(walk.mind, [], walk.curve)
            reason, graph = str(walk.mind.reason), walk.mind.graph
            visited = len(walk.mind.visited) == 1
            figures = {"time_s": walk.time_s, "home_m": walk.home_m, "coverage": walk.coverage}
        else:
            episode, reason, visited, graph = _over_ros(
                seed, goal, out.resolve(), lambda line: bar.update(job, description=line)
            )
            bar.update(job, description="drawing the map as it grew")
            replay = replayed(episode, world, config)
            poses = episode.arrays["pose_w"]
            figures = {
                "time_s": float(episode.arrays["time_s"][-1]),
                "home_m": float(np.hypot(*(poses[-1] - poses[0])[:2])),
                "coverage": replay.curve[-1][1],
            }
        others: dict[str, Walk] = {}
        for name, explorer in CLASSICAL.items():
            bar.update(job, description=f"beside it, simulated: {name}")
            others[name] = explore_world(
                world, config, explorer, drive=DWA, start_w=_start(world), limit_s=600.0
            )
        figures |= {"driven_m": replay.curve[-1][0]}
        transport = "in-process" if why else "ros2-dds"
        report = _report(
            out / "index.html", world, replay, others, graph, reason, visited, figures, transport,
            seed, time.monotonic() - began,
        )  # fmt: skip
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    return {
        "reason": reason, **{key: round(value, 3) for key, value in figures.items()},
        "goal_reached": visited, "transport": transport, "world": f"rooms:{seed}",
        "wall_s": round(time.monotonic() - began, 1), "report": str(report),
    }  # fmt: skip


def _start(world: World) -> NDArray[np.float64]:
    """Where the simulated robot of the nodes starts, too."""
    return np.asarray(Explore(world).place(np.random.default_rng(0)).start_w)


def _goal(world: World) -> NDArray[np.float64]:
    """A place far from the start, (2,) m."""
    points = world.free_points(np.random.default_rng(1), 32, GOAL_CLEAR_M)
    return np.asarray(points[np.hypot(*(points - _start(world)[:2]).T).argmax()])


def _explorer() -> str:
    """Folder of the shipped policy."""
    return str(folder_of("explorer"))


def _over_ros(
    seed: int, goal: NDArray[np.float64], out: Path, say: Any
) -> tuple[Episode, str, bool, TopologicalMap]:
    """Run the nodes until the explorer is done: its episode, reason, was it there?, its graph."""
    store, log, maps = out / "episodes", out / "nodes.log", out / "maps"
    store.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    known = set(EpisodeReader(store).ids())
    arguments = {
        "policy": "dwa", "robot": "jackal", "world": f"rooms:{seed}", "seed": 0, "autoarm": "true",
        "episodes": store, "folder": maps, "save_at_end": "true",
        "explorer": _explorer(), "visit": f"{goal[0]:.3f},{goal[1]:.3f}",
    }  # fmt: skip

    def done() -> bool:
        return log.is_file() and "done: " in log.read_text(errors="replace")

    run_nodes("sim_explore", arguments, log, WALL_S, say, done)
    found = re.findall(r"done: (\w+)(, 1 of 1 places)?", log.read_text(errors="replace"))
    new = sorted(set(EpisodeReader(store).ids()) - known)
    if not found or not new:
        raise RuntimeError(f"the exploration did not end within {WALL_S:.0f} s (see {log})")
    graph = io.load_graph(maps / "exploration.json")
    reason, visited = found[-1]
    return EpisodeReader(store).open(new[-1]), reason, visited != "", graph


def replayed(episode: Episode, world: World, config: ExplorationConfig) -> Replay:
    """What the explorer's map was as time went on, made again of the recorded scans and poses."""
    task, a = Explore(world), episode.arrays
    mind, cells = Exploration(config), floor_cells(world, task.robot, config.resolution_m)
    frames, curve, shown = [], [], -np.inf
    scans, poses, times = (np.asarray(a[name]) for name in ("scan", "pose_w", "time_s"))
    lidar = (task.robot.lidar_x_m, 0.0, 0.0)
    for k in range(len(times)):
        if k and np.array_equal(scans[k], scans[k - 1]):
            continue  # held since the last step
        mind.observe(times[k], poses[k], scans[k], task.scan.angles, task.scan.range_max, lidar)
        if times[k] - shown >= FRAME_S:
            shown = times[k]
            curve.append((mind.driven_m, seen_share(mind, cells)))
            frames.append(draw_growing(mind, world, poses[: k + 1]))
    curve.append((mind.driven_m, seen_share(mind, cells)))
    frames += [draw_growing(mind, world, poses)] * int(VIDEO_HZ)
    return Replay(mind, frames, curve)


def draw_growing(
    mind: Exploration, world: World, poses_w: NDArray[np.float64], px_per_m: float = 32.0
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: known floor white, walls dark, unknown grey; way, graph, robot."""
    assert mind.map is not None
    xmin, ymin, xmax, ymax = world.bounds
    size = round((xmax - xmin) * px_per_m), round((ymax - ymin) * px_per_m)
    x = xmin + (np.arange(size[0]) + 0.5) / px_per_m
    y = ymax - (np.arange(size[1]) + 0.5) / px_per_m
    ix = np.floor((x - mind.map.origin_w[0]) / mind.map.resolution).astype(int)
    iy = np.floor((y - mind.map.origin_w[1]) / mind.map.resolution).astype(int)
    height, width = mind.map.data.shape
    cells = mind.map.data[np.clip(iy, 0, height - 1)][:, np.clip(ix, 0, width - 1)]
    cells[(iy < 0) | (iy >= height)] = -1
    cells[:, (ix < 0) | (ix >= width)] = -1
    image = np.full((size[1], size[0], 3), 190, np.uint8)
    image[cells >= 0] = 255
    image[cells >= 65] = INK

    def at(points: NDArray[np.float64]) -> NDArray[np.int32]:
        scaled = (np.asarray(points)[..., :2] - (xmin, ymax)) * (px_per_m, -px_per_m)
        return np.round(scaled).astype(np.int32)

    cv2.polylines(image, [at(poses_w)], False, PATH, 1, cv2.LINE_AA)
    nodes = mind.graph.nodes
    for a, b, _ in mind.graph.edges():
        ends = at(np.stack([nodes[a].pose_w, nodes[b].pose_w])).tolist()
        cv2.line(image, ends[0], ends[1], EDGE, 2, cv2.LINE_AA)
    for node in nodes.values():
        cv2.circle(image, at(node.pose_w).tolist(), 5, NODE, -1, cv2.LINE_AA)
    cv2.circle(image, at(poses_w[-1]).tolist(), 8, PATH, -1, cv2.LINE_AA)
    return image


UNENDED = "it did not end by itself"
WHY = {
    "complete": "nothing unknown was left to see",
    "unreachable": "what was left could not be got to",
    "budget": "time was used up but for the way home",
    "stuck": "the robot had no room to drive",
    "stopped": "it was told to stop",
}


def _report(
    path: Path, world: World, replay: Replay, others: dict[str, Walk], graph: TopologicalMap,
    reason: str, visited: bool, figures: dict[str, float], transport: str, seed: int, wall_s: float,
) -> Path:  # fmt: skip
    over = {"ros2-dds": "ROS 2 nodes over DDS", "in-process": "one process"}[transport]
    grow = []
    if replay.frames:
        caption = "The map and the topological map as they grew; a picture a second."
        grow.append(video(video_bytes(iter(replay.frames), VIDEO_HZ), caption))
        grow.append(picture(replay.frames[-1], "At the end: way (blue), places and ways (orange)."))
    curves = {"this drive": _curve(replay.curve)}
    curves |= {name: _curve(walk.curve) for name, walk in others.items()}
    rows = [
        (name, str(walk.mind.reason), f"{walk.coverage:.1%}", f"{walk.mind.driven_m:.0f}",
         f"{walk.time_s:.0f}", f"{walk.home_m:.2f}") for name, walk in others.items()
    ]  # fmt: skip
    mine = (
        "this drive", reason, f"{figures['coverage']:.1%}", f"{figures['driven_m']:.0f}",
        f"{figures['time_s']:.0f}", f"{figures['home_m']:.2f}",
    )  # fmt: skip
    went = (
        "The goal was reached on the way home: its place was given, the way was not."
        if visited else "The goal was not reached."
    )  # fmt: skip
    edges = [edge for *_, edge in graph.edges()]
    nodes = list(graph.nodes.values())
    statistics = [
        ("places", len(nodes)), ("ways", len(edges)),
        ("length of all ways, m", f"{sum(edge.length_m for edge in edges):.0f}"),
        ("visits to a place, most", max((node.visits for node in nodes), default=0)),
        ("ways in doubt", sum(edge.doubted for edge in edges)),
    ]  # fmt: skip
    sections = [
        Section("The map as it grew", grow, wide=True),
        Section(
            "Coverage against distance",
            [
                picture(
                    draw_curves(curves, "share of the floor seen", xlabel="m driven"),
                    "The drive of this demo beside classical explorers from the same start.",
                ),
                text(
                    "The others are simulated in the kinematic tier with the same local planner. "
                    "They do not go to the goal: their way and time are shorter by that."
                ),
                table(
                    ("explorer", "ended", "coverage", "driven, m", "time, s", "from home, m"),
                    [mine, *rows],
                ),
            ],
            wide=True,
        ),
        Section(
            "Why it ended", [text(f"{reason}: {WHY.get(reason, UNENDED)}. {went}")]
        ),
        Section("The topological map", [table(("what", "value"), statistics)]),
        Section(
            "How this was made",
            [
                machine_table(
                    [seed], f"incognita demo --task explore --seed {seed}", world=f"rooms:{seed}",
                    transport=transport, wall_time=f"{wall_s:.0f} s",
                )
            ],
        ),
    ]  # fmt: skip
    numbers = {
        "floor seen": f"{figures['coverage']:.1%}", "way driven": f"{figures['driven_m']:.0f} m",
        "time": f"{figures['time_s']:.0f} s", "from home": f"{100 * figures['home_m']:.0f} cm",
        "goal": "reached" if visited else "missed", "ended": reason,
    }  # fmt: skip
    lead = (
        "A robot that knows nothing of the floor maps it, builds a topological map on the way, "
        "goes to a goal whose way nobody told it, and comes home. Simulator, guard, planner and "
        f"explorer ran as {over}."
    )
    sections = [section for section in sections if section.parts]
    return write_report(path, "Incognita explores", *sections, lead=lead, numbers=numbers)


def _curve(
    rows: list[tuple[float, float]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    driven, seen = np.array(rows).T
    return driven, seen
