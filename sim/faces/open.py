"""Which rows a task has: those of the engine that runs it."""

from __future__ import annotations

from typing import Any

from ..manipulation.task import ArmTask
from ..tasks import ARM_TASKS, AgvTask
from .arm_rows import ArmRows
from .rows import FaceRows, Rows

AnyTask = str | AgvTask | ArmTask
"""Name of a task, or a task."""


def open_rows(task: AnyTask, num_envs: int, **options: Any) -> FaceRows:
    """N rows of a task; options are those of :class:`sim.faces.rows.Rows` for one on wheels and of
    :class:`sim.faces.arm_rows.ArmRows` for one of the arm, and parameters of a task that is named.

    Raises:
        ValueError: no such task.
        TypeError: it has no such option.
    """
    if isinstance(task, ArmTask) or task in ARM_TASKS:
        return ArmRows(task, num_envs, **options)
    return Rows(task, num_envs, **options)
