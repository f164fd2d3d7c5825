"""Scripted behaviour at the table: what succeeds, and what fails as robots fail.

A script is a list of waypoints of the gripper. Failures are not noise on top: the hand closes
beside the thing, loses it on the way, lets go too early, takes the wrong one, stops half-way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backend import CONTROL_DT
from .engine import TableState, Tabletop
from .rubric import DIRECTIONS, Instruction, instructions
from .scene import PAD_M, X_M, Y_M, Scene

OUTCOMES = ("success", "miss", "drop", "near", "hold", "short", "wrong_thing", "wrong_place",
            "wander", "undo")  # fmt: skip
HIGH_M = 0.14
"""Height at which things are carried, of the grip."""


@dataclass(frozen=True)
class Waypoint:
    """Drive the grip there in a straight line, then wait."""

    xyz: tuple[float, float, float]
    """m."""
    opening: float
    """0 shut .. 1 open."""
    yaw: float = 0.0
    wait: int = 0
    """Steps."""


@dataclass(frozen=True)
class Script:
    """What a robot is about to do, and what it was told."""

    asked: Instruction
    outcome: str
    """One of :data:`OUTCOMES`; what the script tries, not what comes of it."""
    waypoints: tuple[Waypoint, ...]
    speed: float = 0.3
    """m/s of the grip."""
    jitter_m: float = 0.0
    """Standard deviation of noise on every command: a shaky hand."""


def draw_script(
    rng: np.random.Generator, scene: Scene, families: tuple[str, ...],
    outcome: str | None = None,
) -> Script:  # fmt: skip
    """A script for a random instruction of some families; half of them try to succeed."""
    asked = _choice(rng, instructions(scene, (str(rng.choice(families)),)))
    tried = outcome or (
        "success" if rng.random() < 0.4 else str(rng.choice(_FAILURES[asked.family]))
    )
    done = asked
    if tried == "wrong_thing":
        done = _choice(rng, [i for i in instructions(scene, (asked.family,))
                             if i.thing != asked.thing])  # fmt: skip
    elif tried == "wrong_place":
        done = _choice(rng, [i for i in instructions(scene, (asked.family,))
                             if i.thing == asked.thing and i.other != asked.other])  # fmt: skip
    if tried == "wander":
        waypoints = _wander(rng)
    else:
        waypoints = _PLANS[done.family](rng, scene, done, tried)
    shaky = float(rng.uniform(0.003, 0.012)) if rng.random() < 0.3 else 0.0
    return Script(asked, tried, tuple(waypoints), float(rng.uniform(0.22, 0.42)), shaky)


_FAILURES = {
    "place": ("miss", "drop", "drop", "near", "near", "hold", "short", "wrong_thing",
              "wrong_place", "wander", "undo"),
    "stack": ("miss", "drop", "near", "hold", "short", "wrong_thing", "wander", "undo"),
    "lift": ("miss", "drop", "short", "short", "wrong_thing", "wander", "undo"),
    "push": ("miss", "short", "short", "wrong_thing", "wrong_place", "wander"),
    "touch": ("miss", "short", "wrong_thing", "wander"),
}  # fmt: skip


def _choice(rng: np.random.Generator, options: list[Instruction]) -> Instruction:
    return options[int(rng.integers(len(options)))]


def _wander(rng: np.random.Generator) -> list[Waypoint]:
    return [
        Waypoint(
            (float(rng.uniform(*X_M)), float(rng.uniform(*Y_M)), float(rng.uniform(0.06, 0.24))),
            float(rng.random() < 0.7), 0.0, int(rng.integers(0, 8)),
        )
        for _ in range(int(rng.integers(2, 7)))
    ]  # fmt: skip


def _approach(
    rng: np.random.Generator, scene: Scene, thing: int, tried: str
) -> tuple[list[Waypoint], float]:
    """Waypoints until the fingers have closed on a thing (or beside it), and the height there."""
    what = scene.things[thing]
    yaw = what.yaw + (0.0 if what.shape == "brick" else float(rng.choice([0.0, np.pi / 2])))
    x, y = what.xy_m
    if tried == "miss":
        turn = rng.uniform(0, 2 * np.pi)
        off = rng.uniform(1.8, 3.2) * what.half_m
        x, y = x + off * np.cos(turn), y + off * np.sin(turn)
    deep = max(what.half_size[2] * float(rng.uniform(0.7, 1.1)), 0.012)
    if tried == "miss":
        deep += 2.4 * what.half_size[2]  # above it: the fingers must not push it about
    return [
        Waypoint((x, y, deep + 0.09), 1.0, yaw), Waypoint((x, y, deep), 1.0, yaw, 2),
        Waypoint((x, y, deep), 0.0, yaw, 9),
    ], deep  # fmt: skip


def _carry(
    rng: np.random.Generator, scene: Scene, done: Instruction, tried: str,
    to: NDArray[np.float64], release_m: float,
) -> list[Waypoint]:  # fmt: skip
    """Grasp, lift, carry over a place, lower, let go, retreat; or fail on the way."""
    thing = done.thing
    way, deep = _approach(rng, scene, thing, tried)
    x, y, _ = way[-1].xyz
    yaw = way[-1].yaw
    way.append(Waypoint((x, y, HIGH_M), 0.0, yaw))
    start, goal = np.array([x, y]), to + rng.normal(0, 0.004, 2)
    if tried == "near":
        turn, off = rng.uniform(0, 2 * np.pi), rng.uniform(1.05, 2.3) * PAD_M
        goal = goal + off * np.array([np.cos(turn), np.sin(turn)])
    share = float(rng.uniform(0.1, 0.9)) if tried in ("drop", "short") else 1.0
    end = start + share * (goal - start)
    over = (float(end[0]), float(end[1]), HIGH_M + release_m - deep if share == 1 else HIGH_M)
    way.append(Waypoint(over, 0.0, yaw, 2))
    if tried == "drop":
        return [*way, Waypoint(over, 1.0, yaw, 12)]
    if tried == "short":
        return [*way, Waypoint(over, 0.0, yaw, 20)]
    low = (over[0], over[1], release_m + 0.003)
    if tried == "hold":
        down = low if rng.random() < 0.5 else over
        return [*way, Waypoint(down, 0.0, yaw, 20)]
    way += [Waypoint(low, 0.0, yaw, 3), Waypoint(low, 1.0, yaw, 6)]
    if tried == "undo":
        way += [Waypoint(low, 0.0, yaw, 8), Waypoint(over, 0.0, yaw)]
        way += [Waypoint((x, y, HIGH_M), 0.0, yaw), Waypoint((x, y, deep), 0.0, yaw, 2)]
        return [*way, Waypoint((x, y, deep), 1.0, yaw, 5), Waypoint((x, y, HIGH_M), 1.0, yaw)]
    return [*way, Waypoint((over[0], over[1], over[2] + 0.05), 1.0, yaw)]


def _plan_place(
    rng: np.random.Generator, scene: Scene, done: Instruction, tried: str
) -> list[Waypoint]:
    half = scene.things[done.thing].half_size[2]
    return _carry(rng, scene, done, tried, np.array(scene.pads[done.other].xy_m), half)


def _plan_stack(
    rng: np.random.Generator, scene: Scene, done: Instruction, tried: str
) -> list[Waypoint]:
    half, below = scene.things[done.thing].half_size[2], scene.things[done.other]
    height = half + 2 * below.half_size[2]
    return _carry(rng, scene, done, tried, np.array(below.xy_m), height)


def _plan_lift(
    rng: np.random.Generator, scene: Scene, done: Instruction, tried: str
) -> list[Waypoint]:
    way, deep = _approach(rng, scene, done.thing, tried)
    x, y, _ = way[-1].xyz
    yaw = way[-1].yaw
    rise = float(rng.uniform(0.005, 0.075) if tried == "short" else rng.uniform(0.09, 0.16))
    top = (x, y, deep + rise)
    way.append(Waypoint(top, 0.0, yaw, 10))
    if tried == "drop":
        way.append(Waypoint(top, 1.0, yaw, 12))
    elif tried == "undo":
        way += [Waypoint((x, y, deep), 0.0, yaw, 2), Waypoint((x, y, deep), 1.0, yaw, 8)]
    return way


def _plan_push(
    rng: np.random.Generator, scene: Scene, done: Instruction, tried: str
) -> list[Waypoint]:
    what = scene.things[done.thing]
    along = np.array(list(DIRECTIONS.values())[done.other])
    side = np.array([-along[1], along[0]])
    aside = rng.normal(0, 0.002)
    if tried == "miss":
        aside = rng.uniform(0.045, 0.07) * rng.choice([-1, 1])
    yaw = float(np.arctan2(along[1], along[0]))  # the shut fingers are broad across the push
    at = np.array(what.xy_m) - along * (what.half_size[0] + 0.035) + side * aside
    behind = (float(at[0]), float(at[1]))
    far = float(rng.uniform(0.01, 0.07) if tried == "short" else rng.uniform(0.09, 0.12))
    end = at + along * (0.035 - 0.007 + far)
    z = max(0.8 * what.half_size[2], 0.012)
    return [
        Waypoint((*behind, 0.12), 0.0, yaw), Waypoint((*behind, z), 0.0, yaw, 2),
        Waypoint((float(end[0]), float(end[1]), z), 0.0, yaw, 4),
        Waypoint((*behind, 0.12), 0.0, yaw),
    ]  # fmt: skip


def _plan_touch(
    rng: np.random.Generator, scene: Scene, done: Instruction, tried: str
) -> list[Waypoint]:
    what = scene.things[done.thing]
    x, y = what.xy_m
    top = 2 * what.half_size[2]
    if tried == "miss":
        turn, off = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.08)
        x, y, top = x + off * np.cos(turn), y + off * np.sin(turn), top + rng.uniform(0.0, 0.05)
    above = (float(x), float(y), top + 0.08)
    if tried == "short":
        rest = np.array(scene.start_m) + rng.uniform(0.2, 0.9) * (
            np.array(above) - np.array(scene.start_m)
        )
        return [Waypoint((float(rest[0]), float(rest[1]), float(rest[2])), 0.0, 0.0, 15)]
    down = (float(x), float(y), float(top + (0.02 if tried == "miss" else -0.002)))
    return [Waypoint(above, 0.0), Waypoint(down, 0.0, 0.0, 10)]


_PLANS: dict[str, Callable[[np.random.Generator, Scene, Instruction, str], list[Waypoint]]] = {
    "place": _plan_place, "stack": _plan_stack, "lift": _plan_lift, "push": _plan_push,
    "touch": _plan_touch,
}  # fmt: skip


def run(
    table: Tabletop, scene: Scene, script: Script, rng: np.random.Generator, most: int = 220,
    seen: Callable[[TableState], None] | None = None,
) -> list[TableState]:  # fmt: skip
    """Play a script; returns the state at the start and after every step of 50 ms.

    Args:
        most: steps at most.
        seen: called with every state while the physics stands there (to draw it).
    """
    states = [table.reset(scene)]
    at = np.array(scene.start_m)
    if seen is not None:
        seen(states[0])
    for point in script.waypoints:
        goal = np.array(point.xyz)
        stride = script.speed * CONTROL_DT
        moves = max(int(np.ceil(np.linalg.norm(goal - at) / stride)), 0)
        line = [at + (goal - at) * (i + 1) / moves for i in range(moves)] + [goal] * point.wait
        for target in line:
            if len(states) > most:
                return states
            shake = rng.normal(0, script.jitter_m, 3) if script.jitter_m else 0.0
            states.append(table.step(target + shake, point.yaw, point.opening))
            if seen is not None:
                seen(states[-1])
        at = goal
    for _ in range(4):
        states.append(table.step(at, script.waypoints[-1].yaw, script.waypoints[-1].opening))
        if seen is not None:
            seen(states[-1])
    return states
