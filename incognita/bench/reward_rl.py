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
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import stable_baselines3 as sb3
import torch
import typer
from rich.progress import track
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from reward_vlm.client import ClientConfig, RewardClient
from reward_vlm.training import FrameRecorder, RewardCallback

from ..cli import JsonFile, console, emit
from ..recipes.train import machine
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


def bench_rl(
    model: Annotated[str, typer.Option(help="Model that rewards, as for `serve`.")] = "small",
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(TASKS),
    learners: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(LEARNERS),
    episodes: Annotated[int, typer.Option(min=1, help="Of the evaluation.")] = 100,
    smoke: Annotated[bool, typer.Option("--smoke", help="One tiny training of each.")] = False,
    json_file: JsonFile = None,
) -> None:
    """PPO on the service's rewards beside the truth and sparse success (about 5 core-hours)."""
    chosen, who = tasks.split(","), learners.split(",")
    for given, known in ((chosen, TASKS), (who, TRAIN)):
        if unknown := set(given) - set(known):
            raise typer.BadParameter(f"must be of {', '.join(known)}, got {', '.join(unknown)}")
    rows: list[dict[str, Any]] = []
    begun = time.process_time()
    with server(model, 0.0) as calm, server(model, INJECTED) as flaky:
        jobs = [
            (task, learner, rewarded, seed, client)
            for task in chosen
            for learner in who
            for rewarded, client in (*((r, calm) for r in REWARDS), ("flaky", flaky))
            for seed in range(1 if smoke else seeds)
            if rewarded != "flaky" or seed == 0
        ]
        for task, learner, rewarded, seed, client in track(jobs, "trainings", console=console):
            t = TASKS[task]
            total = 2 * ENVS * 3 * t.steps if smoke or rewarded == "flaky" else t.total
            at = time.perf_counter()
            true_name = "server" if rewarded == "flaky" else rewarded
            trained = TRAIN[learner](t, true_name, seed, total, client)
            rows.append({
                "task": task, "learner": learner, "reward": rewarded, "seed": seed,
                "success": success_of(trained.act, t, 4 if smoke else episodes),
                "steps": total, "wall_s": round(time.perf_counter() - at, 1),
                "missing": int(np.isnan(trained.rewards).sum()), "judged": len(trained.rewards),
                "hacked": trained.failed_as_good, "failed": trained.failed,
                "first_rewards": trained.rewards[: 6 * ENVS],
            })  # fmt: skip
            console.print({k: v for k, v in rows[-1].items() if k != "first_rewards"})
    result = {
        "command": "bench reward-rl", "machine": machine(), "model": model,
        "core_minutes": round((time.process_time() - begun) / 60, 1),
        **summary(rows, chosen, who), "runs": rows,
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
                for w, v in by.items()
            }  # fmt: skip
            judged = [r for r in mine if r["reward"] == "server"]
            failed = sum(r["failed"] for r in judged)
            table[name]["hacked"] = sum(r["hacked"] for r in judged) / max(failed, 1)
            passed[f"{name}: of the truth"] = iqm(by["server"]) >= SHARE * iqm(by["truth"])
            passed[f"{name}: above sparse"] = iqm(by["server"]) > iqm(by["success"])
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
