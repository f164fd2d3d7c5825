"""Our PPO on the batch engine against Stable-Baselines3: time to a success rate, samples/s."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import stable_baselines3 as sb3
import torch
import typer
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from learning.ppo import PPO, PPOConfig
from sim.batch import BatchEnv

from ..cli import JsonFile, console
from .maze import PLAIN, MazeTask, maze_envs, scan_every_step
from .paired import Report, Seeds, Smoke, Timing, alternate, cpu_s

SB3_ENVS, ENVS = 16, 256
GOAL_M = (1.0, 3.0)
REGIME = PPOConfig(
    num_steps=32, minibatch=2048, epochs=5, hidden=(64, 64), lr=1e-3, init_log_std=0.0
)  # fmt: skip
"""256 environments x 32 steps, few large minibatches with the larger step that they allow;
networks, discount and first noise as Stable-Baselines3 has them."""
EVERY = 32_768
"""Samples between evaluations: one rollout of SB3's defaults with 16 environments."""
EPISODES = 100
"""Of one evaluation."""
SHORT: dict[str, Any] = {"n_steps": 128}
"""Settings of the baseline in smoke runs, which measure nothing."""
Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def score(act: Act, task: MazeTask, episodes: int) -> float:
    """Success rate of deterministic actions on episodes that are the same for everybody, tier M."""
    env = BatchEnv(task, episodes, "mujoco", 1_000_000, PLAIN, os.cpu_count() or 1)
    obs = env.reset()
    done, success = np.zeros(episodes, bool), np.zeros(episodes, bool)
    while not done.all():
        step = env.step(act(obs))
        over = (step.terminated | step.truncated) & ~done
        success[over] = step.terms["success"][over]
        done |= over
        obs = step.obs
    return float(success.mean())


class Race:
    """The clock of one training: stops for evaluations, which therefore cost the learner nothing.

    Args:
        task: what is learned.
        level: success rate to be reached.
        limit_s: seconds of training after which it is given up.
        episodes: of one evaluation.
    """

    def __init__(self, task: MazeTask, level: float, limit_s: float, episodes: int) -> None:
        self.task, self.level, self.limit_s, self.episodes = task, level, limit_s, episodes
        self.curve: list[list[float]] = []
        """[samples, wall s, cpu s, success] at every evaluation."""
        self.reached = False
        self.wall = self.cpu = 0.0
        self.resume()

    def resume(self) -> None:
        """Start the clock again."""
        self.began = time.perf_counter(), cpu_s()

    def over(self, samples: int, act: Act) -> bool:
        """Stop the clock, score the policy, say whether training is over."""
        self.wall += time.perf_counter() - self.began[0]
        self.cpu += cpu_s() - self.began[1]
        success = score(act, self.task, self.episodes)
        self.curve.append([samples, round(self.wall, 2), round(self.cpu, 2), success])
        self.reached = success >= self.level
        self.resume()
        return self.reached or self.wall >= self.limit_s

    def summary(self) -> dict[str, Any]:
        """Samples and seconds when it was over."""
        samples, wall, cpu, success = self.curve[-1]
        found = {"samples": samples, "wall_s": wall, "cpu_s": cpu, "success": success}
        return found | {"reached": self.reached, "curve": self.curve}


class Watch(BaseCallback):
    """Asks a race after every rollout of Stable-Baselines3."""

    def __init__(self, race: Race) -> None:
        super().__init__()
        self.race = race
        self.stop = False

    def _on_rollout_start(self) -> None:
        if self.num_timesteps:  # the update of the last rollout has been made
            model = self.model

            def act(obs: NDArray[np.float32]) -> NDArray[np.float32]:
                return model.predict(obs, deterministic=True)[0]

            self.stop = self.race.over(self.num_timesteps, act)

    def _on_step(self) -> bool:
        return not self.stop


def race_ours(race: Race, seed: int, every: int = EVERY) -> None:
    """Train ours in tier M until the race is over; building the environment counts."""
    task = race.task
    ppo = PPO(BatchEnv(task, ENVS, "mujoco", seed, PLAIN, os.cpu_count() or 1), REGIME, seed=seed)

    def watch(metrics: dict[str, float]) -> bool:
        return ppo.steps % every == 0 and race.over(ppo.steps, ppo.net.act)

    ppo.learn(10**12, watch)


def race_sb3(race: Race, seed: int, **options: Any) -> None:
    """Train SB3's PPO with its defaults on SubprocVecEnv; starting the processes counts."""
    env = SubprocVecEnv(maze_envs(SB3_ENVS, seed, goal_m=GOAL_M))
    model = sb3.PPO("MlpPolicy", env, seed=seed, device="cpu", **options)
    model.learn(10**12, Watch(race))
    env.close()


