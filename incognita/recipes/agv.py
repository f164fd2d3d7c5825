"""The AGV recipes: task, bonus and settings of each, and the variants they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import curiosity
from learning.ppo import PPOConfig
from sim.batch import BatchEnv, Tier
from sim.randomization import NOMINAL, TRAINING
from sim.tasks import AgvTask, make

RANDOMIZATIONS = {"nominal": NOMINAL, "training": TRAINING}


@dataclass(frozen=True)
class Recipe:
    """A training job: task + policy + rewards."""

    name: str
    task: str
    """Name in :data:`sim.tasks.TASKS`."""
    about: str = ""
    task_options: dict[str, Any] = field(default_factory=dict)
    """Parameters of the task in training."""
    eval_options: dict[str, Any] = field(default_factory=dict)
    """Parameters of the task in evaluation, beyond those of training."""
    num_envs: int = 256
    steps: int = 1_000_000
    """Environment steps in all."""
    ppo: PPOConfig = PPOConfig()
    bonus: str = ""
    """Name in :data:`curiosity.NAMES`; empty for none."""
    bonus_options: dict[str, Any] = field(default_factory=dict)
    randomization: str = "nominal"
    tier: Tier = "kinematic"
    clone_rounds: int = 0
    """Rounds of cloning the guide follower before PPO, see :mod:`.expert`; 0 clones nothing."""
    polish_options: dict[str, Any] = field(default_factory=dict)
    """Parameters of the task changed in two last phases without bonus.

    "tidy": contact slides on but has its price, until ``tidy_until`` of the episodes
    succeed without any; "polish": as evaluated. At once, a robot that has learned to slide along
    walls learns that standing still is safe, and forgets the goal. In both the action noise calms
    down: one that is trained with noise alone hits what it passes closely once the noise is gone.
    """
    polish_ppo: dict[str, Any] = field(default_factory=dict)
    """Settings of PPO changed in those two phases, beyond what calms it down."""
    polish_from: float = 0.8
    """Success rate of the last 100 episodes at which tidying begins."""
    tidy_until: float = 0.25
    """Rate of successes without a collision at which polishing begins."""
    fine_tune_steps: int = 0
    """Steps of a last phase."""
    fine_tune_tier: Tier = "mujoco"
    """Tier of that phase."""
    fine_tune_options: dict[str, Any] = field(default_factory=dict)
    """Parameters of the task changed in that phase."""
    stop_success: float = 1.01
    """Training ends early once the success rate of the last 100 episodes has reached this."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.randomization not in RANDOMIZATIONS:
            raise ValueError(
                f"randomization must be one of {sorted(RANDOMIZATIONS)}, got {self.randomization!r}"
            )
        if self.bonus and self.bonus not in curiosity.NAMES:
            raise ValueError(f"bonus must be empty or one of {curiosity.NAMES}, got {self.bonus!r}")
        if self.num_envs < 1 or self.steps < 1:
            raise ValueError(f"num_envs and steps must be >= 1, got {self.num_envs}, {self.steps}")

    def phases(self) -> list[Phase]:
        """What is trained in turn, each with the network of the one before."""
        polish = bool(self.polish_options)
        first = replace(self, polish_options={})
        level = self.polish_from if polish else self.stop_success
        out = [Phase("explore" if self.bonus else "train", first, self.steps, level)]
        last = replace(self, bonus="", bonus_options={}, polish_options={},
                       task_options={**self.task_options, **self.polish_options})  # fmt: skip
        if polish:
            calm = replace(
                self.ppo, sil_coef=0.0, ent_coef=0.0, final_std=0.15, minibatch=512, lam=0.97,
                lr_schedule="adaptive", target_kl=0.01,
            )  # fmt: skip
            calm = replace(calm, **self.polish_ppo)
            last = replace(last, ppo=calm)
            slide = {"terminal_collision": False, "collision_reward": 0.0}
            tidy = replace(last, task_options={**last.task_options, **slide})
            out.append(Phase("tidy", tidy, self.steps, self.tidy_until, "clean"))
            out.append(Phase("polish", last, self.steps, self.stop_success))
        if self.fine_tune_steps:
            options = {**last.task_options, **self.fine_tune_options}
            tuned = replace(last, tier=self.fine_tune_tier, num_envs=min(self.num_envs, 128),
                            task_options=options)  # fmt: skip
            steps = self.steps + self.fine_tune_steps
            out.append(Phase("fine-tune", tuned, steps, self.stop_success))
        return out

    def make_task(self, evaluation: bool = False, **options: Any) -> AgvTask:
        """The task as trained on, or as evaluated; options go before the recipe's."""
        mine = {**self.task_options, **(self.eval_options if evaluation else {})}
        return make(self.task, **{**mine, **options})

    def make_env(self, tier: Tier | None = None, seed: int | None = None) -> BatchEnv:
        """The training environment."""
        return BatchEnv(
            self.make_task(), self.num_envs, tier or self.tier, self.seed if seed is None else seed,
            RANDOMIZATIONS[self.randomization],
        )  # fmt: skip

    def make_bonus(self, env: BatchEnv) -> curiosity.IntrinsicReward | None:
        """The exploration bonus, or None."""
        if not self.bonus:
            return None
        s = env.spec
        return curiosity.make(
            self.bonus, s.explore_dim, s.action_dim, s.num_envs, self.seed, **self.bonus_options
        )


