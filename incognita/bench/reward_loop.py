"""The loop of a real robot: drive, record, score, fine-tune, drive better; five seeds.

A weak policy, cloned from a few scripted drives, is driven by the ROS 2 nodes over DDS in arenas of
the MuJoCo robot. It explores by noise on its own last layer, drawn anew for every episode
(Plappert et al. 2018, arXiv 1706.01905). The recorder stores the episodes, ``incognita score``
scores them, and the policy is tuned on them; beside it, one tuned on the true outcomes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

from episodes import EpisodeReader
from learning.cloning import clone
from learning.policy_file import load_policy, save_policy, verify_policy
from learning.ppo import ActorCritic
from rnd_agv.observation import to_body
from ros_nodes.bringup import GRACE_S
from sim.batch import BatchEnv
from sim.tasks import AgvTask, make

from ..cli import JsonFile, console, emit
from ..evaluate import evaluate
from ..recipes.reward_finetune import FinetuneConfig, finetune, rewards_of
from ..recipes.train import git_revision, machine
from ..score import Asked, read_scores, score_store, sidecar, who_scores
from ..stats import bootstrap_interval

DRIVES, DRIVE_STEPS = 6, 120
"""Scripted drives that the weak policy is cloned from, and control steps of each."""
NOISE = 0.25
"""Standard deviation of the noise on the last layer, in that of its weights."""
TEST_ARENAS = 500_000
"""First of the arenas to test in; those recorded in have smaller numbers."""
LIMIT_S = 20.0
"""Simulated seconds of an episode."""
PATIENCE_S = (GRACE_S + 3.0, 2.0)
"""What a system of nodes has to end after SIGINT, and then after SIGTERM. Nodes whose supervisor
was killed end by themselves."""
Running = AbstractContextManager["subprocess.Popen[bytes]"]


def script(env: BatchEnv) -> NDArray[np.float32]:
    """(N, 2) actions of a driver who turns to the goal and steers off what is near in front."""
    point = to_body(env.state.goal_w, env.state.pose_w)
    bearing = np.arctan2(point[:, 1], point[:, 0])
    angles, distance = env.scan.angles, np.hypot(*point.T)
    free = np.minimum(env.ranges, distance[:, None] - 0.4)  # what is sought is no obstacle
    push = np.where((np.abs(angles) < 1.2) & (free < 1.1) & (env.ranges < distance[:, None] - 0.6),
                    (1.1 - free) * np.sign(angles + 1e-9), 0.0).mean(axis=1)  # fmt: skip
    turn = np.clip(2.0 * bearing - 30.0 * push, -2.0, 2.0)
    limits = env.robot.limits
    speed = limits.v_max * 0.8 * np.clip(np.cos(bearing), 0, 1) ** 2
    v = 2 * (speed - limits.v_min) / (limits.v_max - limits.v_min) - 1
    return np.stack([v, turn / limits.w_max], axis=1).astype(np.float32)


def weak_policy(folder: Path, seed: int) -> None:
    """Clone :data:`DRIVES` drives of :func:`script` into a policy file."""
    task = make("agv-arena", first_layout=1000 * seed, layouts=1000, terminal_collision=False)
    env = BatchEnv(task, DRIVES, "kinematic", seed)
    rng, obs = np.random.default_rng([seed, 1]), env.reset()
    seen, shown = [], []
    for _ in range(DRIVE_STEPS):
        action = script(env)
        seen.append(obs)
        shown.append(action)
        obs = env.step((action + 0.1 * rng.standard_normal(action.shape)).astype(np.float32)).obs
    net = ActorCritic(task.config.observation.dim, 2, (64, 64), seed=seed)
    pairs = (torch.from_numpy(np.concatenate(part)) for part in (seen, shown))
    error = clone(net, *pairs, epochs=20, minibatch=256, seed=seed)["actor"]
    save_policy(
        folder, net, observation=task.config.observation.spec(),
        action={"dim": 2, "robot": "jackal", "limits": vars(task.robot.limits),
                "goal_radius_m": task.config.goal_radius_m},
        recipe={"name": "weak-arena", "drives": DRIVES, "steps": DRIVE_STEPS, "error": error,
                "git": git_revision()},
        seeds=[seed], evaluation={}, rate_hz=20.0,
    )  # fmt: skip


def noisy(policy: Path, folder: Path, rng: np.random.Generator) -> None:
    """Write ``policy`` with noise on its last layer."""
    net, m = load_policy(policy), verify_policy(policy)
    with torch.no_grad():
        last = [layer for layer in net.actor if isinstance(layer, torch.nn.Linear)][-1]
        draw = torch.from_numpy(rng.standard_normal(tuple(last.weight.shape))).float()
        last.weight += NOISE * last.weight.std() * draw
    save_policy(
        folder, net, observation=m["observation"], action=m["action"],
        recipe={**m["recipe"], "noise": NOISE}, seeds=m["seeds"], evaluation={},
        rate_hz=m["rate_hz"],
    )  # fmt: skip


def bringup(system: str, env: dict[str, str], log: Path, **words: Any) -> Running:
    """A system of nodes in processes of their own."""
    line = [sys.executable, "-m", "ros_nodes.bringup", system]
    return running([*line, *(f"{key}:={value}" for key, value in words.items())], env, log)


@contextmanager
def running(
    line: Sequence[str], env: dict[str, str], log: Path, patience_s: Sequence[float] = PATIENCE_S
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block, however that is left.

    It is alone in its session: Ctrl-C comes to us, and we end it.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            line, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            _end(process, log, patience_s)


def _end(process: subprocess.Popen[bytes], log: Path, patience_s: Sequence[float]) -> None:
    """SIGINT, then SIGTERM, then SIGKILL to its group; each only if the one before did nothing."""
    try:
        for number, wait_s in zip((signal.SIGINT, signal.SIGTERM), patience_s, strict=True):
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(wait_s)
                return
            except subprocess.TimeoutExpired:
                said = f"process {process.pid} still runs {wait_s:g} s after {number.name}"
                console.print(f"{said}, see {log}")
    finally:  # here too after a second Ctrl-C
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def record(policy: Path, arena: int, store: Path, work: Path, rtf: float) -> str | None:
    """Drive one arena over DDS and record it; the episode's id, None where none was stored."""
    before = set(EpisodeReader(store).ids()) if store.exists() else set()
    env = os.environ | {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
                        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}  # fmt: skip
    recorder = {"episodes": store, "camera": "mast", "autostart": "true", "use_sim_time": "true"}
    drive = {"world": f"arena:{arena}", "robot": "jackal", "policy": policy, "autoarm": "true",
             "camera_hz": 5.0, "rtf": rtf, "exit_when_done": "true", "timeout_s": LIMIT_S,
             "seed": arena}  # fmt: skip
    log = work / "nodes.log"
    with (
        bringup("record", env, log, task="agv-arena", **recorder),
        bringup("sim_agv", env, log, **drive) as robot,
    ):
        end = time.monotonic() + 60.0 + LIMIT_S / rtf
        while robot.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
    new = set(EpisodeReader(store).ids()) - before
    return next(iter(new), None)


