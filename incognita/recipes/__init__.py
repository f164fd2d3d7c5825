"""Training jobs: a recipe is a task, a policy and its rewards; :func:`run_job` trains one."""

from pathlib import Path
from typing import Any

from .agv import RECIPES, VARIANTS, Recipe
from .config import OverrideError, override
from .evovla import EVO_RECIPES, EVO_VARIANTS, EvoRecipe
from .evovla_scorer import SCORER, ScorerRecipe, train_scorer
from .evovla_training import train_evovla
from .explorer import EXPLORER, ExplorerRecipe, train_explorer
from .h_dqn import H_DQN, HdqnRecipe, train_h_dqn
from .reward import REWARD, RewardRecipe, train_reward
from .train import run

JOBS: dict[str, Any] = {**RECIPES, H_DQN.name: H_DQN, EXPLORER.name: EXPLORER,
                        REWARD.name: REWARD, **EVO_RECIPES, SCORER.name: SCORER}  # fmt: skip
"""Everything that can be trained, by name."""


def variants_of(job: Any) -> dict[str, Any]:
    """What a job is compared with: name -> a function that makes it of the job."""
    if isinstance(job, EvoRecipe):
        return dict(EVO_VARIANTS)
    return dict(VARIANTS) if isinstance(job, Recipe) else {"default": VARIANTS["default"]}


def run_job(job: Any, folder: str | Path, **options: Any) -> dict[str, Any]:
    """Train a job of any kind; options as those of :func:`run`.

    Raises:
        ValueError: an option that this kind of job does not have.
    """
    shown = {"console": options["console"], "quiet": options["quiet"]}
    if isinstance(job, (ExplorerRecipe, RewardRecipe, EvoRecipe, ScorerRecipe)):
        if options.get("warm_start") is not None:
            raise ValueError(f"{job.name} cannot be warm-started")
        resume = bool(options.get("resume"))
        if isinstance(job, EvoRecipe):
            episodes = int(options.get("eval_episodes", 200))
            return train_evovla(job, folder, resume=resume, eval_episodes=episodes, **shown)
        if isinstance(job, ScorerRecipe):
            return train_scorer(job, folder, resume=resume, **shown)
        if isinstance(job, RewardRecipe):
            return train_reward(job, folder, resume=resume, **shown)
        return train_explorer(job, folder, resume=resume, **shown)
    if isinstance(job, HdqnRecipe):
        if options.get("resume") or options.get("warm_start") is not None:
            raise ValueError(f"{job.name} cannot be resumed or warm-started, it is trained anew")
        return train_h_dqn(job, folder, **shown)
    return run(job, folder, **options)


__all__ = [
    "EVO_RECIPES", "EVO_VARIANTS", "JOBS", "RECIPES", "VARIANTS", "EvoRecipe", "ExplorerRecipe",
    "HdqnRecipe", "OverrideError", "Recipe", "RewardRecipe", "ScorerRecipe", "override", "run",
    "run_job", "train_evovla", "train_explorer", "train_h_dqn", "train_reward", "train_scorer",
    "variants_of",
]  # fmt: skip
