"""What the small reward model learns from: rendered rollouts, every label computed from state.

RoboReward's recipe (arXiv 2601.00675) with an exact oracle in place of a judging language model:
any other instruction on the same video is a counterfactual, any beginning of it a clip, scripts
fail as robots do, and a clip run backwards undoes what was done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.arena import KINDS, ArenaConfig, ArenaWorld
from sim.rollout import FRAMES, Rollout, Told, World
from sim.tabletop.scene import COLOURS, SHAPES, SceneConfig
from sim.tabletop.world import TableWorld

SHARD = 200
"""Rollouts in one file."""
MOST_TOLD = 32
"""Room for instructions of one scene."""
TABLE = ("place", "lift", "push", "touch")
TRAINED = (*TABLE, "drive", "leave")
FAMILIES = (*TRAINED, "stack")
"""All that are labelled; the last is never learned from."""
HELD_TABLE = (("red", "ball"), ("green", "brick"), ("blue", "cylinder"), ("yellow", "cube"),
              ("purple", "ball"), ("orange", "cylinder"))  # fmt: skip
HELD_ARENA = (("red", "dome"), ("green", "pillar"), ("blue", "crate"), ("orange", "dome"))
"""Combinations never seen in training, though each colour and each kind is."""
SEEN_TABLE = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_TABLE)
SEEN_ARENA = tuple((c, k) for c in COLOURS for k in KINDS if (c, k) not in HELD_ARENA)
ASIDE = ((0.6, 0.9), (-0.9, -0.6))
"""Azimuths of cameras that are never seen in training, rad."""


@dataclass(frozen=True)
class Source:
    """One set of rollouts of one world."""

    seed: int
    """Of its first rollout; sources are far apart."""
    world: Callable[[], World]


def _table(
    seed: int, combos: Any = SEEN_TABLE, families: tuple[str, ...] = TABLE, **look: Any
) -> Source:
    return Source(seed, lambda: TableWorld(SceneConfig(combos=combos, **look), families))


def _arena(seed: int, combos: Any = SEEN_ARENA, **look: Any) -> Source:
    return Source(seed, lambda: ArenaWorld(ArenaConfig(combos=combos, **look)))


SOURCES = {
    "train": _table(0), "train_arena": _arena(100_000_000),
    "val": _table(40_000_000), "val_arena": _arena(140_000_000),
    "iid": _table(50_000_000), "iid_arena": _arena(150_000_000),
    "combos": _table(60_000_000, HELD_TABLE), "combos_arena": _arena(160_000_000, HELD_ARENA),
    "left": _table(70_000_000, azimuth=ASIDE[0], elevation=(0.5, 1.1)),
    "right": _table(75_000_000, azimuth=ASIDE[1], elevation=(0.5, 1.1)),
    "left_arena": _arena(170_000_000, azimuth=ASIDE[0], elevation=(0.55, 1.1)),
    "family": _table(80_000_000, families=("stack",)),
    "policy_touch": _table(90_000_000), "policy_push": _table(95_000_000),
}  # fmt: skip
"""Where rollouts come from. Those of ``train`` are learned from, those of ``val`` tuned on. Those
of ``policy_...`` are played by learned policies: :func:`make` is given their world."""


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of some sources, images on disk until they are asked for."""

    frames: list[NDArray[np.uint8]]
    """Of each shard, (n, FRAMES, side, side, 3)."""
    place: NDArray[np.int64]
    """(N, 2) shard and row of each rollout."""
    told: list[list[Told]]
    """What could be asked, in the order of the labels."""
    asked: NDArray[np.int64]
    """(N,) index of what the robot was told."""
    outcomes: list[str]
    """What each script tried."""
    labels: NDArray[np.int8]
    """(N, MOST_TOLD, FRAMES) 1..5; -1 where there is no such instruction."""
    points: NDArray[np.float32]
    """(N, MOST_TOLD, FRAMES, 3, 2) pixels, 0..1."""
    probes: NDArray[np.float32]
    """(N, MOST_TOLD, FRAMES, 4)."""

    def __len__(self) -> int:
        return len(self.told)

    def images(self, rollout: int, at: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(len(at), side, side, 3) frames of one rollout."""
        shard, row = self.place[rollout]
        return np.asarray(self.frames[shard][row, at])


def make(
    source: str, count: int, folder: str | Path, progress: Callable[[int], None] | None = None,
    first: int = 0, world: Callable[[], World] | None = None,
) -> None:  # fmt: skip
    """Play rollouts and write them, a shard at a time; shards that are there stay.

    Args:
        source: one of :data:`SOURCES`.
        count: rollouts.
        progress: called with the number that are done.
        first: other rollouts of the same source, 1,000,000 seeds on for each.
        world: plays them instead of the source's own; made only where rollouts are missing.
    """
    chosen = SOURCES[source]
    at = Path(folder) / source
    at.mkdir(parents=True, exist_ok=True)
    player: World | None = None
    for shard in range(-(-count // SHARD)):
        name = at / f"{shard:04d}"
        size = min(SHARD, count - shard * SHARD)
        if not _holds(name, size):
            player = player or (world or chosen.world)()
            begin = chosen.seed + 1_000_000 * first + shard * SHARD
            _commit(name, [player.rollout(np.random.default_rng(begin + i)) for i in range(size)])
        if progress is not None:
            progress(shard * SHARD + size)
    if player is not None:
        player.close()


def load(folder: str | Path, *sources: str) -> Rollouts:
    """Read what :func:`make` wrote.

    Raises:
        FileNotFoundError: there is nothing of a source.
    """
    frames: list[NDArray[np.uint8]] = []
    place, told, asked, outcomes, parts = [], [], [], [], []
    for source in sources:
        names = sorted((Path(folder) / source).glob("*.npz"))
        if not names:
            raise FileNotFoundError(f"no rollouts of {source!r} in {folder}")
        for name in names:
            with np.load(name) as archive:
                parts.append({k: archive[k] for k in archive.files if k != "meta"})
                meta = json.loads(bytes(archive["meta"]))
            place += [(len(frames), row) for row in range(len(meta))]
            frames.append(np.load(name.with_suffix(".frames.npy"), mmap_mode="r"))
            for row in meta:
                told.append([_told(t) for t in row["told"]])
                asked.append(row["asked"])
                outcomes.append(row["outcome"])
    arrays = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return Rollouts(frames, np.array(place), told, np.array(asked), outcomes, **arrays)


def _told(row: dict[str, Any]) -> Told:
    return Told(row["family"], tuple(row["thing"]), tuple(row["other"]))


def _holds(name: Path, size: int) -> bool:
    """Is the shard there, and are so many rollouts in it?"""
    if not name.with_suffix(".npz").exists():
        return False
    return len(np.load(name.with_suffix(".frames.npy"), mmap_mode="r")) >= size


def _commit(name: Path, rollouts: list[Rollout]) -> None:
    """Write a shard whole; the npz comes last and stands for it."""
    first = name.with_suffix(".tmp.npy")
    np.save(first, np.stack([r.images for r in rollouts]))
    os.replace(first, name.with_suffix(".frames.npy"))
    meta = [
        {"told": [asdict(t) for t in r.told], "asked": r.asked, "outcome": r.outcome}
        for r in rollouts
    ]
    arrays: dict[str, Any] = {
        key: np.stack([_padded(getattr(r, key), fill) for r in rollouts])
        for key, fill in (("labels", -1), ("points", np.nan), ("probes", np.nan))
    }
    second = name.with_suffix(".tmp.npz")
    np.savez_compressed(second, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    os.replace(second, name.with_suffix(".npz"))


def _padded(array: NDArray[Any], fill: float) -> NDArray[Any]:
    """With :data:`MOST_TOLD` rows."""
    room = [(0, MOST_TOLD - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, room, constant_values=fill)


@dataclass(frozen=True)
class Examples:
    """Every (rollout, instruction, last frame) of some rollouts, by label and family."""

    episode: NDArray[np.int32]
    told: NDArray[np.int16]
    last: NDArray[np.int8]
    label: NDArray[np.int8]
    family: NDArray[np.int8]
    """Index into :data:`FAMILIES`."""

    @staticmethod
    def of(rollouts: Rollouts, families: tuple[str, ...] = TRAINED, first: int = 3) -> Examples:
        """All of them whose clip has at least ``first`` + 1 frames."""
        labels = rollouts.labels
        family = np.full(labels.shape[:2], -1, np.int8)
        for row, told in zip(family, rollouts.told, strict=True):
            row[: len(told)] = [FAMILIES.index(t.family) for t in told]
        wanted = np.isin(family, [FAMILIES.index(f) for f in families])
        where = np.argwhere((labels > 0) & wanted[..., None] & (np.arange(FRAMES) >= first))
        e, i, k = where.T
        return Examples(
            e.astype(np.int32), i.astype(np.int16), k.astype(np.int8), labels[e, i, k], family[e, i]
        )