@dataclass(frozen=True)
class Phase:
    """A part of a recipe's training."""

    name: str
    recipe: Recipe
    until: int
    """Environment steps, over all phases, at which it ends at the latest."""
    level: float
    """It ends once the metric, over the last 100 episodes, has reached this."""
    metric: str = "success"
    """"clean" counts successes without a collision, also where collisions end nothing."""


SPARSE_PPO = PPOConfig(
    num_steps=256, minibatch=2048, epochs=4, lr=3e-4, gamma=0.998, int_gamma=0.995, lam=0.99,
    ent_coef=0.003, ext_coef=2.0, int_coef=1.0, int_anneal_success=0.2, int_anneal_steps=100_000,
    sil_coef=0.1, sil_batches=8, sil_horizon=4000, sil_cell_m=1.0, noise_correlation=0.7,
)  # fmt: skip
"""Sparse scenes. Long rollouts of few environments and a large lambda: the goal is 700 steps away,
and with lambda .95 its value comes nearer by 20 steps an update. An intrinsic discount of .995:
with .99 the bonus of a far corner is not seen from where the way to it begins. Few large
minibatches: more gradient steps commit the policy to one dead end before the goal is found."""

DENSE_PPO = PPOConfig(
    num_steps=64, minibatch=2048, epochs=3, lr=3e-4, gamma=0.99, ent_coef=0.0, ext_coef=1.0,
    hidden=(128, 128), lr_schedule="adaptive", target_kl=0.012, init_log_std=-1.2,
)  # fmt: skip

_EVAL = {"terminal_collision": True, "stale_steps": 0}


def _paper(complexity: str, dynamic: bool) -> Recipe:
    kind = "dynamic" if dynamic else "static"
    name = f"agv-{complexity}-{kind}"
    size = "12 m" if complexity == "simple" else "20 m"
    about = f"RND-AGV scene, {size} hall, {kind} target; sparse reward, count bonus, self-imitation"
    return Recipe(
        name, name, about, task_options={"stale_steps": 300}, eval_options=_EVAL, num_envs=16,
        steps=1_000_000, ppo=SPARSE_PPO,
        bonus="count", bonus_options={"cell_m": 1.0, "entries_only": True},
        polish_options={
            "terminal_collision": True, "collision_reward": -1.0, "contact_reward": -0.05,
        },
    )  # fmt: skip


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _paper("simple", False), _paper("simple", True),
        _paper("complex", False), _paper("complex", True),
        Recipe(
            "agv-warehouse", "agv-warehouse",
            "unseen warehouses, people and AGVs; guide point from the floor plan, shaped reward",
            task_options={
                "progress_reward": 1.0, "contact_reward": -0.1, "time_reward": -0.01,
                "smooth_reward": -0.01, "near_reward": -0.12, "near_m": 0.35, "goal_reward": 5.0,
                "max_steps": 800, "terminal_collision": True, "collision_reward": -12.0,
            },
            eval_options={"max_steps": 1200, "first_layout": 100_000, "layouts": 100_000},
            num_envs=256, steps=8_000_000, ppo=replace(DENSE_PPO, final_std=0.1),
            randomization="training", clone_rounds=4, fine_tune_steps=400_000,
        ),
        Recipe(
            "agv-barn", "agv-barn",
            "cross unmapped fields of cylinders fast; guide point from a map built on the way",
            task_options={
                "progress_reward": 1.0, "contact_reward": -0.5, "time_reward": -0.06,
                "smooth_reward": -0.01, "near_reward": -0.1, "near_m": 0.15, "goal_reward": 5.0,
                "layouts": 150, "max_steps": 600, "terminal_collision": True,
                "collision_reward": -8.0, "guide": "known", "v_max": 1.3,
            },
            eval_options={
                "max_steps": 2000, "guide": "built", "first_layout": 100_000, "layouts": 100_000,
            },
            num_envs=256, steps=4_000_000, ppo=replace(DENSE_PPO, final_std=0.1),
            randomization="training", clone_rounds=4, fine_tune_steps=400_000,
        ),
    )
}  # fmt: skip
"""Recipes by name."""


def _plain(recipe: Recipe, num_envs: int, **ppo: Any) -> Recipe:
    """PPO by the book: white noise, lambda .95, no imitation, episodes as the paper has them."""
    book = {"lam": 0.95, "int_gamma": 0.99, "noise_correlation": 0.0, "sil_coef": 0.0,
            "ext_coef": 1.0} | ppo  # fmt: skip
    task = {**recipe.task_options, "stale_steps": 0}
    return replace(
        recipe, bonus="", bonus_options={}, num_envs=num_envs, task_options=task,
        ppo=replace(recipe.ppo, **book),
    )  # fmt: skip


def _rnd_ppo(recipe: Recipe) -> Recipe:
    """The paper's RND-PPO as far as it is known: the trainer and RND of Unity ML-Agents."""
    plain = _plain(
        recipe, 160, num_steps=64, minibatch=1024, epochs=3, gamma=0.99, ent_coef=0.005,
        lr_schedule="linear", int_anneal_steps=0,
    )  # fmt: skip
    return replace(plain, bonus="rnd-paper")


VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "default": lambda r: r,
    "ppo": lambda r: replace(_plain(r, 128, num_steps=32), steps=3 * r.steps),
    "rnd-ppo": _rnd_ppo,
    "count": lambda r: replace(r, ppo=replace(r.ppo, sil_coef=0.0)),
    "icm": lambda r: replace(r, bonus="icm", bonus_options={}, ppo=replace(r.ppo, sil_coef=0.0)),
}
"""What a sparse recipe is compared with: "count" is the default without imitation, "icm" that with
another bonus, "ppo" and "rnd-ppo" are settings of their own."""
