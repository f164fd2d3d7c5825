"""What the small reward model learns from: rollouts at a table, every label computed from state.

RoboReward's recipe (arXiv 2601.00675) with an exact oracle in place of a judging language model:
any other instruction on the same video is a counterfactual, any beginning of it a clip, scripts
fail as robots do, and a clip run backwards undoes what was done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.tabletop.engine import TableState
from sim.tabletop.rubric import FAMILIES, Instruction, instructions, reference_xyz, score
from sim.tabletop.scene import COLOURS, SHAPES, Look, Pad, Scene, SceneConfig, Thing, draw_scene
from sim.tabletop.scripts import draw_script, run
from sim.tabletop.view import TableView, project

FRAMES = 16
"""Kept of each rollout, evenly from its first to its last moment."""
SHARD = 200
"""Rollouts in one file."""
MOST_ASKED = 32
"""Room for instructions of one scene."""
TRAINED = ("place", "lift", "push", "touch")
HELD_COMBOS = (("red", "ball"), ("green", "brick"), ("blue", "cylinder"), ("yellow", "cube"),
               ("purple", "ball"), ("orange", "cylinder"))  # fmt: skip
"""Never seen in training, though each colour and each shape is."""
SEEN_COMBOS = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_COMBOS)


@dataclass(frozen=True)
class Source:
    """One set of rollouts."""

    seed: int
    """Of its first shard; sets are far apart."""
    scene: SceneConfig = field(default_factory=lambda: SceneConfig(combos=SEEN_COMBOS))
    families: tuple[str, ...] = TRAINED


SOURCES = {
    "train": Source(0),
    "val": Source(40_000_000),
    "iid": Source(50_000_000),
    "combos": Source(60_000_000, SceneConfig(combos=HELD_COMBOS)),
    "cameras_side": Source(
        70_000_000, SceneConfig(combos=SEEN_COMBOS, azimuth=(0.6, 0.9), elevation=(0.5, 1.1))
    ),
    "cameras_other_side": Source(
        75_000_000, SceneConfig(combos=SEEN_COMBOS, azimuth=(-0.9, -0.6), elevation=(0.5, 1.1))
    ),
    "family": Source(80_000_000, families=("stack",)),
}  # fmt: skip
"""Where rollouts come from. Seeds of ``train`` are learned from, those of ``val`` tuned on."""


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of one source."""

    frames: list[NDArray[np.uint8]]
    """Per shard (n, FRAMES, side, side, 3), on disk."""
    scenes: list[Scene]
    asked: list[Instruction]
    """What each robot was told."""
    outcomes: list[str]
    """What each script tried."""
    arrays: dict[str, NDArray[Any]]
    """(N, FRAMES, ...) states and pixels, (N, MOST_ASKED, FRAMES) labels."""

    def __len__(self) -> int:
        return len(self.scenes)

    def images(self, episode: int, at: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(len(at), side, side, 3) frames of one rollout."""
        shard, row = divmod(episode, SHARD)
        return np.asarray(self.frames[shard][row, at])

    def states(self, episode: int, at: NDArray[np.int64]) -> list[TableState]:
        """States at some of the frames."""
        a, n = self.arrays, len(self.scenes[episode].things)
        return [
            TableState(
                a["things"][episode, k, :n], a["grip"][episode, k], float(a["opening"][episode, k]),
                a["touched"][episode, k, :n], a["held"][episode, k, :n], a["speed"][episode, k, :n],
            )
            for k in at
        ]  # fmt: skip

    def pixels(self, episode: int, at: NDArray[np.int64], told: Instruction) -> NDArray[np.float64]:
        """(len(at), 3, 2) where thing, goal and gripper are in the images, 0..1."""
        scene = self.scenes[episode]
        points = np.array([
            (s.things[told.thing, :3], reference_xyz(told, scene, s), s.grip)
            for s in self.states(episode, at)
        ])  # fmt: skip
        return project(points, scene.look)

    @cached_property
    def told(self) -> list[list[Instruction]]:
        """What could be asked in each scene, in the order of the labels."""
        return [instructions(scene) for scene in self.scenes]


def make(
    source: str, count: int, folder: str | Path, side: int = 96,
    progress: Callable[[int], None] | None = None, first: int = 0,
) -> None:  # fmt: skip
    """Play rollouts and write them, a shard at a time; shards that are there stay.

    Args:
        source: one of :data:`SOURCES`.
        count: rollouts.
        progress: called with the number that are done.
        first: other rollouts of the same source, 1,000,000 seeds on for each.
    """
    chosen = replace(SOURCES[source], seed=SOURCES[source].seed + 1_000_000 * first)
    at = Path(folder) / source
    at.mkdir(parents=True, exist_ok=True)
    view: TableView | None = None
    for shard in range(-(-count // SHARD)):
        name = at / f"{shard:04d}"
        size = min(SHARD, count - shard * SHARD)
        if not _holds(name, size):
            view = view or TableView(side)
            frames, arrays, meta = _shard(view, chosen, shard, size)
            _commit(name, frames, arrays, meta)
        if progress is not None:
            progress(min((shard + 1) * SHARD, count))
    if view is not None:
        view.close()


def load(folder: str | Path, source: str) -> Rollouts:
    """Read what :func:`make` wrote; images stay on disk until they are asked for.

    Raises:
        FileNotFoundError: there is nothing.
    """
    names = sorted((Path(folder) / source).glob("*.npz"))
    if not names:
        raise FileNotFoundError(f"no rollouts of {source!r} in {folder}")
    frames, scenes, asked, outcomes, parts = [], [], [], [], []
    for name in names:
        frames.append(np.load(name.with_suffix(".frames.npy"), mmap_mode="r"))
        with np.load(name) as archive:
            parts.append({k: archive[k] for k in archive.files if k != "meta"})
            meta = json.loads(bytes(archive["meta"]))
        for row in meta:
            scenes.append(_scene(row["scene"]))
            asked.append(Instruction(**row["asked"]))
            outcomes.append(row["outcome"])
    arrays = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return Rollouts(frames, scenes, asked, outcomes, arrays)


def _holds(name: Path, size: int) -> bool:
    """Is the shard there, and are so many rollouts in it?"""
    if not name.with_suffix(".npz").exists():
        return False
    return len(np.load(name.with_suffix(".frames.npy"), mmap_mode="r")) >= size


def _shard(
    view: TableView, source: Source, shard: int, size: int
) -> tuple[Any, dict[str, Any], Any]:
    frames = np.empty((size, FRAMES, view.side, view.side, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    meta = []
    for i in range(size):
        frames[i], row, about = _rollout(view, source, source.seed + shard * SHARD + i)
        rows.append(row)
        meta.append(about)
    return frames, {k: np.stack([row[k] for row in rows]) for k in rows[0]}, meta


def _rollout(view: TableView, source: Source, seed: int) -> tuple[Any, dict[str, Any], Any]:
    """One rollout: its images, arrays, and what it was about."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, source.scene)
    script = draw_script(rng, scene, source.families)
    qpos: list[NDArray[np.float64]] = []
    data = view.table.data
    states = run(view.table, scene, script, rng, seen=lambda _: qpos.append(data.qpos.copy()))
    at = np.rint(np.linspace(0, len(states) - 1, FRAMES)).astype(int)
    images = np.stack([view.draw(qpos[k]) for k in at])
    about = {"scene": asdict(scene), "asked": asdict(script.asked), "outcome": script.outcome}
    return images, _row(scene, [states[k] for k in at]) | {"steps": at}, about


def _row(scene: Scene, states: list[TableState]) -> dict[str, NDArray[Any]]:
    """Arrays of one rollout, padded to four things."""
    labels = np.full((MOST_ASKED, FRAMES), -1, np.int8)
    for i, told in enumerate(instructions(scene)):
        labels[i] = [score(told, scene, states[0], state) for state in states]
    pad = 4 - len(scene.things)
    return {
        "things": np.stack([np.pad(s.things, ((0, pad), (0, 0))) for s in states]).astype("f4"),
        "grip": np.stack([s.grip for s in states]).astype("f4"),
        "opening": np.array([s.opening for s in states], np.float32),
        "touched": np.stack([np.pad(s.touched, (0, pad)) for s in states]),
        "held": np.stack([np.pad(s.held, (0, pad)) for s in states]),
        "speed": np.stack([np.pad(s.speed, (0, pad)) for s in states]).astype("f4"),
        "labels": labels,
    }


def _commit(name: Path, frames: Any, arrays: dict[str, Any], meta: Any) -> None:
    """Write a shard whole; the npz comes last and stands for it."""
    first = name.with_suffix(".tmp.npy")
    np.save(first, frames)
    os.replace(first, name.with_suffix(".frames.npy"))
    second = name.with_suffix(".tmp.npz")
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez_compressed(second, meta=text, **arrays)
    os.replace(second, name.with_suffix(".npz"))


def _scene(row: dict[str, Any]) -> Scene:
    def fixed(value: Any) -> Any:
        return tuple(map(fixed, value)) if isinstance(value, list) else value

    def made(kind: Any, fields: dict[str, Any]) -> Any:
        return kind(**{k: fixed(v) for k, v in fields.items()})

    return Scene(
        tuple(made(Thing, t) for t in row["things"]), tuple(made(Pad, p) for p in row["pads"]),
        made(Look, row["look"]), fixed(row["start_m"]),
    )  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Every (rollout, instruction, last frame) of some rollouts, by label and family."""

    episode: NDArray[np.int32]
    told: NDArray[np.int16]
    last: NDArray[np.int8]
    label: NDArray[np.int8]
    family: NDArray[np.int8]
    """Index into :data:`sim.tabletop.rubric.FAMILIES`."""

    @staticmethod
    def of(rollouts: Rollouts, families: tuple[str, ...] = TRAINED, first: int = 3) -> Examples:
        """All of them whose clip has at least ``first`` + 1 frames."""
        labels = rollouts.arrays["labels"]
        family = np.full(labels.shape[:2], -1, np.int8)
        for row, told in zip(family, rollouts.told, strict=True):
            row[: len(told)] = [FAMILIES.index(i.family) for i in told]
        wanted = np.isin(family, [FAMILIES.index(f) for f in families])
        where = np.argwhere((labels > 0) & wanted[..., None] & (np.arange(FRAMES) >= first))
        e, i, k = where.T
        return Examples(
            e.astype(np.int32), i.astype(np.int16), k.astype(np.int8), labels[e, i, k], family[e, i]
        )
