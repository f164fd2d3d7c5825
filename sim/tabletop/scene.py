"""What lies on a table, where a camera stands and how the light falls: drawn at random, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

SHAPES = ("cube", "cylinder", "ball", "brick")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.13, 0.12), "green": (0.15, 0.60, 0.22), "blue": (0.12, 0.30, 0.80),
    "yellow": (0.92, 0.80, 0.12), "purple": (0.50, 0.18, 0.62), "orange": (0.93, 0.48, 0.10),
}  # fmt: skip
PADS = ("plate", "mat")
"""A plate is a disc, a mat a square; both lie flat and things stand on them."""
PAD_COLOURS: dict[str, tuple[float, float, float]] = {
    "white": (0.93, 0.93, 0.92), "black": (0.08, 0.08, 0.09), "pink": (0.93, 0.52, 0.66),
    "cyan": (0.20, 0.76, 0.80),
}  # fmt: skip
TABLES = ("plain", "checker", "grain", "speckle")
X_M, Y_M = (0.20, 0.44), (-0.22, 0.22)
"""Where things lie, m, in the frame of the arm: x away from it, y to its left."""
PAD_M = 0.055
"""Radius of a plate, half the side of a mat."""


@dataclass(frozen=True)
class Thing:
    """Something to grasp."""

    shape: str
    colour: str
    half_m: float
    """Half its width."""
    xy_m: tuple[float, float]
    yaw: float
    rgb: tuple[float, float, float]
    """Its colour, a little off the named one."""

    @property
    def name(self) -> str:
        """As in ``red cube``."""
        return f"{self.colour} {self.shape}"

    @property
    def half_size(self) -> tuple[float, float, float]:
        """Half its extent along its axes, m."""
        h = self.half_m
        return {"brick": (1.5 * h, 0.75 * h, 0.75 * h)}.get(self.shape, (h, h, h))


@dataclass(frozen=True)
class Pad:
    """Somewhere to put things."""

    kind: str
    colour: str
    xy_m: tuple[float, float]
    rgb: tuple[float, float, float]

    @property
    def name(self) -> str:
        """As in ``white plate``."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Look:
    """Camera, light and textures."""

    azimuth: float = 0.0
    """Of the camera about the middle of the table, rad; 0 looks at the robot from the front."""
    elevation: float = 0.75
    """Above the table, rad."""
    distance_m: float = 0.75
    target_m: tuple[float, float, float] = (0.25, 0.0, 0.07)
    """What it looks at."""
    fovy_deg: float = 42.0
    light: tuple[float, float, float] = (0.2, 0.1, -1.0)
    """Direction that the light shines in."""
    diffuse: float = 0.6
    ambient: float = 0.4
    table: str = "plain"
    table_rgb: tuple[float, float, float] = (0.62, 0.52, 0.42)
    floor_rgb: tuple[float, float, float] = (0.45, 0.47, 0.50)
    arm_rgb: tuple[float, float, float] = (0.86, 0.87, 0.88)


@dataclass(frozen=True)
class Scene:
    """A table before anything moves."""

    things: tuple[Thing, ...]
    pads: tuple[Pad, ...]
    look: Look = Look()
    start_m: tuple[float, float, float] = (0.30, 0.0, 0.22)
    """Where the gripper begins."""


@dataclass(frozen=True)
class SceneConfig:
    """What scenes are drawn from."""

    things: int = 3
    pads: int = 2
    combos: tuple[tuple[str, str], ...] = field(
        default_factory=lambda: tuple((c, s) for c in COLOURS for s in SHAPES)
    )
    """(colour, shape) that occur; each at most once in a scene."""
    azimuth: tuple[float, float] = (-0.6, 0.6)
    elevation: tuple[float, float] = (0.55, 1.0)
    distance_m: tuple[float, float] = (0.68, 0.84)
    half_m: tuple[float, float] = (0.019, 0.025)
    gap_m: float = 0.075
    """Between the middles of things; a little more to pads."""
    randomize: bool = True
    """Light, textures, colours; otherwise they are as in :class:`Look`."""

    def __post_init__(self) -> None:
        if not (1 <= self.things <= 4 and 1 <= self.pads <= 2):
            raise ValueError(f"things in 1..4 and pads in 1..2 wanted, got {self}")
        if len(self.combos) < self.things:
            raise ValueError(f"combos must be at least {self.things}, got {len(self.combos)}")


