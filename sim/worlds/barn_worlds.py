"""BARN worlds (Perille 2020, arXiv 2008.13315): fields of thin cylinders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .world import PILLAR, World

CYLINDER_M = 0.075
"""Radius of every cylinder."""
MARGIN_M = 0.5
"""Floor around cylinders, start and goal."""


def barn(index_entry: Mapping[str, Any], name: str = "barn") -> World:
    """The world of one entry of the benchmark's index.

    Args:
        index_entry: "cylinders" [[x, y], ...] m, "start" [x, y, yaw] and "goal" [x, y] m.
        name: name of the world.

    Raises:
        ValueError: a key is missing or not finite numbers of that shape.
    """
    columns = {"cylinders": 2, "start": 3, "goal": 2}
    parts: dict[str, Any] = {}
    for key, wanted in columns.items():
        try:
            parts[key] = np.array(index_entry[key], np.float64).reshape(-1, wanted)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"index_entry[{key!r}] must be rows of {wanted} numbers ({error!r})"
            ) from None
        if not np.isfinite(parts[key]).all():
            raise ValueError(f"index_entry[{key!r}] must be finite")
    centres = parts["cylinders"]
    everything = np.concatenate([centres, parts["start"][:, :2], parts["goal"] + (0, 1.5)])
    low, high = everything.min(axis=0) - MARGIN_M, everything.max(axis=0) + MARGIN_M
    discs = np.concatenate([centres, np.full((len(centres), 1), CYLINDER_M)], axis=1).astype(
        np.float32
    )
    return World(
        name, 0, (float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        np.zeros((0, 4), np.float32), np.zeros(0, np.int8), discs,
        np.full(len(discs), PILLAR, np.int8),
    )  # fmt: skip
