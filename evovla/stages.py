"""Stages of a long task: what each one does, and how it is told in words (arXiv 2511.16166).

A task is a tuple of :class:`Step`; in words it is a :class:`StageDictionary`. Stages count from 0;
the number of the stage that is believed or true is ``stage`` in 0..K, where K, the number of
stages, means that all are done.

This is the one file door of the room. A dictionary on disk is JSON in the published layout,
``{task_name, task_description, num_stages, triplets: {stage_k: {positive, negative,
hard_negative}}}``, with optional fields of ours (:data:`OPTIONAL`) beside it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .stage_check import StageError, quality

PRIMITIVES = ("above", "reach", "close", "settle", "lift", "over", "lower", "open", "retreat")
"""What a stage can do, in the order of one pick and place."""
OPTIONAL = (
    "more_hard_negatives", "primitive", "target", "reference", "min_frames", "tau", "theta",
)  # fmt: skip
"""Fields of a stage that the published layout does not have."""

_TEXTS = ("positive", "negative", "hard_negative")
_HOLDS_OVER = ("over", "lower", "open")
"""Primitives that say where the held object is, relative to another one."""


@dataclass(frozen=True)
class Step:
    """What one stage does, to which object."""

    primitive: str
    """One of :data:`PRIMITIVES`."""
    target: str
    """The object that is approached, held or left, as it is named in texts: "blue cube"."""
    reference: str = ""
    """The object that the target is brought to; needed by "over", "lower" and "open"."""

    def __post_init__(self) -> None:
        if self.primitive not in PRIMITIVES:
            want = ", ".join(PRIMITIVES)
            raise ValueError(f"primitive must be one of {want}, got {self.primitive!r}")
        if not self.target.strip():
            raise ValueError(f"target must name an object, got {self.target!r}")
        if self.primitive in _HOLDS_OVER and not self.reference.strip():
            raise ValueError(f"reference must name an object for {self.primitive!r}, got none")
        if self.target == self.reference:
            raise ValueError(f"reference must differ from target, both are {self.target!r}")


@dataclass(frozen=True)
class Stage:
    """One stage in words."""

    positive: str
    """What is seen once the stage is done."""
    negative: str
    """What is seen when it is plainly not done."""
    hard_negatives: tuple[str, ...]
    """Near misses: the positive with one predicate flipped."""
    step: Step | None = None
    min_frames: int | None = None
    """Fewest frames that the stage lasts; the tracker does not leave it earlier."""
    tau: float | None = None
    """Temperature of the score, from a calibration."""
    theta: float | None = None
    """Score from which on the stage counts as done, from a calibration."""

    def texts(self) -> dict[str, str]:
        """Field name -> text, hard negatives one by one."""
        out = {"positive": self.positive, "negative": self.negative}
        for i, text in enumerate(self.hard_negatives):
            out[f"more_hard_negatives[{i - 1}]" if i else "hard_negative"] = text
        return out


@dataclass(frozen=True)
class StageDictionary:
    """All stages of one task, in words."""

    task_name: str
    task_description: str
    stages: tuple[Stage, ...]
    objects: tuple[str, ...] = ()
    """Names of objects; a colour in them is a name and passes the filter of appearance words."""

    @property
    def num_stages(self) -> int:
        """K."""
        return len(self.stages)

    def names(self) -> tuple[str, ...]:
        """Objects that are named here or by a step, each once."""
        steps = [s.step for s in self.stages if s.step is not None]
        of_steps = [name for step in steps for name in (step.target, step.reference) if name]
        return tuple(dict.fromkeys((*self.objects, *of_steps)))

    def calibrated(self, tau: Sequence[float], theta: Sequence[float]) -> StageDictionary:
        """A copy with these numbers, one per stage, see :func:`.stage_metrics.calibrate`."""
        pairs = zip(self.stages, tau, theta, strict=True)
        return replace(
            self, stages=tuple(replace(s, tau=float(a), theta=float(b)) for s, a, b in pairs)
        )


def load(path: str | Path) -> StageDictionary:
    """Read a dictionary and hold it against the quality filters.

    Raises:
        FileNotFoundError: there is no such file.
        StageError: it is no JSON, not of the layout, or fails a filter; names stage and field.
    """
    return parse(Path(path).read_text(encoding="utf-8"), str(path))


def parse(text: str, where: str = "stages") -> StageDictionary:
    """The dictionary that a JSON text holds, see :func:`load`."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StageError(where, [f"must be JSON: {error}"]) from None
    found = from_json(content, where)
    if problems := quality(found):
        raise StageError(where, problems)
    return found


