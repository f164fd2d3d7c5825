"""Train on the service's rewards instead of the truth, and count true successes.

Two tasks at the table, two learners (Stable-Baselines3's PPO and ours), three rewards at the end of
an episode: the truth of the rubric, the service's expected score for the rendered frames, and a
bare success. One server runs for all, another injects 503s: that may cost time and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import stable_baselines3 as sb3
import torch
import typer
from rich.progress import track
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from reward_vlm.backends import open_model
from reward_vlm.client import ClientConfig, RewardClient
from reward_vlm.training import FrameRecorder, RewardCallback

from ..cli import JsonFile, console, emit
from ..kept import Kept
from ..recipes.train import git_revision, machine
from ..stats import bootstrap_interval, iqm
from ..table_rl import ENVS, EVERY, TASKS, Task, Trained, scoring, success_of, table_env, train_ours

LEARNERS, REWARDS = ("sb3", "ours"), ("truth", "server", "success")
SHARE = 0.8
"""Of the true success with the truth, that the service's rewards are to reach."""
INJECTED = 0.2
"""Share of requests that the second server refuses ..."""
TRIES = 10
"""... and how often a training asks: with 3 tries 1 in 125 rewards would be missing."""


def train_sb3(task: Task, rewarded: str, seed: int, total: int, client: Any) -> Trained:
    """Stable-Baselines3's PPO, the rewards put in by its callback."""
    env = VecNormalize(
        DummyVecEnv([lambda: FrameRecorder(table_env(task, rewarded), EVERY)] * ENVS)
        if rewarded == "server"
        else DummyVecEnv([lambda: table_env(task, rewarded)] * ENVS),
        norm_reward=False,
    )
    learner = sb3.PPO(
        "MlpPolicy", env, n_steps=3 * task.steps, batch_size=480, n_epochs=10, seed=seed,
        policy_kwargs={"net_arch": [128, 128], "log_std_init": -0.5},
    )  # fmt: skip
    callback = RewardCallback(client, scoring(task)) if rewarded == "server" else None
    learner.learn(total, callback=callback)
    out = Trained(lambda obs: learner.predict(env.normalize_obs(obs), deterministic=True)[0])
    for judged in callback.episodes if callback else ():
        out.note(judged.verdict, bool(judged.success))
    if callback and callback.stopped:
        raise RuntimeError(f"training stopped: {callback.stopped}")
    env.close()
    return out


class Flaky:
    """Answers a share of the POSTs with 503 before the application sees them."""

    def __init__(self, app: Any, share: float, seed: int) -> None:
        self.app, self.share, self.random = app, share, random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope.get("method") != "POST" or self.random.random() >= self.share:
            await self.app(scope, receive, send)
            return
        head = [(b"retry-after", b"0"), (b"content-type", b"application/problem+json")]
        await send({"type": "http.response.start", "status": 503, "headers": head})
        await send({"type": "http.response.body", "body": b"{}"})


def serve_flaky(spec: str, keys: str, share: str, seed: str) -> None:
    """The service with injected 503s, until SIGTERM."""
    from reward_vlm.backends import open_model
    from reward_vlm.gateway.server import Server
    from reward_vlm.gateway.settings import Settings

    torch.set_num_threads(1)
    server = Server([open_model(spec)], Settings(keys=Path(keys), port=0, queue=256))
    server.config.app = Flaky(server.gate, float(share), int(seed))
    server.run()


