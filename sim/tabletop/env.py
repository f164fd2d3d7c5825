"""One instruction at the table as a Gymnasium environment: state in, gripper motion out.

The reward is the rubric's truth, a bare success, or nothing: then it is up to a reward model that
sees only what :meth:`TableEnv.render` draws.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..words import say
from .engine import TableState
from .rubric import DIRECTIONS, FAMILIES, Instruction, instructions, reference_xyz, score, told
from .scene import Scene, SceneConfig, draw_scene
from .view import TableView

Rewarded = Literal["truth", "success", "none"]
STEP_M = 0.025
"""Longest motion of the grip in one action along each axis."""
LOW, HIGH = (0.14, -0.28, 0.012), (0.50, 0.28, 0.30)
"""The grip stays within, m."""


class TableEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A scene a episode, always of one family of instructions.

    Observation (19,), m, in the frame of the arm: grip (3), opening, thing from grip (3), reference
    from thing (3), thing from where it began (3), half size (3), held, touched, share of the time
    that is gone. Action (4,) in [-1, 1]: motion of the grip along x, y, z by up to ``STEP_M``,
    and opening of the fingers (> 0 opens).

    Info holds ``task`` (the instruction in words), and at the end of an episode ``score`` (1..5 by
    the rubric) and ``is_success``.

    Args:
        family: one of :data:`sim.tabletop.rubric.FAMILIES`.
        reward: ``truth``: (score - 1) / 4 at the end; ``success``: 1 at the end of an episode that
            ends with a score of 5, else 0; ``none``: 0.
        steps: actions in an episode.
        repeat: control steps of 50 ms in an action.
        side: pixels of the images.
        scene: what scenes are drawn from.
        near: the grip begins beside the thing, for a push behind it, instead of anywhere above.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, family: str = "push", reward: Rewarded = "truth", steps: int = 40, repeat: int = 2,
        side: int = 96, scene: SceneConfig | None = None, near: bool = False,
        render_mode: str | None = "rgb_array",
    ) -> None:  # fmt: skip
        if family not in FAMILIES or reward not in ("truth", "success", "none"):
            raise ValueError(f"family of {FAMILIES}, reward truth, success or none wanted, "
                             f"got {family!r}, {reward!r}")  # fmt: skip
        if min(steps, repeat) < 1 or render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"steps, repeat >= 1 and rgb_array wanted, got {steps}, {repeat}, {render_mode}"
            )
        self.family, self.rewarded, self.steps, self.repeat = family, reward, steps, repeat
        self.config, self.near, self.render_mode = scene or SceneConfig(), near, render_mode
        self._view = TableView(side)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (19,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        self.scene: Scene | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new scene and instruction; ``options`` may name both (``scene``, ``told``)."""
        super().reset(seed=seed)
        given = options or {}
        self.scene = scene = given.get("scene") or draw_scene(self.np_random, self.config)
        asked = instructions(scene, (self.family,))
        self.told: Instruction = (
            given.get("told") or asked[int(self.np_random.integers(len(asked)))]
        )
        self.task = say(told(self.told, scene), self.np_random)
        if self.near:
            self.scene = scene = replace(scene, start_m=self._beside(scene))
        self.first = self.state = self._view.table.reset(scene)
        self._at, self._opening, self._count = np.array(scene.start_m), 1.0, 0
        return self._observe(), {"task": self.task}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move; the episode ends after its steps. Time is in the observation, so that is no cut."""
        assert self.scene is not None, "reset first"
        move = np.clip(np.asarray(action, np.float64), -1, 1)
        if move.shape != (4,) or not np.isfinite(move).all():
            raise ValueError(f"action must be (4,) and finite, got {action}")
        self._at = np.clip(self._at + STEP_M * move[:3], LOW, HIGH)
        self._opening = float(move[3] > 0)
        yaw = self.scene.things[self.told.thing].yaw
        for _ in range(self.repeat):
            self.state = self._view.table.step(self._at, yaw, self._opening)
        self._count += 1
        info: dict[str, Any] = {"task": self.task}
        reward, over = 0.0, self._count >= self.steps
        if over:
            reached = score(self.told, self.scene, self.first, self.state)
            info |= {"score": reached, "is_success": reached == 5}
            reward = {"truth": (reached - 1) / 4, "success": float(reached == 5)}.get(
                self.rewarded, 0.0
            )
        return self._observe(), reward, over, False, info

    def render(self) -> NDArray[np.uint8]:
        """(side, side, 3) RGB from the side."""
        return self._view.draw()

    def close(self) -> None:
        """Free the GL resources."""
        self._view.close()

    def _beside(self, scene: Scene) -> tuple[float, float, float]:
        thing = scene.things[self.told.thing]
        turn = self.np_random.uniform(0, 2 * np.pi)
        away = np.array([np.cos(turn), np.sin(turn)])
        if self.family == "push":
            along = np.array(list(DIRECTIONS.values())[self.told.other])
            away = 0.3 * away - along
        x, y = np.array(thing.xy_m) + away * (thing.half_size[0] + 0.045)
        return float(x), float(y), thing.half_size[2] + 0.01

    def _observe(self) -> NDArray[np.float32]:
        assert self.scene is not None
        s: TableState = self.state
        i = self.told.thing
        at, began = s.things[i, :3], self.first.things[i, :3]
        goal = reference_xyz(self.told, self.scene, s)
        return np.concatenate([
            s.grip, [s.opening], at - s.grip, goal - at, at - began,
            self.scene.things[i].half_size, [s.held[i], s.touched[i], self._count / self.steps],
        ]).astype(np.float32)  # fmt: skip