def save(path: str | Path, dictionary: StageDictionary) -> None:
    """Write a dictionary whole or not at all: aside, synced, renamed.

    Raises:
        StageError: it fails a quality filter; nothing is written.
    """
    if problems := quality(dictionary):
        raise StageError(str(path), problems)
    at = Path(path)
    at.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(dictionary), indent=2, ensure_ascii=False, allow_nan=False)
    handle, aside = tempfile.mkstemp(prefix=f".{at.name}-", dir=at.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, at)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def to_json(dictionary: StageDictionary) -> dict[str, Any]:
    """The published layout, with our optional fields where they are set."""
    out: dict[str, Any] = {
        "task_name": dictionary.task_name,
        "task_description": dictionary.task_description,
        "num_stages": dictionary.num_stages,
    }
    if dictionary.objects:
        out["objects"] = list(dictionary.objects)
    out["triplets"] = {f"stage_{k}": _to_json(s) for k, s in enumerate(dictionary.stages)}
    return out


def _to_json(stage: Stage) -> dict[str, Any]:
    first, *more = stage.hard_negatives
    out: dict[str, Any] = dict(zip(_TEXTS, (stage.positive, stage.negative, first), strict=True))
    if more:
        out["more_hard_negatives"] = more
    if stage.step is not None:
        out |= {name: value for name, value in vars(stage.step).items() if value}
    numbers = {name: getattr(stage, name) for name in ("min_frames", "tau", "theta")}
    return out | {name: value for name, value in numbers.items() if value is not None}


def from_json(content: Any, where: str = "stages") -> StageDictionary:
    """Read the layout, without the quality filters.

    Stages may count from 0, as we write them, or from 1.

    Raises:
        StageError: not of the layout; every problem names stage and field.
    """
    if not isinstance(content, Mapping):
        raise StageError(where, [f"must be an object, got {content!r:.60}"])
    problems = [
        f"{name}: must be a text, got {content.get(name)!r:.60}"
        for name in ("task_name", "task_description") if not isinstance(content.get(name), str)
    ]  # fmt: skip
    known = {"task_name", "task_description", "num_stages", "objects", "triplets"}
    problems += [f"{name}: is no field of a dictionary" for name in sorted(set(content) - known)]
    objects = content.get("objects", [])
    if not _is_texts(objects):
        problems.append(f"objects: must be a list of texts, got {objects!r:.60}")
    stages: list[Stage] = []
    for name, told in _triplets(content, problems):
        stages += _stage(name, told, problems)
    if problems:
        raise StageError(where, problems)
    return StageDictionary(
        content["task_name"], content["task_description"], tuple(stages), tuple(objects)
    )


def _triplets(content: Mapping[str, Any], problems: list[str]) -> list[tuple[str, Any]]:
    """(stage_k, what is told of it) in order."""
    triplets = content.get("triplets")
    if not isinstance(triplets, Mapping) or not triplets:
        problems.append(f"triplets: must be an object of stages, got {triplets!r:.60}")
        return []
    count = content.get("num_stages")
    if count != len(triplets) or isinstance(count, bool):
        problems.append(f"num_stages: must be {len(triplets)}, as many as triplets, got {count!r}")
    first = 0 if "stage_0" in triplets else 1
    names = [f"stage_{k}" for k in range(first, first + len(triplets))]
    for name in names:
        if name not in triplets:
            problems.append(f"{name}: is missing")
    problems += [f"{name}: must be one of {names[0]}..{names[-1]}" for name in triplets
                 if name not in names]  # fmt: skip
    return [(name, triplets[name]) for name in names if name in triplets]


def _stage(name: str, told: Any, problems: list[str]) -> list[Stage]:
    """The stage, or nothing where ``problems`` grew."""
    if not isinstance(told, Mapping):
        problems.append(f"{name}: must be an object, got {told!r:.60}")
        return []
    before = len(problems)
    for field in sorted(set(map(str, told)) - {*_TEXTS, *OPTIONAL}):
        problems.append(f"{name}.{field}: is no field of a stage")
    for field in (*_TEXTS, *(f for f in ("primitive", "target", "reference") if f in told)):
        if not isinstance(told.get(field), str):
            problems.append(f"{name}.{field}: must be a text, got {told.get(field)!r:.60}")
    more = told.get("more_hard_negatives", [])
    if not _is_texts(more):
        problems.append(f"{name}.more_hard_negatives: must be a list of texts, got {more!r:.60}")
    for field, least, kind in (("min_frames", 1, int), ("tau", 1e-6, float), ("theta", 0, float)):
        value = told.get(field)
        most = 1.0 if field == "theta" else 1e6
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, kind))
            or not least <= value <= most
        ):  # fmt: skip
            want = f"{kind.__name__} in [{least:g}, {most:g}]"
            problems.append(f"{name}.{field}: must be {want}, got {value!r:.60}")
    if len(problems) > before:
        return []
    step = None
    if "primitive" in told or "target" in told or "reference" in told:
        try:
            step = Step(told.get("primitive", ""), told.get("target", ""),
                        told.get("reference", ""))  # fmt: skip
        except ValueError as error:
            problems.append(f"{name}.{error}")
            return []
    return [Stage(
        told["positive"], told["negative"], (told["hard_negative"], *more), step,
        told.get("min_frames"), told.get("tau"), told.get("theta"),
    )]  # fmt: skip


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
