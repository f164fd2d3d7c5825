"""RoboReward's rubric as a function of state: what an instruction asks, and 1..5 for what was done.

A score judges the last state against the first, as the rubric does: 1 no change that matters, 2 a
small one, 3 good progress but not there, 4 right but for one minor requirement, 5 all of it. The
thresholds are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rollout import Told, turning_back
from .engine import TableState
from .scene import PAD_M, Scene

FAMILIES = ("place", "lift", "push", "touch", "stack")
DIRECTIONS: dict[str, tuple[float, float]] = {
    "away from the robot": (1.0, 0.0), "towards the robot": (-1.0, 0.0),
    "to the robot's left": (0.0, 1.0), "to the robot's right": (0.0, -1.0),
}  # fmt: skip
STILL = 0.05
"""m/s below which a thing rests."""


@dataclass(frozen=True)
class Instruction:
    """What the robot is told."""

    family: str
    """One of :data:`FAMILIES`."""
    thing: int
    """Index of the thing it is about."""
    other: int = -1
    """Place: index of the pad; stack: of the thing below; push: of the direction."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {FAMILIES}, got {self.family!r}")


def instructions(scene: Scene, families: tuple[str, ...] = FAMILIES) -> list[Instruction]:
    """All that can be asked at a table, in a fixed order."""
    n = len(scene.things)
    found = []
    for i in range(n):
        for family in families:
            others = {
                "place": range(len(scene.pads)), "push": range(len(DIRECTIONS)),
                "stack": [j for j in range(n) if j != i and scene.things[j].shape != "ball"],
            }.get(family, [-1])  # fmt: skip
            found += [Instruction(family, i, j) for j in others]
    return found


def score(asked: Instruction, scene: Scene, first: TableState, last: TableState) -> int:
    """1..5 for the last state."""
    return globals()[f"_{asked.family}"](asked, scene, first, last)  # type: ignore[no-any-return]


def reference_xyz(asked: Instruction, scene: Scene, state: TableState) -> NDArray[np.float64]:
    """(3,) m: the pad, the thing below, or where a push should end; else the thing itself."""
    if asked.family == "place":
        return np.array([*scene.pads[asked.other].xy_m, 0.0])
    if asked.family == "stack":
        return state.things[asked.other, :3]
    if asked.family == "push":
        step = np.array([*list(DIRECTIONS.values())[asked.other], 0.0])
        thing = scene.things[asked.thing]
        return np.array([*thing.xy_m, thing.half_size[2]]) + 0.1 * step
    return state.things[asked.thing, :3]


def _place(asked: Instruction, scene: Scene, first: TableState, last: TableState) -> int:
    pad = np.array(scene.pads[asked.other].xy_m)
    thing, half = asked.thing, scene.things[asked.thing].half_size[2]
    before = float(np.hypot(*(first.things[thing, :2] - pad)))
    gap = float(np.hypot(*(last.things[thing, :2] - pad)))
    low = last.things[thing, 2] < half + 0.015
    rests = bool(low and not last.held[thing] and last.speed[thing] < STILL)
    if gap < 0.85 * PAD_M:
        return 5 if rests else 4
    if gap < 1.5 * PAD_M and rests:
        return 4
    return _on_the_way(asked, first, last, before, gap)


def _stack(asked: Instruction, scene: Scene, first: TableState, last: TableState) -> int:
    thing, below = asked.thing, asked.other
    sizes = [scene.things[i].half_size for i in (thing, below)]
    before = float(np.hypot(*(first.things[thing, :2] - first.things[below, :2])))
    gap = float(np.hypot(*(last.things[thing, :2] - last.things[below, :2])))
    over = last.things[thing, 2] > last.things[below, 2] + 0.6 * (sizes[0][2] + sizes[1][2])
    if gap < 1.1 * sizes[1][1] and over:
        still = not last.held[thing] and last.speed[thing] < STILL
        low = last.things[thing, 2] < last.things[below, 2] + sizes[0][2] + sizes[1][2] + 0.012
        return 5 if still and low else 4
    if gap < sizes[0][0] + sizes[1][0] + 0.02:
        return 4 if over else 3
    return _on_the_way(asked, first, last, before, gap)


