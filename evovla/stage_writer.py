"""Stage dictionaries by a language model, held against the same filters as any other.

The rules that it is told are those of EvoVLA's prompt (arXiv 2511.16166, supplement): minimal
sufficient stages, positives that exclude one another, place and contact in place of looks, numbers,
hard negatives with one predicate flipped. What fails a filter goes back with the problems found, a
bounded number of times. Who answers is a function that is handed in: this room has no network.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .stage_check import APPEARANCE, LEAST_FRAMES, LEAST_WORDS, MOST_WORDS, StageError, quality
from .stages import PRIMITIVES, StageDictionary, from_json

Message = dict[str, Any]
Ask = Callable[[list[Message]], str]
"""Messages of a chat, as OpenAI's API has them -> the text of the answer."""
MOST_PROBLEMS = 40
"""Told back at once."""


@dataclass(frozen=True)
class Assignment:
    """What is to be written."""

    task_name: str
    task_description: str
    objects: tuple[str, ...]
    """Names of the objects; a colour in a name is allowed."""
    stages: tuple[int, int] = (2, 100)
    """Fewest and most stages."""
    tries: int = 4
    """Answers that are asked for at most."""
    pictures: tuple[bytes, ...] = ()
    """JPEG or PNG files of a demonstration, in order, for a model that sees."""

    def __post_init__(self) -> None:
        if not self.task_name.strip() or not self.task_description.strip() or not self.objects:
            raise ValueError("task_name, task_description and objects must not be empty")
        if not 1 <= self.stages[0] <= self.stages[1] or self.tries < 1:
            want = "1 <= fewest <= most stages, tries >= 1"
            raise ValueError(f"{want} wanted, got {self.stages} and {self.tries}")


def write_stages(ask: Ask, told: Assignment) -> StageDictionary:
    """Have a dictionary written that passes all filters.

    Args:
        ask: may raise what it likes; that ends the writing.

    Raises:
        StageError: the last answer still has problems.
    """
    messages = prompt(told)
    for _ in range(told.tries):
        answer = ask(list(messages))
        try:
            return _checked(answer, told)
        except StageError as error:
            problems = error.problems
        messages = [
            *messages,
            {"role": "assistant", "content": answer},
            {"role": "user", "content": _back(problems)},
        ]
    raise StageError(f"{told.task_name}, after {told.tries} answers", problems)


def prompt(told: Assignment) -> list[Message]:
    """What a model is asked at first."""
    fewest, most = told.stages
    text = f"""Write the stage dictionary of a robot's manipulation task.

Task name: {told.task_name}
Task: {told.task_description}
Objects, to be called by exactly these names: {", ".join(told.objects)}
Number of stages: {fewest} to {most}, no more than the task needs.

Answer with one JSON object and nothing else:
{{"task_name": "{told.task_name}", "task_description": "...", "num_stages": K,
 "triplets": {{"stage_0": {{"positive": "...", "negative": "...", "hard_negative": "...",
 "more_hard_negatives": ["..."], "primitive": "...", "target": "...", "reference": "..."}}, ...}}}}

Rules:
- positive: what is seen once the stage is done; negative: plainly not done; hard_negative: the
  positive with exactly one predicate flipped (beside for above, near without contact, another
  object). more_hard_negatives is optional.
- primitive is one of {", ".join(PRIMITIVES)}; target is the object that is approached, held or
  left, reference the one that it is brought to. All three are optional, target with primitive.
- No positive may be true of another stage as well.
- Only place, contact and relative pose, with numbers (within 1 cm, more than 2 cm up). No colour,
  texture or light outside the names of objects; not: {", ".join(sorted(APPEARANCE)[:12])} ...
- Each text has {LEAST_WORDS} to {MOST_WORDS} words, none is left open; a stage lasts at least
  {LEAST_FRAMES} frames at 20 Hz."""
    rule = "You describe states of a robot at work by where things are and what touches what."
    parts: Any = text
    if told.pictures:
        images = [{"type": "image_url", "image_url": {"url": _data_url(p)}} for p in told.pictures]
        parts = [{"type": "text", "text": text}, *images]
    return [{"role": "system", "content": rule}, {"role": "user", "content": parts}]


def _checked(answer: str, told: Assignment) -> StageDictionary:
    """The dictionary in an answer, which may have prose or a fence around it."""
    where = told.task_name
    start, end = answer.find("{"), answer.rfind("}")
    try:
        content = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError) as error:
        raise StageError(where, [f"answer: must be one JSON object: {error}"]) from None
    content["objects"] = list(told.objects)
    found = from_json(content, where)
    problems = quality(found)
    if found.task_name != told.task_name:
        problems.append(f"task_name: must be {told.task_name!r}, got {found.task_name!r}")
    if not told.stages[0] <= found.num_stages <= told.stages[1]:
        want = f"{told.stages[0]} to {told.stages[1]}"
        problems.append(f"num_stages: must be {want}, got {found.num_stages}")
    for k, stage in enumerate(found.stages):
        step = stage.step
        for field, name in (("target", step.target), ("reference", step.reference)) if step else ():
            if name and name not in told.objects:
                want = ", ".join(told.objects)
                problems.append(f"stage_{k}.{field}: must be one of {want}, got {name!r}")
    if problems:
        raise StageError(where, problems)
    return found


def _back(problems: Sequence[str]) -> str:
    listed = "\n".join(f"- {p}" for p in problems[:MOST_PROBLEMS])
    rest = len(problems) - MOST_PROBLEMS
    more = f"\n- and {rest} more" if rest > 0 else ""
    return f"These problems were found:\n{listed}{more}\nAnswer with the whole corrected JSON."


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
