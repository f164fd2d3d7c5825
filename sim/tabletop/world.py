"""Rollouts at the table, rendered and with their truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..rollout import FRAMES, Rollout
from .engine import TableState
from .env import TableEnv
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
        while not all(instructions(scene, (family,)) for family in self.families):
            scene = draw_scene(rng, self.scene)  # nothing can be stacked on balls alone
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


class PolicyWorld:
    """Episodes of a policy in a :class:`TableEnv`, not of a script; see :class:`sim.rollout.World`.

    Args:
        env: its episodes have at least :data:`FRAMES` - 1 actions.
        act: (1, 19) observations to (1, 4) actions in [-1, 1].
        noise: standard deviation added to the actions.
    """

    def __init__(
        self, env: TableEnv, act: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        noise: float = 0.3,
    ) -> None:  # fmt: skip
        self.env, self.act, self.noise = env, act, noise

    def rollout(self, rng: np.random.Generator) -> Rollout:
        """Play an episode in a new scene."""
        obs, _ = self.env.reset(seed=int(rng.integers(2**31)))
        states, images, over = [self.env.state], [self.env.render()], False
        while not over:
            action = self.act(obs[None])[0] + self.noise * rng.standard_normal(4)
            obs, _, over, _, _ = self.env.step(np.clip(action, -1, 1).astype(np.float32))
            states.append(self.env.state)
            images.append(self.env.render())
        at = np.rint(np.linspace(0, len(states) - 1, FRAMES)).astype(int)
        assert self.env.scene is not None
        kept = [states[k] for k in at]
        return labelled(self.env.scene, self.env.told, "policy", np.stack(images)[at], kept)

    def close(self) -> None:
        """Free the GL resources."""
        self.env.close()


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
