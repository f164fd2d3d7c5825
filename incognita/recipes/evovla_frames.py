"""Frames of a long task with their labels, to train, calibrate and test what judges stages.

Episodes of the scripted expert at its best, clumsy, and committing near misses, seen by both
cameras under domain randomization and kept in an episode store. Labels come from the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from episodes import EpisodeReader, EpisodeWriter
from evovla.tiny_training import LabelledFrames
from sim.manipulation.episodes import Episode, demonstrations
from sim.manipulation.expert import CLUMSY, NEAR_MISSES, ExpertConfig
from sim.manipulation.model import CAMERAS
from sim.manipulation.randomization import ARM_TRAINING
from sim.manipulation.task import ArmTask

SKILLED = ExpertConfig(noise=0.1, speed=(0.6, 1.0))
AT_ONCE = 10
"""Episodes that are played side by side: their frames are in memory together."""


@dataclass(frozen=True)
class Mix:
    """How many episodes of each kind."""

    skilled: int
    """Of the expert at its best."""
    clumsy: int
    near: int
    """Of each kind of near miss at each pick."""

    def __post_init__(self) -> None:
        if min(self.skilled, self.clumsy, self.near) < 0 or self.skilled + self.clumsy < 1:
            raise ValueError(f"counts must be >= 0 and episodes wanted, got {self}")

    def kinds(self, picks: int) -> Iterator[tuple[str, int, ExpertConfig, str | None, int]]:
        """Name, episodes, skill, near miss and the pick that it is committed at."""
        yield "skilled", self.skilled, SKILLED, None, 0
        yield "clumsy", self.clumsy, CLUMSY, None, 0
        for miss in NEAR_MISSES:
            for pick in range(picks):
                yield f"{miss}-{pick}", self.near, SKILLED, miss, pick

    def total(self, picks: int) -> int:
        """Episodes in all."""
        return sum(count for _, count, *_ in self.kinds(picks))


def record(
    store: Path, task: ArmTask, mix: Mix, seed: int, side: int, every: int,
    note: Callable[[int], None],
) -> None:  # fmt: skip
    """Play what is missing in a store; every so many frames are kept.

    Args:
        note: called with the number of episodes that are there.
    """
    with EpisodeWriter(store, lossless=True) as writer:
        reader = EpisodeReader(store)
        have = {tuple(reader.open(name).attrs["attrs"]["key"]) for name in reader.ids()}
        for i, (name, count, skill, miss, pick) in enumerate(mix.kinds(len(task.picks))):
            if all((seed + i, row) in have for row in range(count)):
                continue
            played = demonstrations(
                task, count, seed + i, side, ARM_TRAINING, skill, miss, pick, AT_ONCE
            )
            for episode in played:
                key = episode.seed, episode.row
                if key not in have:
                    _write(writer, task, name, key, episode, every)
                    have.add(key)
                    note(len(have))
    note(len(have))


def _write(
    writer: EpisodeWriter, task: ArmTask, kind: str, key: tuple[int, int], episode: Episode,
    every: int,
) -> None:  # fmt: skip
    assert episode.images is not None
    about = {"kind": kind, "key": list(key), "every": every}
    rate = 20.0 / every
    with writer.episode(task.name, task.description, about, rate) as out:
        for t in range(0, len(episode), every):
            frames = dict(zip(CAMERAS, episode.images[t], strict=True))
            out.append({"events": episode.events[t], "stage": episode.stage[t]}, frames)
        out.finish({"success": episode.success})


def load(store: Path) -> tuple[LabelledFrames, NDArray[np.int64]]:
    """All frames of a store, and the true stage (M,) of each.

    Raises:
        FileNotFoundError: no such folder, or no episode in it.
    """
    reader = EpisodeReader(store)
    ids = reader.ids()
    if not ids:
        raise FileNotFoundError(f"store must hold episodes, got none in {store}")
    parts, stages = [], []
    for name in ids:
        episode = reader.open(name)
        views = [episode.frames(camera) for camera in CAMERAS]
        events = episode.arrays["events"].astype(np.bool_)
        parts.append((np.stack(views, axis=1), events))
        stages.append(episode.arrays["stage"].astype(np.int64))
    images, done = (np.concatenate(x) for x in zip(*parts, strict=True))
    return LabelledFrames(images, done, np.ones_like(done)), np.concatenate(stages)
