"""Train one recipe: progress, TensorBoard, checkpoints, Ctrl-C and resume, a policy file."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from learning import checkpoint
from learning.policy_file import save_policy
from learning.ppo import PPO, WINDOW, ActorCritic
from sim.backend import CONTROL_DT
from sim.tasks import AgvTask

from ..evaluate import evaluate
from .agv import Phase, Recipe
from .expert import clone_follower


def run(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    warm_start: ActorCritic | None = None,
    eval_episodes: int = 100,
    console: Console | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train ``recipe`` into ``folder`` and return its result, which is also ``folder/result.json``.

    The folder gets ``checkpoints/``, ``curve.jsonl`` (metrics of every update), TensorBoard events,
    ``recipe.json``, the policy folder ``policy/`` and ``result.json``.

    Args:
        resume: go on from the newest valid checkpoint in the folder.
        warm_start: start from this network.
        eval_episodes: episodes in tier M at the end; 0 skips the evaluation.

    Raises:
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.
        FileExistsError: the folder holds a run already and ``resume`` is off.
    """
    torch.set_num_threads(recipe.ppo.threads)  # first of all: initial weights depend on it
    out = Path(folder)
    curve_path = out / "curve.jsonl"
    if curve_path.exists() and not resume:
        raise FileExistsError(f"folder must be new, or say --resume; got {out}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2, default=str))
    began, revision = time.time(), git_revision()
    net, steps = warm_start, 0
    phases = recipe.phases()
    reached = _reached(out, len(phases)) if resume else 0
    if not resume:
        curve_path.touch()
    with SummaryWriter(str(out / "tensorboard")) as board:
        for k, phase in enumerate(phases):
            folder_k = out / "checkpoints" / f"{k}-{phase.name}"
            if k < reached:
                continue
            env = phase.recipe.make_env(seed=recipe.seed + 1000 * k)
            ppo = PPO(env, phase.recipe.ppo, phase.recipe.make_bonus(env), recipe.seed, net=net)
            ppo.steps = steps
            if resume and folder_k.exists():
                ppo.load(folder_k)
                _cut_curve(curve_path, ppo.steps)
            elif resume and k:
                before = checkpoint.load(out / "checkpoints" / f"{k - 1}-{phases[k - 1].name}")
                ppo.net.load_state_dict(before["net"])
                ppo.steps = before["steps"]
            elif recipe.clone_rounds and k == 0 and warm_start is None:
                clone_follower(
                    ppo.net,
                    phase.recipe.make_env(seed=recipe.seed + 1),
                    recipe.clone_rounds,
                    seed=recipe.seed,
                )
            with curve_path.open("a") as curve:
                _train(ppo, phase, folder_k, board, curve, console, quiet)
            net, steps = ppo.net, ppo.steps
    assert net is not None  # there is always a phase
    result: dict[str, Any] = {"recipe": recipe.name, "seed": recipe.seed, "steps": steps}
    result["train_wall_s"] = time.time() - began
    task = recipe.make_task(evaluation=True)
    if eval_episodes:
        for tier in ("kinematic", "mujoco"):
            result[f"eval_{tier}"] = evaluate(task, net.act, eval_episodes, tier=tier).summary()
    write_policy(out / "policy", net, task, recipe, result, revision)
    (out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _reached(out: Path, phases: int) -> int:
    """Number of the phase that a stopped run was in: the last one with a checkpoint."""
    begun = [int(f.name.split("-")[0]) for f in (out / "checkpoints").glob("*-*")]
    return min(max(begun, default=0), phases - 1)


def _train(
    ppo: PPO, phase: Phase, checkpoints: Path, board: SummaryWriter, curve: TextIO,
    console: Console | None, quiet: bool,
) -> None:  # fmt: skip
    """Learn to the end of the phase with a progress bar."""
    with progress(console, quiet) as bar:
        title = f"{phase.recipe.name} {phase.name}"
        job = bar.add_task(title, total=phase.until, completed=ppo.steps, note="")

        def callback(metrics: dict[str, float]) -> bool:
            line = {k: round(v, 6) for k, v in metrics.items()} | {"phase": phase.name}
            curve.write(json.dumps(line) + "\n")
            curve.flush()
            if ppo.updates % 5 == 0:
                for name, value in metrics.items():
                    board.add_scalar(name, value, ppo.steps)
            note = f"success {metrics['success']:.0%}  {metrics['steps_per_s']:,.0f} steps/s"
            bar.update(job, completed=ppo.steps, note=note)
            return reached()

        def reached() -> bool:
            window = ppo.windows.get(phase.metric, ())
            return len(window) == WINDOW and sum(window) / WINDOW >= phase.level

        if reached():  # resumed where it had just ended
            return
        ppo.learn(phase.until, callback, checkpoints=checkpoints, checkpoint_every=100)


def _cut_curve(path: Path, steps: int) -> None:
    """Drop curve lines beyond the checkpoint, which will be written again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["steps"] <= steps]
        path.write_text("".join(line + "\n" for line in kept))


def action_spec(task: AgvTask) -> dict[str, Any]:
    """What a policy file's manifest says of the action."""
    config = task.config
    return {
        "dim": 2,
        "parts": [
            {
                "name": "v",
                "unit": "affine from [-1, 1] to [v_min, v_max] m/s",
                "frame": "base_link",
            },
            {"name": "w", "unit": "w_max rad/s", "frame": "base_link"},
        ],
        "robot": config.robot,
        "limits": asdict(task.robot.limits),
        "guide": asdict(config.guide_config) if config.guide != "none" else {},
        "guide_mode": config.guide,
        "goal_radius_m": config.goal_radius_m,
    }


def write_policy(
    folder: Path, net: ActorCritic, task: AgvTask, recipe: Recipe, evaluation: dict[str, Any],
    revision: str,
) -> None:  # fmt: skip
    """Write the policy folder of a network that was trained at this revision of the source."""
    save_policy(
        folder, net, observation=task.config.observation.spec(), action=action_spec(task),
        recipe={
            "name": recipe.name, "git": revision,
            "settings": json.loads(json.dumps(asdict(recipe), default=str)),
        },
        seeds=[recipe.seed], evaluation=evaluation, rate_hz=1 / CONTROL_DT,
    )  # fmt: skip


def open_run(folder: str | Path, recipe: Any, resume: bool) -> Path:
    """Make the folder of a run and write ``recipe.json`` into it.

    Raises:
        FileExistsError: the folder holds a run already and ``resume`` is off.
    """
    out = Path(folder)
    if (out / "recipe.json").exists() and not resume:
        raise FileExistsError(f"folder must be new, or say --resume; got {out}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    return out


def progress(console: Console | None, quiet: bool) -> Progress:
    """A progress display; every task has a field ``note``."""
    return Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console, disable=quiet,
    )  # fmt: skip


def git_revision() -> str:
    """The commit of the source tree, "unknown" outside one."""
    here = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def machine() -> dict[str, str]:
    """What a benchmark prints beside its numbers."""
    names = ("mujoco", "torch", "numpy", "gymnasium", "stable-baselines3", "zarr", "numba")
    return {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch_threads": str(torch.get_num_threads()),
        **{name: version(name) for name in names},
    }


__all__ = ["action_spec", "git_revision", "machine", "run", "write_policy"]
