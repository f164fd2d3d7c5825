"""Score unseen clips of the table beside simple baselines, or a published RoboRewardBench.

A set holds rollouts that differ from training in one way; a cell of a set, clips of one kind. The
figure of a set is the mean over its cells of the mean absolute error in each.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from reward_vlm.backends import open_model
from reward_vlm.benchmark import read_split
from reward_vlm.model import Clip, Judgement, RewardModel
from reward_vlm.rubric import macro_mae
from sim.rollout import FRAMES, World
from sim.tabletop.world import PolicyWorld
from sim.words import say

from ..cli import JsonFile, console, emit
from ..recipes.reward_data import TRAINED, Rollouts, load, make
from ..recipes.train import machine
from ..reward_metrics import calibration, distribution_error, ranking
from ..reward_pictures import Shown, filmstrips
from ..stats import bootstrap_interval
from ..table_rl import ENVS, TASKS, table_env, train_ours

CELLS = ("original", "clip", "counterfactual", "failure")
"""Done as told; a beginning; another instruction on the same video; told and failed."""
SETS: dict[str, tuple[tuple[str, ...], bool]] = {
    "iid": (("iid", "iid_arena"), False), "combos": (("combos", "combos_arena"), False),
    "paraphrases": (("iid", "iid_arena"), True),
    "cameras": (("left", "right", "left_arena"), False), "family": (("family",), False),
    "policy": (tuple(f"policy_{task}" for task in TASKS), False),
}  # fmt: skip
"""Set -> sources of its rollouts, and whether the words are held out."""
VAL = ("val", "val_arena")
"""Where the ridge learns."""
TARGETS = {"iid": 0.30, "combos": 0.45, "paraphrases": 0.45, "cameras": 0.45}
FAMILY = 0.9
"""Reported beside that of the held-out family, and what blind baselines must not beat."""


@dataclass(frozen=True)
class Example:
    """A clip with its truth."""

    clip: Clip
    label: int
    cell: str
    family: str
    labels: NDArray[np.int8]
    """(T,) at every frame."""


def examples(rollouts: Rollouts, held_out: bool, seed: int) -> Iterator[Example]:
    """Clips of every cell that each rollout has: told or not, whole or a beginning.

    Counterfactuals are of families that were learned, or of the family that the robot was told.
    """
    labels, last = rollouts.labels, FRAMES - 1
    for episode, told in enumerate(rollouts.told):
        rng = np.random.default_rng([seed, episode, int(held_out)])
        own = int(rollouts.asked[episode])
        done = bool(labels[episode, own, last] == 5)
        picks = [("original" if done else "failure", own, last)]
        picks.append(("clip", own, int(rng.integers(3, last))))
        kin = [t.family in TRAINED or t.family == told[own].family for t in told]
        others = [i for i in np.flatnonzero(kin) if i != own]
        level = rng.choice(np.unique(labels[episode, others, last]))
        same = [i for i in others if labels[episode, i, last] == level]
        picks.append(("counterfactual", int(rng.choice(same)), last))
        for cell, i, k in picks:
            words = say(told[i], rng, held_out)
            frames = rollouts.images(episode, np.arange(k + 1))
            yield Example(
                Clip(words, {"side": frames}, 5.0), int(labels[episode, i, k]), cell,
                told[i].family, labels[episode, i, : k + 1],
            )  # fmt: skip


class Blind:
    """A model that sees grey images, or is told nothing; as it was trained (``blind=``)."""

    def __init__(self, model: RewardModel, what: str) -> None:
        if what not in ("video", "text"):
            raise typer.BadParameter(f"must be blind_video or blind_text, got blind_{what}")
        self.model, self.what, self.info = model, what, model.info

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """Without one half."""
        return self.model.judge([self._without(clip) for clip in clips])

    def _without(self, clip: Clip) -> Clip:
        if self.what == "text":
            return replace(clip, task="?")
        grey = {k: np.full_like(v, 128) for k, v in clip.views.items()}
        return replace(clip, views=grey)

    def ready(self) -> None:
        """As the model's."""
        self.model.ready()

    def close(self) -> None:
        """As the model's."""
        self.model.close()


def judge_all(
    model: RewardModel, items: Iterator[Example], total: int, note: str
) -> list[tuple[Example, Judgement]]:
    """Every example judged, in batches; of their clips only the task is kept."""
    out: list[tuple[Example, Judgement]] = []
    batch: list[Example] = []
    for item in track(items, f"{note:24}", total=total, console=console, transient=True):
        batch.append(item)
        if len(batch) == model.info.max_batch:
            out += zip(batch, model.judge([b.clip for b in batch]), strict=True)
            batch = []
    if batch:
        out += zip(batch, model.judge([b.clip for b in batch]), strict=True)
    return out


