"""Train EvoVLA from state: demonstrate, clone, learn by PPO, look at unseen episodes, write it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID

from learning.policy import Policy
from learning.ppo import PPO
from sim.backend import CONTROL_DT

from ..stage_env import RANDOMIZATIONS, Judge
from ..stage_eval import VALIDATION_SEED, evaluate_stages
from . import evovla_policy
from .evovla import EvoRecipe
from .evovla_demos import load, record
from .evovla_policy import Acting, action_spec, fit, make_policy, observation_spec
from .train import _cut_curve, git_revision, open_run, progress

DEMO_SEED = 10_000
"""Of the demonstrations of run 0; evaluations draw theirs far above."""


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
    net = make_policy(recipe.policy, recipe.memory, recipe.make_task(), judge.dictionary,
                      recipe.ppo, recipe.seed)  # fmt: skip
    bonus = recipe.make_bonus()
    ppo = PPO(recipe.make_env(judge), recipe.ppo, bonus, recipe.seed, net=net)
    if bonus is not None:
        bonus.learner = ppo
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
    best = evovla_policy.load(out / "policy")
    if eval_episodes:
        found = evaluate_stages(
            recipe.make_task(), Acting(best), judge, eval_episodes, config=recipe.env
        )
        result["eval"] = found.summary()
    write_arm_policy(out / "policy", best, recipe, result, revision)
    judge.close()
    (out / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _clone(recipe: EvoRecipe, judge: Judge, net: Policy, out: Path) -> None:
    """Play the demonstrations that are missing and fit the network to them."""
    record(
        out / "demos", recipe.make_task(), judge, recipe.env, recipe.demos,
        seed=DEMO_SEED + recipe.seed, noise=recipe.demo_noise,
        randomization=RANDOMIZATIONS[recipe.randomization],
    )  # fmt: skip
    told = load(out / "demos", recipe.ppo.gamma)
    fit(
        net, told, epochs=recipe.clone_epochs, minibatch=recipe.clone_minibatch,
        lr=recipe.clone_lr, log_std=recipe.clone_log_std, seed=recipe.seed,
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
            r.make_task(), Acting(net), self.judge, r.watch_episodes, config=r.env,
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


def write_arm_policy(
    folder: Path, net: Policy, recipe: EvoRecipe, evaluation: dict[str, Any], revision: str
) -> None:
    """Write the policy folder of a network that was trained at this revision of the source."""
    evovla_policy.save(
        folder, net, observation=observation_spec(recipe.make_task()), action=action_spec(),
        recipe={
            "name": recipe.name, "git": revision,
            "settings": json.loads(json.dumps(asdict(recipe))),
        },
        seeds=[recipe.seed], evaluation=evaluation, rate_hz=1 / CONTROL_DT,
    )  # fmt: skip
