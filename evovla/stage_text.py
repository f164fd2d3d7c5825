"""Stage dictionaries from templates, one per primitive, without a language model.

As in the paper (arXiv 2511.16166, supplement) a text tells place, contact and relative pose, with
numbers; a hard negative is the positive with *one* predicate flipped: beside in place of above,
near without contact, another object. The paper has one hard negative per stage, we have several.
"""

from __future__ import annotations

from collections.abc import Sequence

from .stage_check import StageError, quality
from .stages import Stage, StageDictionary, Step

CONTAINERS = frozenset("cup mug bowl box bin basket tray drawer".split())
"""Last words of the names of things that others are put into."""
MOST_OTHERS = 2
"""Other objects that hard negatives name, per stage."""

# {t} is the target, {r} the reference, {on} "on" or "in", {o} another object. The first text is the
# positive, the second the negative; those with {o} are made once per other object.
_TEMPLATES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "above": (
        "the open gripper is straight above the {t}, about 10 cm higher",
        "the gripper is more than 15 cm away from the {t}",
        (
            "the open gripper is beside the {t}, about 10 cm higher, not above",
            "the closed gripper is straight above the {t}, about 10 cm higher",
            "the open gripper is straight above the {o}, about 10 cm higher",
        ),
    ),
    "reach": (
        "the {t} is between the open fingers, which do not touch it yet",
        "the open gripper is more than 5 cm above the {t}, nothing is between the fingers",
        (
            "the {t} is beside the open fingers, which do not touch it yet, not between",
            "the open fingers end just above the {t}, which is not between them yet",
            "the {o} is between the open fingers, which do not touch it yet",
        ),
    ),
    "close": (
        "the fingers close on the {t}, both are in contact",
        "the fingers are open wide and in contact with nothing",
        (
            "the fingers close near the {t}, without contact",
            "the fingers close on the {t}, only one is in contact",
            "the fingers close on the {o}, both are in contact",
        ),
    ),
    "settle": (
        "the {t} is held firm between both fingers for 0.3 s, still at its place",
        "the fingers are open and the {t} stands free between or below them",
        (
            "the {t} slips between both fingers, still at its place",
            "the {t} stands near both fingers for 0.3 s, not held, still at its place",
            "the {o} is held firm between both fingers for 0.3 s, still at its place",
        ),
    ),
    "lift": (
        "the {t} is in the grasp, more than 2 cm up, with nothing below in contact",
        "the {t} stands where it was at first, the gripper does not touch it",
        (
            "the gripper went more than 2 cm up, the {t} stayed behind, not in the grasp",
            "the {t} is in the grasp, less than 1 cm up, still in contact below",
            "the {o} is in the grasp, more than 2 cm up, with nothing below in contact",
        ),
    ),
    "over": (
        "the {t} hangs in the grasp centred over the {r}, within 1 cm, without contact to it",
        "the {t} is more than 10 cm away from the {r}",
        (
            "the {t} hangs in the grasp beside the {r}, more than 2 cm off its centre",
            "the gripper is centred over the {r}, within 1 cm, without the {t} in the grasp",
            "the {t} hangs in the grasp centred over the {o}, within 1 cm",
        ),
    ),
    "over, roughly": (
        "the {t} hangs in the grasp roughly over the {r}, at most 3 cm off its centre",
        "the {t} is more than 15 cm away from the {r}",
        (
            "the {t} hangs in the grasp beside the {r}, more than 5 cm off its centre",
            "the gripper is roughly over the {r}, without the {t} in the grasp",
            "the {t} hangs in the grasp roughly over the {o}, at most 3 cm off its centre",
        ),
    ),
    "lower": (
        "the {t} in the grasp has come down {on} the {r}, centred within 1 cm, in contact with it",
        "the {t} in the grasp is more than 5 cm higher than the {r}",
        (
            "the {t} in the grasp is close above the {r}, centred within 1 cm, not in contact",
            "the {t} in the grasp has come down beside the {r}, in contact with the ground",
            "the {t} in the grasp has come down {on} the {o}, in contact with it",
        ),
    ),
    "open": (
        "the {t} rests {on} the {r}, no finger is in contact with it",
        "the fingers still hold the {t} firmly",
        (
            "the {t} has fallen beside the {r}, no finger is in contact with it",
            "the {t} rests {on} the {r}, the fingers are still in contact with it",
            "the {t} rests {on} the {o}, no finger is in contact with it",
        ),
    ),
    "retreat": (
        "the gripper has gone more than 5 cm away from the {t}, which stays put{there}",
        "the gripper is still around the {t}",
        (
            "the gripper has gone more than 5 cm up and has carried the {t} along",
            "the gripper is less than 2 cm away from the {t}, which stays put{there}",
            "the gripper has gone more than 5 cm away, the {t} has fallen over",
        ),
    ),
}


def from_steps(
    task_name: str, task_description: str, steps: Sequence[Step], min_frames: int | None = None
) -> StageDictionary:
    """Write the dictionary of a task.

    Args:
        steps: one per stage, in order. Of two equal "over" in a row the first is a rough approach;
            any other step twice is refused: nobody could tell the two apart.
        min_frames: of every stage, see :class:`.stages.Stage`.

    Raises:
        StageError: a quality filter found something, such as a step twice.
    """
    names = tuple(dict.fromkeys(n for s in steps for n in (s.target, s.reference) if n))
    told = list(zip(steps, [*steps[1:], None], strict=True))
    rough = [step == after and step.primitive == "over" for step, after in told]
    stages = tuple(
        _stage(step, names, min_frames, "over, roughly" if r else step.primitive)
        for step, r in zip(steps, rough, strict=True)
    )
    made = StageDictionary(task_name, task_description, stages, names)
    if problems := quality(made):
        raise StageError(task_name, problems)
    return made


def _stage(step: Step, names: Sequence[str], min_frames: int | None, template: str) -> Stage:
    positive, negative, near = _TEMPLATES[template]
    others = [n for n in names if n not in (step.target, step.reference)][:MOST_OTHERS]
    hard = [_say(t, step, o) for t in near for o in (others if "{o}" in t else [""])]
    return Stage(
        _say(positive, step), _say(negative, step), tuple(hard), step=step, min_frames=min_frames
    )


def _say(template: str, step: Step, other: str = "") -> str:
    beside = other if "{on} the {o}" in template else step.reference
    on = "in" if beside.split()[-1:] and beside.split()[-1] in CONTAINERS else "on"
    there = f" {on} the {step.reference}" if step.reference else ""
    return template.format(t=step.target, r=step.reference, o=other, on=on, there=there)
