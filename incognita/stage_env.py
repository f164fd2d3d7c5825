"""A long task as a learner sees it: a believed stage in the observation, and stage rewards.

Here the rooms meet: the batch of :mod:`sim.manipulation`, a scorer and the tracker of
:mod:`evovla.stage_reward`. The policy is told the stage that the tracker *believes*; the true one
is compared with it in an evaluation, and enters only where the scorer is the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evovla.pose import POSE, TOOL_DOWN_QUAT_WXYZ, relative_pose_wxyz
from evovla.scorer import ImageTextScorer, OracleScorer
from evovla.stage_reward import StageRewardConfig, StageStep, StageTracker
from evovla.stage_text import from_steps
from evovla.stages import StageDictionary
from evovla.stages import load as load_stages
from evovla.tiny_scorer import load as load_tiny
from evovla.triplets import Triplets
from learning.vec_env import EnvSpec, Step
from sim.manipulation.batch import ArmBatch
from sim.manipulation.events import stage_events
from sim.manipulation.randomization import ARM_NOMINAL, ARM_TRAINING
from sim.manipulation.task import ArmState, ArmTask
from sim.manipulation.view import ArmView

ORACLE = "oracle"
STAGES_FILE = "stages.json"
"""The calibrated dictionary beside a scorer."""
RANDOMIZATIONS = {"nominal": ARM_NOMINAL, "training": ARM_TRAINING}
CONTEXT = ("late_x", "late_y", "late_z", "late_yaw", "opening", "asked_opening")
"""What a pose exploration may see of the arm: where the hand is sent less where it is, m and rad,
and how far the fingers are open and asked to be, shares of the widest."""
EXPLORE_DIM = len(POSE) + 1 + len(CONTEXT)


def dictionary_of(task: ArmTask) -> StageDictionary:
    """The stages of a task in words, from the templates."""
    return from_steps(task.name, task.description, task.steps)


class Judge:
    """Gaps of all stages in the frames of a batch, by the oracle or by a scorer that looks.

    Args:
        task: what is judged.
        dictionary: its stages; a scorer's calibration is part of it.
        scorer: :data:`ORACLE`, or an image-text scorer, which is shown frames of ``side_px``.
        hard: whether hard negatives are in the triplets.
    """

    def __init__(
        self, task: ArmTask, dictionary: StageDictionary,
        scorer: ImageTextScorer | str = ORACLE, hard: bool = True, side_px: int = 96,
    ) -> None:  # fmt: skip
        self.dictionary, self.triplets = dictionary, Triplets(dictionary, hard)
        self._truth = np.zeros((0, 0), np.bool_)
        self.view: ArmView | None = None
        if isinstance(scorer, str):
            if scorer != ORACLE:
                raise ValueError(f"scorer must be {ORACLE!r} or a scorer, got {scorer!r}")
            scorer = OracleScorer(dictionary, lambda: self._truth)
        else:
            self.view = ArmView(task, side_px)
        self.scorer = scorer

    def gaps(self, batch: ArmBatch, final: bool = False) -> NDArray[np.float64]:
        """(N, K) of what is to be seen now, or with ``final`` of what the last step led to."""
        if self.view is None:
            tracker = batch.final_tracker if final else batch.tracker
            self._truth = stage_events(tracker, batch.task.plan)
            images = np.zeros((batch.num_envs, len(self.scorer.views), 1, 1, 3), np.uint8)
        else:
            images = self.view.images(batch, final, self.scorer.views)
        return self.triplets.gaps(self.scorer.similarities(images, self.triplets.texts))

    def close(self) -> None:
        """Free the GL resources."""
        if self.view is not None:
            self.view.close()


def open_judge(task: ArmTask, scorer: str, hard: bool = True) -> Judge:
    """A judge by name: :data:`ORACLE`, or the folder of a scorer that was trained here."""
    if scorer == ORACLE:
        return Judge(task, dictionary_of(task), hard=hard)
    folder = Path(scorer)
    net, _ = load_tiny(folder)
    return Judge(task, load_stages(folder / STAGES_FILE), net, hard, net.config.side)


@dataclass(frozen=True)
class StageEnvConfig:
    """What a learner is paid for beside success."""

    stage_coef: float = 0.6
    """Weight of the stage-aligned reward, rho in the paper; 0 pays none. The stage is believed
    all the same."""
    tracker: StageRewardConfig = StageRewardConfig()
    veto: bool = False
    """Whether poses must agree before a stage counts as done."""

    def __post_init__(self) -> None:
        if self.stage_coef < 0:
            raise ValueError(f"stage_coef must be >= 0, got {self.stage_coef}")


class StageEnv:
    """A batch of a long task under a tracker; implements :class:`learning.vec_env.VecEnv`.

    ``Step.explore`` (N, 13) is what :class:`evovla.pose_exploration.PoseExploration` takes: the
    pose of the believed stage's object in the hand, its number, :data:`CONTEXT`. ``Step.terms``
    hold "reward/success" and "reward/stage" beside the outcomes of the task, and of the finished
    rows "believed", the stage that was believed last.

    Attributes:
        told: what the last step told the tracker, see :class:`evovla.stage_reward.StageStep`.
        active_done: (N,) whether the stage that was scored was truly done in that frame.
    """

    def __init__(self, batch: ArmBatch, judge: Judge, config: StageEnvConfig | None = None) -> None:
        self.batch, self.judge, self.config = batch, judge, config or StageEnvConfig()
        self.tracker = StageTracker(judge.dictionary, batch.num_envs, self.config.tracker)
        s = batch.spec
        self.spec = EnvSpec(
            s.num_envs, s.obs_dim, s.action_dim, EXPLORE_DIM, s.dt, s.max_episode_steps
        )
        self.told: StageStep | None = None
        self.active_done = np.zeros(s.num_envs, np.bool_)

    def reset(self) -> NDArray[np.float32]:
        """Start the next episode of every row."""
        self.batch.reset()
        self.tracker.reset(self.judge.gaps(self.batch))
        return self.batch.observe(self.tracker.stage)

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance, score what came of it, and pay."""
        batch = self.batch
        step = batch.step(action)
        events = stage_events(batch.final_tracker, batch.task.plan)
        told = self.tracker.step(
            self.judge.gaps(batch, final=True), step.terminated, step.truncated,
            events if self.config.veto else None,
        )  # fmt: skip
        self.told = told
        self.active_done = events[np.arange(batch.num_envs), told.active]
        explore = self._explore(batch.final_state, told.stage)
        obs = final_obs = batch.observe_final(told.stage)
        ended = np.flatnonzero(step.terminated | step.truncated)
        if len(ended):
            self.tracker.reset(self.judge.gaps(batch)[ended], ended)
            obs = batch.observe(self.tracker.stage)
        paid = self.config.stage_coef * told.reward
        terms = step.terms | {"reward/stage": paid, "believed": told.stage}
        reward = (step.reward + paid).astype(np.float32)
        return Step(obs, reward, step.terminated, step.truncated, final_obs, explore, terms)

    def explore(self) -> NDArray[np.float32]:
        """(N, 13) of the observation to act on next."""
        return self._explore(self.batch.state, self.tracker.stage)

    def _explore(self, s: ArmState, stage: NDArray[np.int64]) -> NDArray[np.float32]:
        plan, rows = self.batch.task.plan, np.arange(len(s.t))
        piece = plan.target[plan.pick[np.minimum(stage, plan.stages - 1)]]
        thing = np.concatenate([s.pos[rows, piece], s.quat_wxyz[rows, piece]], axis=1)
        pose = relative_pose_wxyz(hand_pose(s), thing, TOOL_DOWN_QUAT_WXYZ)
        number = np.where(stage < plan.stages, piece, -1)
        late = np.concatenate([s.at - s.grip, (s.at_yaw - s.grip_yaw)[:, None]], axis=1)
        hand = np.stack([s.opening, s.at_opening], axis=1)
        return np.concatenate([pose, number[:, None], late, hand], axis=1).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {"batch": self.batch.state_dict(), "tracker": self.tracker.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, bit for bit."""
        self.batch.load_state_dict(state["batch"])
        self.tracker.load_state_dict(state["tracker"])

    def close(self) -> None:
        """Free the GL resources."""
        self.judge.close()


def hand_pose(s: ArmState) -> NDArray[np.float64]:
    """(N, 7) place, m, and quat_wxyz of the grip whose tool points straight down, as it is sent."""
    half = s.grip_yaw / 2
    zero = np.zeros_like(half)  # turned about the vertical, then half a turn about y
    return np.concatenate(
        [s.grip, np.stack([zero, -np.sin(half), np.cos(half), zero], axis=1)], axis=1
    )
