"""Steps per second in a 60-box maze: both tiers against Gymnasium's vector environments."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from sim.batch import BatchEnv, Tier

from ..cli import JsonFile
from .maze import PLAIN, MazeTask, maze_envs, scan_every_step
from .paired import Report, Seeds, Smoke, Timing, alternate

BASE_ENVS = 16


def ours(tier: Tier, n: int, steps: int, seed: int) -> Callable[[], int]:
    """Work: ``steps`` steps of ``n`` robots of ours under random actions."""
    env = BatchEnv(MazeTask(seed), n, tier, seed, PLAIN, threads=os.cpu_count() or 1)
    env.reset()
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (steps, n, 2)).astype(np.float32)

    def work() -> int:
        with scan_every_step():
            for action in actions:
                env.step(action)
        return steps * n

    return work


def gymnasium_steps(
    env: SyncVectorEnv | AsyncVectorEnv, steps: int, seed: int
) -> Callable[[], int]:
    """Work: ``steps`` steps of a Gymnasium vector environment under random actions."""
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (steps, env.num_envs, 2)).astype(np.float32)

    def work() -> int:
        for action in actions:
            env.step(action)
        return steps * env.num_envs

    return work


def nav(
    kinematic: Annotated[bool, typer.Option("--kinematic", help="Tier K, 1024 robots.")] = False,
    seeds: Seeds = 3,
    smoke: Smoke = False,
    json_file: JsonFile = None,
) -> None:
    """60-box maze, 64 rays, against AsyncVectorEnv(16) or SyncVectorEnv (about 0.1 core-hours)."""
    rounds = 2 if smoke else 7
    flag = " --kinematic" if kinematic else ""
    about = (
        "60-box maze, AGV with two driven wheels and casters, 64 rays and one observation a step, "
        "control 20 Hz, random actions, automatic resets. Baseline: a gymnasium.Env of one "
        "mj_step(nstep=10) and one mj_multiRay. "
        + ("Ours: tier K, 5 substeps of 10 ms, contacts slide." if kinematic else
           "Ours: tier M, 10 substeps of 5 ms, all contacts.")
    )  # fmt: skip
    report = Report(f"nav{flag} --seeds {seeds}", seeds, about)
    timings: dict[str, Timing] = {}
    name = "ours K 1024" if kinematic else "ours M 256"
    for seed in range(seeds):
        sync = SyncVectorEnv(maze_envs(BASE_ENVS, seed))
        steps = 20 if smoke else 200
        works = {"SyncVectorEnv 16": gymnasium_steps(sync, steps, seed)}
        if kinematic:
            works[name] = ours("kinematic", 64 if smoke else 1024, 20 if smoke else 300, seed)
            alternate(works, rounds, seed, timings)
        else:
            works[name] = ours("mujoco", 16 if smoke else 256, 10 if smoke else 80, seed)
            parallel = AsyncVectorEnv(maze_envs(BASE_ENVS, seed))
            works["AsyncVectorEnv 16"] = gymnasium_steps(parallel, steps, seed)
            alternate(works, rounds, seed, timings)
            parallel.close()
        sync.close()
    report.timings(timings, "environment step")
    if kinematic:
        report.ratio("SyncVectorEnv 16", name, timings, 80.0, "cpu")
    else:
        report.ratio("AsyncVectorEnv 16", name, timings, 3.5, "wall")
        report.ratio("SyncVectorEnv 16", name, timings)
    report.finish(json_file, smoke)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("nav")(nav)
