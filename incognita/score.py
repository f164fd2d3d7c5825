"""Rewards for the episodes of a store, by the service or by a model in this process.

Scores go into a sidecar beside the store, one JSON object a line: an episode is immutable, and its
manifest stays valid. A score is known by the episode's content, what was asked and which model
answered, so a second run does only what is new.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from episodes import Episode, EpisodeError, EpisodeReader
from reward_vlm.results import Missing, Query, Scored, Scores

BATCH = 16
"""Episodes that are asked for at once, and between two writes of the sidecar."""
CLIP_BYTES = 24 << 20
"""Most bytes of frames of one episode: the service takes 32 MiB."""
STAMPS = ("model", "revision", "prompt_version", "preprocess_sha")
"""What says which model answered."""


@dataclass(frozen=True)
class Asked:
    """What is asked about every episode."""

    task: str | None = None
    """In place of the episode's own instruction."""
    views: tuple[str, ...] = ()
    """Cameras; none: the only one there is."""
    frames: int = 64
    """Most frames of an episode, evenly from the first to the last."""
    deadline_s: float = 60.0
    """For one batch."""

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.deadline_s > 0:
            raise ValueError(f"frames >= 1 and deadline_s > 0 wanted, got {self}")


def sidecar(store: Path) -> Path:
    """Where the scores of a store are."""
    store = store.resolve()
    return store.with_name(f"{store.name}.scores.jsonl")


def read_scores(file: Path) -> list[dict[str, Any]]:
    """The lines of a sidecar; none where there is no file.

    Raises:
        ValueError: a line is not of ours.
    """
    if not file.exists():
        return []
    rows = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            _identity(row)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}:{number} is no score") from None
        rows.append(row)
    return rows


def write_scores(file: Path, new: Sequence[dict[str, Any]]) -> None:
    """Add lines, replacing those of the same identity; the file is whole at any time."""
    rows = {_identity(row): row for row in [*read_scores(file), *new]}
    temporary = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as out:
            out.writelines(f"{json.dumps(row, allow_nan=False)}\n" for row in rows.values())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["episode"], row["content"], row["task"], tuple(row["views"]), row["frames"],
        *(row[name] for name in STAMPS),
    )  # fmt: skip


