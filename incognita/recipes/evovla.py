"""EvoVLA from state: clone scripted demonstrations, then PPO with stage rewards and pose curiosity.

The policy sees the task's state and the *believed* stage, the tracker's. It sees the true one only
where the scorer is the oracle, which is the ablation and the upper bound.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID

from evovla.pose_exploration import PoseExploration, PoseExplorationConfig
from evovla.stage_reward import StageRewardConfig
from learning.cloning import clone
from learning.policy_file import load_policy, save_policy
from learning.ppo import PPO, ActorCritic, PPOConfig
from sim.backend import CONTROL_DT
from sim.manipulation.batch import ACTION_DIM, ArmBatch
from sim.manipulation.task import ArmTask
from sim.tasks import ARM_TASKS, make_arm

from ..stage_env import (
    CONTEXT,
    ORACLE,
    RANDOMIZATIONS,
    Judge,
    StageEnv,
    StageEnvConfig,
    open_judge,
)  # fmt: skip
from ..stage_eval import VALIDATION_SEED, evaluate_stages
from .evovla_demos import load, record
from .train import _cut_curve, git_revision, open_run, progress

DEMO_SEED, TRAIN_SEED = 10_000, 20_000
"""Of demonstrations and training episodes of run 0; evaluations draw theirs far above."""
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

    def make_bonus(self) -> PoseExploration | None:
        """Pose-based exploration, or None."""
        if not self.pose:
            return None
        config = PoseExplorationConfig(
            action_dim=ACTION_DIM, context_dim=len(CONTEXT), num_envs=self.num_envs, seed=self.seed
        )
        return PoseExploration(replace(config, **self.pose_options))


def _staged(recipe: EvoRecipe, hard: bool, smooth: bool) -> EvoRecipe:
    """Stage rewards and nothing else, with hard negatives or not, smoothed or not."""
    tracker = recipe.env.tracker if smooth else NO_SMOOTHING
    return replace(recipe, hard=hard, pose=False, env=replace(recipe.env, tracker=tracker))


EVO_VARIANTS: dict[str, Callable[[EvoRecipe], EvoRecipe]] = {
    "default": lambda r: r,
    "clone": lambda r: replace(_staged(r, False, False), steps=0),
    "sparse": lambda r: replace(
        _staged(r, False, False), env=StageEnvConfig(stage_coef=0.0, tracker=NO_SMOOTHING)
    ),
    "stage-soft": lambda r: _staged(r, False, False),
    "stage": lambda r: _staged(r, True, False),
    "smooth": lambda r: _staged(r, True, True),
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


def train_evovla(
    recipe: EvoRecipe, folder: str | Path, *, resume: bool = False, eval_episodes: int = 200,
    console: Console | None = None, quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train ``recipe`` into ``folder`` and return its result, which is also ``result.json``.

    The folder gets the demonstrations (an episode store), ``checkpoints/``, ``curve.jsonl`` (a line
    per update, with "eval" where unseen episodes were looked at), ``policy/`` (the best that such a
    look has seen) and ``result.json``.

    Args:
        resume: go on from the newest valid checkpoint in the folder.
        eval_episodes: episodes of the evaluation at the end; 0 skips it.

    Raises:
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.
        FileExistsError: the folder holds a run already and ``resume`` is off.
    """
    torch.set_num_threads(recipe.ppo.threads)  # first of all: initial weights depend on it
    out = open_run(folder, recipe, resume)
    began, revision = time.time(), git_revision()
    judge = recipe.make_judge()
    ppo = PPO(recipe.make_env(judge), recipe.ppo, recipe.make_bonus(), recipe.seed)
    watch = Watch(recipe, judge, ppo, out, revision)
    with progress(console, quiet) as bar:
        job = bar.add_task(recipe.name, total=max(recipe.steps, 1), note="demonstrations")
        if resume and (out / "checkpoints").exists():
            ppo.load(out / "checkpoints")
            watch.resume()
        else:
            _clone(recipe, judge, ppo.net, out)
            ppo.save(out / "checkpoints")
            watch.look()
        watch.show(bar, job)
        if ppo.steps < recipe.steps and watch.best < recipe.stop_success:
            ppo.learn(
                recipe.steps, watch, checkpoints=out / "checkpoints", checkpoint_every=20
            )  # fmt: skip
    result: dict[str, Any] = {
        "recipe": recipe.name, "seed": recipe.seed, "steps": ppo.steps,
        "train_wall_s": time.time() - began, "looks": watch.looks(),
        "steps_to_90": steps_to(watch.looks(), 0.9),
    }  # fmt: skip
    net = load_policy(out / "policy")
    if eval_episodes:
        found = evaluate_stages(
            recipe.make_task(), net.act, judge, eval_episodes, config=recipe.env
        )
        result["eval"] = found.summary()
    write_arm_policy(out / "policy", net, recipe, result, revision)
    judge.close()
    (out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _clone(recipe: EvoRecipe, judge: Judge, net: ActorCritic, out: Path) -> None:
    """Play the demonstrations that are missing and fit the network to them."""
    record(
        out / "demos", recipe.make_task(), judge, recipe.env, recipe.demos,
        seed=DEMO_SEED + recipe.seed, noise=recipe.demo_noise,
        randomization=RANDOMIZATIONS[recipe.randomization],
    )  # fmt: skip
    told = load(out / "demos", recipe.ppo.gamma)
    clone(
        net, told.obs, told.action, told.returns, epochs=recipe.clone_epochs,
        minibatch=recipe.clone_minibatch, lr=recipe.clone_lr, log_std=recipe.clone_log_std,
        seed=recipe.seed,
    )  # fmt: skip


class Watch:
    """Writes the curve, looks at unseen episodes now and then, and keeps the best policy."""

    def __init__(self, recipe: EvoRecipe, judge: Judge, ppo: PPO, out: Path, revision: str) -> None:
        self.recipe, self.judge, self.ppo, self.out = recipe, judge, ppo, out
        self.curve, self.revision = out / "curve.jsonl", revision
        self.best, self.next = -1.0, 0
        self._bar: tuple[Progress, TaskID] | None = None

    def __call__(self, metrics: dict[str, float]) -> bool:
        """The learner's callback; True ends the training."""
        line: dict[str, Any] = {k: round(v, 6) for k, v in metrics.items()}
        if self.ppo.steps >= min(self.next, self.recipe.steps):
            self.look(line)
        else:
            self._write(line)
        if self._bar is not None:
            bar, job = self._bar
            note = f"success {metrics['success']:.0%}, unseen {self.best:.0%} at best"
            bar.update(job, completed=self.ppo.steps, note=note)
        return self.best >= self.recipe.stop_success

    def look(self, line: dict[str, Any] | None = None) -> None:
        """Score the present policy on unseen episodes; the best one so far is kept."""
        r, net = self.recipe, self.ppo.net
        found = evaluate_stages(
            r.make_task(), net.act, self.judge, r.watch_episodes, config=r.env,
            seed=VALIDATION_SEED,
        ).summary()  # fmt: skip
        self._write({"steps": float(self.ppo.steps), **(line or {}), "eval": found})
        self.next = (self.ppo.steps // r.eval_every + 1) * r.eval_every
        if found["success"] >= self.best:
            self.best = found["success"]
            write_arm_policy(
                self.out / "policy", net, r, {"validation": found, "steps": self.ppo.steps},
                self.revision,
            )  # fmt: skip

    def looks(self) -> list[dict[str, Any]]:
        """Steps and what was found of every look so far."""
        lines = [json.loads(line) for line in self.curve.read_text().splitlines()]
        return [{"steps": int(x["steps"]), **x["eval"]} for x in lines if "eval" in x]

    def resume(self) -> None:
        """Go on behind the last look before the checkpoint."""
        _cut_curve(self.curve, self.ppo.steps)
        found = self.looks()
        self.best = max((x["success"] for x in found), default=-1.0)
        self.next = (self.ppo.steps // self.recipe.eval_every + 1) * self.recipe.eval_every
        if not found:
            self.look()

    def show(self, bar: Progress, job: TaskID) -> None:
        """Tell the progress from here on."""
        self._bar = bar, job
        bar.update(job, completed=self.ppo.steps, note=f"clone {self.best:.0%}")

    def _write(self, line: dict[str, Any]) -> None:
        with self.curve.open("a") as file:
            file.write(json.dumps(line) + "\n")


def steps_to(looks: list[dict[str, Any]], level: float) -> float | None:
    """Environment steps at which strict success first reached a level, between two looks along a
    line; None where it never did."""
    before: dict[str, Any] | None = None
    for now in looks:
        if now["success"] >= level:
            if before is None:
                return float(now["steps"])
            part = (level - before["success"]) / (now["success"] - before["success"])
            return float(before["steps"] + part * (now["steps"] - before["steps"]))
        before = now
    return None


def observation_spec(task: ArmTask) -> dict[str, Any]:
    """What a policy file's manifest says of the observation, see :mod:`sim.manipulation.task`."""
    stage = task.obs_dim - task.base_dim
    return {
        "dim": task.obs_dim, "task": task.name,
        "parts": [
            {"name": "state", "dim": task.base_dim, "unit": "m", "frame": "base_link"},
            {"name": "believed stage", "dim": stage, "unit": "one-hot, share, m"},
        ],
        "pieces": [p.name for p in task.pieces],
        "stages": [[s.primitive, s.target, s.reference] for s in task.steps],
    }  # fmt: skip


def action_spec() -> dict[str, Any]:
    """What a policy file's manifest says of the action, see :mod:`sim.manipulation.batch`."""
    from sim.manipulation.cell import STEP_M, STEP_OPEN, STEP_RAD

    return {
        "dim": ACTION_DIM,
        "parts": [
            {"name": "move", "dim": 3, "unit": f"{STEP_M} m per step", "frame": "base_link"},
            {"name": "turn", "dim": 1, "unit": f"{STEP_RAD} rad per step", "frame": "base_link"},
            {"name": "fingers", "dim": 1, "unit": f"{STEP_OPEN} of the widest per step"},
        ],
    }  # fmt: skip


def write_arm_policy(
    folder: Path, net: ActorCritic, recipe: EvoRecipe, evaluation: dict[str, Any], revision: str
) -> None:
    """Write the policy folder of a network that was trained at this revision of the source."""
    save_policy(
        folder, net, observation=observation_spec(recipe.make_task()), action=action_spec(),
        recipe={
            "name": recipe.name, "git": revision,
            "settings": json.loads(json.dumps(asdict(recipe))),
        },
        seeds=[recipe.seed], evaluation=evaluation, rate_hz=1 / CONTROL_DT,
    )  # fmt: skip
