"""How far a scorer's stages can be believed on unseen episodes, with and without hard negatives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from evovla.stage_metrics import agreement, diagnose
from evovla.stage_reward import StageRewardConfig, StageTracker
from evovla.stages import StageDictionary
from evovla.stages import load as load_stages
from evovla.tiny_scorer import TinyConfig, TinyContrastive
from evovla.tiny_scorer import load as load_tiny
from evovla.tiny_training import TinyTraining
from sim.manipulation.episodes import Episode, demonstrations
from sim.manipulation.expert import CLUMSY, NEAR_MISSES, ExpertConfig
from sim.manipulation.randomization import ARM_TRAINING
from sim.manipulation.task import ArmTask
from sim.tasks import make_arm

from ..cli import JsonFile, console, emit
from ..recipes.evovla_frames import Mix
from ..recipes.evovla_scorer import SCORER, ScorerRecipe, gaps_of, train_scorer
from ..recipes.train import machine
from ..stage_env import STAGES_FILE
from ..stats import share_interval

SEED = 50_000
"""Of the first kind of test episodes; trainings of scorers draw theirs below."""
EXACT, WITHIN_ONE = 0.85, 0.97
CUT, HALLUCINATION, RECALL = 0.20, 0.148, 0.6
"""Points of hallucination that hard negatives are to take away, most that may be left, and the
recall that this must not cost."""
SMOKE = ScorerRecipe(
    mix=Mix(1, 0, 0), calibration=Mix(1, 0, 0), every=8, checkpoint_every=2,
    net=TinyConfig(side=16, channels=8, maps=4, width=16, text_width=8),
    training=TinyTraining(steps=2, batch=4),
)  # fmt: skip


def scorer(root: Path, hard: bool, recipe: ScorerRecipe) -> tuple[TinyContrastive, StageDictionary]:
    """The scorer in a folder below ``root``, trained there if it is not yet."""
    folder = root / ("hard" if hard else "soft")
    if not (folder / "result.json").exists():
        job = replace(recipe, training=replace(recipe.training, hard=hard))
        train_scorer(job, folder, resume=folder.exists(), console=console)
    return load_tiny(folder / "scorer")[0], load_stages(folder / "scorer" / STAGES_FILE)


def unseen(task: ArmTask, count: int, side: int) -> Iterator[tuple[str, Episode]]:
    """Kind and episode: ``count`` each of the expert, of the clumsy one, and of each near miss."""
    kinds: list[tuple[str, ExpertConfig, str | None, int]] = [
        ("demonstration", ExpertConfig(), None, 0), ("clumsy", CLUMSY, None, 0)
    ]  # fmt: skip
    kinds += [
        ("near miss", ExpertConfig(), miss, pick)
        for miss in NEAR_MISSES for pick in range(len(task.picks))
    ]  # fmt: skip
    for i, (kind, skill, miss, pick) in enumerate(kinds):
        few = count if miss is None else max(1, count // 8)
        for episode in demonstrations(
            task, few, SEED + i, side, ARM_TRAINING, skill, miss, pick, at_once=10
        ):
            yield kind, episode


class Followed:
    """What a tracker made of episodes, one after another.

    Args:
        net, words: the scorer and its calibrated stages.
        hard: whether hard negatives are in its triplets.
        config: of the tracker.
    """

    def __init__(
        self, net: TinyContrastive, words: StageDictionary, hard: bool, config: StageRewardConfig
    ) -> None:
        self.net, self.words, self.hard, self.config = net, words, hard, config
        self.believed: dict[str, list[NDArray[np.int64]]] = {}
        self.true: dict[str, list[NDArray[np.int64]]] = {}
        self.ahead: dict[str, list[bool]] = {}
        """Of each episode, whether the tracker ever believed a stage that was never reached."""
        self.counts: list[tuple[int, int, int, int]] = []
        """Of each episode: claims, false ones, frames done, of them claimed."""
        self._raw: list[tuple[float, float, bool, float]] = []

    def add(self, kind: str, episode: Episode) -> None:
        """Follow one episode."""
        assert episode.images is not None
        gaps = gaps_of(self.net, self.words, episode.images, self.hard)
        tracker = StageTracker(self.words, 1, self.config)
        tracker.reset(gaps[:1])
        off, k = np.zeros(1, np.bool_), self.words.num_stages
        believed, counts = [0], np.zeros(4, np.int64)
        for t in range(1, len(gaps)):
            told = tracker.step(gaps[t : t + 1], off, off)
            stage = int(told.active[0])
            done, limit = bool(episode.events[t, stage]), float(tracker.theta[stage])
            claim = bool(told.score[0] > limit)
            counts += (claim, claim and not done, done, claim and done)
            self._raw.append((float(told.raw[0]), float(told.score[0]), done, limit))
            believed.append(int(told.stage[0]))
        true = episode.stage.astype(np.int64)
        self.believed.setdefault(kind, []).append(np.array(believed))
        self.true.setdefault(kind, []).append(true)
        furthest = max(int(true.max()), episode.final_stage)
        self.ahead.setdefault(kind, []).append(min(max(believed), k) > furthest)
        self.counts.append((counts[0], counts[1], counts[2], counts[3]))

    def summary(self) -> dict[str, Any]:
        """Figures over all episodes, and of each kind."""
        raw, score, done, limit = (np.array(x) for x in zip(*self._raw, strict=True))
        frame, smooth = (diagnose(u, done, np.zeros(len(u)), limit) for u in (raw, score))
        claims, false = np.array(self.counts)[:, 0], np.array(self.counts)[:, 1]
        kinds = {}
        for kind, believed in self.believed.items():
            found = agreement(believed, self.true[kind])
            kinds[kind] = {
                "episodes": len(believed), "exact": found.exact, "within_one": found.within_one,
                "believed_too_far": sum(self.ahead[kind]),
            }  # fmt: skip
        return {
            "hallucination": smooth.rate, "hallucination_95": share_interval(false, claims),
            "recall": smooth.recall, "proxy": smooth.proxy, "ece": smooth.ece,
            "hallucination_frame": frame.rate, "recall_frame": frame.recall,
            "claims": smooth.claimed, "kinds": kinds,
        }  # fmt: skip


def bench_stages(
    task: Annotated[str, typer.Option(help="A long task.")] = "stack",
    episodes: Annotated[int, typer.Option(min=1, help="Of each kind; an eighth of misses.")] = 40,
    keep: Annotated[
        Path | None, typer.Option(help="Folder of the two scorers; trained there if missing.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of the training.")] = "cpu",
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny scorers, one episode.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Exact stage, near misses and hallucination on unseen episodes (2 core-hours to train)."""
    recipe = replace(SMOKE if smoke else SCORER, task=task, device=device)
    scene = make_arm(task, max_steps=24) if smoke else make_arm(task)
    began, config = time.process_time(), StageRewardConfig()
    with TemporaryDirectory() as folder:
        root = keep or Path(folder)
        found = {hard: scorer(root, hard, recipe) for hard in (False, True)}
    followers = {
        "soft": Followed(*found[False], False, config),
        "hard": Followed(*found[True], True, config),
        "hard, not smoothed": Followed(*found[True], True, replace(config, alpha=1.0, hold=1)),
    }  # fmt: skip
    for kind, episode in unseen(scene, 1 if smoke else episodes, recipe.net.side):
        for follower in followers.values():
            follower.add(kind, episode)
    table = {name: follower.summary() for name, follower in followers.items()}
    result = {
        "command": "bench evovla-stages", "machine": machine(), "task": task, "table": table,
        "passed": passed(table), "core_s": round(time.process_time() - began, 1),
    }  # fmt: skip
    emit(result, json_file)
    if not smoke and not all(result["passed"].values()):  # type: ignore[attr-defined]
        raise typer.Exit(1)


def passed(table: dict[str, Any]) -> dict[str, bool]:
    """What was to be shown; a rate of nothing is no pass."""
    hard, soft = table["hard"], table["soft"]
    shown = hard["kinds"]["demonstration"]
    return {
        "exact": shown["exact"] >= EXACT,
        "within one": shown["within_one"] >= WITHIN_ONE,
        "near misses": hard["kinds"]["near miss"]["believed_too_far"] == 0,
        "hard negatives": soft["hallucination_frame"] - hard["hallucination_frame"] >= CUT,
        "hallucination": hard["hallucination"] <= HALLUCINATION and hard["recall"] >= RECALL,
    }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evovla-stages")(bench_stages)