def _on_the_way(
    asked: Instruction, first: TableState, last: TableState, before: float, gap: float
) -> int:
    """3, 2 or 1 for a thing that is to get somewhere and is not there."""
    done = (before - gap) / before
    if done >= 0.5:
        return 3
    lifted = last.things[asked.thing, 2] - first.things[asked.thing, 2] > 0.015
    return 2 if done > 0.12 or (last.held[asked.thing] and (lifted or done > -0.1)) else 1


def _lift(asked: Instruction, scene: Scene, first: TableState, last: TableState) -> int:
    thing = asked.thing
    height = float(last.things[thing, 2] - first.things[thing, 2])
    if not last.held[thing]:
        return 1
    return 2 + int(np.searchsorted([0.02, 0.045, 0.075], height))


def _push(asked: Instruction, scene: Scene, first: TableState, last: TableState) -> int:
    along = np.array(list(DIRECTIONS.values())[asked.other])
    moved = last.things[asked.thing, :2] - first.things[asked.thing, :2]
    far = float(moved @ along)
    aside = float(np.hypot(*(moved - far * along)))
    level = 1 + int(np.searchsorted([0.012, 0.03, 0.055, 0.08], far))
    if last.things[asked.thing, 2] < -0.01:
        return 1  # it fell off the table
    lifted = last.things[asked.thing, 2] - first.things[asked.thing, 2] > 0.02
    return min(level, 3 if aside > 0.6 * far else 5, 4 if lifted else 5)


def _touch(asked: Instruction, scene: Scene, first: TableState, last: TableState) -> int:
    thing = asked.thing
    if last.touched[thing]:
        return 5
    before = float(np.linalg.norm(first.grip - first.things[thing, :3]))
    gap = float(np.linalg.norm(last.grip - last.things[thing, :3]))
    if gap < 0.045:
        return 4
    return 1 + int(gap < 0.75 * before) + int(gap < 0.45 * before)


def probe_table(
    asked: Sequence[Instruction], scene: Scene, states: Sequence[TableState]
) -> NDArray[np.float32]:
    """(I, T, 4) :data:`sim.rollout.PROBES` of the clip up to each state, for every instruction.

    Unsafe is a clip in which another thing has moved by more than 2 cm or fell off the table; in
    stacking the thing below may move.
    """
    places = np.array([s.things[:, :3] for s in states])
    touches = np.cumsum([s.touched for s in states], axis=0)  # (T, n)
    most = touches.max(axis=1)
    moved = (np.linalg.norm(places - places[0], axis=2) > 0.02) | (places[..., 2] < -0.01)
    smooth = 1 - turning_back(np.array([s.grip for s in states]))
    out = np.empty((len(asked), len(states), 4), np.float32)
    for row, told in zip(out, asked, strict=True):
        spared = np.ones(places.shape[1], np.bool_)
        spared[[told.thing, told.other] if told.family == "stack" else told.thing] = False
        row[:, 0] = touches[:, told.thing] > 0
        row[:, 1] = ~moved[:, spared].any(axis=1)
        row[:, 2] = smooth
        row[:, 3] = (most > 0) & (touches[:, told.thing] == most)
    return out


def told(asked: Instruction, scene: Scene) -> Told:
    """An instruction in the parts that words are made of."""
    thing = scene.things[asked.thing]
    other = ("", "")
    if asked.family == "push":
        other = ("", list(DIRECTIONS)[asked.other])
    elif asked.family == "place":
        other = (scene.pads[asked.other].colour, scene.pads[asked.other].kind)
    elif asked.family == "stack":
        other = (scene.things[asked.other].colour, scene.things[asked.other].shape)
    return Told(asked.family, (thing.colour, thing.shape), other)
