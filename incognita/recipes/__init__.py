"""Training jobs: a recipe is a task, a policy and its rewards; :func:`run` trains one."""

from .agv import RECIPES, VARIANTS, Recipe
from .config import OverrideError, override
from .train import run

__all__ = ["RECIPES", "VARIANTS", "OverrideError", "Recipe", "override", "run"]