def to_success(
    level: float, limit_s: float, seeds: int, smoke: bool, json_file: Path | None
) -> None:
    """Wall time of both to the same success rate on the same evaluation episodes."""
    about = (
        f"60-box maze, goals {GOAL_M[0]:g} to {GOAL_M[1]:g} m away, shaped reward, contacts slide. "
        f"Seconds of training until {level:.0%} of {EPISODES} unseen episodes succeed in tier M, "
        f"scored every {EVERY} samples off the clock. Ours: {ENVS} robots in tier M, "
        f"minibatch 2048, lr 1e-3. Baseline: SB3's PPO defaults, "
        f"SubprocVecEnv({SB3_ENVS}). One torch thread each."
    )
    command = f"ppo --seeds {seeds} --level {level:g} --limit {limit_s:g}"
    report = Report(command, seeds, about)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "sb3": []}
    for seed in range(seeds):
        for name in ("ours", "sb3") if seed % 2 == 0 else ("sb3", "ours"):
            race = Race(MazeTask(seed, GOAL_M), level, limit_s, 10 if smoke else EPISODES)
            if name == "ours":
                race_ours(race, seed, ENVS * REGIME.num_steps if smoke else EVERY)
            else:
                race_sb3(race, seed, **SHORT if smoke else {})
            runs[name].append(race.summary())
            console.print(f"seed {seed}, {name}: {race.curve[-1]}")
    report.result["runs"] = runs
    pairs = list(zip(runs["sb3"], runs["ours"], strict=True))
    wall = [theirs["wall_s"] / mine["wall_s"] for theirs, mine in pairs]
    never = [name for name in runs for run in runs[name] if not run["reached"]]
    report.result["never_reached"] = never
    what = "time to success, SB3 over ours" + (" (a bound: some never got there)" if never else "")
    ok = all(run["reached"] for run in runs["ours"])
    report.target(what, wall, 5.0, clock="wall")
    report.target(what, [a["cpu_s"] / b["cpu_s"] for a, b in pairs], None, clock="cpu")
    report.target("runs of ours that got there, share", float(ok), 1.0)
    report.finish(json_file, smoke)


def samples(seeds: int, smoke: bool, json_file: Path | None) -> None:
    """Samples per second of whole training loops: ours in tier K, SB3 in MuJoCo."""
    about = (
        f"60-box maze, 64 rays a step. Ours: tier K, {ENVS} robots x 32 steps, minibatch 2048, 5 "
        f"epochs. Baseline: SB3's PPO defaults on DummyVecEnv({SB3_ENVS}) of MuJoCo environments. "
        "64-64 networks, one torch thread each. The tiers differ in physics: tier K has no forces."
    )
    report = Report(f"ppo --kinematic --seeds {seeds}", seeds, about)
    theirs, mine = "SB3 PPO, DummyVecEnv 16", "ours, tier K 256"
    timings: dict[str, Timing] = {}
    rounds = 1 if smoke else 4
    for seed in range(seeds):
        env = DummyVecEnv(maze_envs(SB3_ENVS, seed, goal_m=GOAL_M))
        options = SHORT if smoke else {}
        model = sb3.PPO("MlpPolicy", env, seed=seed, device="cpu", **options)
        ppo = PPO(
            BatchEnv(MazeTask(seed, GOAL_M), ENVS, "kinematic", seed, PLAIN), REGIME, seed=seed
        )

        def sb3_work(model: sb3.PPO = model) -> int:
            count = model.n_steps * SB3_ENVS
            model.learn(count, reset_num_timesteps=False)
            return count

        def our_work(ppo: PPO = ppo) -> int:
            count = (1 if smoke else 16) * ENVS * REGIME.num_steps
            ppo.learn(ppo.steps + count)
            return count

        alternate({theirs: sb3_work, mine: our_work}, rounds, seed, timings)
        env.close()
    report.timings(timings, "sample")
    report.ratio(theirs, mine, timings, 25.0, "wall")
    report.finish(json_file, smoke)


def ppo(
    kinematic: Annotated[
        bool, typer.Option("--kinematic", help="Samples per second in tier K instead.")
    ] = False,
    level: Annotated[float, typer.Option(help="Success rate to reach.")] = 0.8,
    limit: Annotated[float, typer.Option(help="Give a training up after this, s.")] = 900.0,
    seeds: Seeds = 3,
    smoke: Smoke = False,
    json_file: JsonFile = None,
) -> None:
    """Wall time to a fixed success rate against SB3's PPO, or samples/s (about 0.5 core-hours)."""
    torch.set_num_threads(1)
    with scan_every_step():
        if kinematic:
            samples(seeds, smoke, json_file)
        else:
            to_success(level, 1.0 if smoke else limit, seeds, smoke, json_file)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ppo")(ppo)
