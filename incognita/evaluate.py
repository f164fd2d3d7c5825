"""Evaluate a policy or a planner on a task.

Each row runs one episode, so short episodes count no more than long ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.planner import goal_field, nearest_free
from sim.batch import BatchEnv, Tier
from sim.randomization import NOMINAL, Randomization
from sim.tasks import AgvTask

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, D) observations -> (N, 2) actions in [-1, 1]."""


@dataclass
class Evaluation:
    """Outcomes of k episodes, one array entry each."""

    success: NDArray[np.bool_]
    collision: NDArray[np.bool_]
    at_fault: NDArray[np.bool_]
    steps: NDArray[np.int64]
    path_m: NDArray[np.float64]
    """Way driven."""
    shortest_m: NDArray[np.float64]
    """Shortest way through the static free space for the inscribed radius."""
    layout: NDArray[np.int64]
    dt: float

    def summary(self) -> dict[str, Any]:
        """Rates and ratios as plain numbers."""
        ok = self.success
        known = ok & np.isfinite(self.shortest_m)
        ratio = self.path_m[known] / np.maximum(self.shortest_m[known], 1e-6)
        return {
            "episodes": len(ok),
            "success": float(ok.mean()),
            "collision": float(self.collision.mean()),
            "at_fault": float(self.at_fault.mean()),
            "timeout": float((~ok & ~self.collision).mean()),
            "time_s": float(self.steps[ok].mean() * self.dt) if ok.any() else None,
            "path_ratio": float(ratio.mean()) if known.any() else None,
            "path_ratio_total": float(self.path_m[known].sum() / self.shortest_m[known].sum())
            if known.any()
            else None,
        }


def evaluate(
    task: AgvTask, policy: Policy, episodes: int, *, tier: Tier = "mujoco", seed: int = 1_000_000,
    randomization: Randomization = NOMINAL, threads: int = 2, batch: int = 100,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:  # fmt: skip
    """Run ``episodes`` episodes, ``batch`` of them side by side.

    Row i is the same episode for every policy. A policy with a ``reset(env)`` method is given each
    batch before it starts (planners need that).
    """
    parts: list[dict[str, NDArray[Any]]] = []
    for first in range(0, episodes, batch):
        n = min(batch, episodes - first)
        env = BatchEnv(task, n, tier, seed, randomization, threads, first_row=first)
        obs = env.reset()
        if hasattr(policy, "reset"):
            policy.reset(env)
        shortest = np.array([shortest_m(env, row) for row in range(n)])
        layout = env.layout.copy()
        out = {k: np.zeros(n, bool) for k in ("success", "collision", "at_fault")}
        out |= {"steps": np.zeros(n, np.int64), "path_m": np.zeros(n)}
        open_ = np.ones(n, bool)
        while open_.any():
            step = env.step(policy(obs))
            ended = open_ & (step.terminated | step.truncated)
            for name in out:
                key = "episode_length" if name == "steps" else name
                out[name][ended] = step.terms[key][ended]
            open_ &= ~ended
            obs = step.obs
        parts.append(out | {"shortest_m": shortest, "layout": layout})
        if progress is not None:
            progress(n)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Evaluation(dt=env.spec.dt, **joined)


def shortest_m(env: BatchEnv, row: int) -> float:
    """Length of the shortest way from the row's start to its goal, m.

    It leads through static free space, for the robot's inscribed radius.
    """
    placement = env.placements[row]
    assert placement is not None
    grid = placement.world.grid(0.1)
    blocked = grid.inflate(env.robot.inscribed_m + 0.05, unknown=True)
    reach = 20
    goal = nearest_free(blocked, grid.cell(env.state.goal_w[row]), reach)
    start = nearest_free(blocked, grid.cell(placement.start_w[:2]), reach)
    if goal is None or start is None:
        return float("nan")
    way = float(goal_field(blocked, goal, 0.1)[start])
    return max(way - env.config.goal_radius_m, 0.1)
