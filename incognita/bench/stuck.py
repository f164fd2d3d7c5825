"""The never-stuck suite: what users of public frontier explorers report, as worlds.

Explorers in the field end with frontiers left, try one that cannot be reached for ever, forget to
drive home, or spin. Every case must end by itself, in time, with the reason that is right for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import typer

from rnd_agv.dwa import DWA
from sim import worlds
from sim.batch import BatchEnv
from sim.worlds.world import WALL, Draft, World
from toponav.exploration import ExplorationConfig, Reason

from ..cli import JsonFile, emit
from ..explore import Disturb, Walk, explore_world
from ..recipes.train import machine

HOME_M = 0.6
"""A robot that ends this near to its start is home."""


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong elsewhere."""

    name: str
    about: str
    world: Callable[[], World]
    reasons: tuple[Reason, ...] = (Reason.COMPLETE,)
    """The right ones to end with."""
    coverage: float = 0.95
    """Least share of the floor within reach to be seen."""
    start_w: tuple[float, float, float] | None = None
    view_rad: float = 2 * np.pi
    limit_s: float = 900.0
    """Simulated time by which it must have ended."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of :class:`toponav.exploration.ExplorationConfig`."""
    disturb: Callable[[], Disturb] | None = None

    def run(self, seed: int = 0) -> Walk:
        """Explore."""
        config = ExplorationConfig(**self.options)
        return explore_world(
            self.world(), config, drive=DWA, start_w=self.start_w, view_rad=self.view_rad,
            limit_s=self.limit_s + 1, seed=seed, disturb=self.disturb and self.disturb(),
        )  # fmt: skip


def two_rooms(gap_m: float) -> World:
    """Two rooms of 6 m beside each other, joined by a gap."""
    draft = Draft(12.2, 6.0)
    draft.add(WALL, -0.1, -3.0, 0.1, -gap_m / 2)
    draft.add(WALL, -0.1, gap_m / 2, 0.1, 3.0)
    return draft.world("two-rooms", 0)


def closets() -> World:
    """A room with three closets, each behind a slit that a scan goes through and no robot."""
    draft = Draft(9.0, 8.0)
    for x in (-1.5, 1.5):
        draft.add(WALL, x - 0.1, 2.1, x + 0.1, 4.0)
    edges = [-4.5, *(x + side for x in (-3.0, 0.0, 3.0) for side in (-0.15, 0.15)), 4.5]
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        draft.add(WALL, low, 1.9, high, 2.1)
    return draft.world("closets", 0)


def hall() -> World:
    """An empty hall of 40 m: nothing in range for most of the way."""
    return Draft(40.0, 40.0).world("empty-hall", 0)


def flicker() -> Disturb:
    """Every other scan some beams look through the wall, as they do through glass."""
    rng = np.random.default_rng(0)

    def disturb(t_s: float, env: BatchEnv) -> None:
        at = np.array([2.5, 0.0])  # a pane in the middle of the room's right wall
        pose = env.state.pose_w[0]
        bearing = np.arctan2(*(at - pose[:2])[::-1]) - pose[2]
        off = (env.scan.angles - bearing + np.pi) % (2 * np.pi) - np.pi
        if rng.random() < 0.5:
            env.ranges[0, np.abs(off) < 0.15] = env.scan.range_max

    return disturb


def push() -> Disturb:
    """Somebody moves the robot by half a metre, or turns it round, every 15 s."""
    rng = np.random.default_rng(0)

    def disturb(t_s: float, env: BatchEnv) -> None:
        if t_s > 0 and round(t_s / 0.05) % 300 == 0:
            world = env.placements[0].world  # type: ignore[union-attr]
            pose = env.backend.pose_w[0].copy()
            for _ in range(50):
                to = pose + (*rng.uniform(-0.5, 0.5, 2), rng.uniform(-2, 2))
                if world.clearance(to[:2])[0] > env.robot.circumscribed_m:
                    env.backend.pose_w[0] = env.state.pose_w[0] = to
                    env.state.seen_pose_w[0] = to
                    break

    return disturb


