"""Instructions in words: many ways to say each; some are held out to test on."""

from __future__ import annotations

import numpy as np

from .rollout import Told

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
    "drive": (
        "drive to the {thing}", "go to the {thing}", "navigate to the {thing}",
        "approach the {thing} and stop there", "please drive up to the {thing}",
        "the {thing} is your destination", "move over to the {thing}", "park at the {thing}",
    ),
    "leave": (
        "drive away from the {thing}", "leave the {thing}", "get away from the {thing}",
        "keep clear of the {thing}", "move off from the {thing}", "stay away from the {thing}",
    ),
}  # fmt: skip
"""Ways of saying each family of instructions; ``stack`` is never trained on."""
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
    "drive": ("could you head for the {thing}?", "come to a halt by the {thing}",
              "your goal is the {thing}"),
    "leave": ("put some distance between you and the {thing}", "back off from the {thing}"),
}  # fmt: skip
"""Never trained on."""
NAMES = {
    "cube": ("cube", "block"), "cylinder": ("cylinder", "can"), "ball": ("ball", "sphere"),
    "brick": ("brick", "bar"), "plate": ("plate", "disc"), "mat": ("mat", "square"),
    "pillar": ("pillar", "column"), "crate": ("crate", "box"), "dome": ("dome", "hemisphere"),
}  # fmt: skip


def say(told: Told, rng: np.random.Generator | None = None, held_out: bool = False) -> str:
    """An instruction in words; the first way of saying it without a generator."""
    ways = (HELD_OUT if held_out else SAID)[told.family]
    way = ways[0] if rng is None else ways[int(rng.integers(len(ways)))]
    return way.format(thing=_name(told.thing, rng), other=_name(told.other, rng))


def _name(parts: tuple[str, str], rng: np.random.Generator | None) -> str:
    colour, kind = parts
    names = NAMES.get(kind, (kind,))
    name = names[0] if rng is None else names[int(rng.integers(len(names)))]
    return f"{colour} {name}" if colour else name
