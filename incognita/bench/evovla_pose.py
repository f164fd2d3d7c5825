"""Pose-based exploration: how well motion is foretold, and what light and camera do to the reward.

The same episodes are drawn twice, as usual and with other light and cameras moved. Poses that are
*estimated* from the wrist camera, by the colour and size of the object's spot, go into pose
exploration; the pixels of both cameras go into an ICM. Both learn from the first drawing and pay
for both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from curiosity.base import IntrinsicReward, Transition
from curiosity.icm import ICM, ICMConfig
from evovla.pose import TOOL_DOWN_QUAT_WXYZ, relative_pose_wxyz
from evovla.pose_exploration import PoseExploration, PoseExplorationConfig
from sim.manipulation.batch import ACTION_DIM
from sim.manipulation.episodes import Episode, demonstrations
from sim.manipulation.expert import ExpertConfig
from sim.manipulation.model import CAMERAS, WRIST_FOVY_DEG
from sim.manipulation.randomization import ARM_NOMINAL, ArmRandomization
from sim.manipulation.task import ArmTask
from sim.tasks import make_arm
from sim.tasks.stack import HALF_M

from ..cli import JsonFile, emit
from ..recipes.train import machine

SEED, SEEN_SEED = 60_000, 61_000
NOISY = ExpertConfig(noise=0.4, grasp_m=0.006, place_m=0.008, drop=0.3, speed=(0.5, 1.0))
SHIFT = ArmRandomization(
    azimuth=(0.2, 0.2), elevation=(0.85, 0.85), distance_m=(0.70, 0.70), fovy_deg=(38.0, 38.0),
    light=(0.5, 0.5), diffuse=(0.45, 0.45), ambient=(0.28, 0.28), table=(-0.1, -0.1),
    floor=(0.15, 0.15),
)  # fmt: skip
"""Another light, another place of the side camera, another table; the physics stay as they are."""
HAND = slice(3, 8)
"""Columns of an observation that tell of the hand: where it is sent less where it is (3), opening,
opening that is asked."""
FORWARD, MOVED = 0.10, 0.05
"""Share of the first error that may be left, and most that the reward may change."""
ROLLOUT = 1024
"""Transitions of an update."""
SIDE_PX, ICM_PX = 96, 12
SPOT_PX = 12
"""Fewest pixels of a spot."""


@dataclass(frozen=True)
class Steps:
    """Transitions of episodes, one after another."""

    before: NDArray[np.float32]
    """(B, E) states."""
    action: NDArray[np.float32]
    after: NDArray[np.float32]
    last: NDArray[np.bool_]
    """(B,) the last of an episode."""

    def rollouts(self) -> list[Transition]:
        """Pieces of one row, (T, 1, ...)."""
        none = np.zeros(len(self.last), np.bool_)
        parts = (self.before, self.action, self.after, none, self.last)
        cut = range(0, len(self.last), ROLLOUT)
        return [
            Transition.from_numpy(*(part[i : i + ROLLOUT, None] for part in parts)) for i in cut
        ]  # fmt: skip


def steps_of(states: Sequence[NDArray[np.float32]], episodes: Sequence[Episode]) -> Steps:
    """Join the states (T, E) of episodes into transitions."""
    action = [e.action[:-1] for e in episodes]
    last = [np.arange(1, len(e)) == len(e) - 1 for e in episodes]
    before, after = [s[:-1] for s in states], [s[1:] for s in states]
    return Steps(*(np.concatenate(x) for x in (before, action, after, last)))


def piece_of(task: ArmTask, episode: Episode) -> NDArray[np.int64]:
    """(T,) the object of the stage at every step."""
    stage = np.minimum(episode.stage, task.plan.stages - 1)
    return np.asarray(task.plan.target[task.plan.pick[stage]])


def true_states(task: ArmTask, episode: Episode) -> NDArray[np.float32]:
    """(T, 12) states for pose exploration, from the simulator's poses."""
    piece = piece_of(task, episode)
    thing = episode.object_pose[np.arange(len(episode)), piece]
    pose = relative_pose_wxyz(episode.grip_pose, thing, TOOL_DOWN_QUAT_WXYZ)
    state = np.concatenate([pose, piece[:, None], episode.obs[:, HAND]], axis=1)
    return np.asarray(state, np.float32)


