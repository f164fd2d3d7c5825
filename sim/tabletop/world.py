"""Rollouts at the table, rendered and with their truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..rollout import FRAMES, Rollout
from .engine import TableState
from .rubric import Instruction, instructions, probe_table, reference_xyz, score, told
from .scene import Scene, SceneConfig, draw_scene
from .scripts import draw_script, run
from .view import TableView, project


class TableWorld:
    """See :class:`sim.rollout.World`.

    Args:
        scene: what scenes are drawn from.
        families: of the instructions that robots have; those of every family are labelled.
        side: pixels of the images.
    """

    def __init__(
        self, scene: SceneConfig | None = None, families: tuple[str, ...] = ("place",),
        side: int = 96,
    ) -> None:  # fmt: skip
        self.scene, self.families = scene or SceneConfig(), families
        self._view = TableView(side)

    def rollout(self, rng: np.random.Generator) -> Rollout:
        """Draw a scene and a script, play it, look."""
        scene = draw_scene(rng, self.scene)
        script = draw_script(rng, scene, self.families)
        qpos: list[NDArray[np.float64]] = []
        data = self._view.table.data
        states = run(self._view.table, scene, script, rng,
                     seen=lambda _: qpos.append(data.qpos.copy()))  # fmt: skip
        at = np.rint(np.linspace(0, len(states) - 1, FRAMES)).astype(int)
        images = np.stack([self._view.draw(qpos[k]) for k in at])
        return labelled(scene, script.asked, script.outcome, images, [states[k] for k in at])

    def close(self) -> None:
        """Free the GL resources."""
        self._view.close()


def labelled(
    scene: Scene, asked: Instruction, outcome: str, images: NDArray[np.uint8],
    states: list[TableState],
) -> Rollout:  # fmt: skip
    """The truth about images of states at the table, for every instruction there."""
    every = instructions(scene)
    labels = [[score(i, scene, states[0], s) for s in states] for i in every]
    points = [
        [(s.things[i.thing, :3], reference_xyz(i, scene, s), s.grip) for s in states] for i in every
    ]
    return Rollout(
        images, tuple(told(i, scene) for i in every), every.index(asked), outcome,
        np.array(labels, np.int8), project(points, scene.look).astype(np.float32),
        probe_table(every, scene, states),
    )  # fmt: skip
