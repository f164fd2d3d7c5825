"""The long tasks themselves: success of their experts, strict beside weak, and their speed.

The weak predicate is what the public benchmark would have called success. The clumsy expert fails
as robots do, which shows how far the two are apart.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
import typer

from sim.manipulation.batch import ArmBatch
from sim.manipulation.expert import CLUMSY, Expert, ExpertConfig
from sim.manipulation.randomization import ARM_NOMINAL, ARM_TRAINING, ArmRandomization
from sim.manipulation.view import ArmView
from sim.tasks import ARM_TASKS, make_arm

from ..cli import JsonFile, emit
from ..recipes.train import machine
from ..stats import wilson

EXPERTS: dict[str, tuple[ExpertConfig, ArmRandomization]] = {
    "expert": (ExpertConfig(), ARM_NOMINAL),
    "expert, randomized": (ExpertConfig(), ARM_TRAINING),
    "clumsy": (CLUMSY, ARM_NOMINAL),
}
TARGET = 0.95
"""Least share of strict successes of the expert."""
AT_ONCE = 50
PIXELS = (64, 128)


def outcomes(task: str, expert: str, episodes: int) -> dict[str, Any]:
    """Episodes of one expert, one of each row of seed 0."""
    config, randomization = EXPERTS[expert]
    counts = {"strict": 0, "weak": 0, "lost": 0}
    lengths: list[int] = []
    for first in range(0, episodes, AT_ONCE):
        rows = min(AT_ONCE, episodes - first)
        batch = ArmBatch(make_arm(task), rows, 0, randomization, first_row=first)
        batch.reset()
        actor = Expert(batch, config, [0, first])
        running = np.ones(rows, np.bool_)
        while running.any():
            step = batch.step(actor.act())
            ended = running & (step.terminated | step.truncated)
            for name, term in (("strict", "success"), ("weak", "weak_success"), ("lost", "lost")):
                counts[name] += int(step.terms[term][ended].sum())
            lengths += step.terms["episode_length"][ended & step.terms["success"]].tolist()
            running &= ~ended
    shares = {
        name: {"share": count / episodes, "interval_95": wilson(count, episodes)}
        for name, count in counts.items()
    }
    middle = np.percentile(lengths, [5, 50, 95]).tolist() if lengths else None
    return shares | {"episodes": episodes, "steps_of_successes_5_50_95": middle}


def speeds(task: str, num_envs: int, steps: int) -> dict[str, float]:
    """Steps per CPU second of one thread under the expert, and images per CPU second."""
    batch = ArmBatch(make_arm(task), num_envs)
    batch.reset()
    expert = Expert(batch)
    spent = 0.0
    for _ in range(steps):
        action = expert.act()
        begun = time.process_time()
        batch.step(action)
        spent += time.process_time() - begun
    out = {"env_steps_per_cpu_s": num_envs * steps / spent}
    for side in PIXELS:
        view = ArmView(batch.task, side)
        view.images(batch)
        begun = time.process_time()
        count = view.images(batch).shape[0] * 2
        each = (time.process_time() - begun) / count
        out[f"images_{side}_per_cpu_s"] = 1 / each
        both = spent / (num_envs * steps) + 2 * each
        out[f"env_steps_with_two_images_{side}_per_cpu_s"] = 1 / both
        view.close()
    return {name: round(value, 1) for name, value in out.items()}


def manipulation(
    task: Annotated[list[str] | None, typer.Option(help="Tasks; all by default.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Of each expert and task.")] = 200,
    smoke: Annotated[bool, typer.Option("--smoke", help="Two short episodes of one task.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Strict success of the scripted experts, the weak predicate beside it, and speed."""
    tasks = (task or ["stack-cue"]) if smoke else (task or list(ARM_TASKS))
    if unknown := sorted(set(tasks) - set(ARM_TASKS)):
        raise typer.BadParameter(f"must be of {sorted(ARM_TASKS)}, got {unknown}")
    count = 2 if smoke else episodes
    result: dict[str, Any] = {}
    for name in tasks:
        result[name] = {expert: outcomes(name, expert, count) for expert in EXPERTS}
        result[name]["speed"] = speeds(name, *((2, 3) if smoke else (64, 100)))
    passed = {name: bool(r["expert"]["strict"]["share"] >= TARGET) for name, r in result.items()}
    emit(
        {
            "command": "bench manipulation", "machine": machine(), "seed": 0, "tasks": result,
            "targets": {"expert strict": TARGET}, "passed": passed,
        },
        json_file,
    )  # fmt: skip
    if not smoke and not all(passed.values()):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("manipulation")(manipulation)
