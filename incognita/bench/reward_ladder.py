"""Does a smaller error on clips mean more success in training? Checkpoints of one reward model.

RoboReward reports r = .83 between offline error and the success of policies trained on the rewards
(arXiv 2601.00675). Here: models that ``incognita train reward`` wrote on its way, each scored on
unseen clips and each used as the reward of the same trainings.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from reward_vlm.backends.small import SmallModel
from reward_vlm.local import LocalScores

from ..cli import JsonFile, console, emit
from ..recipes.reward_data import load, make
from ..recipes.train import machine
from ..stats import bootstrap_interval
from ..table_rl import ENVS, TASKS, success_of, train_ours
from .reward import CLIPS, SETS, examples, figures, judge_all

LEAST, TARGET = 12, 0.6
"""Models wanted, and the correlation."""


def correlation(rows: NDArray[np.float64], axis: int = 0) -> Any:
    """Pearson's r of the two columns of (..., S, 2), seeds along ``axis``; 0 where one is flat."""
    centred = rows - rows.mean(axis=axis, keepdims=True)
    x, y = centred[..., 0], centred[..., 1]
    size = np.sqrt((x**2).sum(axis=axis) * (y**2).sum(axis=axis))
    return np.divide((x * y).sum(axis=axis), size, out=np.zeros_like(size), where=size > 0)


def error_of(model: SmallModel, data: Path) -> float:
    """Macro-MAE on the clips of the set ``iid``."""
    rollouts = load(data, *SETS["iid"][0])
    found = judge_all({"": model}, examples(rollouts, False, 0), CLIPS * len(rollouts), "iid")
    return float(figures(found[""])["macro_mae"])


def bench_ladder(
    ladder: Annotated[Path, typer.Argument(help="Folder of models: RUN/ladder of a training.")],
    task: Annotated[str, typer.Option(help="touch or push.")] = "touch",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings with each model.")] = 3,
    rollouts: Annotated[int, typer.Option(min=12, help="Of each world, for the error.")] = 300,
    episodes: Annotated[int, typer.Option(min=1, help="Of each evaluation.")] = 100,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Pearson's r between -MAE and true success over checkpoints (about 2 core-hours)."""
    if task not in TASKS:
        raise typer.BadParameter(f"must be of {', '.join(TASKS)}, got {task!r}", param_hint="task")
    folders = sorted(p for p in ladder.iterdir() if p.is_dir())
    t, rows, begun = TASKS[task], list[dict[str, Any]](), time.process_time()
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        for source in SETS["iid"][0]:
            make(source, 12 if smoke else rollouts, data)
        for folder in track(folders, "models", console=console):
            model = SmallModel(folder)
            wins = []
            for seed in range(1 if smoke else seeds):
                total = 3 * ENVS * t.steps if smoke else t.total
                trained = train_ours(t, "server", seed, total, LocalScores(model))
                wins.append(success_of(trained.act, t, 2 if smoke else episodes))
            rows.append({
                "model": folder.name, "revision": model.info.revision,
                "macro_mae": error_of(model, data), "success": wins,
            })  # fmt: skip
            console.print(rows[-1])
    pairs = np.array([(-row["macro_mae"], np.mean(row["success"])) for row in rows])
    low, high = bootstrap_interval(pairs, correlation)
    r = float(correlation(pairs))
    result = {
        "command": "bench reward-ladder", "machine": machine(), "task": task,
        "core_minutes": round((time.process_time() - begun) / 60, 1), "pearson_r": r,
        "interval_95": [float(low), float(high)], "models": rows,
        "passed": {"models": len(rows) >= LEAST, "pearson_r": r >= TARGET},
    }  # fmt: skip
    emit(result, json_file)
    if not smoke and not all(result["passed"].values()):  # type: ignore[attr-defined]
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reward-ladder")(bench_ladder)
