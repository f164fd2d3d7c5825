"""Quality filters of a stage dictionary (arXiv 2511.16166, supplement: quality control).

Four filters: positives that exclude one another, enough frames per stage, no words of appearance
outside the names of objects, and completeness without a TODO. The paper runs them on what a
language model wrote; here templates, files and language models all go through them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from .stages import StageDictionary

LEAST_FRAMES = 6
"""Frames that a stage must last in every demonstration (paper)."""
LEAST_WORDS, MOST_WORDS = 3, 48
"""Of one text; scorers cut longer ones."""
APPEARANCE = frozenset(
    "red green blue yellow orange purple violet pink cyan magenta brown black white grey gray "
    "beige golden silver dark bright pale colour color coloured colored colourful "
    "shiny glossy matte textured texture striped dotted checkered patterned wooden metallic "
    "plastic transparent translucent opaque reflective shadow lighting illuminated".split()
)
"""Words that tell how a thing looks, not where it is or what touches it."""
_NEGATIONS = frozenset("not no without never neither nor".split())
_FILLERS = frozenset("the a an of its it is are and that which with".split())
_UNFINISHED = re.compile(r"\b(?:TODO|TBD|FIXME|XXX|N/A)\b|\?\?|\.\.\.|…|<[a-z_ ]+>|\{\w*\}", re.I)
_WORD = re.compile(r"[<>]=?|\d+(?:\.\d+)?|[^\W\d_]+(?:-[^\W\d_]+)*")


class StageError(ValueError):
    """A dictionary that is not usable; every problem begins with stage and field."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{where}: {p}" for p in problems))
        self.problems = tuple(problems)


def quality(dictionary: StageDictionary, frames: ArrayLike | None = None) -> list[str]:
    """What the four filters find; empty for a good dictionary.

    Args:
        frames: (M, K) or (K,) frames that M demonstrations spend in each stage, if known.

    Returns:
        Problems, each beginning with ``stage_k.field:`` or the field of the dictionary.

    Raises:
        ValueError: frames do not fit the number of stages.
    """
    unfinished = _completeness(dictionary)
    return [
        *unfinished,
        *_exclusivity(dictionary),
        *_frames(dictionary, frames),
        *_appearance(dictionary),
    ]


def words(text: str) -> list[str]:
    """Lower-case words, numbers and comparisons of a text."""
    return _WORD.findall(text.lower())


def _completeness(d: StageDictionary) -> list[str]:
    found = []
    about = {"task_name": d.task_name, "task_description": d.task_description}
    for field, text in about.items():
        if not text.strip():
            found.append(f"{field}: must not be empty")
        elif match := _UNFINISHED.search(text):
            found.append(f"{field}: is unfinished, has {match.group()!r}")
    if not d.stages:
        found.append("triplets: must have at least one stage")
    for k, stage in enumerate(d.stages):
        if not stage.hard_negatives:
            found.append(f"stage_{k}.hard_negative: is missing")
        for field, text in stage.texts().items():
            count = len(words(text))
            if match := _UNFINISHED.search(text):
                found.append(f"stage_{k}.{field}: is unfinished, has {match.group()!r}")
            elif not LEAST_WORDS <= count <= MOST_WORDS:
                want = f"{LEAST_WORDS} to {MOST_WORDS} words"
                found.append(f"stage_{k}.{field}: must have {want}, got {count}: {text!r:.60}")
    return found


def _exclusivity(d: StageDictionary) -> list[str]:
    """Texts of one stage differ, and no positive says all that another one says."""
    found = []
    for k, stage in enumerate(d.stages):
        seen: dict[tuple[str, ...], str] = {}
        for field, text in stage.texts().items():
            earlier = seen.setdefault(tuple(words(text)), field)
            if earlier != field:
                found.append(f"stage_{k}.{field}: says the same as stage_{k}.{earlier}: {text!r}")
    told = [frozenset(words(stage.positive)) - _FILLERS for stage in d.stages]
    for k, mine in enumerate(told):
        for j, other in enumerate(told):
            if j == k or (mine == other and j > k):
                continue
            if mine == other or (mine < other and not (other - mine) & _NEGATIONS):
                found.append(
                    f"stage_{k}.positive: does not exclude stage_{j}.positive: "
                    f"{d.stages[k].positive!r} is true of both"
                )
    return found


def _frames(d: StageDictionary, frames: ArrayLike | None) -> list[str]:
    found = [
        f"stage_{k}.min_frames: must be >= {LEAST_FRAMES}, got {stage.min_frames}"
        for k, stage in enumerate(d.stages)
        if stage.min_frames is not None and stage.min_frames < LEAST_FRAMES
    ]
    if frames is None:
        return found
    rows = np.atleast_2d(np.asarray(frames))
    if rows.ndim != 2 or rows.shape[1] != len(d.stages) or not len(rows):
        raise ValueError(f"frames must be (M, {len(d.stages)}), got {np.shape(frames)}")
    for k, fewest in enumerate(rows.min(axis=0)):
        want = max(d.stages[k].min_frames or 0, LEAST_FRAMES)
        if fewest < want:
            m = int(rows[:, k].argmin())
            found.append(
                f"stage_{k}.min_frames: must last >= {want} frames, demonstration {m} has {fewest}"
            )
    return found


def _appearance(d: StageDictionary) -> list[str]:
    names = sorted((" ".join(words(name)) for name in d.names()), key=len, reverse=True)
    named = re.compile("|".join(rf"\b{re.escape(n)}\b" for n in names if n) or r"(?!)")
    found = []
    for k, stage in enumerate(d.stages):
        for field, text in stage.texts().items():
            left = named.sub(" ", " ".join(words(text))).split()
            if bad := [word for word in left if word in APPEARANCE]:
                found.append(
                    f"stage_{k}.{field}: must tell place and contact, not looks, and has "
                    f"{', '.join(map(repr, bad))} outside the names of objects: {text!r}"
                )
    return found
