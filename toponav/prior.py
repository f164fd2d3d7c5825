"""What is known of buildings in general: what stands in which rooms, which rooms go together.

A floor has zones (an office wing, a lab wing, a service core). A room's type depends on its zone
alone, what stands in a room on its type alone. TopoNav (Hossain et al. 2024) looks for features
and states no prior; this one is ours, written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

CORRIDOR = "corridor"
"""The type that every prior has: what joins rooms, and belongs to no zone."""


@dataclass(frozen=True, eq=False)
class Prior:
    """T types of rooms, C classes of things, Z zones."""

    types: tuple[str, ...]
    """Names of the types of rooms; the first is the corridor."""
    classes: tuple[str, ...]
    """Names of the classes of things."""
    zones: tuple[str, ...]
    """Names of the zones."""
    zone: NDArray[np.float64]
    """(Z,) chance of each zone for a wing of a floor."""
    type_in_zone: NDArray[np.float64]
    """(Z, T) chance of each type for a room of a zone; 0 for the corridor."""
    count: NDArray[np.float64]
    """(T, C) mean number of things of a class in ``area_m2`` of a type. A room holds that number
    rounded down, and one more with the chance of what is left."""
    area_m2: NDArray[np.float64]
    """(T,) typical floor of a room; of the corridor, what ``count`` refers to."""
    area_sigma: float = 0.35
    """Standard deviation of the logarithm of a room's floor."""

    def __post_init__(self) -> None:
        z, t, c = len(self.zones), len(self.types), len(self.classes)
        if not self.types or self.types[0] != CORRIDOR:
            raise ValueError(f"types must begin with {CORRIDOR!r}, got {self.types}")
        shapes = {"zone": (z,), "type_in_zone": (z, t), "count": (t, c), "area_m2": (t,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all() or value.min() < 0:
                raise ValueError(f"{name} must be {shape}, finite and >= 0, got {value}")
        sums = np.append(self.type_in_zone.sum(axis=1), self.zone.sum())
        if np.abs(sums - 1).max() > 1e-6:
            raise ValueError("zone and the rows of type_in_zone must sum to 1")
        if self.type_in_zone[:, 0].any() or not (self.area_m2.min() > 0 and self.area_sigma > 0):
            raise ValueError("no corridor in a zone, area_m2 > 0 and area_sigma > 0 wanted")

    @cached_property
    def has(self) -> NDArray[np.float64]:
        """(T, C) chance that ``area_m2`` of a type holds at least one thing of a class."""
        return np.asarray(np.minimum(self.count, 1.0), np.float64)

    @cached_property
    def of_type(self) -> NDArray[np.float64]:
        """(T,) chance of each type for a room of which nothing is known."""
        return np.asarray(self.zone @ self.type_in_zone, np.float64)

    @cached_property
    def transition(self) -> NDArray[np.float64]:
        """(T, T) chance of a room's type (column) given that of another one of its zone (row).

        P(t' | t) = sum_z P(z | t) P(t' | z); rows of types that no zone has are ``of_type``.
        """
        joint = self.zone[:, None] * self.type_in_zone  # (Z, T)
        total = joint.sum(axis=0)
        zone_of = np.where(total > 0, joint / np.maximum(total, 1e-12), self.zone[:, None])
        return np.asarray(zone_of.T @ self.type_in_zone, np.float64)

    def shuffled(self, seed: int) -> Prior:
        """This prior believing of every type what holds for another one, and of things likewise.

        The corridor's row is dealt out with the others. For ablations: all its numbers are kept,
        what they say is wrong.
        """
        rng = np.random.default_rng(seed)
        rows, columns = rng.permutation(len(self.types)), rng.permutation(len(self.classes))
        return Prior(
            self.types, self.classes, self.zones, self.zone, self.type_in_zone,
            self.count[rows][:, columns], self.area_m2, self.area_sigma,
        )  # fmt: skip

    def uniform(self) -> Prior:
        """This prior without its knowledge of things: each class is as likely in every type."""
        density = self.count / self.area_m2[:, None]
        mean = density.mean(axis=0)[None] * self.area_m2[:, None]
        return Prior(self.types, self.classes, self.zones, self.zone, self.type_in_zone, mean,
                     self.area_m2, self.area_sigma)  # fmt: skip


def office_floor() -> Prior:
    """Offices, labs and what they share: the floors of :func:`sim.worlds.furnished`."""
    types = (CORRIDOR, "office", "meeting", "kitchen", "wc", "lab", "storage")
    classes = ("desk", "printer", "plant", "table", "fridge", "sink", "toilet", "extinguisher",
               "workbench", "cabinet")  # fmt: skip
    count = {
        CORRIDOR: {"extinguisher": 0.5, "plant": 0.25, "printer": 0.15},
        "office": {"desk": 2.0, "cabinet": 0.6, "plant": 0.3, "printer": 0.15},
        "meeting": {"table": 1.5, "plant": 0.4},
        "kitchen": {"fridge": 1.0, "sink": 1.0, "table": 0.7, "extinguisher": 0.15},
        "wc": {"toilet": 1.6, "sink": 1.0},
        "lab": {"workbench": 2.0, "sink": 0.4, "cabinet": 0.8, "extinguisher": 0.25,
                "fridge": 0.15},
        "storage": {"cabinet": 2.0, "extinguisher": 0.1},
    }  # fmt: skip
    area = {CORRIDOR: 20.0, "office": 18.0, "meeting": 24.0, "kitchen": 18.0, "wc": 14.0,
            "lab": 31.0, "storage": 18.0}  # fmt: skip
    in_zone = {
        "offices": {"office": 0.76, "meeting": 0.18, "storage": 0.06},
        "labs": {"lab": 0.68, "storage": 0.2, "office": 0.12},
        "services": {"kitchen": 0.28, "wc": 0.32, "storage": 0.22, "meeting": 0.18},
    }

    def table(rows: dict[str, dict[str, float]], columns: tuple[str, ...]) -> NDArray[np.float64]:
        return np.array([[row.get(name, 0.0) for name in columns] for row in rows.values()])

    return Prior(
        types, classes, tuple(in_zone), np.array([0.45, 0.3, 0.25]), table(in_zone, types),
        table({t: count[t] for t in types}, classes), np.array([area[t] for t in types]),
    )  # fmt: skip
