"""RoboRewardBench as it is published: a folder ``{split}/metadata.jsonl`` beside mp4 files.

Each line has ``video`` (or ``file_name``), ``task`` and ``reward`` 1..5, and may name a ``subset``;
without one the folder of the video is it. The headline is the mean over subsets of the mean
absolute error in each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decode import Limits, decode
from .model import Clip, Sampling


@dataclass(frozen=True)
class Item:
    """One line of a split."""

    video: Path
    task: str
    label: int
    """1..5."""
    subset: str

    def clip(self, sampling: Sampling, limits: Limits | None = None) -> Clip:
        """The frames that a model with this sampling looks at.

        Raises:
            reward_vlm.decode.MediaError: the video is broken or too large.
        """
        found = decode("mp4", self.video.read_bytes(), sampling, None, limits or Limits())
        return Clip(self.task, {"video": found.frames}, found.fps, found.indices)


def read_split(folder: str | Path, split: str = "test") -> Iterator[Item]:
    """Items of a split, in the order of the file.

    Raises:
        FileNotFoundError: no metadata, or a video that is named is not there.
        ValueError: a line is no item; says which.
    """
    root = Path(folder) / split
    with (root / "metadata.jsonl").open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _item(root, number, line)


def _item(root: Path, number: int, line: str) -> Item:
    where = f"{root / 'metadata.jsonl'}:{number}"
    try:
        row: dict[str, Any] = json.loads(line)
        name, task, label = row.get("video") or row["file_name"], row["task"], float(row["reward"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where} must have video, task and reward: {error!r}") from None
    if label not in (1, 2, 3, 4, 5) or not isinstance(task, str) or not task.strip():
        raise ValueError(f"{where} must have a task and a reward of 1..5, got {task!r}, {label}")
    video = (root / str(name)).resolve()
    if root.resolve() not in video.parents:
        raise ValueError(f"{where} names a video outside of its split: {name!r}")
    if not video.is_file():
        raise FileNotFoundError(f"{where} names {name}, which is not there")
    inside = video.relative_to(root.resolve()).parts
    subset = row.get("subset") or (inside[-2] if len(inside) > 1 else root.name)
    return Item(video, task, int(label), str(subset))
