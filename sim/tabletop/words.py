"""Instructions in words: many ways to say each; some are held out to test on."""

from __future__ import annotations

import numpy as np

from .rubric import DIRECTIONS, Instruction
from .scene import Scene

SAID: dict[str, tuple[str, ...]] = {
    "place": (
        "put the {thing} on the {other}", "place the {thing} on the {other}",
        "move the {thing} onto the {other}", "set the {thing} down on the {other}",
        "pick up the {thing} and put it on the {other}", "the {thing} belongs on the {other}",
        "bring the {thing} to the {other}", "put {thing} on {other}",
        "on the {other}, place the {thing}", "the {other} should get the {thing}",
        "please drop the {thing} off at the {other}", "I want the {thing} on the {other}",
        "can you transfer the {thing} onto the {other}",
    ),
    "lift": (
        "lift the {thing}", "pick up the {thing}", "raise the {thing}",
        "lift the {thing} off the table", "grasp the {thing} and lift it", "pick the {thing} up",
        "take the {thing} into the air", "please hold up the {thing}", "grab the {thing}",
    ),
    "push": (
        "push the {thing} {other}", "slide the {thing} {other}", "move the {thing} {other}",
        "shove the {thing} {other}", "nudge the {thing} {other} by ten centimetres",
        "please move that {thing} {other}", "{other}: that is where to push the {thing}",
        "let the {thing} slide {other}",
    ),
    "touch": (
        "touch the {thing}", "reach for the {thing}", "move the gripper to the {thing}",
        "go to the {thing}", "put the gripper on the {thing}", "poke the {thing}",
        "please contact the {thing}", "let the hand meet the {thing}",
    ),
    "stack": (
        "stack the {thing} on the {other}", "put the {thing} on top of the {other}",
        "place the {thing} on the {other}",
    ),
}  # fmt: skip
HELD_OUT: dict[str, tuple[str, ...]] = {
    "place": (
        "could you lay the {thing} on the {other}?", "the {other} is where the {thing} should go",
        "take the {thing} over to the {other} and let go", "deposit the {thing} onto the {other}",
    ),
    "lift": (
        "hold the {thing} up in the air", "please take the {thing} off the table",
        "get the {thing} up",
    ),
    "push": (
        "please push that {thing} {other}", "make the {thing} go {other}",
        "the {thing} should be pushed {other}",
    ),
    "touch": ("make contact with the {thing}", "tap the {thing}", "bring the hand to the {thing}"),
    "stack": ("build a tower: the {thing} above the {other}", "rest the {thing} atop the {other}"),
}  # fmt: skip
"""Never trained on."""
NAMES = {
    "cube": ("cube", "block"), "cylinder": ("cylinder", "can"), "ball": ("ball", "sphere"),
    "brick": ("brick", "bar"), "plate": ("plate", "disc"), "mat": ("mat", "square"),
}  # fmt: skip


def say(
    asked: Instruction, scene: Scene, rng: np.random.Generator | None = None, held_out: bool = False
) -> str:
    """An instruction in words; the first way of saying it without a generator."""
    ways = (HELD_OUT if held_out else SAID)[asked.family]
    way = ways[0] if rng is None else ways[int(rng.integers(len(ways)))]
    if asked.family == "push":
        other = list(DIRECTIONS)[asked.other]
    elif asked.family == "place":
        other = _name(scene.pads[asked.other].colour, scene.pads[asked.other].kind, rng)
    elif asked.family == "stack":
        below = scene.things[asked.other]
        other = _name(below.colour, below.shape, rng)
    else:
        other = ""
    thing = scene.things[asked.thing]
    return way.format(thing=_name(thing.colour, thing.shape, rng), other=other)


def _name(colour: str, kind: str, rng: np.random.Generator | None) -> str:
    names = NAMES[kind]
    return f"{colour} {names[0] if rng is None else names[int(rng.integers(len(names)))]}"
