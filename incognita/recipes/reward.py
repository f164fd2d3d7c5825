"""Train the small reward model: play rollouts, label them from state, fit, calibrate, write it.

What decides is where the network looks: its maps of thing, goal and gripper learn from the pixels
that the simulator projects for free. The score is learned by cross-entropy and the ranked
probability score (Epstein 1969), which knows that 4 is nearer to 5 than 1 is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from learning import checkpoint
from reward_vlm.backends.small import SmallModel, write_small
from reward_vlm.backends.small_net import PATCH, Outputs, SmallConfig, SmallNet, tokens
from sim.rollout import FRAMES, PROBES, Told
from sim.words import say

from .reward_data import TRAINED, Examples, Rollouts, load, make
from .train import git_revision, open_run, progress


@dataclass(frozen=True)
class RewardRecipe:
    """A training job of the small reward model."""

    name: str = "reward"
    about: str = "the small reward model: scores of 1 to 5 for videos of simulated robots"
    rollouts: int = 12000
    """Of the arm, played to learn from,"""
    drives: int = 4000
    """... and of the wheeled robot."""
    val: int = 400
    """Of each, played to choose and calibrate on."""
    steps: int = 6500
    """Of the optimizer."""
    batch: int = 24
    """Clips in each,"""
    asks: int = 8
    """... and commands to a clip."""
    lengths: tuple[int, ...] = (3, 3, 4, 4, 5, 8)
    """Frames of the clips of a batch, drawn from these."""
    lr: float = 1.5e-3
    """At its highest: it rises over a twentieth of the steps and falls to nothing."""
    weight_decay: float = 1e-2
    told: float = 0.35
    """Share of clips with the instruction that the robot had; the rest are counterfactual."""
    rewind: float = 0.12
    """Share of clips that run on and back again."""
    forget: float = 0.15
    """Share of commands that lack a word."""
    before: float = 0.3
    """Weight of the judgement at a frame that is not the last."""
    ranked: float = 2.0
    """Weight of the ranked probability score beside the cross-entropy."""
    look: float = 0.3
    """Weight of the maps of thing, goal and gripper,"""
    aim: float = 0.03
    """... of a pixel by which their means are off, and by which the ways between them are."""
    extra: float = 0.2
    """Weight of success and the probes."""
    bfloat16: bool = True
    """Convolve and multiply in bfloat16: twice as fast on a CPU that can."""
    average: float = 0.998
    """Of the weights that are shipped, a moving mean of those that learn."""
    checkpoint_every: int = 250
    val_clips: int = 640
    """Judged at every checkpoint."""
    calibration_clips: int = 2048
    """Judged at the end, to set temperatures by."""
    blind: str = ""
    """``video`` or ``text``: what the model is kept from seeing, to measure what the rest gives."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rollouts", "drives", "val", "steps", "batch", "asks", "checkpoint_every",
                     "val_clips", "calibration_clips"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if min(self.lengths, default=0) < 2 or max(self.lengths) > FRAMES:
            raise ValueError(f"lengths must be in 2..{FRAMES}, got {self.lengths}")
        if self.blind not in ("", "video", "text"):
            raise ValueError(f"blind must be empty, video or text, got {self.blind!r}")
        if not (0 <= self.told <= 1 and 0 <= self.rewind <= 1 and 0 <= self.average < 1):
            raise ValueError(f"told, rewind in [0, 1] and average in [0, 1) wanted, got {self}")


REWARD = RewardRecipe()


