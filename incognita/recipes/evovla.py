"""EvoVLA from state: clone scripted demonstrations, then PPO with stage rewards and pose curiosity.

The policy sees the task's state and the *believed* stage, the tracker's. It sees the true one only
where the scorer is the oracle, which is the ablation and the upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from evovla.pose_exploration import PoseExplorationConfig
from evovla.stage_reward import StageRewardConfig
from learning.ppo import PPOConfig
from sim.manipulation.batch import ACTION_DIM, ArmBatch
from sim.manipulation.task import ArmTask
from sim.tasks import ARM_TASKS, make_arm

from ..stage_env import CONTEXT, ORACLE, RANDOMIZATIONS, Judge, StageEnv, StageEnvConfig, open_judge
from .evovla_policy import GatedPoseExploration, Kind, MemoryKind

TRAIN_SEED = 20_000
"""Of the training episodes of run 0; demonstrations and evaluations have others."""
NO_SMOOTHING = StageRewardConfig(alpha=1.0, hold=1)
"""The tracker believes every frame as it is."""


@dataclass(frozen=True)
class EvoRecipe:
    """A training job of EvoVLA."""

    name: str
    task: str
    """Name in :data:`sim.tasks.ARM_TASKS`."""
    about: str = ""
    demos: int = 25
    """Successes of the scripted expert that are cloned."""
    demo_noise: float = 0.0
    """Disturbance of the expert's hand while it shows the task, see :mod:`.evovla_demos`."""
    clone_epochs: int = 200
    clone_lr: float = 1e-3
    clone_minibatch: int = 256
    clone_log_std: float = -2.3
    """Of the action noise that PPO starts with: 2 mm a step, much more and nothing is grasped."""
    num_envs: int = 64
    steps: int = 1_000_000
    """Environment steps of PPO; 0 leaves the clone as it is."""
    ppo: PPOConfig = PPOConfig(
        num_steps=128, minibatch=1024, epochs=6, lr=2e-4, target_kl=0.015, gamma=0.995,
        int_gamma=0.99, lam=0.95, ent_coef=0.0, hidden=(128, 128), ext_coef=1.0, int_coef=0.02,
        final_std=0.05, critic_first=2, int_anneal_success=0.8, int_anneal_steps=200_000,
        normalize_obs=False,
    )  # fmt: skip
    """The statistics of the observations stay those of the demonstrations: were they to move, the
    clone would forget."""
    env: StageEnvConfig = StageEnvConfig()
    """What is paid, and how stages are tracked."""
    scorer: str = ORACLE
    """:data:`incognita.stage_env.ORACLE`, or the folder of a scorer, as `evovla-scorer` writes."""
    hard: bool = True
    """Whether hard negatives are in the triplets; a scorer trained without them needs False."""
    policy: Kind = "mlp"
    """"mlp", or "vla", which may remember."""
    memory: MemoryKind = "off"
    """Of the vla; "attention" or "gru". What it lets through gates the progress reward."""
    pose: bool = True
    """Whether pose-based exploration adds a bonus."""
    pose_options: dict[str, Any] = field(default_factory=dict)
    """Changed in :class:`evovla.pose_exploration.PoseExplorationConfig`."""
    randomization: str = "nominal"
    eval_every: int = 50_000
    """Environment steps between two looks at unseen episodes; the best policy seen is kept."""
    watch_episodes: int = 100
    """Episodes of such a look."""
    stop_success: float = 1.01
    """Training ends early once a look has reached this strict success."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in ARM_TASKS:
            raise ValueError(f"task must be one of {sorted(ARM_TASKS)}, got {self.task!r}")
        if self.randomization not in RANDOMIZATIONS:
            want = sorted(RANDOMIZATIONS)
            raise ValueError(f"randomization must be one of {want}, got {self.randomization!r}")
        if self.policy not in ("mlp", "vla") or (self.memory != "off" and self.policy == "mlp"):
            raise ValueError(
                'policy must be "mlp" or "vla", and "vla" to remember, got '
                f"{self.policy!r} and memory {self.memory!r}"
            )
        sizes = (self.demos, self.clone_epochs, self.num_envs, self.eval_every, self.watch_episodes)
        if min(sizes) < 1 or self.steps < 0 or self.demo_noise < 0:
            raise ValueError(f"sizes must be >= 1, steps and demo_noise >= 0, got {self}")
        if self.env.tracker.gamma != self.ppo.gamma:
            raise ValueError(
                "env.tracker.gamma must be ppo.gamma, or the shaping moves the optimum; got "
                f"{self.env.tracker.gamma} and {self.ppo.gamma}"
            )

    def make_task(self) -> ArmTask:
        """The task, with sparse rewards of its own."""
        return make_arm(self.task)

    def make_judge(self) -> Judge:
        """The judge of frames."""
        return open_judge(self.make_task(), self.scorer, self.hard)

    def make_env(self, judge: Judge) -> StageEnv:
        """The training environment."""
        seed, look = TRAIN_SEED + self.seed, RANDOMIZATIONS[self.randomization]
        return StageEnv(ArmBatch(self.make_task(), self.num_envs, seed, look), judge, self.env)

    def make_bonus(self) -> GatedPoseExploration | None:
        """Pose-based exploration, or None."""
        if not self.pose:
            return None
        config = PoseExplorationConfig(
            action_dim=ACTION_DIM, context_dim=len(CONTEXT), num_envs=self.num_envs, seed=self.seed
        )
        return GatedPoseExploration(replace(config, **self.pose_options))


def _staged(recipe: EvoRecipe, hard: bool, smooth: bool) -> EvoRecipe:
    """Stage rewards and nothing else, with hard negatives or not, smoothed or not."""
    tracker = recipe.env.tracker if smooth else NO_SMOOTHING
    env = replace(recipe.env, tracker=tracker)
    return replace(recipe, hard=hard, pose=False, memory="off", env=env)


EVO_VARIANTS: dict[str, Callable[[EvoRecipe], EvoRecipe]] = {
    "default": lambda r: r,
    "clone": lambda r: replace(_staged(r, False, False), steps=0),
    "sparse": lambda r: replace(
        _staged(r, False, False), env=StageEnvConfig(stage_coef=0.0, tracker=NO_SMOOTHING)
    ),
    "stage-soft": lambda r: _staged(r, False, False),
    "stage": lambda r: _staged(r, True, False),
    "smooth": lambda r: _staged(r, True, True),
    "memory": lambda r: replace(_staged(r, True, True), policy="vla", memory="attention"),
}
"""Rows of the ablation: the clone; PPO on success alone; with stage rewards of a scorer without and
with hard negatives; smoothed; and the default, with pose exploration."""

EVO_RECIPES = {
    r.name: r
    for r in (
        EvoRecipe(
            "evovla-stack", "stack",
            "three cubes, 18 stages: clone 25 demonstrations, then PPO with stage rewards",
        ),
        EvoRecipe(
            "evovla-jujube-cup", "jujube-cup",
            "a jujube into a cup and the cup onto a plate, 19 stages", demos=50,
        ),
        EvoRecipe(
            "evovla-bridge-lite", "bridge-lite",
            "two bars over a gap and two cubes onto them, 38 stages", demos=50, steps=1_500_000,
        ),
    )
}  # fmt: skip