CASES = (
    Case("rooms", "nothing goes wrong", lambda: worlds.rooms(1)),
    Case("unreachable", "three closets behind slits, seen into and never reached", closets,
         (Reason.UNREACHABLE,), start_w=(-3, -3, 0.5)),
    Case("narrow-gap", "a room behind a gap narrower than the robot", lambda: two_rooms(0.36),
         (Reason.UNREACHABLE,), start_w=(-4, 1, 0.0)),
    Case("wide-gap", "the same behind a door that it fits through", lambda: two_rooms(0.9),
         start_w=(-4, 1, 0.0)),
    Case("narrow-view", "a field of view of 90 degrees", lambda: worlds.rooms(2),
         view_rad=np.pi / 2),
    Case("open-hall", "40 m without anything in range", hall, start_w=(0, 0, 0.3),
         limit_s=1500.0),
    Case("facing-wall", "a start before a wall, seeing 90 degrees", lambda: two_rooms(0.9),
         start_w=(-5.6, 0.0, np.pi), view_rad=np.pi / 2),
    Case("home", "the way home through a cave", lambda: worlds.cave(1)),
    Case("flicker", "a frontier that comes and goes", lambda: Draft(5.0, 5.0).world("room", 0),
         (Reason.COMPLETE, Reason.UNREACHABLE), start_w=(-1, 0, 0.0), disturb=flicker),
    Case("pushed", "a robot that is moved by hand", lambda: worlds.rooms(3), disturb=push),
    Case("boxed-in", "a start from which nothing can be driven to", lambda: boxed_in(),
         (Reason.STUCK, Reason.UNREACHABLE), coverage=0.0, start_w=(0, 0, 0.0)),
    Case("budget", "too little time for all of it", lambda: worlds.rooms(1), (Reason.BUDGET,),
         coverage=0.0, limit_s=60.0, options={"max_time_s": 50.0}),
)  # fmt: skip
"""All cases."""


def boxed_in() -> World:
    """A robot between four crates, with slits that it sees through."""
    draft = Draft(8.0, 8.0)
    for x, y in ((-0.8, 0), (0.8, 0), (0, -0.8), (0, 0.8)):
        draft.add(WALL, x - 0.3, y - 0.3, x + 0.3, y + 0.3)
    return draft.world("boxed-in", 0)


def judge(case: Case, walk: Walk) -> dict[str, Any]:
    """A line of the result: what came out and what is wrong with it."""
    reason = walk.mind.reason
    wrong = []
    if walk.time_s > case.limit_s or reason is None:
        wrong.append(f"not over after {walk.time_s:.0f} s")
    elif reason not in case.reasons:
        wrong.append(f"ended as {reason}, not {' or '.join(case.reasons)}")
    if walk.coverage < case.coverage:
        wrong.append(f"saw {walk.coverage:.0%} of the floor")
    if walk.home_m > HOME_M:
        wrong.append(f"ended {walk.home_m:.1f} m from home")
    return {
        "case": case.name, "about": case.about, "reason": reason, "time_s": round(walk.time_s, 1),
        "driven_m": round(walk.mind.driven_m, 1), "coverage": round(walk.coverage, 4),
        "home_m": round(walk.home_m, 2), "given_up": len(walk.mind.given_up), "wrong": wrong,
    }  # fmt: skip


def stuck(
    cases: Annotated[list[str] | None, typer.Option("--case", help="Only these.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Noise and random starts.")] = 1,
    smoke: Annotated[bool, typer.Option("--smoke", help="Two cases.")] = False,
    json_file: JsonFile = None,
) -> None:
    """The never-stuck suite: every exploration ends, for the right reason (0.1 core-hours)."""
    names = {case.name: case for case in CASES}
    wanted = cases or (["facing-wall", "budget"] if smoke else list(names))
    if unknown := sorted(set(wanted) - set(names)):
        raise typer.BadParameter(f"must be of {', '.join(names)}, got {', '.join(unknown)}")
    lines = []
    for name in wanted:
        for seed in range(seeds):
            line = {"seed": seed} | judge(names[name], names[name].run(seed))
            print(json.dumps(line), flush=True)
            lines.append(line)
    failed = sum(bool(line["wrong"]) for line in lines)
    emit(
        {"command": "bench stuck", "machine": machine(), "cases": lines, "failed": failed,
         "passed": failed == 0}, json_file,
    )  # fmt: skip
    if failed:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stuck")(stuck)