def train_reward(
    recipe: RewardRecipe, folder: str | Path, *, resume: bool = False,
    console: Console | None = None, quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train ``recipe`` into ``folder``: rollouts in ``data/``, checkpoints, the curve, ``model/``.

    Beside the last model, ``ladder/`` holds one of every checkpoint.

    Args:
        resume: keep the rollouts and go on from the newest checkpoint in the folder.

    Raises:
        KeyboardInterrupt: Ctrl-C; rollouts played and the last checkpoint are kept.
        FileExistsError: the folder holds a run already and ``resume`` is off.
    """
    torch.set_num_threads(1)  # first of all: initial weights depend on it
    out = open_run(folder, recipe, resume)
    began, revision = time.time(), git_revision()
    config = SmallConfig()
    with progress(console, quiet) as bar:
        for source, count in (
            ("train", recipe.rollouts), ("train_arena", recipe.drives), ("val", recipe.val),
            ("val_arena", recipe.val),
        ):  # fmt: skip
            task = bar.add_task(f"{recipe.name} {source} rollouts", total=count, note="")
            make(source, count, out / "data", partial(_advance, bar, task))
        train = load(out / "data", "train", "train_arena")
        val = load(out / "data", "val", "val_arena")
        net, curve = fit(recipe, config, train, val, out, bar)
    about = {"recipe": asdict(recipe), "git_revision": revision}
    words = replace(recipe, forget=0.0)
    found = judged(net, Sampler(val, words), recipe.calibration_clips, seed=1)
    write_small(out / "model", net, calibration(found), about)
    result: dict[str, Any] = {
        "recipe": recipe.name, "seed": recipe.seed, "train_wall_s": time.time() - began,
        **{k: v for k, v in curve[-1].items() if k != "step"},
        "revision": SmallModel(out / "model").info.revision,
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _advance(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


@dataclass(frozen=True)
class Batch:
    """Clips and what is true of them; Q commands to each, one after another in ``said``."""

    frames: Tensor
    """(B, T, 3, S, S) 0..1."""
    said: Tensor
    """(B * Q, WORDS, GRAMS)."""
    labels: Tensor
    """(B * Q, T) 1..5."""
    points: Tensor
    """(B * Q, T, 3, 2) where thing, goal and gripper are, 0..1; may lie outside."""
    shown: Tensor
    """(B * Q, T, 3) whether there is something to be seen at a point, in the image."""
    known: Tensor
    """(B * Q, T, 3) whether a point can be told from one frame alone, in the image."""
    probes: Tensor
    """(B * Q, len(PROBES)) at the end."""
    axes: Tensor
    """(B * Q, 4) 10 cm away from the robot and 10 cm to its left, in the image; NaN: not known."""


class Sampler:
    """Draws clips so that every label of every family comes equally often."""

    def __init__(self, rollouts: Rollouts, recipe: RewardRecipe) -> None:
        self.rollouts, self.recipe = rollouts, recipe
        self.examples = e = Examples.of(rollouts)
        self._pools = [
            {
                (label, family): np.flatnonzero(kind & (e.label == label) & (e.family == family))
                for label in range(1, 6)
                for family in range(len(TRAINED))
            }
            for kind in (np.ones(len(e.label), np.bool_), rollouts.asked[e.episode] == e.told)
        ]
        pairs = zip(rollouts.told, rollouts.points, strict=True)
        self._axes = np.stack([_axes(told, points) for told, points in pairs])

    def draw(self, rng: np.random.Generator, count: int, length: int, asks: int = 1) -> Batch:
        """``count`` clips of ``length`` frames with ``asks`` commands each.

        The first of a clip is drawn evenly by label and family, the others evenly by the labels
        that the clip has.
        """
        clips = [self._clip(rng, length, asks) for _ in range(count)]
        images = torch.from_numpy(np.stack([c[0] for c in clips])).permute(0, 1, 4, 2, 3)
        rows = (np.concatenate(column) for column in list(zip(*clips, strict=True))[1:])
        said, labels, points, pushed, truth, axes = map(torch.from_numpy, rows)
        inside = ((points > 0) & (points < 1)).all(dim=-1)
        shown, known = inside.clone(), inside.clone()
        shown[..., 1] &= ~pushed[:, None]  # nothing marks the end of a push,
        known[:, 1:, 1] &= ~pushed[:, None]  # and later frames do not tell it
        return Batch(
            images.float() / 255, said, labels.long(), points.float(), shown, known,
            truth.float(), axes.float(),
        )  # fmt: skip

    def _clip(self, rng: np.random.Generator, length: int, asks: int) -> tuple[NDArray[Any], ...]:
        r, e = self.rollouts, self.examples
        pools = self._pools[int(rng.random() < self.recipe.told)]
        pool = np.zeros(0, np.int64)
        while not len(pool):
            pool = pools[int(rng.integers(1, 6)), int(rng.integers(len(TRAINED)))]
        i = int(pool[rng.integers(len(pool))])
        episode, k = int(e.episode[i]), int(e.last[i])
        told = self._others(rng, episode, k, int(e.told[i]), asks)
        far = k if rng.random() >= self.recipe.rewind else int(rng.integers(k, FRAMES))
        walk = np.concatenate([np.arange(far + 1), np.arange(far - 1, k - 1, -1)])
        at = walk[np.rint(np.linspace(0, len(walk) - 1, length)).astype(int)]
        mirror = bool(rng.random() < 0.5)
        asked = [mirrored(r.told[episode][t]) if mirror else r.told[episode][t] for t in told]
        words = np.stack(
            [tokens(say(a, rng, forget=self.recipe.forget), SmallConfig.buckets) for a in asked]
        )
        # a clip that runs on and back has seen what the way on has; who was moved is back in place
        truth = r.probes[episode][told][:, [far, k, far, far], range(len(PROBES))]
        points = r.points[episode][told][:, at]
        images, points, axes = _altered(
            rng, r.images(episode, at), points, self._axes[episode], mirror
        )
        if self.recipe.blind:
            images, words = blinded(self.recipe.blind, images, words)
        pushed = np.array([a.family == "push" for a in asked])
        labels = r.labels[episode][told][:, at]
        return images, words, labels, points, pushed, truth, np.tile(axes.ravel(), (len(told), 1))

    def _others(
        self, rng: np.random.Generator, episode: int, last: int, first: int, asks: int
    ) -> list[int]:
        """``first`` and other instructions of a rollout, to be judged at its frame ``last``."""
        labels = self.rollouts.labels[episode, : len(self.rollouts.told[episode]), last]
        levels = np.unique(labels)
        told = [first]
        while len(told) < asks:
            same = np.flatnonzero(labels == levels[rng.integers(len(levels))])
            told.append(int(same[rng.integers(len(same))]))
        return told


def _axes(told: list[Told], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, 2) where a push away from the robot and one to its left lead in the image; NaN: none."""
    out = np.full((2, 2), np.nan, np.float32)
    for axis, words in zip(out, ("away from the robot", "to the robot's left"), strict=True):
        same = [i for i, t in enumerate(told) if t.family == "push" and t.other[1] == words]
        if same:
            axis[:] = (points[same, 0, 1] - points[same, 0, 0]).mean(axis=0)
    return out


def mirrored(told: Told) -> Told:
    """What an instruction becomes in a mirror: left is right."""
    colour, other = told.other
    swap = {"left": "right", "right": "left"}
    return replace(told, other=(colour, " ".join(swap.get(w, w) for w in other.split(" "))))


def _altered(
    rng: np.random.Generator, images: NDArray[np.uint8], points: NDArray[np.float32],
    axes: NDArray[np.float32], mirror: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """A clip moved, turned and stretched a little, brighter or darker, with more contrast or less.

    Args:
        images: (T, S, S, 3).
        points: (Q, T, K, 2) 0..1 from the top left.
        axes: (2, 2) in the same unit, away from the robot and to its left.
        mirror: left is right.
    """
    side = images.shape[1]
    turn, zoom, stretch = rng.normal(0, 0.05), rng.uniform(0.9, 1.12), rng.uniform(0.95, 1.05)
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    linear = np.array([[cos * stretch, -sin], [sin * stretch, cos]])
    if mirror:
        linear[:, 0] *= -1
    shift = 0.5 + rng.uniform(-0.06, 0.06, 2) - linear @ [0.5, 0.5]
    warp = np.column_stack([linear, side * shift + 0.5 * (linear.sum(axis=1) - 1)])
    gain, bias = rng.uniform(0.8, 1.2) * rng.uniform(0.94, 1.06, 3), rng.uniform(-20, 20)
    edge = cv2.BORDER_REPLICATE
    out = np.stack([cv2.warpAffine(f, warp, (side, side), borderMode=edge) for f in images])
    out = out * gain.astype(np.float32) + np.float32(bias)
    out += np.float32(rng.uniform(0, 5)) * rng.standard_normal(out.shape, np.float32)
    moved = points @ linear.T.astype(np.float32) + shift.astype(np.float32)
    turned = axes @ linear.T.astype(np.float32)
    if mirror:
        turned[1] *= -1
    return np.clip(out, 0, 255).astype(np.uint8), moved, turned


def blinded(
    what: str, images: NDArray[np.uint8], words: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey images, or no words."""
    if what == "video":
        return np.full_like(images, 128), words
    return images, np.zeros_like(words)


def losses(net: SmallNet, batch: Batch, recipe: RewardRecipe) -> dict[str, Tensor]:
    """What is minimized, term by term, weighted."""
    out = net(batch.frames, batch.said)
    weight = torch.full(batch.labels.shape, recipe.before)
    weight[:, -1] = 1.0
    weight = weight / weight.sum()
    log = out.score.log_softmax(dim=-1)
    hit = nn.functional.one_hot(batch.labels - 1, log.shape[-1]).float()
    entropy = -(weight * (log * hit).sum(dim=-1)).sum()
    gap = (log.exp() - hit).cumsum(dim=-1)
    ranked = (weight * gap.square().sum(dim=-1)).sum()
    binary = nn.functional.binary_cross_entropy_with_logits
    done = binary(out.success, (batch.labels == 5).float(), weight=weight, reduction="sum")
    probed = binary(out.probes[:, -1], batch.probes)
    return {
        "entropy": entropy, "ranked": recipe.ranked * ranked, "success": recipe.extra * done,
        "probes": recipe.extra * probed,
        "look": recipe.look * _looking(out.maps, batch.points, batch.shown),
        "aim": recipe.aim * _aiming(out, batch.points, batch.known),
        "axes": recipe.aim * _turning(out, batch.axes),
    }  # fmt: skip


def _looking(maps: Tensor, points: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy of the maps with a spot around where things are; none outside the image."""
    side = maps.shape[-1]
    line = (torch.arange(side) + 0.5) / side
    spread = [-0.5 * ((line - points[..., i, None]) * side / 0.7).square() for i in (0, 1)]
    spot = (spread[1][..., :, None] + spread[0][..., None, :]).flatten(-2).softmax(dim=-1)
    cross = -(spot * maps.flatten(-2).log_softmax(dim=-1)).sum(dim=-1)
    return (cross * shown).sum() / shown.sum().clamp(min=1)


def _aiming(out: Outputs, points: Tensor, known: Tensor) -> Tensor:
    """Pixels by which points and the ways between them are off."""
    side = out.maps.shape[-1] * PATCH
    thing, goal, hand = points.unbind(dim=-2)
    way = torch.cat([goal - thing, thing - hand], dim=-1)

    def off(found: Tensor, true: Tensor) -> Tensor:
        gap = nn.functional.smooth_l1_loss(side * found, side * true, reduction="none", beta=0.2)
        return gap.sum(dim=-1)

    aimed = (off(out.points, points) * known).sum() / known.sum().clamp(min=1)
    return aimed + off(out.way, way).mean()


def _turning(out: Outputs, axes: Tensor) -> Tensor:
    """Pixels by which the robot's axes are off, where they are known."""
    known = axes.isfinite().all(dim=-1)
    gap = (out.axes - axes.nan_to_num()[:, None]).abs().sum(dim=-1).mean(dim=1)
    return out.maps.shape[-1] * PATCH * (gap * known).sum() / known.sum().clamp(min=1)


def fit(
    recipe: RewardRecipe, config: SmallConfig, train: Rollouts, val: Rollouts, out: Path,
    bar: Progress,
) -> tuple[SmallNet, list[dict[str, float]]]:  # fmt: skip
    """Fit the network; a checkpoint now and then, which it goes on from.

    Returns:
        The moving mean of its weights, and the curve.
    """
    torch.manual_seed(recipe.seed)
    net = SmallNet(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    folder, curve, begun = out / "checkpoints", list[dict[str, float]](), 0
    if folder.exists():
        saved = checkpoint.load(folder)
        net.load_state_dict(saved["net"])
        mean.load_state_dict(saved["mean"])
        optimizer.load_state_dict(saved["optimizer"])
        curve, begun = saved["curve"], saved["step"]
    sampler, tried = Sampler(train, recipe), Sampler(val, replace(recipe, forget=0.0))
    task = bar.add_task(f"{recipe.name} fit", total=recipe.steps, completed=begun, note="")
    recent: list[dict[str, float]] = []
    for step in range(begun, recipe.steps):
        rng = np.random.default_rng([recipe.seed, 1, step])
        length = int(rng.choice(recipe.lengths))
        batch = sampler.draw(rng, recipe.batch, length, recipe.asks)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            terms = losses(net, batch, recipe)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * _rise_and_fall(step / recipe.steps)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        kept = min(recipe.average, (step + 1) / (step + 10))
        for slow, fast in zip(mean.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - kept)
        recent.append({k: float(v.detach()) for k, v in terms.items()})
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            row = {"step": float(step + 1)}
            row |= {k: float(np.mean([r[k] for r in recent])) for k in recent[0]}
            found = judged(mean, tried, recipe.val_clips)
            row["val_mae"] = median_error(found)
            curve.append(row)
            recent = []
            checkpoint.save(folder, {
                "net": net.state_dict(), "mean": mean.state_dict(),
                "optimizer": optimizer.state_dict(), "curve": curve, "step": step + 1,
            })  # fmt: skip
            write_small(out / "ladder" / f"{step + 1:06d}", mean, calibration(found), row)
            with (out / "curve.jsonl").open("w") as file:
                file.writelines(json.dumps(r) + "\n" for r in curve)
        bar.update(task, advance=1, note=f"val MAE {curve[-1]['val_mae']:.3f}" if curve else "")
    return mean.eval(), curve


def _rise_and_fall(part: float) -> float:
    return min(part / 0.05, 1.0) * 0.5 * (1 + float(np.cos(np.pi * part)))


@torch.no_grad()
def judged(net: SmallNet, sampler: Sampler, clips: int, seed: int = 0) -> dict[str, Tensor]:
    """Logits, labels and features of balanced clips of 8 frames."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(-(-clips // 32)):
        batch = sampler.draw(rng, 32, 8)
        out = net(batch.frames, batch.said)
        rows.append((out.score[:, -1], out.success[:, -1], out.probes[:, -1], out.features[:, -1],
                     batch.labels[:, -1]))  # fmt: skip
    parts = [torch.cat(column) for column in zip(*rows, strict=True)]
    return dict(zip(("score", "success", "probes", "features", "labels"), parts, strict=True))


def median_error(found: Mapping[str, Tensor]) -> float:
    """Mean absolute error of the median of what :func:`judged` found."""
    median = (found["score"].softmax(dim=-1).cumsum(dim=-1) < 0.5).sum(dim=-1) + 1
    return float((median - found["labels"]).abs().float().mean())


def calibration(found: Mapping[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    """Temperatures that make likely what was true, and what features look like, of
    :func:`judged` clips."""
    labels, features = found["labels"], found["features"].double()
    score, success = (
        _temperature(found[name], loss)
        for name, loss in (
            ("score", lambda z: nn.functional.cross_entropy(z, labels - 1)),
            ("success", lambda z: nn.functional.binary_cross_entropy_with_logits(
                z, (labels == 5).float())),
        )
    )  # fmt: skip
    centre = features.mean(dim=0)
    spread = torch.cov(features.T) + 1e-2 * torch.eye(features.shape[1]) * features.var()
    values, vectors = torch.linalg.eigh(spread)
    whiten = vectors / values.sqrt()
    far = ((features - centre) @ whiten).square().sum(dim=1).sqrt()
    return {
        "temperature": np.array([score, success]), "centre": centre.numpy(),
        "whiten": whiten.numpy(),
        "quantiles": np.quantile(far.numpy(), np.linspace(0, 1, 201)),
    }  # fmt: skip


def _temperature(logits: Tensor, loss: Any) -> float:
    """By which logits are divided to be most likely, of a fine grid."""
    grid = np.geomspace(0.5, 4, 61)
    return float(grid[int(np.argmin([float(loss(logits / t)) for t in grid]))])