def spotted(
    images: NDArray[np.uint8], rgb: tuple[float, float, float], edge_m: float
) -> NDArray[np.float32]:
    """(T, 3) place of a coloured cube in the frame of the wrist camera, m; NaN where it is not seen

    The direction is that of the middle of its spot, the distance that of its size. What counts is
    chromaticity, which more or less of a white light leaves as it is.

    Args:
        images: (T, S, S, 3) RGB of the wrist camera.
        rgb: its colour, 0..1.
        edge_m: of the cube.
    """
    side = images.shape[1]
    focal = side / 2 / np.tan(np.radians(WRIST_FOVY_DEG) / 2)
    wanted = np.array(rgb) / sum(rgb)
    out = np.full((len(images), 3), np.nan, np.float32)
    for row, image in zip(out, images, strict=True):
        x = cv2.GaussianBlur(image, (3, 3), 0).astype(np.float32) + 1.0
        off = np.abs(x / x.sum(axis=2, keepdims=True) - wanted).max(axis=2)
        _, _, stats, centres = cv2.connectedComponentsWithStats((off < 0.12).astype(np.uint8))
        if len(stats) < 2:
            continue
        best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        area = float(stats[best, cv2.CC_STAT_AREA])
        if area >= SPOT_PX:
            depth = focal * edge_m / np.sqrt(area)
            u, v = (centres[best] + 0.5 - side / 2) / focal
            row[:] = depth * u, depth * v, depth
    return out


def seen_states(task: ArmTask, episode: Episode) -> NDArray[np.float32]:
    """(T, 12) the same states, from what the wrist camera sees; no rotation is known."""
    assert episode.images is not None
    piece, wrist = piece_of(task, episode), CAMERAS.index("wrist")
    place = np.full((len(episode), 3), np.nan, np.float32)
    for k in np.unique(piece):
        rows = piece == k
        images = episode.images[rows, wrist]
        place[rows] = spotted(images, task.pieces[k].rgb, 2 * HALF_M)
    known = np.isfinite(place).all(axis=1)
    number = np.where(known, piece, -1)[:, None]
    turn = np.zeros((len(piece), 3))
    state = np.concatenate([turn, np.nan_to_num(place), number, episode.obs[:, HAND]], axis=1)
    return np.asarray(state, np.float32)


def pixel_states(task: ArmTask, episode: Episode) -> NDArray[np.float32]:
    """(T, 2 * 12 * 12 * 3) small pictures of both cameras, 0..1."""
    assert episode.images is not None
    small = [
        cv2.resize(view, (ICM_PX, ICM_PX), interpolation=cv2.INTER_AREA)
        for image in episode.images for view in image
    ]  # fmt: skip
    return (np.stack(small).reshape(len(episode), -1) / 255).astype(np.float32)