def figures(judged: list[tuple[Example, Judgement]]) -> dict[str, Any]:
    """Errors of one model on one set."""
    errors: dict[str, list[float]] = {cell: [] for cell in CELLS}
    families: dict[str, list[float]] = {}
    for example, judgement in judged:
        error = abs(judgement.score - example.label)
        errors[example.cell].append(error)
        families.setdefault(example.family, []).append(error)
    labels = np.array([example.label for example, _ in judged])
    return {
        "macro_mae": over_cells(errors),
        "cells": {
            k: {"mae": float(np.mean(v)) if v else None, "clips": len(v)} for k, v in errors.items()
        },
        "families": {k: float(np.mean(v)) for k, v in families.items()},
        "abstains": float(np.mean([_doubts(j) for _, j in judged])),
        **calibration(labels, [j for _, j in judged]), **ranking(labels, [j for _, j in judged]),
    }  # fmt: skip


def over_cells(errors: dict[str, list[float]]) -> float:
    """Macro-MAE over the cells that have clips."""
    return macro_mae({cell: values for cell, values in errors.items() if values})


def _doubts(judgement: Judgement) -> bool:
    return judgement.ood is not None and judgement.ood > 0.99


def constants(judged: list[tuple[Example, Judgement]]) -> float:
    """Macro-MAE of the best constant score, chosen on these very clips."""
    return min(
        over_cells({c: [abs(level - e.label) for e, _ in judged if e.cell == c] for c in CELLS})
        for level in range(1, 6)
    )


def ridge(train: Rollouts, seed: int) -> Callable[[Clip], float]:
    """Least squares on how the last frame differs from the first, at 12 x 12 pixels."""
    rows, labels = [], []
    for example in examples(train, False, seed):
        rows.append(_difference(example.clip))
        labels.append(example.label)
    x, y = np.stack(rows), np.array(labels, np.float64)
    weights = np.linalg.solve(x.T @ x + 10.0 * np.eye(x.shape[1]), x.T @ y)
    return lambda clip: float(np.clip(np.rint(_difference(clip) @ weights), 1, 5))


def _difference(clip: Clip) -> NDArray[np.float64]:
    frames = next(iter(clip.views.values()))
    cell = frames.shape[1] // 12
    small = [
        frame[: 12 * cell, : 12 * cell].reshape(12, cell, 12, cell, 3).mean(axis=(1, 3)) / 255
        for frame in (frames[0], frames[-1])
    ]
    change = (small[1] - small[0]).ravel()
    return np.concatenate([change, np.abs(change), [1.0]])


def run_table(
    models: dict[str, RewardModel], data: Path, rollouts: int, seeds: int, smoke: bool
) -> dict[str, Any]:
    """All models and baselines on all sets: ``table[model][set]``."""
    for seed in range(seeds):
        for source in sorted({name for names, _ in SETS.values() for name in names}):
            share = 0.3 if source.endswith("_arena") else 1.0
            world = None
            if source.startswith("policy_"):
                world = partial(learned, source.removeprefix("policy_"), smoke)
            make(source, int(rollouts * share), data / f"seed-{seed}", first=seed, world=world)
    for source in VAL:
        make(source, 24 if smoke else 400, data)
    guess = ridge(load(data, *VAL), 0)
    table: dict[str, Any] = {name: {} for name in (*models, "ridge", "constant")}
    for name, (sources, held_out) in SETS.items():
        per_seed = [
            _one_seed(models, guess, [load(data / f"seed-{seed}", s) for s in sources], held_out,
                      seed, name)
            for seed in range(seeds)
        ]  # fmt: skip
        for label in table:
            rows = [row[label] for row in per_seed]
            table[label][name] = _row(rows)
    return table