def drive_all(policy: Path, episodes: int, seed: int, work: Path, rtf: float) -> Path:
    """Record ``episodes`` drives of noisy copies of ``policy``; the store."""
    store, rng = work / "episodes", np.random.default_rng([seed, 2])
    for k in track(range(episodes), f"seed {seed}: driving", console=console):
        noisy(policy, work / "noisy", rng)
        record(work / "noisy", 1000 * seed + k, store, work, rtf)
    return store


def true_rewards(store: Path) -> dict[str, float]:
    """1 for every episode that ended in success, 0 for any other."""
    reader = EpisodeReader(store)
    outcomes = {id: reader.open(id).attrs["outcome"]["outcome"] for id in reader.ids()}
    return {id: float(outcome == "success") for id, outcome in outcomes.items()}


def success(policy: Path, task: AgvTask, episodes: int) -> float:
    """Success in MuJoCo; the same episodes for every policy."""
    return float(evaluate(task, load_policy(policy).act, episodes).success.mean())


def one_seed(
    seed: int, model: str, episodes: int, tests: int, work: Path, rtf: float
) -> dict[str, Any]:
    """The loop once: success of the weak policy, and of those tuned on scores and on the truth."""
    weak_policy(work / "weak", seed)
    store = drive_all(work / "weak", episodes, seed, work, rtf)
    ids = EpisodeReader(store).ids() if store.exists() else []
    if not ids:
        raise RuntimeError(f"no episode was recorded, see {work / 'nodes.log'}")
    with who_scores("", model, None) as (who, stamps):
        scored = score_store(store, who, stamps, Asked(), sidecar(store))
    rewards, left_out = rewards_of(read_scores(sidecar(store)), ids)
    truth, config = true_rewards(store), FinetuneConfig(seed=seed)
    task = make("agv-arena", first_layout=TEST_ARENAS, max_steps=round(LIMIT_S / 0.05))
    row: dict[str, Any] = {
        "seed": seed, "recorded": len(ids), "left_out": left_out, "true_success": _mean(truth),
        "mean_score_reward": scored["mean_reward"], "before": success(work / "weak", task, tests),
        "correlation": _correlation(rewards, truth),
    }  # fmt: skip
    for name, given, by in (("score", rewards, {**stamps, "left_out": left_out}),
                            ("truth", truth, {"model": "true outcome"})):  # fmt: skip
        if given:
            finetune(work / "weak", store, given, work / name, config, {"scores": by})
        row[name] = success(work / name if given else work / "weak", task, tests)
    return row


