"""What a long task is made of: pieces on the table, and the order in which they are put somewhere.

A piece is a body of boxes, cylinders and ellipsoids. A task is a row of pick-and-places; its stages
(:class:`evovla.stages.Step`) follow from them, nine each and one more per careful approach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evovla.stages import PRIMITIVES, Step

SHAPES = ("box", "cylinder", "ellipsoid")
Vec3 = tuple[float, float, float]


@dataclass(frozen=True)
class Shape:
    """One geom of a piece, in the frame of the piece."""

    kind: str
    """One of :data:`SHAPES`."""
    half: Vec3
    """Half its extent along its axes, m."""
    at: Vec3 = (0.0, 0.0, 0.0)
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in SHAPES or min(self.half) <= 0:
            raise ValueError(f"kind of {SHAPES} and half > 0 wanted, got {self.kind}, {self.half}")


@dataclass(frozen=True)
class Piece:
    """A body on the table, and how a gripper takes it."""

    name: str
    """As texts call it: "blue cube"."""
    shapes: tuple[Shape, ...]
    rgb: Vec3
    xy_m: tuple[float, float]
    """Where its frame is put, in the frame of the arm."""
    height_m: float
    """Of its frame over the table when it stands there."""
    yaw: float = 0.0
    spread_m: tuple[float, float] = (0.0, 0.0)
    """Half the width of the range that x and y are drawn from, m."""
    spread_rad: float = 0.0
    grasp: Vec3 = (0.0, 0.0, 0.0)
    """Point between the finger tips when it is held, in its frame."""
    grasp_yaw: float = 0.0
    """Yaw of the gripper then, from the yaw of the piece."""
    grasp_period: float = np.pi / 2
    """Yaws of the gripper that are as good, rad: a quarter turn for a cube, half one for a bar."""
    half_grip_m: float = 0.02
    """Half the width that the fingers close on."""
    mass_kg: float = 0.02
    fixed: bool = False
    """It is part of the table: nothing moves it."""


@dataclass(frozen=True)
class Place:
    """Where a piece belongs, in the frame of the piece that it is brought to."""

    at: Vec3
    """Its frame, m."""
    xy_m: float = 0.012
    """It may be so far off sideways."""
    z_m: float = 0.008
    """And so far in height."""
    release: Vec3 | None = None
    """Where the fingers let go of it; None is ``at``."""
    release_m: float | None = None
    """How far off sideways it may be there; None is ``xy_m``."""
    upright: bool = True
    """Its z axis must point up there."""
    yaw: float | None = None
    """Its yaw there, half a turn is the same; None is any."""
    yaw_rad: float = 0.25
    """It may be turned so far from that."""


@dataclass(frozen=True)
class Pick:
    """One piece, taken and put somewhere."""

    target: str
    references: tuple[str, ...]
    """Where it may go, told apart by a cue if there are two."""
    place: Place
    lift_m: float = 0.07
    """How far it must be raised before it is carried."""
    overs: int = 1
    """Stages of the way over its place: with 2, a rough one comes first."""

    def steps(self) -> tuple[Step, ...]:
        """Its stages."""
        reference = " or ".join(self.references)
        names = [name for name in PRIMITIVES for _ in range(self.overs if name == "over" else 1)]
        far = ("over", "lower", "open", "retreat")
        return tuple(Step(n, self.target, reference if n in far else "") for n in names)


ROUGH_OVER = len(PRIMITIVES)
"""Number of the rough "over", after those of :data:`evovla.stages.PRIMITIVES`."""
N_EVENTS = len(PRIMITIVES) + 1


class Plan:
    """The picks of a task as index arrays.

    With S picks, K stages and P pieces: ``target`` (S,), ``references`` (S, R) indices of pieces,
    the first repeated where there are fewer; ``pick`` (K,), ``event`` (K,) index into the events of
    :mod:`sim.manipulation.events`; ``first`` (S + 1,) first stage of each pick, and K; the rest
    (S, ...) from the places and pieces.
    """

    def __init__(self, pieces: tuple[Piece, ...], picks: tuple[Pick, ...]) -> None:
        names = [p.name for p in pieces]
        if len(set(names)) != len(names):
            raise ValueError(f"names of pieces must differ, got {names}")
        for pick in picks:
            for name in (pick.target, *pick.references):
                if name not in names:
                    raise ValueError(f"a pick names {name!r}, pieces are {names}")
        self.steps: tuple[Step, ...] = sum((p.steps() for p in picks), ())
        self.target = np.array([names.index(p.target) for p in picks])
        most = max(len(p.references) for p in picks)
        self.references = np.array([
            [names.index(r) for r in (p.references + p.references[:1] * most)[:most]]
            for p in picks
        ])  # fmt: skip
        self.cued = most > 1
        self.pick = np.repeat(np.arange(len(picks)), [len(p.steps()) for p in picks])
        self.event = self._events(picks)
        self.first = np.concatenate([[0], np.cumsum([len(p.steps()) for p in picks])])
        column = _columns(picks)
        self.at, self.release = column["at"], column["release"]
        self.release_m, self.upright = column["release_m"], column["upright"]
        self.xy_m, self.z_m = column["xy_m"], column["z_m"]
        self.yaw, self.yaw_rad = column["yaw"], column["yaw_rad"]
        self.lift_m = np.array([p.lift_m for p in picks])
        chosen = [pieces[i] for i in self.target]
        self.grasp = np.array([p.grasp for p in chosen])
        self.grasp_yaw = np.array([p.grasp_yaw for p in chosen])
        self.grasp_period = np.array([p.grasp_period for p in chosen])
        self.half_grip_m = np.array([p.half_grip_m for p in chosen])
        self.height_m = np.array([p.height_m for p in chosen])

    @property
    def stages(self) -> int:
        """K."""
        return len(self.steps)

    @staticmethod
    def _events(picks: tuple[Pick, ...]) -> NDArray[np.int64]:
        out: list[int] = []
        for pick in picks:
            rough = pick.overs - 1
            for step in pick.steps():
                event = PRIMITIVES.index(step.primitive)
                if step.primitive == "over" and rough:
                    event, rough = ROUGH_OVER, rough - 1
                out.append(event)
        return np.array(out)


def _columns(picks: tuple[Pick, ...]) -> dict[str, NDArray[np.float64]]:
    places = [p.place for p in picks]
    return {
        "at": np.array([p.at for p in places]),
        "release": np.array([p.release or p.at for p in places]),
        "release_m": np.array([p.xy_m if p.release_m is None else p.release_m for p in places]),
        "upright": np.array([float(p.upright) for p in places]),
        "xy_m": np.array([p.xy_m for p in places]), "z_m": np.array([p.z_m for p in places]),
        "yaw": np.array([np.nan if p.yaw is None else p.yaw for p in places]),
        "yaw_rad": np.array([p.yaw_rad for p in places]),
    }  # fmt: skip


def box_ring(
    radius_m: float, thick_m: float, half_height_m: float, count: int
) -> tuple[Shape, ...]:
    """A round wall of boxes, its inner radius ``radius_m``, centred on the frame."""
    middle = radius_m + thick_m / 2
    width = middle * np.tan(np.pi / count) * 1.05
    out = []
    for k in range(count):
        turn = 2 * np.pi * k / count
        at = (float(middle * np.cos(turn)), float(middle * np.sin(turn)), 0.0)
        out.append(Shape("box", (thick_m / 2, float(width), half_height_m), at, float(turn)))
    return tuple(out)
