"""A robot that is never switched off: explore, then patrol while doors open and close."""

from __future__ import annotations

import gc
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from sim.tasks.lifelong import floor
from toponav.exploration import Exploration, ExplorationConfig
from toponav.navigation import Navigation
from toponav.tracker import Tracker

from .stage import Stage

SIZE_M = (44.0, 30.0)
MINUTES = 10
"""Memory is compared with what it was after so many."""
STATES = 8
"""States of the doors, made before the start: the simulator keeps every world that it was given."""
CHANGE_S = 60.0
"""The doors change this often."""
GOALS = 16
"""Stations of the patrol."""
KEEP_M = 0.8
"""No door is shut on a robot this near."""
DRIFT = 0.03


@dataclass
class Soak:
    """What was measured at the start and once a simulated minute."""

    memory: list[int] = field(default_factory=list)
    """Resident, bytes."""
    nodes: list[int] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    scans: list[int] = field(default_factory=list)
    driven_m: float = 0.0
    reached: int = 0
    """Goals."""
    missed: int = 0
    changed: int = 0
    """Times that doors changed."""
    lost: int = 0
    """Times that the robot was lost and found itself again."""

    def note(self, mind: Exploration) -> None:
        """Take the minute's measurements."""
        gc.collect()
        self.memory.append(resident_bytes())
        self.nodes.append(len(mind.graph))
        self.edges.append(sum(1 for _ in mind.graph.edges()))
        assert mind.tracker is not None
        self.scans.append(len(mind.tracker.localizer))


def resident_bytes() -> int:
    """Resident memory of this process, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(
    seed: int, minutes: int, size_m: tuple[float, float] = SIZE_M, console: Console | None = None
) -> Soak:
    """Run for so many simulated minutes on a floor of this size."""
    plan, rng = floor(seed, size_m), np.random.default_rng([seed, 3])
    stations = plan.free_points(rng, GOALS, 0.5)
    states = [plan] + [plan.shut_some(rng, 0.2, stations, 0.3)[0] for _ in range(STATES - 1)]
    stage = Stage(plan, np.array([*stations[0], 0.0]), DRIFT, seed)
    config = ExplorationConfig(
        radius_m=stage.task.robot.inscribed_m + 0.05, return_home=False, lost_s=math.inf
    )
    mind: Exploration = Exploration(config, tracker=Tracker())
    out, state = Soak(), 0

    def watch(now: Stage) -> bool:
        nonlocal state
        if now.t_s >= 60.0 * len(out.memory):
            out.note(mind)
            if console is not None:
                console.print(f"{len(out.memory) - 1} min: {out.memory[-1] / 2**20:.1f} MiB, "
                              f"{out.nodes[-1]} nodes, {now.driven_m:.0f} m")  # fmt: skip
        exploring = not isinstance(mind, Navigation)
        if not exploring and now.t_s >= CHANGE_S * (out.changed + 1) + begun_s:
            after = states[(state + 1) % STATES]
            if after.clearance(now.pose_w[None, :2])[0] > KEEP_M / 2:
                state, out.changed = (state + 1) % STATES, out.changed + 1
                now.change(after)
        return now.t_s >= 60.0 * minutes

    begun_s = 0.0
    stage.run(mind, 60.0 * minutes, watch)
    assert mind.map is not None
    tracker = mind.tracker
    begun_s, mind = stage.t_s, Navigation(mind.graph, mind.map, config, mind.tracker)
    mind.graph.resume(stage.t_s)
    mind.go(stations, patrol=True)
    stage.run(mind, 60.0 * minutes - stage.t_s, watch)
    out.note(mind)
    out.driven_m, out.reached, out.missed = stage.driven_m, mind.arrivals, mind.misses
    out.lost = 0 if tracker is None else tracker.answers
    return out
