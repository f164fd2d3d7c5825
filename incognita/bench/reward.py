"""Score unseen clips of the table beside simple baselines, or a published RoboRewardBench.

A set holds rollouts that differ from training in one way; a cell of a set, clips of one kind. The
figure of a set is the mean over its cells of the mean absolute error in each.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from reward_vlm.backends import open_model
from reward_vlm.benchmark import read_split
from reward_vlm.model import Clip, Doubt, Judgement, RewardModel
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
from ..table_rl import ENVS, TASKS, Trained, table_env, train_ours

CLIPS = 3
"""Of each rollout."""
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
class Truth:
    """What is true of a clip."""

    label: int
    cell: str
    family: str
    labels: NDArray[np.int8]
    """(T,) at every frame."""


@dataclass(frozen=True)
class Example:
    """A clip with its truth."""

    clip: Clip
    truth: Truth


class Judge(Protocol):
    """A reward model or a baseline."""

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """One judgement of each clip."""
        ...


Judged = list[tuple[Truth, Judgement]]


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
            truth = Truth(
                int(labels[episode, i, k]), cell, told[i].family, labels[episode, i, : k + 1]
            )
            yield Example(Clip(words, {"side": frames}, 5.0), truth)


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
    judges: Mapping[str, Judge], items: Iterator[Example], total: int, note: str, batch: int = 32
) -> dict[str, Judged]:
    """Every example judged by every judge, in batches; the clips are not kept."""
    out: dict[str, Judged] = {name: [] for name in judges}
    shown = iter(track(items, f"{note:24}", total=total, console=console, transient=True))
    while some := list(islice(shown, batch)):
        for name, judge in judges.items():
            found = judge.judge([item.clip for item in some])
            out[name] += [(i.truth, j) for i, j in zip(some, found, strict=True)]
    return out


def figures(judged: Judged, doubt: Doubt | None = None) -> dict[str, Any]:
    """Errors of one model on one set; ``doubt`` says when the service would abstain."""
    errors: dict[str, list[float]] = {cell: [] for cell in CELLS}
    families: dict[str, list[float]] = {}
    for truth, judgement in judged:
        error = abs(judgement.score - truth.label)
        errors[truth.cell].append(error)
        families.setdefault(truth.family, []).append(error)
    labels = np.array([truth.label for truth, _ in judged])
    reasons = [(doubt or Doubt()).reason(j) for _, j in judged]
    return {
        "macro_mae": over_cells(errors),
        "cells": {
            k: {"mae": float(np.mean(v)) if v else None, "clips": len(v)} for k, v in errors.items()
        },
        "families": {k: float(np.mean(v)) for k, v in families.items()},
        "abstains": float(np.mean([reason is not None for reason in reasons])),
        **calibration(labels, [j for _, j in judged]), **ranking(labels, [j for _, j in judged]),
    }  # fmt: skip


def over_cells(errors: dict[str, list[float]]) -> float:
    """Macro-MAE over the cells that have clips."""
    return macro_mae({cell: values for cell, values in errors.items() if values})


def constant(judged: Judged) -> Judged:
    """The same clips, all given the one score that errs least on them."""

    def error(level: int) -> float:
        return over_cells(
            {c: [abs(level - t.label) for t, _ in judged if t.cell == c] for c in CELLS}
        )

    best = min(range(1, 6), key=error)
    return [(truth, _certain(best)) for truth, _ in judged]


class Ridge:
    """Least squares on how the last frame differs from the first, at 12 x 12 pixels."""

    def __init__(self, train: Rollouts, seed: int) -> None:
        rows, labels = [], []
        for example in examples(train, False, seed):
            rows.append(self._seen(example.clip))
            labels.append(example.truth.label)
        x, y = np.stack(rows), np.array(labels, np.float64)
        self._weights = np.linalg.solve(x.T @ x + 10.0 * np.eye(x.shape[1]), x.T @ y)

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """The nearest score."""
        return [
            _certain(int(np.clip(np.rint(self._seen(clip) @ self._weights), 1, 5)))
            for clip in clips
        ]

    @staticmethod
    def _seen(clip: Clip) -> NDArray[np.float64]:
        frames = next(iter(clip.views.values()))
        cell = frames.shape[1] // 12
        small = [
            frame[: 12 * cell, : 12 * cell].reshape(12, cell, 12, cell, 3).mean(axis=(1, 3)) / 255
            for frame in (frames[0], frames[-1])
        ]
        change = (small[1] - small[0]).ravel()
        return np.concatenate([change, np.abs(change), [1.0]])


def _certain(score: int) -> Judgement:
    return Judgement(np.eye(5)[score - 1], p_success=float(score == 5))


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
    judges = models | {"ridge": Ridge(load(data, *VAL), 0)}
    batch = min(model.info.max_batch for model in models.values())
    table: dict[str, Any] = {name: {} for name in (*judges, "constant")}
    for name, (sources, held_out) in SETS.items():
        seen: list[dict[str, Judged]] = []
        for seed in range(seeds):
            parts = [load(data / f"seed-{seed}", source) for source in sources]
            items = chain.from_iterable(examples(part, held_out, seed) for part in parts)
            total = CLIPS * sum(map(len, parts))
            seen.append(judge_all(judges, items, total, f"{name} {seed}", batch))
            seen[-1]["constant"] = constant(seen[-1]["model"])
        for label, row in table.items():
            doubt = models[label].info.doubt if label in models else None
            row[name] = _row([judged[label] for judged in seen], doubt)
    return table


def learned(task: str, smoke: bool) -> World:
    """Episodes of a policy that PPO learned half-way, from the truth (about 2 core-minutes)."""
    return PolicyWorld(table_env(TASKS[task], "none"), _half_learned(task, smoke).act)


@cache
def _half_learned(task: str, smoke: bool) -> Trained:
    t = TASKS[task]
    with console.status(f"learning to {task}"):
        return train_ours(t, "truth", 0, 3 * ENVS * t.steps if smoke else t.total // 2, None)


def _row(seeds: list[Judged], doubt: Doubt | None) -> dict[str, Any]:
    """One field of the table: all clips, and the spread over the seeds."""
    values = [figures(judged)["macro_mae"] for judged in seeds]
    low, high = bootstrap_interval(values, np.mean)
    return figures([pair for judged in seeds for pair in judged], doubt) | {
        "macro_mae": float(np.mean(values)), "seeds": values,
        "interval_95": [float(low), float(high)],
    }  # fmt: skip


def draw(model: RewardModel, rollouts: list[Rollouts], file: Path) -> None:
    """Two clips of every cell and world, in the order in which they come."""
    shown = []
    for part in rollouts:
        count = dict.fromkeys(CELLS, 2)
        for example in examples(part, False, 1):
            truth = example.truth
            if count[truth.cell]:
                count[truth.cell] -= 1
                judged = model.judge([example.clip])[0]
                shown.append(Shown(example.clip, judged, truth.labels, truth.cell))
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
