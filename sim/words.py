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
        "can you transfer the {thing} onto the {other}", "carry the {thing} to the {other}",
        "deliver the {thing} to the {other}", "the {thing} goes on the {other}",
        "leave the {thing} on the {other}", "grasp the {thing}, then release it on the {other}",
        "make sure the {thing} ends up on the {other}", "use the {other} for the {thing}",
        "the right place for the {thing} is the {other}", "the {thing} to the {other}, please",
        "relocate the {thing} to the {other}", "let the {thing} stand on the {other}",
        "find the {thing} and take it to the {other}", "the {other} waits for the {thing}",
    ),
    "lift": (
        "lift the {thing}", "pick up the {thing}", "raise the {thing}",
        "lift the {thing} off the table", "grasp the {thing} and lift it", "pick the {thing} up",
        "take the {thing} into the air", "please hold up the {thing}", "grab the {thing}",
        "lift up the {thing}", "pick the {thing} up off the table", "the {thing} should be lifted",
        "elevate the {thing}", "take up the {thing}", "I want the {thing} up high",
        "grasp the {thing} and raise it", "bring the {thing} up into the air",
        "the {thing} should leave the table", "keep the {thing} above the table",
        "can you pick up that {thing}", "up with the {thing}", "hoist the {thing} high",
    ),
    "push": (
        "push the {thing} {other}", "slide the {thing} {other}", "move the {thing} {other}",
        "shove the {thing} {other}", "nudge the {thing} {other} by ten centimetres",
        "please move that {thing} {other}", "{other}: that is where to push the {thing}",
        "let the {thing} slide {other}", "the {thing} should move {other}",
        "push that {thing} ten centimetres {other}", "shift the {thing} {other}",
        "{other}, push the {thing}", "I want the {thing} further {other}",
        "without lifting it, push the {thing} {other}", "displace the {thing} {other}",
        "use the gripper to push the {thing} {other}", "can you slide that {thing} {other}",
        "pushing the {thing} {other} is your task", "drag the {thing} a bit {other}",
    ),
    "touch": (
        "touch the {thing}", "reach for the {thing}", "move the gripper to the {thing}",
        "go to the {thing}", "put the gripper on the {thing}", "poke the {thing}",
        "please contact the {thing}", "let the hand meet the {thing}",
        "reach the {thing} with the gripper", "get the gripper to the {thing}",
        "the gripper should touch the {thing}", "bring the gripper to the {thing}",
        "feel the {thing}", "reach out and touch the {thing}", "the hand goes to the {thing}",
        "extend the arm to the {thing}", "can you touch that {thing}", "a finger on the {thing}",
        "just touch the {thing}, nothing more", "your hand should be at the {thing}",
    ),
    "stack": (
        "stack the {thing} on the {other}", "put the {thing} on top of the {other}",
        "place the {thing} on the {other}",
    ),
    "drive": (
        "drive to the {thing}", "go to the {thing}", "navigate to the {thing}",
        "approach the {thing} and stop there", "please drive up to the {thing}",
        "the {thing} is your destination", "move over to the {thing}", "park at the {thing}",
        "drive until you are at the {thing}", "find your way to the {thing}",
        "travel to the {thing}", "the {thing} is where to go", "stop beside the {thing}",
        "I want you at the {thing}", "visit the {thing}", "get to the {thing}",
        "roll towards the {thing}", "come near the {thing}", "can you go up to that {thing}",
        "make your way to the {thing} and wait",
    ),
    "leave": (
        "drive away from the {thing}", "leave the {thing}", "get away from the {thing}",
        "keep clear of the {thing}", "move off from the {thing}", "stay away from the {thing}",
        "go away from the {thing}", "depart from the {thing}", "avoid the {thing}",
        "increase the distance to the {thing}", "move further from the {thing}",
        "do not stay near the {thing}", "get far from the {thing}", "retreat from the {thing}",
        "I want you far away from the {thing}", "be somewhere else than at the {thing}",
        "can you drive off, away from that {thing}", "withdraw from the {thing}",
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


def say(
    told: Told, rng: np.random.Generator | None = None, held_out: bool = False,
    forget: float = 0.0,
) -> str:  # fmt: skip
    """An instruction in words; the first way of saying it without a generator.

    Args:
        told: the instruction.
        rng: draws the way of saying it, and names.
        held_out: say it as it is never said in training.
        forget: chance that one of the words is left out, names and directions aside.
    """
    ways = (HELD_OUT if held_out else SAID)[told.family]
    way = ways[0] if rng is None else ways[int(rng.integers(len(ways)))]
    if rng is not None and rng.random() < forget:
        words = way.split()
        plain = [i for i, word in enumerate(words) if "{" not in word]
        words.pop(plain[int(rng.integers(len(plain)))])
        way = " ".join(words)
    return way.format(thing=_name(told.thing, rng), other=_name(told.other, rng))


def _name(parts: tuple[str, str], rng: np.random.Generator | None) -> str:
    colour, kind = parts
    names = NAMES.get(kind, (kind,))
    name = names[0] if rng is None else names[int(rng.integers(len(names)))]
    return f"{colour} {name}" if colour else name