def learned(task: str, smoke: bool) -> World:
    """Episodes of a policy that PPO learned half-way, from the truth (about 2 core-minutes)."""
    t = TASKS[task]
    with console.status(f"learning to {task}"):
        policy = train_ours(t, "truth", 0, 3 * ENVS * t.steps if smoke else t.total // 2, None)
    return PolicyWorld(table_env(t, "none"), policy.act)


def _one_seed(
    models: dict[str, RewardModel], guess: Callable[[Clip], float], parts: list[Rollouts],
    held_out: bool, seed: int, name: str,
) -> dict[str, Any]:  # fmt: skip
    """Of each model what it judged, of each baseline its macro-MAE, on one set and seed."""
    out: dict[str, Any] = {}
    for label, model in models.items():
        out[label] = []
        for part in parts:
            items = examples(part, held_out, seed)
            found = judge_all(model, items, 3 * len(part), f"{label} {name}")
            out[label] += [(_light(example), judgement) for example, judgement in found]
    errors: dict[str, list[float]] = {cell: [] for cell in CELLS}
    for part in parts:
        for example in examples(part, held_out, seed):
            errors[example.cell].append(abs(guess(example.clip) - example.label))
    first: list[tuple[Example, Judgement]] = next(iter(out.values()))
    return out | {"ridge": over_cells(errors), "constant": constants(first)}


def _row(seeds: list[Any]) -> dict[str, Any]:
    """One field of the table from the seeds' results."""
    known = not isinstance(seeds[0], float)
    values = [figures(judged)["macro_mae"] for judged in seeds] if known else seeds
    low, high = bootstrap_interval(values, np.mean)
    row = {
        "macro_mae": float(np.mean(values)), "seeds": values,
        "interval_95": [float(low), float(high)],
    }  # fmt: skip
    return row | (figures([pair for judged in seeds for pair in judged]) if known else {}) | row


def _light(example: Example) -> Example:
    """Without its frames."""
    stub = np.zeros((1, 1, 1, 3), np.uint8)
    return Example(Clip(example.clip.task, {"side": stub}, 1.0), example.label, example.cell,
                   example.family, example.labels)  # fmt: skip


def draw(model: RewardModel, rollouts: list[Rollouts], file: Path) -> None:
    """Two clips of every cell and world, in the order in which they come."""
    shown = []
    for part in rollouts:
        count = dict.fromkeys(CELLS, 2)
        for example in examples(part, False, 1):
            if count[example.cell]:
                count[example.cell] -= 1
                judged = model.judge([example.clip])[0]
                shown.append(Shown(example.clip, judged, example.labels, example.cell))
    filmstrips(shown, file)


def published(model: RewardModel, folder: Path, split: str) -> dict[str, Any]:
    """Macro-MAE over the subsets of a published RoboRewardBench, by median, mean and mode."""
    errors: dict[str, dict[str, list[float]]] = {"median": {}, "mean": {}, "mode": {}}
    for item in track(list(read_split(folder, split)), "clips", console=console, transient=True):
        judgement = model.judge([item.clip(model.info.sampling)])[0]
        for rule, value in distribution_error(judgement, item.label).items():
            errors[rule].setdefault(item.subset, []).append(value)
    return {
        "command": "bench reward --published", "machine": machine(), "split": split,
        "model": model.info.name, "revision": model.info.revision,
        "preprocess_sha": model.info.preprocess_sha,
        "macro_mae": {rule: macro_mae(rows) for rule, rows in errors.items()},
        "subsets": {k: float(np.mean(v)) for k, v in errors["median"].items()},
    }  # fmt: skip


def bench_reward(
    model: Annotated[str, typer.Option(help="Model to score, as for `serve`.")] = "small",
    also: Annotated[
        list[str] | None, typer.Option(help="NAME=MODEL to score beside it, repeatable.")
    ] = None,
    rollouts: Annotated[int, typer.Option(min=12, help="Per source and seed.")] = 1000,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the rollouts.")] = 3,
    data: Annotated[
        Path | None, typer.Option(help="Folder that keeps the rollouts; default a temporary one.")
    ] = None,
    published_at: Annotated[
        Path | None, typer.Option("--published", help="RoboRewardBench folder to score instead.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of it.")] = "test",
    picture: Annotated[
        Path | None, typer.Option(help="PNG of some clips and what was believed of them.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="12 rollouts, one seed.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Macro-MAE on unseen combinations, words, cameras and families (about 1.5 core-hours)."""
    main = open_model(model)
    if published_at is not None:
        emit(published(main, published_at, split), json_file)
        return
    models = {"model": main}
    for pair in also or []:
        name, sign, spec = pair.partition("=")
        if not sign or name in models or name in ("ridge", "constant"):
            raise typer.BadParameter(f"must be NAME=MODEL, got {pair!r}", param_hint="--also")
        models[name] = open_model(spec)
        if name.startswith("blind"):
            models[name] = Blind(models[name], name.removeprefix("blind_"))
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        at = data or Path(folder)
        table = run_table(models, at, 12 if smoke else rollouts, 1 if smoke else seeds, smoke)
        if picture is not None:
            draw(main, [load(at / "seed-0", name) for name in SETS["iid"][0]], picture)
    passed = {name: table["model"][name]["macro_mae"] <= most for name, most in TARGETS.items()}
    iid = table["model"]["iid"]
    passed |= {
        "clips": all(c["clips"] >= 1000 for row in table["model"].values() for c in
                     row["cells"].values()),
        "ece": max(iid["ece"], iid["ece_success"]) <= 0.08, "auroc": iid["auroc"] >= 0.95,
        "false_positives": iid["fpr_at_tpr80"] <= 0.02,
    }  # fmt: skip
    blind = [name for name in models if name.startswith("blind")]
    passed |= {name: table[name]["iid"]["macro_mae"] >= FAMILY for name in blind}
    result = {
        "command": "bench reward", "machine": machine(), "model": model,
        "revision": main.info.revision, "preprocess_sha": main.info.preprocess_sha,
        "core_minutes": round((time.process_time() - begun) / 60, 2), "table": table,
        "targets": TARGETS | {"family_reported": FAMILY, "blind_at_least": FAMILY},
        "passed": passed,
    }  # fmt: skip
    emit(json.loads(json.dumps(result, default=float)), json_file)
    if not smoke and not all(passed.values()):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reward")(bench_reward)
