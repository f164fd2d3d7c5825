"""Train the small contrastive scorer of a long task from renderings, and calibrate its stages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from evovla import tiny_scorer
from evovla.scorer import Images
from evovla.stage_metrics import calibrate, diagnose
from evovla.stages import StageDictionary, save
from evovla.tiny_scorer import TinyConfig, TinyContrastive
from evovla.tiny_training import TinyTrainer, TinyTraining
from evovla.triplets import Triplets, scores
from learning import checkpoint
from sim.tasks import ARM_TASKS, make_arm

from ..stage_env import STAGES_FILE, dictionary_of
from .evovla_frames import Mix, load, record
from .train import _cut_curve, git_revision, open_run, progress

TRAIN_SEED, CALIBRATION_SEED = 30_000, 40_000
"""Of the episodes played; tests draw theirs elsewhere."""
RARE = 20
"""A stage with fewer frames done, or not done, than this keeps the default calibration."""


@dataclass(frozen=True)
class ScorerRecipe:
    """A training job of the small scorer."""

    name: str = "evovla-scorer"
    task: str = "stack"
    """Name in :data:`sim.tasks.ARM_TASKS`."""
    about: str = "the small image-text scorer of stages, from renderings of the scripted expert"
    mix: Mix = Mix(skilled=120, clumsy=120, near=12)
    """Episodes to learn from,"""
    calibration: Mix = Mix(skilled=30, clumsy=30, near=3)
    """... and to calibrate on."""
    every: int = 2
    """Every so many frames are kept; neighbours look alike."""
    net: TinyConfig = TinyConfig()
    training: TinyTraining = TinyTraining()
    precision: float = 0.9
    """Share of claims that is to be right on the frames of calibration, where that leaves"""
    recall: float = 0.6
    """... so many of the frames that are done."""
    checkpoint_every: int = 250
    device: str = "cpu"
    """Of the training, as torch names it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in ARM_TASKS:
            raise ValueError(f"task must be one of {sorted(ARM_TASKS)}, got {self.task!r}")
        if min(self.every, self.checkpoint_every) < 1:
            raise ValueError(f"every and checkpoint_every must be >= 1, got {self}")
        if not (0 < self.precision < 1 and 0 < self.recall < 1):
            raise ValueError(f"precision and recall must be in (0, 1), got {self}")

    @property
    def steps(self) -> int:
        """Of the optimizer."""
        return self.training.steps


SCORER = ScorerRecipe()


def train_scorer(
    recipe: ScorerRecipe, folder: str | Path, *, resume: bool = False,
    console: Console | None = None, quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train ``recipe`` into ``folder``: episodes in ``data/``, checkpoints, curve, ``scorer/``.

    ``scorer/`` holds the net and its calibrated stages, see :func:`incognita.stage_env.open_judge`.

    Args:
        resume: keep the episodes and go on from the newest checkpoint in the folder.

    Raises:
        KeyboardInterrupt: Ctrl-C; episodes played and the last checkpoint are kept.
        FileExistsError: the folder holds a run already and ``resume`` is off.
    """
    torch.set_num_threads(1)
    out = open_run(folder, recipe, resume)
    began, revision = time.time(), git_revision()
    task = make_arm(recipe.task)
    words = dictionary_of(task)
    with progress(console, quiet) as bar:
        for name, mix, seed in (
            ("train", recipe.mix, TRAIN_SEED), ("calibration", recipe.calibration, CALIBRATION_SEED)
        ):  # fmt: skip
            total = mix.total(len(task.picks))
            job = bar.add_task(f"{recipe.name} {name}", total=total, note="episodes")
            record(
                out / "data" / name, task, mix, seed + 1000 * recipe.seed, recipe.net.side,
                recipe.every, lambda n, job=job: bar.update(job, completed=n),  # type: ignore[misc]
            )  # fmt: skip
        job = bar.add_task(recipe.name, total=recipe.training.steps, note="steps")

        def show(step: int, loss: float) -> None:
            bar.update(job, completed=step, note=f"loss {loss:.3f}")

        net = _fit(recipe, words, out, show)
    stages, found = _calibrated(recipe, words, net, out)
    about = {"recipe": asdict(recipe), "git_revision": revision, "calibration": found}
    tiny_scorer.save(out / "scorer", net, about)
    save(out / "scorer" / STAGES_FILE, stages)
    result: dict[str, Any] = {
        "recipe": recipe.name, "seed": recipe.seed, "train_wall_s": time.time() - began, **found
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _fit(
    recipe: ScorerRecipe, words: StageDictionary, out: Path, show: Callable[[int, float], None]
) -> TinyContrastive:
    """Train, or go on, with a checkpoint now and then."""
    frames, _ = load(out / "data" / "train")
    torch.manual_seed(recipe.seed)
    net = TinyContrastive(recipe.net)
    trainer = TinyTrainer(net, words, recipe.training, recipe.device)
    curve = out / "curve.jsonl"
    if (out / "checkpoints").exists():
        trainer.load_state_dict(checkpoint.load(out / "checkpoints"))
        _cut_curve(curve, trainer.taken)

    def log(step: int, metrics: dict[str, float]) -> None:
        with curve.open("a") as file:
            file.write(json.dumps({"steps": step, **metrics}) + "\n")
        checkpoint.save(out / "checkpoints", trainer.state_dict())
        show(step, metrics["loss"])

    trainer.fit(frames, log, recipe.checkpoint_every)
    return net.cpu().eval()


def _calibrated(
    recipe: ScorerRecipe, words: StageDictionary, net: TinyContrastive, out: Path
) -> tuple[StageDictionary, dict[str, Any]]:
    """The dictionary with temperatures and thresholds, and how well they do on those frames.

    A stage is calibrated on the frames in which it is worked on or has just been done: there it is
    the active one, and nothing else is asked.
    """
    frames, stage = load(out / "data" / "calibration")
    gaps = gaps_of(net, words, frames.images, recipe.training.hard)
    k = words.num_stages
    tau, theta = np.full(k, recipe.training.tau), np.full(k, 0.7)
    for i in range(k):
        rows = (stage == i) | (stage == i + 1)
        done = frames.done[rows, i]
        if min(int(done.sum()), int((~done).sum())) < RARE:
            continue
        found = calibrate(
            gaps[rows, i : i + 1], done[:, None], recipe.precision, recipe.recall
        )  # fmt: skip
        tau[i], theta[i] = found[0][0], found[1][0]
    active = np.minimum(stage, k - 1)
    rows = np.arange(len(stage))
    score = scores(gaps[rows, active], tau[active])
    told = diagnose(score, frames.done[rows, active], np.zeros(len(rows)), theta[active])
    figures = {"frames": told.steps, "hallucination_frame": told.rate, "recall": told.recall,
               "ece": told.ece}  # fmt: skip
    return words.calibrated(tau.tolist(), theta.tolist()), figures


def gaps_of(
    net: TinyContrastive, words: StageDictionary, images: Images, hard: bool
) -> NDArray[np.float64]:
    """(M, K) gaps of frames (M, V, H, W, 3)."""
    triplets = Triplets(words, hard)
    return triplets.gaps(net.similarities(images, triplets.texts))
