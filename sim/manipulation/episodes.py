"""Episodes of a long task as arrays: for cloning, and to train what judges images by stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch import ArmBatch
from .expert import Expert, ExpertConfig
from .randomization import ARM_NOMINAL, ArmRandomization
from .task import ArmTask
from .view import ArmView

Act = Callable[[ArmBatch], NDArray[np.float32]]


@dataclass(frozen=True)
class Episode:
    """T steps. Row t is what was true *before* action t; the last rows are in ``final_stage``.

    With K stages, P pieces and images of side S from the cameras ``side`` and ``wrist``.
    """

    seed: int
    """It is the first episode of row number ``row`` of a batch of this seed."""
    row: int
    success: bool
    """Strict."""
    weak_success: bool
    final_stage: int
    """True stage at the end, 0..K."""
    obs: NDArray[np.float32]
    """(T, D)."""
    action: NDArray[np.float32]
    """(T, 5) as acted, in [-1, 1]."""
    joint_target: NDArray[np.float32]
    """(T, 6) rad that the servos were sent for action t."""
    proprioception: NDArray[np.float32]
    """(T, 14) see :attr:`sim.manipulation.batch.ArmBatch.proprioception`."""
    stage: NDArray[np.int16]
    """(T,) true stage."""
    events: NDArray[np.bool_]
    """(T, K) whether the event of each stage holds, whatever the order."""
    object_pose: NDArray[np.float32]
    """(T, P, 7) m and quat_wxyz."""
    grip_pose: NDArray[np.float32]
    """(T, 7) m and quat_wxyz."""
    images: NDArray[np.uint8] | None
    """(T, 2, S, S, 3) RGB, or None where none were asked for."""

    def __len__(self) -> int:
        return len(self.stage)


def play(
    task: ArmTask, act: Act, num_envs: int, seed: int = 0, side: int = 0,
    randomization: ArmRandomization = ARM_NOMINAL, threads: int = 1, first_row: int = 0,
) -> list[Episode]:  # fmt: skip
    """The first episode of each row of a batch.

    Args:
        task: what is played.
        act: (N, 5) actions in the present state of a batch: a policy, or an expert.
        num_envs: N.
        seed: of the batch.
        side: pixels of the images; 0 draws none.
        randomization: ranges that episodes are drawn from.
        threads: of the physics.
        first_row: number of row 0.
    """
    batch = ArmBatch(task, num_envs, seed, randomization, threads, first_row)
    view = ArmView(task, side) if side else None
    batch.reset()
    running = np.ones(num_envs, np.bool_)
    kept: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]
    out: dict[int, Episode] = {}
    try:
        while running.any():
            action = np.asarray(act(batch), np.float32)
            before = _now(batch, action)
            images = {int(i): _images(view, batch, int(i)) for i in np.flatnonzero(running)}
            step = batch.step(action)
            for i in np.flatnonzero(running).tolist():
                target = batch.final_state.asked[i].astype(np.float32)
                row = {name: part[i] for name, part in before.items()}
                kept[i].append(row | {"joint_target": target, "images": images[i]})
                if step.terminated[i] or step.truncated[i]:
                    out[i] = _episode(seed, first_row + i, kept[i], step.terms, i)
                    kept[i], running[i] = [], False
    finally:
        if view is not None:
            view.close()
    return [out[i] for i in range(num_envs)]


def demonstrations(
    task: ArmTask, count: int, seed: int = 0, side: int = 0,
    randomization: ArmRandomization = ARM_NOMINAL, config: ExpertConfig | None = None,
    near_miss: str | None = None, at_pick: int = 0, at_once: int = 25,
) -> Iterator[Episode]:  # fmt: skip
    """Episodes of the scripted expert, ``count`` of them, successful or not.

    Args:
        config, near_miss, at_pick: see :class:`sim.manipulation.expert.Expert`.
        at_once: rows of a batch; the errors of an expert that makes some depend on it.
        side, randomization: see :func:`play`.
    """
    for first in range(0, count, at_once):
        expert: Expert | None = None

        def act(batch: ArmBatch, number: int = first) -> NDArray[np.float32]:
            nonlocal expert
            if expert is None:
                expert = Expert(batch, config, [seed, number], near_miss, at_pick)
            return expert.act()

        rows = min(at_once, count - first)
        yield from play(task, act, rows, seed, side, randomization, first_row=first)


def _now(batch: ArmBatch, action: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """What is kept of every row at a step."""
    return {
        "obs": batch.observe(), "action": action, "proprioception": batch.proprioception,
        "stage": batch.stage.astype(np.int16), "events": batch.events,
        "object_pose": batch.object_pose.astype(np.float32),
        "grip_pose": batch.grip_pose.astype(np.float32),
    }  # fmt: skip


def _images(view: ArmView | None, batch: ArmBatch, row: int) -> NDArray[np.uint8] | None:
    return None if view is None else view.draw(batch.state, row, batch.looks[row])


def _episode(
    seed: int, row: int, kept: list[dict[str, Any]], terms: dict[str, NDArray[Any]], i: int
) -> Episode:
    arrays: dict[str, Any] = {n: np.stack([s[n] for s in kept]) for n in kept[0] if n != "images"}
    return Episode(
        seed=seed, row=row, success=bool(terms["success"][i]),
        weak_success=bool(terms["weak_success"][i]), final_stage=int(terms["stage"][i]),
        images=None if kept[0]["images"] is None else np.stack([s["images"] for s in kept]),
        **arrays,
    )  # fmt: skip