def score_store(
    store: Path,
    scores: Scores,
    stamps: dict[str, str],
    asked: Asked,
    file: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Score what has no score yet, and write the sidecar after every batch.

    Args:
        stamps: :data:`STAMPS` of the model that will answer.
        file: the sidecar.
        advance: is told of episodes done.

    Returns:
        Counts, and statistics of all scores of the store by this model.

    Raises:
        RewardRequestError: the service refuses what it is asked.
        ValueError: a camera is not there, or the sidecar is none.
    """
    reader = EpisodeReader(store)
    known = {_identity(row): row for row in read_scores(file)}
    rows: list[dict[str, Any]] = []
    missing: Counter[str] = Counter()
    unread: dict[str, str] = {}
    new, batch = 0, list[tuple[dict[str, Any], Query]]()

    def flush() -> None:
        nonlocal new
        results = scores.score_many([q for _, q in batch], deadline_s=asked.deadline_s)
        made = []
        for (row, _), result in zip(batch, results, strict=True):
            if isinstance(result, Scored):
                made.append(_row(row, result))
            else:
                missing[result.reason] += 1
        if made:
            write_scores(file, made)
        rows.extend(made)
        new += len(made)
        advance(len(batch))
        batch.clear()

    for id in reader.ids():
        try:
            row, query = _query(reader, id, asked)
        except (EpisodeError, KeyError) as error:
            unread[id] = str(error)
            advance(1)
            continue
        before = known.get(_identity(row | stamps))
        if before is not None:
            rows.append(before)
            advance(1)
            continue
        batch.append((row, query()))
        if len(batch) == BATCH:
            flush()
    if batch:
        flush()
    counts = {"episodes": len(reader.ids()), "new": new, "known": len(rows) - new}
    return counts | {"missing": dict(missing), "unreadable": unread} | _summary(rows) | stamps


def _query(
    reader: EpisodeReader, id: str, asked: Asked
) -> tuple[dict[str, Any], Callable[[], Query]]:
    """What identifies an episode's score, and its query, whose frames are decoded when called."""
    episode = reader.open(id)
    task = asked.task or episode.attrs["instruction"]
    if not task.strip():
        raise KeyError("it has no instruction: give --task")
    views = asked.views or _only_camera(episode)
    for name in views:
        spec = episode.cameras.get(name)
        if spec is None or len(spec.shape) != 3 or spec.dtype != "uint8":
            raise ValueError(f"view must be an RGB camera of {id}, got {name!r}")
    content = json.loads((reader.store / id / "manifest.json").read_bytes())["sha256"]
    row = {"episode": id, "content": content, "task": task, "views": list(views)}
    return row | {"frames": asked.frames}, lambda: _with_frames(episode, task, views, asked.frames)


def _only_camera(episode: Episode) -> tuple[str, ...]:
    rgb = [name for name, spec in episode.cameras.items() if len(spec.shape) == 3]
    if not rgb:
        raise KeyError("it has no RGB camera")
    if len(rgb) > 1:
        raise ValueError(f"view must be one or more of {rgb}, none was given")
    return (rgb[0],)


def _with_frames(episode: Episode, task: str, views: Sequence[str], most: int) -> Query:
    size = sum(episode.cameras[name].nbytes for name in views)
    most = max(min(most, CLIP_BYTES // size, len(episode)), 1)
    last = len(episode) - 1
    keep = np.unique(np.rint(np.linspace(0, last, most)).astype(int)) if most > 1 else [last]
    frames = {name: np.stack([episode.frame(name, int(i)) for i in keep]) for name in views}
    apart_s = last / max(len(keep) - 1, 1) / episode.attrs["rate_hz"]
    fps = min(1 / apart_s, 240.0) if apart_s > 0 else 1.0
    return Query(task, frames, fps, ("score", "progress", "success"))


def _row(row: dict[str, Any], result: Scored) -> dict[str, Any]:
    answer = result.model_dump(exclude={"id", "timing_ms", "cached"})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return row | {name: answer.pop(name) for name in STAMPS} | answer | {"scored_utc": now}


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sure = [row for row in rows if row["abstain"] is None]
    return {
        "scored": len(rows),
        "abstained": len(rows) - len(sure),
        "mean_reward": float(np.mean([row["reward"] for row in sure])) if sure else None,
        "scores": {str(k): sum(row["score"] == k for row in sure) for k in range(1, 6)},
    }


class _Named:
    """Asks for one model of the service by name."""

    def __init__(self, scores: Scores, model: str | None) -> None:
        self.scores, self.model = scores, model

    def score_many(
        self, queries: Sequence[Query], *, deadline_s: float | None = None
    ) -> list[Scored | Missing]:
        """See :class:`reward_vlm.results.Scores`."""
        named = [replace(query, model=self.model) for query in queries]
        return self.scores.score_many(named, deadline_s=deadline_s)


@contextmanager
def who_scores(
    server: str, local: str | None, model: str | None
) -> Iterator[tuple[Scores, dict[str, str]]]:
    """Who scores, and its stamps.

    Raises:
        ValueError: no such model.
        ConnectionError: the service does not answer.
    """
    if local is not None:
        from reward_vlm.backends import open_model
        from reward_vlm.local import LocalScores

        made = LocalScores(open_model(local))
        info = made.model.info
        try:
            yield made, _stamps(info, info.name)
        finally:
            made.close()
        return
    from reward_vlm.client import RewardClient

    with RewardClient(server) as client:
        cards = client.models()
        if isinstance(cards, Missing):
            raise ConnectionError(f"{server} does not answer ({cards.reason}: {cards.detail})")
        wanted = [c for c in cards.models if c.name == model or (model is None and c.default)]
        if not wanted:
            raise ValueError(f"model must be one of {[c.name for c in cards.models]}, got {model}")
        yield _Named(client, wanted[0].name), _stamps(wanted[0], wanted[0].name)


def _stamps(card: Any, name: str) -> dict[str, str]:
    return {"model": name} | {key: str(getattr(card, key)) for key in STAMPS[1:]}
