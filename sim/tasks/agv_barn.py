"""The BARN challenge (Perille 2020, arXiv 2008.13315) with our Jackal-class robot.

This is a port, not the leaderboard. Start and goal 10 m apart, success within 1 m, 100 s, a
collision ends the run. Score of a run: success * T* / clip(T, 2 T*, 8 T*), where
T* = path length / 2 m/s.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.guide import GuideConfig
from rnd_agv.observation import ObservationConfig
from rnd_agv.planner import astar, path_length_m

from .. import worlds
from .agv import AgvConfig, AgvTask, Placement

V_STAR = 2.0
"""Speed in the score's T*, m/s."""


def barn_score(
    success: NDArray[np.bool_], time_s: NDArray[np.float64], path_m: NDArray[np.float64]
) -> NDArray[Any]:
    """Score of each run in [0, 0.5].

    Args:
        success: (k,) the run reached its goal.
        time_s: (k,) its duration, s.
        path_m: (k,) length of the reference path, m.
    """
    best = np.asarray(path_m) / V_STAR
    return np.asarray(success) * best / np.clip(time_s, 2 * best, 8 * best)


class AgvBarn(AgvTask):
    """Cross a field of cylinders that nobody has mapped: the guide's map grows from the scans.

    Args:
        data: folder with the benchmark's ``index.json``; None draws worlds of the same kind by
            cellular automata, the way the benchmark's own were made.
        layouts, first_layout: which drawn worlds are used.
    """

    name = "agv-barn"

    def __init__(
        self,
        data: str | Path | None = None,
        layouts: int = 400,
        first_layout: int = 0,
        **overrides: Any,
    ) -> None:
        base = AgvConfig(
            robot="jackal",
            observation=ObservationConfig(
                sectors=72, max_range=5.0, frames=1, proximity_m=0.5, guide=True
            ),
            beams=360, scan_range_m=10.0, max_steps=2000, goal_radius_m=1.0, guide="built",
            guide_config=GuideConfig(
                resolution=0.1, lookahead_m=1.5, margin_m=0.05, soft_m=0.3, replan_steps=10
            ),
        )  # fmt: skip
        super().__init__(replace(base, **overrides))
        self.layouts, self.first_layout = layouts, first_layout
        self.index: dict[str, Any] | None = None
        if data is not None:
            path = Path(data) / "index.json"
            if not path.is_file():
                raise FileNotFoundError(
                    f"data must be a folder with the BARN index.json, got {data}"
                )
            self.index = json.loads(path.read_text())
            self.names = sorted(self.index)
            self.layouts, self.first_layout = len(self.names), 0
        self._made: dict[int, tuple[worlds.World, NDArray[Any], NDArray[Any], float]] = {}

    def layout(self, number: int) -> tuple[worlds.World, NDArray[Any], NDArray[Any], float]:
        """World, start (3,), goal (2,) and reference path length (m) of a number."""
        if number not in self._made:
            if self.index is not None:
                entry = self.index[self.names[number]]
                world = worlds.barn(entry)
                start, goal, path = (
                    np.array(entry["start"]),
                    np.array(entry["goal"]),
                    entry["path_length_m"],
                )
                self._made[number] = world, start, goal, float(path)
            else:
                self._made[number] = drawn(number)
        return self._made[number]

    def place(self, rng: np.random.Generator) -> Placement:
        """A world; the start moves by centimetres and degrees, so that runs differ."""
        number = self.first_layout + int(rng.integers(self.layouts))
        return self.placed(number, rng)

    def placed(self, number: int, rng: np.random.Generator) -> Placement:
        """An episode in the world of this number."""
        world, start, goal, _ = self.layout(number)
        jitter = rng.uniform([-0.05, -0.05, -0.05], [0.05, 0.05, 0.05])
        return Placement(world, start + jitter, goal, layout=number)


def drawn(seed: int) -> tuple[worlds.World, NDArray[Any], NDArray[Any], float]:
    """A world like the benchmark's, never one of them.

    Smoothed random cells of 0.15 m between two walls.
    """
    cell, wide, deep = 0.15, 30, 30
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt, 11])
        fill = rng.uniform(0.12, 0.34)
        full = rng.random((deep, wide)) < fill
        for _ in range(int(rng.integers(1, 5))):
            padded = np.pad(full, 1).astype(int)
            around = sum(
                padded[1 + dy : 1 + dy + deep, 1 + dx : 1 + dx + wide]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if dy or dx
            )
            full = np.where(full, around >= 2, around >= 5)
        rows, columns = np.nonzero(full)
        padded = np.pad(full, 1)
        inner = padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
        keep = ~inner[rows, columns]
        x = -wide * cell + (columns[keep] + 0.5) * cell
        y = 5.0 + (rows[keep] + 0.5) * cell
        side = np.arange(0.075, 9.8, cell)
        walls = [
            np.stack([np.full_like(side, edge), side], axis=1)
            for edge in (-wide * cell - 0.075, 0.075)
        ]
        back = np.arange(-wide * cell + 0.075, 0, cell)
        walls.append(np.stack([back, np.full_like(back, 0.075)], axis=1))
        centres = np.concatenate([np.stack([x, y], axis=1), *walls])
        start, goal = np.array([-2.25, 3.0, np.pi / 2]), np.array([-2.25, 13.0])
        entry = {"start": start.tolist(), "goal": goal.tolist(), "cylinders": centres.tolist()}
        world = worlds.barn(entry)
        grid = world.grid(0.05)
        path = astar(grid.inflate(0.27), grid.cell(start[:2]), grid.cell(goal))
        if len(path):
            return world, start, goal, path_length_m(path, 0.05)
    raise RuntimeError(f"no passable world in 100 draws of seed {seed}")
