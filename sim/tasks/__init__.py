"""The tasks, one per file, and their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..manipulation.task import ArmTask
from .agv import AgvConfig, AgvTask, Placement, State
from .agv_arena import AgvArena, ArenaPlacement
from .agv_barn import AgvBarn, barn_score
from .agv_paper import AgvFar, AgvPaper
from .agv_ros_map import AgvRosMap
from .agv_warehouse import TEST_LAYOUTS, AgvWarehouse
from .bridge import Bridge
from .coverage import Coverage
from .find import Find
from .goal import GoalReaching
from .jujube_cup import JujubeCup
from .lifelong import Lifelong, Patrol
from .stack import Stack
from .stack_cue import StackCue

TASKS: dict[str, Callable[..., AgvTask]] = {
    "agv-simple-static": partial(AgvPaper, "simple", False),
    "agv-simple-dynamic": partial(AgvPaper, "simple", True),
    "agv-complex-static": partial(AgvPaper, "complex", False),
    "agv-complex-dynamic": partial(AgvPaper, "complex", True),
    "agv-far": AgvFar,
    "agv-warehouse": AgvWarehouse,
    "agv-barn": AgvBarn,
    "agv-ros-map": AgvRosMap,
    "agv-arena": AgvArena,
    "coverage": Coverage,
    "lifelong": Lifelong,
    "patrol": Patrol,
    "goal": GoalReaching,
    "find": Find,
}

ARM_TASKS: dict[str, Callable[..., ArmTask]] = {
    "stack": Stack,
    "stack-cue": StackCue,
    "jujube-cup": JujubeCup,
    "bridge": Bridge,
    "bridge-lite": partial(Bridge, 2),
}
"""Long manipulation tasks, of the engine :class:`sim.manipulation.batch.ArmBatch`."""


def make_arm(name: str, **overrides: Any) -> ArmTask:
    """The manipulation task of this name with some of its parameters changed.

    Raises:
        ValueError: no such task.
    """
    if name not in ARM_TASKS:
        raise ValueError(f"task must be one of {sorted(ARM_TASKS)}, got {name!r}")
    return ARM_TASKS[name](**overrides)


def make(name: str, **overrides: Any) -> AgvTask:
    """The task of this name with some of its parameters changed.

    Raises:
        ValueError: no such task.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {sorted(TASKS)}, got {name!r}")
    return TASKS[name](**overrides)


__all__ = [
    "ARM_TASKS", "TASKS", "TEST_LAYOUTS", "AgvArena", "AgvBarn", "AgvConfig", "AgvFar", "AgvPaper",
    "AgvRosMap", "AgvTask", "AgvWarehouse", "ArenaPlacement", "ArmTask", "Bridge", "Coverage",
    "Find", "GoalReaching", "JujubeCup", "Placement", "Stack", "StackCue", "State", "barn_score",
    "make", "make_arm",
]  # fmt: skip