def draw_scene(rng: np.random.Generator, config: SceneConfig | None = None) -> Scene:
    """A scene in which nothing touches."""
    c = config or SceneConfig()
    places = _places(rng, c)
    picked = rng.choice(len(c.combos), c.things, replace=False)
    things = []
    for at, xy in zip(picked, places[c.pads :], strict=True):
        colour, shape = c.combos[at]
        rgb = _near(rng, COLOURS[colour], 0.05 if c.randomize else 0.0)
        half = float(rng.uniform(*c.half_m))
        yaw = float(rng.uniform(-np.pi / 4, np.pi / 4))
        things.append(Thing(shape, colour, half, xy, yaw, rgb))
    names = [(k, p) for k in PADS for p in PAD_COLOURS]
    pads = []
    for at, xy in zip(rng.choice(len(names), c.pads, replace=False), places, strict=False):
        kind, colour = names[at]
        rgb = _near(rng, PAD_COLOURS[colour], 0.04 if c.randomize else 0.0)
        pads.append(Pad(kind, colour, xy, rgb))
    start = (float(rng.uniform(0.24, 0.36)), float(rng.uniform(-0.12, 0.12)),
             float(rng.uniform(0.17, 0.25)))  # fmt: skip
    return Scene(tuple(things), tuple(pads), draw_look(rng, c), start)


def draw_look(rng: np.random.Generator, config: SceneConfig | None = None) -> Look:
    """A camera within the ranges; light and textures too where they are randomized."""
    c = config or SceneConfig()
    look = Look(
        float(rng.uniform(*c.azimuth)), float(rng.uniform(*c.elevation)),
        float(rng.uniform(*c.distance_m)), tuple(np.array(Look.target_m) + rng.normal(0, 0.015, 3)),
    )  # fmt: skip
    if not c.randomize:
        return look
    light = rng.normal(0, 0.45, 2)
    return replace(
        look, fovy_deg=float(rng.uniform(39, 45)), light=(float(light[0]), float(light[1]), -1.0),
        diffuse=float(rng.uniform(0.4, 0.75)), ambient=float(rng.uniform(0.25, 0.5)),
        table=str(rng.choice(TABLES)), table_rgb=_grey(rng, 0.35, 0.8),
        floor_rgb=_grey(rng, 0.2, 0.8), arm_rgb=_grey(rng, 0.35, 0.95),
    )  # fmt: skip


def _places(rng: np.random.Generator, c: SceneConfig) -> list[tuple[float, float]]:
    """Places of pads, then things, by rejection; begins anew where it gets stuck."""
    while True:
        found: list[NDArray[np.float64]] = []
        for _ in range(400):
            xy = np.array([rng.uniform(*X_M), rng.uniform(*Y_M)])
            pad = len(found) < c.pads
            gaps = [
                2.4 * PAD_M if pad else c.gap_m + (0.035 if i < c.pads else 0.0)
                for i in range(len(found))
            ]
            if all(np.hypot(*(xy - p)) > g for p, g in zip(found, gaps, strict=True)):
                found.append(xy)
            if len(found) == c.pads + c.things:
                return [(float(x), float(y)) for x, y in found]


def _near(
    rng: np.random.Generator, rgb: tuple[float, float, float], sigma: float
) -> tuple[float, float, float]:
    r, g, b = np.clip(np.array(rgb) + rng.normal(0, 1, 3) * sigma, 0.02, 1)
    return float(r), float(g), float(b)


def _grey(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """A dull colour, so that nothing is mistaken for a thing."""
    return _near(rng, (float(rng.uniform(low, high)),) * 3, 0.06)
