"""The demo's page: map, drive, video, what the policy values and what curiosity would seek."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from curiosity import IntrinsicReward, Transition, make
from episodes import Episode
from learning.policy_file import load_policy, verify_policy
from learning.vec_env import EXPLORE
from rnd_agv.guide import Guide
from rnd_agv.observation import ObservationConfig, build, sector_min
from rnd_agv.robot import RobotSpec
from sim.bank import WorldBank
from sim.lidar import cast
from sim.tasks import AgvTask
from sim.worlds import World

from .report import (
    Section,
    draw_curves,
    draw_heat,
    draw_map,
    machine_table,
    picture,
    table,
    top_down,
    video,
    video_bytes,
    write_report,
)

if TYPE_CHECKING:
    from .demo import Drive

HEAT_POINTS = 3000
"""About as many positions of a map are evaluated for a heat map."""
COUNT_CELL_M = 0.5
MOMENTS = (0.3, 0.7)
"""Shares of the episode at which a scan is drawn."""


def write_demo_report(
    path: Path,
    task: AgvTask,
    world: World,
    policy: Path,
    drives: Sequence[Drive],
    shown: Drive,
    *,
    transport: str,
    wall_s: float,
    command: str,
) -> Path:
    """Write the page.

    Args:
        path: the .html file.
        task, world: where the episodes were driven.
        policy: folder of the policy file.
        drives: all episodes, in order.
        shown: the one that figures and video are of.
        transport: "ros2-dds" or "in-process".
        wall_s: how long the demo took so far.
        command: command line, for the table.
    """
    episode, outcome = shown.episode, shown.outcome
    gaps = clearance_m(episode.arrays["scan"], task)
    reached = sum(drive.reached for drive in drives)
    over = {"ros2-dds": "ROS 2 nodes over DDS", "in-process": "one process"}[transport]
    numbers = {
        "goals reached": f"{reached} of {len(drives)}",
        "time": f"{outcome['time_s']:.1f} s",
        "way driven": f"{outcome['path_m']:.1f} m",
        "closest to anything": f"{100 * gaps.min():.0f} cm",
        "transport": {"ros2-dds": "ROS 2 DDS", "in-process": "no ROS"}[transport],
    }
    sections = [
        Section("The drive", _drive(task, world, shown, drives), wide=True),
        Section("Video", _videos(task, world, episode)),
        Section("What the lidar sees", _scans(task, world, episode)),
        Section("Speed and clearance", _series(task, episode, gaps)),
        Section("What the policy expects", [_value(task, world, policy, shown)], wide=True),
        Section("What curiosity would seek next", _novelty(world, drives, shown)),
    ]
    if curve := training_curve(policy):
        sections.append(Section("How the policy was trained", [curve], wide=True))
    sections.append(Section("Episodes", [_episodes(drives)]))
    manifest = verify_policy(policy)
    about = machine_table(
        [drive.seed for drive in drives], command, world=episode.attrs["attrs"]["world"],
        policy=f"{policy.name}, recipe {manifest['recipe'].get('name', 'unknown')}, "
        f"git {str(manifest['recipe'].get('git', 'unknown'))[:12]}",
        transport=transport, wall_time=f"{wall_s:.0f} s",
    )  # fmt: skip
    sections.append(Section("How this was made", [about]))
    place = "an unknown warehouse" if world.name.startswith("warehouse") else world.name
    lead = (
        f"A policy trained in simulation drives the {task.robot.name.upper()} across {place}: "
        "lidar and odometry in, velocity out, a guard in between. "
        f"Simulator, planner and guard ran as {over}."
    )
    return write_report(path, "Incognita demo", *sections, lead=lead, numbers=numbers)


def clearance_m(scan: NDArray[np.float32], task: AgvTask) -> NDArray[np.float64]:
    """(T,) distance from the footprint to the nearest lidar return, m, of scans (T, beams)."""
    half_length, half_width = task.robot.half_extents
    ranges = scan.astype(np.float64)
    x = task.robot.lidar_x_m + ranges * np.cos(task.scan.angles)
    y = ranges * np.sin(task.scan.angles)
    gap = np.hypot(np.maximum(np.abs(x) - half_length, 0), np.maximum(np.abs(y) - half_width, 0))
    return np.asarray(gap.min(axis=1))


# What was driven.


def _drive(task: AgvTask, world: World, shown: Drive, drives: Sequence[Drive]) -> list[str]:
    episode = shown.episode
    paths = {_label(drive, drives): drive.episode.arrays["pose_w"] for drive in drives}
    figure = draw_map(
        world.boxes, world.discs, paths_w=paths, start_w=episode.arrays["pose_w"][0],
        goal_w=shown.outcome["goal_w"], goal_radius_m=task.config.goal_radius_m,
        pose_w=episode.arrays["pose_w"][-1], footprint_m=_footprint(task.robot),
    )  # fmt: skip
    caption = (
        f"{world.name} {world.seed} from above; start, goal and robot are those of "
        f"{_label(shown, drives)}. The floor plan is known to the robot, what moves is not."
    )
    return [picture(figure, caption)]


def _label(drive: Drive, drives: Sequence[Drive]) -> str:
    return f"drive {1 + [d.episode.id for d in drives].index(drive.episode.id)}"


def _footprint(robot: RobotSpec) -> tuple[float, float]:
    return robot.length_m, robot.width_m


def _videos(task: AgvTask, world: World, episode: Episode) -> list[str]:
    arrays, steps = episode.arrays, range(0, len(episode), 2)
    rate = float(episode.attrs["rate_hz"]) / 2
    above = top_down(
        world.boxes, world.discs, world.bounds, arrays["pose_w"][steps],
        goals_w=np.asarray(episode.attrs["attrs"]["goal_w"]), movers=arrays["discs"][steps],
        hits_w=[_hits(task, arrays["pose_w"][i], arrays["scan"][i]) for i in steps],
        footprint_m=_footprint(task.robot), size_px=720,
    )  # fmt: skip
    parts = []
    if "chase" in episode.cameras:
        frames = (episode.frame("chase", i) for i in steps)
        caption = "Camera behind the robot, from the episode store."
        parts.append(video(video_bytes(frames, rate), caption))
    caption = "From above: robot, lidar returns, and what moves."
    parts.append(video(video_bytes(above, rate), caption))
    return parts


def _hits(
    task: AgvTask, pose: NDArray[np.float64], ranges: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(B, 2) lidar returns in the world."""
    hit = ranges < task.scan.range_max
    angles = pose[2] + task.scan.angles[hit]
    at = pose[:2] + task.robot.lidar_x_m * np.array([np.cos(pose[2]), np.sin(pose[2])])
    ends = ranges[hit, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(at + ends)


def _scans(task: AgvTask, world: World, episode: Episode) -> list[str]:
    parts = []
    for share in MOMENTS:
        i = int(share * (len(episode) - 1))
        pose = episode.arrays["pose_w"][i]
        figure = draw_map(
            world.boxes, world.discs, paths_w={"way": episode.arrays["pose_w"][: i + 1]},
            goal_w=episode.attrs["attrs"]["goal_w"], pose_w=pose, ranges=episode.arrays["scan"][i],
            angles=task.scan.angles, footprint_m=_footprint(task.robot),
            max_range_m=task.scan.range_max,
        )  # fmt: skip
        beams = f"{task.scan.beams} beams"
        parts.append(picture(figure, f"{beams} after {episode.arrays['time_s'][i]:.1f} s."))
    return parts


def _series(task: AgvTask, episode: Episode, gaps: NDArray[np.float64]) -> list[str]:
    time_s, limits = episode.arrays["time_s"], task.robot.limits
    sent, driven = episode.arrays["command"], episode.arrays["vel_b"]
    speeds = {
        "forward, sent, m/s": (time_s, sent[:, 0]),
        "forward, driven, m/s": (time_s, driven[:, 0]),
        "turn, sent, rad/s": (time_s, sent[:, 1]),
    }
    gap = {"footprint to nearest return": (time_s, gaps)}
    most = f"Speeds; at most {limits.v_max:g} m/s and {limits.w_max:g} rad/s."
    return [
        picture(draw_curves(speeds, "m/s, rad/s", xlabel="s"), most),
        picture(draw_curves(gap, "m", xlabel="s"), "Clearance by the lidar."),
    ]


def _episodes(drives: Sequence[Drive]) -> str:
    rows = [
        (
            _label(drive, drives), drive.outcome["outcome"], float(drive.outcome["time_s"]),
            float(drive.outcome["path_m"]), drive.seed, drive.episode.attrs["attrs"]["world"],
            drive.episode.id,
        )
        for drive in drives
    ]  # fmt: skip
    return table(("", "outcome", "time, s", "way, m", "seed", "world", "id in the store"), rows)


# What the networks say.


@dataclass(frozen=True)
class Lattice:
    """Positions over a map's bounds, row 0 at the lowest y."""

    bounds: tuple[float, float, float, float]
    """Outer cell edges, m."""
    x: NDArray[np.float64]
    """(W,) cell centres, m."""
    y: NDArray[np.float64]
    """(H,) cell centres, m."""

    @classmethod
    def over(cls, world: World, step_m: float) -> Lattice:
        """Cells whose edges are multiples of ``step_m``."""
        low = np.floor(np.array(world.bounds[:2]) / step_m).astype(int)
        high = np.ceil(np.array(world.bounds[2:]) / step_m).astype(int)
        edges = tuple(float(v) for v in np.concatenate([low, high]) * step_m)
        x, y = ((np.arange(a, b) + 0.5) * step_m for a, b in zip(low, high, strict=True))
        return cls((edges[0], edges[1], edges[2], edges[3]), x, y)

    @property
    def points(self) -> NDArray[np.float64]:
        """(H * W, 2) centres, row by row."""
        return np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2)

    def image(self, values: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(H, W) values of the points chosen by ``where``, NaN elsewhere."""
        out = np.full(len(where), np.nan)
        out[where] = values
        return out.reshape(len(self.y), len(self.x))


def _value(task: AgvTask, world: World, policy: Path, shown: Drive) -> str:
    goal = np.asarray(shown.outcome["goal_w"])
    xmin, ymin, xmax, ymax = world.bounds
    step_m = max(0.2, float(np.sqrt((xmax - xmin) * (ymax - ymin) / HEAT_POINTS)))
    lattice = Lattice.over(world, step_m)
    free = world.clearance(lattice.points) >= task.robot.inscribed_m
    values = state_values(policy, task, world, goal, lattice.points[free])
    figure = draw_heat(
        lattice.image(values, free), lattice.bounds, "discounted return", boxes=world.boxes,
        discs=world.discs, path_w=shown.episode.arrays["pose_w"], goal_w=goal, colours="magma",
    )  # fmt: skip
    caption = (
        "The value head: the return that it expects from standing there, facing the guide point, "
        "with the goal of the drive shown."
    )
    return picture(figure, caption)


def _novelty(world: World, drives: Sequence[Drive], shown: Drive) -> list[str]:
    goal, path = np.asarray(shown.outcome["goal_w"]), shown.episode.arrays["pose_w"]
    lattice = Lattice.over(world, COUNT_CELL_M)
    inside = world.clearance(lattice.points) > 0
    captions = {
        "1/√visits": "Count bonus for going there next: what a curious learner would be paid.",
        "squared error": "RND bonus: low where the drives went, high where it has not been.",
    }
    parts = []
    for bonus, (label, caption) in zip(
        bonuses([drive.episode for drive in drives]), captions.items(), strict=True
    ):
        image = lattice.image(_ask(bonus, lattice.points[inside], goal), inside)
        figure = draw_heat(
            image, lattice.bounds, label, boxes=world.boxes, discs=world.discs, path_w=path,
            goal_w=goal,
        )  # fmt: skip
        parts.append(picture(figure, caption))
    return parts


def state_values(
    policy: Path,
    task: AgvTask,
    world: World,
    goal_w: NDArray[np.float64],
    xy_w: NDArray[np.float64],
) -> NDArray[np.float32]:
    """(K,) extrinsic value of standing still at (K, 2) positions, facing the guide point."""
    manifest, net = verify_policy(policy), load_policy(policy)
    config = ObservationConfig(**manifest["observation"]["config"])
    guide = Guide(task.config.guide_config, task.robot)
    guide.reset(0, goal_w, known=task.planning(world))
    pose = np.column_stack([xy_w, np.zeros(len(xy_w))])
    ahead = np.concatenate([guide.points(row[None]) for row in pose])
    pose[:, 2] = np.arctan2(*(ahead - xy_w).T[::-1])
    lidar, facing = pose.copy(), np.stack([np.cos(pose[:, 2]), np.sin(pose[:, 2])], axis=1)
    lidar[:, :2] += task.robot.lidar_x_m * facing
    bank = WorldBank()
    slot = np.full(len(pose), bank.add(world), np.int32)
    ranges = np.empty((len(pose), task.scan.beams), np.float32)
    cast(
        lidar, task.scan.angle_min, task.scan.angle_increment, bank.boxes, bank.nboxes, bank.discs,
        bank.ndiscs, slot, np.zeros((len(pose), 1, 3)), task.scan.range_max, ranges,
    )  # fmt: skip
    sectors = np.repeat(sector_min(ranges, task.scan, config)[:, None], config.frames, axis=1)
    still = np.zeros((len(pose), 2))
    obs = build(
        config, task.robot.limits, sectors=sectors, pose_w=pose,
        goal_w=np.repeat(goal_w[None], len(pose), axis=0), vel_b=still, last_command=still,
        guide_w=ahead if config.guide else None,
    )  # fmt: skip
    with torch.no_grad():
        value: NDArray[np.float32] = net.critic(net.normalize(torch.from_numpy(obs)))[:, 0].numpy()
    return value


def bonuses(episodes: Sequence[Episode]) -> tuple[IntrinsicReward, IntrinsicReward]:
    """A visit count and an RND bonus that have learned from the episodes."""
    counts = make("count", len(EXPLORE), 2, cell_m=COUNT_CELL_M)
    novelty = make("rnd", len(EXPLORE), 2, fourier_length_m=2.0, sample_fraction=1.0)
    rollouts = [_transitions(episode) for episode in episodes]
    for rollout in rollouts:
        counts.update(rollout)
    for _ in range(30):
        for rollout in rollouts:
            novelty.update(rollout)
    return counts, novelty


def _transitions(episode: Episode) -> Transition:
    """The episode as (T - 1, 1) transitions of the novelty state."""
    pose = episode.arrays["pose_w"]
    goal = np.broadcast_to(episode.attrs["attrs"]["goal_w"], (len(pose), 2))
    state = np.column_stack([pose, goal, np.zeros(len(pose))])[:, None]  # all in one layout
    end = np.zeros((len(pose) - 1, 1), bool)
    end[-1] = True
    command = episode.arrays["command"][1:, None]
    return Transition.from_numpy(state[:-1], command, state[1:], end, np.zeros_like(end))


def _ask(
    bonus: IntrinsicReward, xy_w: NDArray[np.float64], goal_w: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(K,) bonus for reaching (K, 2) positions next."""
    k = len(xy_w)
    rest = np.broadcast_to([0.0, *goal_w, 0.0], (k, 4))
    state = np.column_stack([xy_w, rest])[None]  # (1, K, 6): all at the same time
    none = np.zeros((1, k), bool)
    paid: NDArray[np.float32] = bonus.compute(
        Transition.from_numpy(state, np.zeros((1, k, 2)), state, none, none)
    ).numpy()[0]
    return paid


def training_curve(policy: Path) -> str:
    """Success and collisions over the training, from the curve beside the policy; "" without one.

    A run has ``curve.jsonl`` beside its policy, a shipped policy ``NAME.curve.json``, made by
    :func:`thin_curve`, which is left out if it is of another policy than the folder holds.
    """
    shipped, run = policy.parent / f"{policy.name}.curve.json", policy.parent / "curve.jsonl"
    if shipped.is_file():
        columns = json.loads(shipped.read_text())
        if columns["policy"] != verify_policy(policy)["manifest_sha256"]:
            return ""
    elif run.is_file():
        columns = thin_curve(run, policy)
    else:
        return ""
    curves = {
        name: (columns["steps"], 100 * np.asarray(columns[name], float))
        for name in ("success", "collision")
    }
    caption = "Goals reached and collisions among the last 100 episodes, with exploration noise."
    return picture(draw_curves(curves, "% of episodes"), caption)


def thin_curve(run: Path, policy: Path, points: int = 200) -> dict[str, Any]:
    """Columns steps, success and collision of a run's ``curve.jsonl``, and whose they are.

    A last line that is still being written is left out.
    """
    rows = [json.loads(line) for line in run.read_text().splitlines() if line.endswith("}")]
    keep = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), points)).astype(int))
    columns: dict[str, Any] = {"policy": verify_policy(policy)["manifest_sha256"]}
    for name in ("steps", "success", "collision"):
        columns[name] = [rows[i][name] for i in keep]
    return columns