def _mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _correlation(rewards: dict[str, float], truth: dict[str, float]) -> float | None:
    """Of score and outcome over the episodes that have a score; None where one is constant."""
    pairs = np.array([(value, truth[id]) for id, value in rewards.items()])
    if len(pairs) < 2 or not pairs.std(axis=0).all():
        return None
    return float(np.corrcoef(pairs.T)[0, 1])


def gains(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean gain in success over the weak policy, with its interval over the seeds."""
    out: dict[str, Any] = {}
    for name in ("score", "truth"):
        gain = np.array([row[name] - row["before"] for row in rows])
        low, high = bootstrap_interval(gain, lambda draws, axis: draws.mean(axis=axis))
        out[name] = {"mean": float(gain.mean()), "interval": [float(low), float(high)]}
    return out


def bench_loop(
    model: Annotated[str, typer.Option(help="Model that scores, as for `serve`.")] = "small",
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    episodes: Annotated[int, typer.Option(min=1, help="Recorded for each seed.")] = 40,
    tests: Annotated[int, typer.Option(min=1, help="Episodes of each test.")] = 200,
    rtf: Annotated[float, typer.Option(help="Simulated seconds per second.")] = 2.0,
    smoke: Annotated[bool, typer.Option("--smoke", help="One seed, two episodes.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Drive by ROS 2 nodes, record, score, fine-tune; success before and after."""
    if smoke:
        seeds, episodes, tests = 1, 2, 10
    torch.set_num_threads(1)
    begun, rows = time.time(), []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one_seed(seed, model, episodes, tests, Path(folder), rtf))
        console.print(rows[-1])
    gain = gains(rows)
    passed = gain["score"]["interval"][0] > 0
    emit(
        {"command": "bench reward-loop", "model": model, "episodes": episodes, "tests": tests,
         "rows": rows, "gain": gain, "passed": passed, "smoke": smoke, "machine": machine(),
         "wall_s": round(time.time() - begun, 1)}, json_file,
    )  # fmt: skip
    if not passed and not smoke:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reward-loop")(bench_loop)
