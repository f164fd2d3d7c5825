"""Domain randomization of the long tasks: ranges, drawn once per episode."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import CONTROL_DT
from ..tabletop.scene import TABLES, Look

Range = tuple[float, float]
MAX_DELAY = 4
"""Control periods that an action may be late."""


@dataclass(frozen=True)
class ArmRandomization:
    """Uniform ranges (low, high); low == high is a constant. The defaults are the nominal cell."""

    pose: Range = (1.0, 1.0)
    """Share of the range that a task draws places and turns of its pieces from; 0: none moves."""
    friction: Range = (1.0, 1.0)
    """Of the pieces, over the nominal."""
    mass: Range = (1.0, 1.0)
    """Of the pieces, over the nominal."""
    action_delay_s: Range = (0.0, 0.0)
    """From policy output to joint target, rounded to control periods; at most 0.2 s."""
    azimuth: Range = (0.0, 0.0)
    """Of the side camera about the middle of the table, rad."""
    elevation: Range = (0.75, 0.75)
    """rad over the table."""
    distance_m: Range = (0.75, 0.75)
    fovy_deg: Range = (36.0, 36.0)
    wrist_fovy: Range = (1.0, 1.0)
    """Of the wrist camera, over the nominal."""
    light: Range = (0.0, 0.0)
    """Horizontal part of the direction that the light shines in, along x and y each."""
    diffuse: Range = (0.6, 0.6)
    ambient: Range = (0.4, 0.4)
    colour: Range = (0.0, 0.0)
    """Added to red, green and blue of each piece, drawn apart."""
    texture: Range = (0.0, 0.0)
    """Index into :data:`sim.tabletop.scene.TABLES`, rounded down."""
    table: Range = (0.0, 0.0)
    """Added to red, green and blue of the table, drawn apart."""
    floor: Range = (0.0, 0.0)
    """Added to red, green and blue of the floor, drawn apart."""
    arm: Range = (0.0, 0.0)
    """Added to the grey of the arm."""

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = getattr(self, field.name)
            if not low <= high:
                raise ValueError(
                    f"{field.name} must be (low, high) with low <= high, got {(low, high)}"
                )
        if not 0 <= self.action_delay_s[0] <= self.action_delay_s[1] <= MAX_DELAY * CONTROL_DT:
            raise ValueError(
                f"action_delay_s must be in 0..{MAX_DELAY * CONTROL_DT} s, "
                f"got {self.action_delay_s}"
            )
        if not (0 <= self.pose[0] and self.pose[1] <= 1):
            raise ValueError(f"pose must be in 0..1, got {self.pose}")
        if min(self.friction[0], self.mass[0]) <= 0:
            raise ValueError(f"friction and mass must be > 0, got {self.friction}, {self.mass}")
        if not (0 <= self.texture[0] and self.texture[1] <= len(TABLES)):
            raise ValueError(f"texture must be in 0..{len(TABLES)}, got {self.texture}")

    def draw(self, rng: np.random.Generator, pieces: int) -> Drawn:
        """One episode's; always as many random numbers, whatever the ranges."""
        value = {f.name: _within(getattr(self, f.name), rng.random()) for f in fields(self)}
        unit = rng.random((pieces + 3, 3))
        table, floor = (_within(getattr(self, n), unit[i]) for n, i in (("table", 0), ("floor", 1)))
        light = _within(self.light, unit[2])
        texture = TABLES[min(int(value["texture"]), len(TABLES) - 1)]
        look = Look(
            azimuth=value["azimuth"], elevation=value["elevation"],
            distance_m=value["distance_m"], fovy_deg=value["fovy_deg"],
            light=(light[0], light[1], -1.0), diffuse=value["diffuse"], ambient=value["ambient"],
            table=texture, table_rgb=_rgb(Look.table_rgb, table),
            floor_rgb=_rgb(Look.floor_rgb, floor),
            arm_rgb=_rgb(Look.arm_rgb, np.full(3, value["arm"])),
        )  # fmt: skip
        tint = _within(self.colour, unit[3:])
        physics = {name: value[name] for name in ("pose", "friction", "mass", "action_delay_s")}
        return Drawn(physics, look, value["wrist_fovy"], np.asarray(tint))


@dataclass(frozen=True)
class Drawn:
    """What one episode has."""

    physics: dict[str, float]
    """"pose", "friction", "mass" and "action_delay_s"."""
    look: Look
    wrist_fovy: float
    """Over the nominal."""
    tint: NDArray[np.float64]
    """(P, 3) added to the colours of the pieces."""

    @property
    def delay_steps(self) -> int:
        """Control periods that actions are late."""
        return round(self.physics["action_delay_s"] / CONTROL_DT)


ARM_NOMINAL = ArmRandomization()
ARM_TRAINING = ArmRandomization(
    friction=(0.6, 1.2), mass=(0.6, 1.6), action_delay_s=(0.0, 0.05), azimuth=(-0.25, 0.25),
    elevation=(0.65, 0.85), distance_m=(0.70, 0.80), fovy_deg=(34.0, 38.0), wrist_fovy=(0.95, 1.05),
    light=(-0.6, 0.6), diffuse=(0.4, 0.75), ambient=(0.25, 0.5), colour=(-0.06, 0.06),
    texture=(0.0, 4.0), table=(-0.15, 0.15), floor=(-0.2, 0.2), arm=(-0.3, 0.05),
)  # fmt: skip
"""Ranges to train policies and scorers with that look through cameras."""


def _within(bounds: Range, unit: NDArray[np.float64] | float) -> Any:
    low, high = bounds
    return low + unit * (high - low)


def _rgb(base: tuple[float, float, float], add: NDArray[np.float64]) -> tuple[float, float, float]:
    r, g, b = np.clip(np.array(base) + add, 0.02, 1.0)
    return float(r), float(g), float(b)
