"""Train the explorer's meta-controller: label states, fit the Q-network, improve it, write it.

The network learns, from candidates tried on many maps (``explorer_data.py``), what each costs:
the Q-values of the classical explorer, whose greedy policy is at least as good (policy improvement,
Sutton & Barto 2018, section 4.2). What cannot be known from the map so far averages out.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from learning import checkpoint
from learning.policy_file import write_policy_file
from sim.dungeon import DungeonMap, draw
from sim.dungeon import load as load_map
from toponav.explorers import Utility
from toponav.meta import OBSERVATION, MetaConfig, MetaExplorer
from toponav.meta_features import NAMES
from toponav.meta_net import MetaNet, padded

from .explorer_data import Labelled, labelled, load, save
from .explorer_improve import policy_labels
from .train import git_revision, open_run, progress

DRAWN_FROM = 1_000_000
"""Seed of the first map drawn to learn from; benchmarks draw theirs below."""
IMPROVED_FROM = 2_000_000
"""Seed of the first map drawn for the rounds of improvement."""


@dataclass(frozen=True)
class ExplorerRecipe:
    """A training job of the meta-controller."""

    name: str = "explorer"
    about: str = "TopoNav's meta-controller: which frontier next, on maps of rooms and corridors"
    data: str | None = None
    """Folder of DungeonMaps images: every second is learned from; None: drawn ones only."""
    rounds: int = 6
    """Explorations of each given map."""
    drawn: int = 2000
    """Drawn maps, one exploration of each."""
    improved: tuple[int, ...] = (300,)
    """Rounds of double Q-learning after the fit, each on so many explorations by its policy."""
    improve_steps: int = 1500
    """Of the optimizer in each such round."""
    n: int = 6
    """Decisions until the network takes over, in their targets."""
    gamma: float = 1.0
    """Discount per range of the sensor."""
    share: float = 0.5
    """Of the states, that are labelled."""
    stray: float = 0.1
    """Probability of driving elsewhere for a while, so that what is learned from is wider."""
    base: Utility = Utility(0.75, 1.25)
    """The classical explorer that is improved on."""
    trust: MetaConfig = MetaConfig(margin=0.05)
    """When the network is believed, in the end ..."""
    label_trust: MetaConfig = MetaConfig()
    """... and by the policy of the rounds of improvement."""
    width: int = 96
    layers: int = 2
    members: int = 4
    """Heads; each learns from three quarters of a batch."""
    steps: int = 6000
    batch: int = 96
    lr: float = 1e-3
    """At its highest: it rises over a tenth of the steps and falls to nothing."""
    weight_decay: float = 1e-2
    regret: float = 2.0
    """Weight of the expected regret of choosing by softmax(-cost / temperature) ..."""
    temperature: float = 0.3
    """... ranges, beside the error of the advantage."""
    value: float = 0.05
    """Weight of the error of the mean cost."""
    checkpoint_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = ("width", "layers", "steps", "improve_steps", "batch", "checkpoint_every", "n")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if min(self.rounds, self.drawn) < 0 or (self.drawn == 0 and self.data is None):
            raise ValueError(f"there must be maps to learn from, got {self}")
        if self.members < 2 or not 0 < self.gamma <= 1:
            raise ValueError(f"members must be >= 2 and 0 < gamma <= 1, got {self}")


EXPLORER = ExplorerRecipe()


def train_explorer(
    recipe: ExplorerRecipe, folder: str | Path, *, resume: bool = False,
    console: Console | None = None, quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train ``recipe`` into ``folder``: labels, checkpoints, the curve and ``policy/``.

    Args:
        resume: keep the labels and go on from the newest checkpoint in the folder.

    Raises:
        KeyboardInterrupt: Ctrl-C; maps labelled and the last checkpoint are kept.
        FileExistsError: the folder holds a run already and ``resume`` is off.
    """
    torch.set_num_threads(1)  # first of all: initial weights depend on it
    out = open_run(folder, recipe, resume)
    began, revision = time.time(), git_revision()
    with progress(console, quiet) as bar:
        net, curve, count = _stages(recipe, out, bar)
    result: dict[str, Any] = {
        "recipe": recipe.name, "seed": recipe.seed, "states": count,
        "train_wall_s": time.time() - began, **{k: v for k, v in curve[-1].items() if k != "step"},
    }  # fmt: skip
    write(out / "policy", net, recipe, result, revision)
    (out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def given(data: str | Path) -> tuple[list[Path], list[Path]]:
    """Images to learn from or tune on, and images to report: alternating by file name.

    Raises:
        ValueError: the folder holds too few.
    """
    files = sorted(Path(data).glob("*.png"))
    if len(files) < 2:
        raise ValueError(f"data must be a folder of at least 2 PNG images, got {data}")
    return files[0::2], files[1::2]


@dataclass(frozen=True)
class _Job:
    """An exploration to label."""

    name: str
    source: Path | int
    """Image, or seed of a drawn map."""
    key: tuple[int, ...]
    """Of its random numbers."""


Label = Callable[[DungeonMap, np.random.Generator], list[Labelled]]


def _stages(
    recipe: ExplorerRecipe, out: Path, bar: Progress
) -> tuple[MetaNet, list[dict[str, float]], int]:
    """Fit to the classical explorer's costs, then improve by the network's own."""
    images: Sequence[Path] = given(recipe.data)[0] if recipe.data else []
    torch.manual_seed(recipe.seed)
    net = MetaNet(recipe.width, recipe.layers, recipe.members)
    jobs = [
        _Job(f"given-{i:05d}", images[i % len(images)], (0, i))
        for i in range(recipe.rounds * len(images))
    ]
    jobs += [_Job(f"drawn-{i:05d}", DRAWN_FROM + i, (1, i)) for i in range(recipe.drawn)]

    def classical(world: DungeonMap, rng: np.random.Generator) -> list[Labelled]:
        return labelled(world, recipe.base, rng, recipe.share, recipe.stray)

    def own(world: DungeonMap, rng: np.random.Generator) -> list[Labelled]:
        return policy_labels(
            world, net, recipe.base, recipe.label_trust, rng, share=recipe.share,
            stray=recipe.stray, n=recipe.n, gamma=recipe.gamma,
        )  # fmt: skip

    states, fresh = label(recipe, jobs, classical, out / "data", bar), list[Labelled]()
    curve, done = fit(recipe, 0, net, states, (), out, bar), 0
    for k, count in enumerate(recipe.improved, 1):
        jobs = []
        for i in range(done, done + count):
            use_image = len(images) > 0 and i % 2 == 0
            source = images[i // 2 % len(images)] if use_image else IMPROVED_FROM + i
            jobs.append(_Job(f"improve-{i:05d}", source, (2, i)))
        fresh += label(recipe, jobs, own, out / "data", bar)
        curve += fit(recipe, k, net, states, fresh, out, bar)
        done += count
    return net, curve, len(states) + len(fresh)


def label(
    recipe: ExplorerRecipe, jobs: Sequence[_Job], how: Label, data: Path, bar: Progress
) -> list[Labelled]:
    """Label what is not labelled yet; one file for each exploration."""
    data.mkdir(parents=True, exist_ok=True)
    out: list[Labelled] = []
    task = bar.add_task(f"{recipe.name} labels", total=len(jobs), note="")
    for job in jobs:
        file = data / f"{job.name}.npz"
        if not file.exists():
            image = isinstance(job.source, Path)
            world = load_map(job.source) if image else draw(job.source)  # type: ignore[arg-type]
            save(file, how(world, np.random.default_rng([recipe.seed, *job.key])))
        out += load(file)
        bar.update(task, advance=1, note=f"{len(out):,} states")
    return out


def fit(
    recipe: ExplorerRecipe, stage: int, net: MetaNet, states: Sequence[Labelled],
    fresh: Sequence[Labelled], out: Path, bar: Progress,
) -> list[dict[str, float]]:  # fmt: skip
    """Fit the network; a checkpoint now and then, which it goes on from.

    Args:
        stage: 0 on the classical explorer's costs, later with half a batch of ``fresh`` ones and a
            third of the learning rate.

    Returns:
        The curve of this stage.
    """
    steps = recipe.improve_steps if stage else recipe.steps
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    folder, curve, begun = out / "checkpoints" / str(stage), list[dict[str, float]](), 0
    if folder.exists():
        saved = checkpoint.load(folder)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        curve, begun = saved["curve"], saved["step"]
    task = bar.add_task(f"{recipe.name} fit {stage}", total=steps, completed=begun, note="")
    recent: list[list[float]] = []
    for step in range(begun, steps):
        rng = np.random.default_rng([recipe.seed, 3 + stage, step])
        half = recipe.batch // 2 if stage else 0
        chosen = [states[i] for i in rng.integers(len(states), size=recipe.batch - half)]
        chosen += [fresh[i] for i in rng.integers(len(fresh), size=half)] if half else []
        losses = _losses(net, *collate(chosen, int(rng.integers(8))), rng, recipe.temperature)
        loss = losses[0] + recipe.value * losses[1] + recipe.regret * losses[2]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * _rise_and_fall(step / steps) / (3 if stage else 1)
        optimizer.step()
        recent.append([float(part.detach()) for part in losses])
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == steps:
            mean = np.mean(recent, axis=0)
            names = ("advantage_error", "value_error", "regret_ranges")
            row = {"stage": stage, "step": step + 1}
            curve.append(row | dict(zip(names, map(float, mean), strict=True)))
            recent.clear()
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(folder, {**state, "curve": curve, "step": step + 1})
            _log(out / "curve.jsonl", curve[-1])
            bar.update(task, note=f"regret {mean[2]:.3f} ranges")
        bar.update(task, completed=step + 1)
    return curve


def _log(file: Path, row: dict[str, float]) -> None:
    """Append a line to the curve; one that is written again after a stop replaces the first."""
    place = ("stage", "step")
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    rows = [old for old in rows if [old[k] for k in place] < [row[k] for k in place]]
    file.write_text("".join(json.dumps(r) + "\n" for r in [*rows, row]))


def _rise_and_fall(share: float) -> float:
    """Of the learning rate at a share of the steps."""
    return share / 0.1 if share < 0.1 else (1 + math.cos(math.pi * (share - 0.1) / 0.9)) / 2


def collate(states: Sequence[Labelled], symmetry: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States as one padded batch, seen in one of the 8 symmetries of the square.

    Returns:
        numbers (B, 1 + K, F), pictures (B, 1 + K, 2, P, P), there (B, 1 + K) bool, cost (B, K).
    """
    numbers, image, there = padded([state.features for state in states])
    cost = np.zeros((len(states), there.shape[1] - 1), np.float32)
    for row, state in enumerate(states):
        cost[row, : len(state.cost)] = state.cost
    image = image.transpose(-1, -2) if symmetry & 4 else image
    flipped = [axis for axis, bit in ((-1, 1), (-2, 2)) if symmetry & bit]
    return numbers, image.flip(flipped).float() / 255, there, torch.from_numpy(cost)


def _losses(
    net: MetaNet, numbers: Tensor, pictures: Tensor, there: Tensor, cost: Tensor,
    rng: np.random.Generator, temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Error of the advantages, of the mean cost, and regret against the mean candidate."""
    found = net(numbers, pictures, there)  # (B, K, M)
    real = there[:, 1:, None].float()
    count = real.sum(dim=1, keepdim=True)
    drawn = rng.random((len(cost), 1, net.members)) < 0.75
    weight = real * torch.from_numpy(drawn.astype(np.float32))
    mean = (cost[..., None] * real).sum(dim=1, keepdim=True) / count
    found_mean = (found * real).sum(dim=1, keepdim=True) / count
    advantage = (cost[..., None] - mean).clamp(-5, 5).expand_as(found)
    huber = nn.functional.huber_loss
    error = huber(found - found_mean, advantage, reduction="none")
    policy = (-(found - found_mean) / temperature).masked_fill(real == 0, -1e9).softmax(dim=1)
    return (
        (error * weight).sum() / count.sum(),
        huber(found_mean, mean.expand_as(found_mean)),
        (policy * advantage * weight).sum(dim=1).mean(),
    )


def write(
    folder: Path, net: MetaNet, recipe: ExplorerRecipe, evaluation: dict[str, Any], revision: str
) -> None:
    """Write the policy folder."""
    settings = json.loads(json.dumps(asdict(recipe)))
    if recipe.data:
        images = given(recipe.data)[0]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in images)).hexdigest()
        settings["data"] = {
            "folder": Path(recipe.data).resolve().name, "images": len(images), "sha256": digest
        }  # fmt: skip
    write_policy_file(
        folder,
        {k: np.ascontiguousarray(v.detach().numpy()) for k, v in net.state_dict().items()},
        net.onnx(),
        {
            "network": {
                "kind": MetaExplorer.KIND, "obs_dim": len(NAMES), "action_dim": recipe.members,
                "width": recipe.width, "layers": recipe.layers,
            },
            "observation": OBSERVATION,
            "action": {
                "dim": recipe.members, "unit": "ranges of the sensor still to drive",
                "base": asdict(recipe.base), "trust": asdict(recipe.trust),
            },
            "recipe": {"name": recipe.name, "git": revision, "settings": settings},
            "seeds": [recipe.seed], "evaluation": evaluation,
        },
    )  # fmt: skip


__all__ = ["EXPLORER", "ExplorerRecipe", "given", "train_explorer"]