def foretold(task: ArmTask, count: int, seed: int) -> list[dict[str, float]]:
    """What the forward model leaves unexplained of each rollout, before it has learned from it."""
    model = PoseExploration(_pose_config(seed))
    episodes = _played(task, count // 100 + 1, SEED + seed, 0)  # they are 100 steps and longer
    steps = steps_of([true_states(task, e) for e in episodes], episodes)
    curve, seen = [], 0
    for rollout in steps.rollouts():
        if seen >= count:
            break
        log = model.update(rollout)
        curve.append({"transitions": seen} | {k: log[k] for k in ("unexplained", "inverse_loss")})
        seen += len(rollout.terminated)
    return curve


def moved(task: ArmTask, episodes: int, seed: int) -> dict[str, Any]:
    """How far the rewards of two bonuses change with light and camera, on the same transitions."""
    plain = _played(task, episodes, SEEN_SEED + seed, SIDE_PX)
    other = _played(task, episodes, SEEN_SEED + seed, SIDE_PX, SHIFT)
    for a, b in zip(plain, other, strict=True):  # the same motion, another look
        np.testing.assert_array_equal(a.object_pose, b.object_pose)
    out: dict[str, Any] = {}
    for name, states, bonus in (
        ("pose, true", true_states, PoseExploration(_pose_config(seed))),
        ("pose, estimated", seen_states, PoseExploration(_pose_config(seed))),
        ("pixel ICM", pixel_states, ICM(ICMConfig(2 * ICM_PX**2 * 3, ACTION_DIM, seed=seed))),
    ):  # fmt: skip
        usual, shifted = (
            steps_of([states(task, e) for e in drawn], drawn).rollouts()
            for drawn in (plain, other)
        )  # fmt: skip
        out[name] = _change(bonus, usual, shifted)
    return out


def _change(
    bonus: IntrinsicReward, usual: list[Transition], shifted: list[Transition]
) -> dict[str, float]:
    """Learn from the usual rollouts, then pay for both."""
    half = max(len(usual) // 2, 1)
    for _ in range(3):
        for rollout in usual[:half]:
            bonus.update(rollout)
        bonus.reset()
    a, b = (
        torch.cat([bonus.compute(r).flatten() for r in part[half:] or part])
        for part in (usual, shifted)
    )  # fmt: skip
    mean = float(a.mean())
    return {
        "mean": mean, "change": abs(float(b.mean()) - mean) / max(mean, 1e-12),
        "change_per_step": float((b - a).abs().mean()) / max(mean, 1e-12),
    }  # fmt: skip


def _pose_config(seed: int) -> PoseExplorationConfig:
    return PoseExplorationConfig(
        ACTION_DIM, HAND.stop - HAND.start, num_envs=1, warmup=1, decay_from=10_000,
        decay_to=10_000, seed=seed,
    )  # fmt: skip


def _played(
    task: ArmTask, count: int, seed: int, side: int, look: ArmRandomization = ARM_NOMINAL
) -> list[Episode]:
    return list(demonstrations(task, count, seed, side, look, NOISY))


def bench_pose(
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    transitions: Annotated[int, typer.Option(min=1, help="Learned from.")] = 20_000,
    episodes: Annotated[int, typer.Option(min=2, help="Drawn twice.")] = 24,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Forward error of poses, and rewards under another light and camera (0.2 core-hours)."""
    task = make_arm("stack", max_steps=30) if smoke else make_arm("stack")
    if smoke:
        seeds, transitions, episodes = 1, 30, 2
    began = time.process_time()
    curves = [foretold(task, transitions, s) for s in range(seeds)]
    moves = [moved(task, episodes, s) for s in range(seeds)]
    left = [curve[-1]["unexplained"] / curve[0]["unexplained"] for curve in curves]
    change = {name: [m[name]["change"] for m in moves] for name in moves[0]}
    passed = {
        "forward error": float(np.median(left)) <= FORWARD,
        "true poses": max(change["pose, true"]) == 0.0,
        "estimated poses": float(np.median(change["pose, estimated"])) <= MOVED,
        "less than pixels": bool(
            np.median(change["pose, estimated"]) < np.median(change["pixel ICM"])
        ),
    }
    result = {
        "command": "bench evovla-pose", "machine": machine(), "forward_left": left,
        "reward_change": change, "passed": passed, "curves": curves, "moves": moves,
        "core_s": round(time.process_time() - began, 1),
    }  # fmt: skip
    emit(result, json_file)
    if not smoke and not all(passed.values()):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evovla-pose")(bench_pose)