@contextlib.contextmanager
def server(spec: str, share: float) -> Iterator[RewardClient]:
    """A client of a service in a process of its own."""
    from reward_vlm.gateway.auth import add_key

    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        key = add_key(keys, "bench")
        line = [sys.executable, "-m", __name__, spec, str(keys), str(share), "0"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with RewardClient(url, key, ClientConfig(tries=TRIES)) as client:
                yield client
        finally:
            process.terminate()
            process.wait(20)


TRAIN = {"sb3": train_sb3, "ours": train_ours}


@dataclass(frozen=True)
class Job:
    """One training."""

    task: str
    learner: str
    reward: str
    """One of :data:`REWARDS`, or flaky: the server's with 503s in between."""
    seed: int
    steps: int
    revision: str
    """Of the model that rewards; empty where none does."""

    episodes: int
    """Of the evaluation."""

    def run(self, client: RewardClient | None) -> dict[str, Any]:
        """Train, then count true successes."""
        t, at = TASKS[self.task], time.perf_counter()
        true_name = "server" if self.reward == "flaky" else self.reward
        trained = TRAIN[self.learner](t, true_name, self.seed, self.steps, client)
        return asdict(self) | {
            "success": success_of(trained.act, t, self.episodes),
            "wall_s": round(time.perf_counter() - at, 1),
            "missing": int(np.isnan(trained.rewards).sum()), "judged": len(trained.rewards),
            "hacked": trained.failed_as_good, "failed": trained.failed,
            "first_rewards": trained.rewards[: 6 * ENVS], "git_revision": git_revision(),
        }  # fmt: skip


def jobs_of(
    tasks: list[str], learners: list[str], rewards: list[str], seeds: int, smoke: bool,
    revision: str, episodes: int,
) -> list[Job]:  # fmt: skip
    """All trainings; the flaky server's are short, of seed 0 alone."""
    out = []
    for task in tasks:
        t = TASKS[task]
        few = 2 * ENVS * 3 * t.steps
        for learner in learners:
            for reward in rewards:
                judged = reward in ("server", "flaky")
                out += [
                    Job(task, learner, reward, seed, few if smoke or reward == "flaky" else t.total,
                        revision if judged else "", episodes)
                    for seed in range(1 if smoke or reward == "flaky" else seeds)
                ]  # fmt: skip
    return out


def bench_rl(
    model: Annotated[str, typer.Option(help="Model that rewards, as for `serve`.")] = "small",
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(TASKS),
    learners: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(LEARNERS),
    rewards: Annotated[
        str, typer.Option(help="Comma-separated; flaky: the server with 503s in between.")
    ] = ",".join((*REWARDS, "flaky")),
    episodes: Annotated[int, typer.Option(min=1, help="Of the evaluation.")] = 100,
    keep: Annotated[
        Path | None, typer.Option(help="File of finished trainings, which are not done again.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="One tiny training of each.")] = False,
    json_file: JsonFile = None,
) -> None:
    """PPO on the service's rewards beside the truth and sparse success (about 5 core-hours)."""
    what, who, paid = tasks.split(","), learners.split(","), rewards.split(",")
    for given, known in ((what, TASKS), (who, TRAIN), (paid, (*REWARDS, "flaky"))):
        if unknown := set(given) - set(known):
            raise typer.BadParameter(f"must be of {', '.join(known)}, got {', '.join(unknown)}")
    judged = {"server", "flaky"} & set(paid)
    revision = open_model(model).info.revision if judged else ""
    few = (1, True, revision, 4) if smoke else (seeds, False, revision, episodes)
    jobs, kept = jobs_of(what, who, paid, *few), Kept(keep)
    begun = time.process_time()
    with contextlib.ExitStack() as stack:
        clients = {
            reward: stack.enter_context(server(model, INJECTED if reward == "flaky" else 0.0))
            for reward in judged
        }
        for job in track(jobs, "trainings", console=console):
            if kept.find(asdict(job)) is None:
                kept.add(job.run(clients.get(job.reward)))
                console.print({k: v for k, v in kept.rows[-1].items() if k != "first_rewards"})
    rows = [row for job in jobs if (row := kept.find(asdict(job))) is not None]
    result = {
        "command": "bench reward-rl", "machine": machine(), "model": model, "revision": revision,
        "core_minutes": round((time.process_time() - begun) / 60, 1),
        **summary(rows, what, who), "runs": rows,
    }  # fmt: skip
    emit(result, json_file)
    if not smoke and not all(result["passed"].values()):
        raise typer.Exit(1)


def summary(rows: list[dict[str, Any]], tasks: list[str], learners: list[str]) -> dict[str, Any]:
    """Success with each reward over the seeds, and what was to be shown."""
    table: dict[str, Any] = {}
    passed: dict[str, bool] = {}
    for task in tasks:
        for learner in learners:
            mine = [r for r in rows if (r["task"], r["learner"]) == (task, learner)]
            by = {w: [r["success"] for r in mine if r["reward"] == w] for w in REWARDS}
            name = f"{task}, {learner}"
            table[name] = {
                w: {"seeds": v, "iqm": float(iqm(v)),
                    "interval_95": [float(x) for x in bootstrap_interval(v)]}
                for w, v in by.items() if v
            }  # fmt: skip
            judged = [r for r in mine if r["reward"] == "server"]
            if not judged:
                continue
            failed = sum(r["failed"] for r in judged)
            table[name]["hacked"] = sum(r["hacked"] for r in judged) / max(failed, 1)
            if by["truth"]:
                passed[f"{name}: of the truth"] = iqm(by["server"]) >= SHARE * iqm(by["truth"])
            if by["success"]:
                passed[f"{name}: above sparse"] = iqm(by["server"]) > iqm(by["success"])
            if any(r["reward"] == "flaky" for r in mine):
                passed[f"{name}: 503"] = _same_rewards(mine)
    return {"table": table, "passed": {k: bool(v) for k, v in passed.items()}}


def _same_rewards(rows: list[dict[str, Any]]) -> bool:
    """Were the rewards with 503s in between those of the calm run, and was none missing?

    Which clips share a batch depends on time, so the last bits may differ; before the first update
    (three rounds of episodes) nothing can make more of that.
    """
    first = {r["reward"]: r["first_rewards"][: 3 * ENVS] for r in rows if r["seed"] == 0}
    missing = sum(r["missing"] for r in rows)
    return missing == 0 and bool(np.allclose(first["server"], first["flaky"], atol=1e-6))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reward-rl")(bench_rl)


if __name__ == "__main__":
    serve_flaky(*sys.argv[1:])
