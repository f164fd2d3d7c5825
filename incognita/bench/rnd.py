"""What the RND bonus adds to PPO in the regime of large minibatches, on a free environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

import curiosity
from learning.ppo import PPO, PPOConfig
from learning.vec_env import EXPLORE, EnvSpec, Step

from ..cli import JsonFile
from .paired import Clock, Report, Seeds, Smoke, Timing, alternate

ENVS, STEPS = 256, 32
REGIME = PPOConfig(num_steps=STEPS, minibatch=2048, epochs=5, hidden=(64, 64))
"""256 environments x 32 steps, minibatches of 2048, 5 epochs."""
OBS_DIM, ACTION_DIM = 72, 2
MOST = 0.20
PLAIN, WITH_RND, SMALL = "PPO", "PPO + RND", "PPO + RND, 64-64 networks"
OPTIONS: dict[str, dict[str, Any] | None] = {
    PLAIN: None, WITH_RND: {}, SMALL: {"hidden": (64, 64), "predictor_extra": 0},
}  # fmt: skip
"""Configuration -> options of the bonus on top of the shipped ones; None is no bonus."""


class NullEnv:
    """Costs nothing: deals out states drawn beforehand. Episodes end by their time limit."""

    def __init__(self, seed: int) -> None:
        self.spec = EnvSpec(ENVS, OBS_DIM, ACTION_DIM, len(EXPLORE), 0.05, 200)
        rng = np.random.default_rng(seed)
        self.obs = rng.normal(size=(8, ENVS, OBS_DIM)).astype(np.float32)
        self.places = rng.uniform(-10, 10, (8, ENVS, len(EXPLORE))).astype(np.float32)
        self.rewards = rng.normal(size=(8, ENVS)).astype(np.float32)
        self.never = np.zeros(ENVS, bool)
        self.t = 0

    def reset(self) -> NDArray[np.float32]:
        """(N, 72) observations."""
        return np.asarray(self.obs[0])

    def explore(self) -> NDArray[np.float32]:
        """(N, 6) places."""
        return np.asarray(self.places[self.t % 8])

    def step(self, action: NDArray[np.float32]) -> Step:
        """The next of eight prepared steps, whatever the action."""
        self.t += 1
        k = self.t % 8
        over = self.t % self.spec.max_episode_steps == 0
        return Step(
            self.obs[k], self.rewards[k], self.never, ~self.never if over else self.never,
            self.obs[k], self.places[k],
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The clock."""
        return {"t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.t = int(state["t"])


def updates(options: dict[str, Any] | None, count: int, seed: int) -> Callable[[], int]:
    """Work: ``count`` rollouts and updates of PPO with the RND bonus, or without (None)."""
    env = NullEnv(seed)
    spec = env.spec
    intrinsic = None
    if options is not None:
        sizes = spec.explore_dim, spec.action_dim, spec.num_envs
        intrinsic = curiosity.make("rnd", *sizes, seed, **options)
    ppo = PPO(env, REGIME, intrinsic, seed)

    def work() -> int:
        ppo.learn(ppo.steps + count * ENVS * STEPS)
        return count * ENVS * STEPS

    return work


def rnd(seeds: Seeds = 3, smoke: Smoke = False, json_file: JsonFile = None) -> None:
    """Extra CPU of RND, 256 x 32 steps, 2048 x 5 epochs, null environment (0.02 core-hours)."""
    rounds, count = (2, 1) if smoke else (9, 6)
    about = (
        f"{ENVS} environments that cost nothing x {STEPS} steps, minibatch 2048, 5 epochs, 64-64 "
        'tanh networks, one thread; RND as curiosity.make("rnd") gives it.'
    )
    report = Report(f"rnd --seeds {seeds}", seeds, about)
    timings: dict[str, Timing] = {}
    for seed in range(seeds):
        works = {name: updates(options, count, seed) for name, options in OPTIONS.items()}
        alternate(works, rounds, seed, timings)
    report.timings(timings, "sample")
    for name, target in ((WITH_RND, MOST), (SMALL, None)):
        clocks: tuple[Clock, Clock] = ("cpu", "wall")
        for clock in clocks:
            extra = timings[name].of(clock) / timings[PLAIN].of(clock) - 1
            goal = target if clock == "cpu" else None
            report.target(f"extra of {name}, share", extra, goal, most=True, clock=clock)
    report.finish(json_file, smoke)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rnd")(rnd)
