"""Faults thrown at training: kills, stops, bad numbers, hostile files, packages of yesterday.

T1 SIGKILL while a checkpoint is saved, T2 stop and resume beside a run that went through, T3
rewards and gradients that are missing or not finite, T4 Ctrl-C on ``incognita train``, S1 hostile
files wherever a path is taken, S2 the audit of what is installed. Lines and totals are those of
:mod:`.faults`. The controls do what people do instead: ``torch.save`` over the old file, a
checkpoint of weights alone, NaN rewards turned into 0, files that are trusted. They must lose.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import pickle
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.hooks import RemovableHandle

from learning import checkpoint
from learning.checkpoint import CheckpointError
from learning.policy_file import OnnxPolicy, load_policy, save_policy
from learning.ppo import PPO, ActorCritic, PPOConfig
from learning.vec_env import EnvSpec, Step, VecEnv

from .faults import Emit, Record, answer, drain, flip, print_line, start
from .hostile_episodes import Pickled

if TYPE_CHECKING:
    from ..recipes import Recipe

Totals = dict[str, Any]


# T1: kill a process that saves one checkpoint after the other.


def _save_in_place(folder: Path, state: Any) -> None:
    """Negative control: as most training code does."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "last.pt")


def _load_in_place(folder: Path) -> Any:
    return torch.load(folder / "last.pt", weights_only=True)


SAVERS: dict[str, tuple[Callable[[Path, Any], Any], Callable[[Path], Any]]] = {
    "ours": (checkpoint.save, checkpoint.load),
    "torch-save": (_save_in_place, _load_in_place),
}


def _numbered_state(n: int) -> dict[str, Any]:
    """What checkpoint n holds, 800 kB."""
    return {"n": n, "x": torch.full((200_000,), float(n))}


def _save_forever(kind: str, folder: Path, acks: Connection, first: int) -> None:
    """Body of a process that saves; acknowledgements go through a pipe of their own."""
    torch.set_num_threads(1)
    for n in itertools.count(first):
        SAVERS[kind][0](folder, _numbered_state(n))
        acks.send_bytes(str(n).encode())


def _number_of(kind: str, folder: Path) -> int:
    """Number of the newest checkpoint that loads, -1 where none does or it is not whole."""
    try:
        state = SAVERS[kind][1](folder)
    except Exception:  # whatever a broken file raises
        return -1
    n = int(state["n"])
    return n if torch.equal(state["x"], _numbered_state(n)["x"]) else -1


def checkpoint_kills(
    count: int, seed: int, folder: Path, *, kind: str = "ours", emit: Emit = print_line
) -> Totals:
    """SIGKILL a process that saves, load the newest checkpoint, go on from there; then damage it.

    The last acknowledged checkpoint, or the one after it, must load every time. A newest one that
    is damaged must be passed over for the one before, and the log must name it.
    """
    record = Record("T1" if kind == "ours" else f"T1-{kind}", seed, emit)
    rng = random.Random(seed)
    newest = -1
    for case in range(count):
        place = folder / (kind if kind == "ours" else f"{kind}-{case}")
        process, acks = start(_save_forever, kind, place, newest + 1)
        if not acks.poll(60):
            raise RuntimeError(f"the process of case {case} saved nothing within 60 s")
        acked = [acks.recv_bytes().decode()]
        after = rng.uniform(0.0, 0.1)
        time.sleep(after)
        process.kill()
        acked += drain(acks)
        process.join(30)
        started = time.perf_counter()
        found = _number_of(kind, place)
        ms = (time.perf_counter() - started) * 1e3
        lost = found < int(acked[-1])
        problems = [f"acknowledged {acked[-1]}, loaded {found}"] if lost else []
        record.case(f"SIGKILL at {after * 1e3:.0f} ms", len(acked), problems, ms)
        newest = found if kind == "ours" else -1
    if kind == "ours":
        _damage_newest(record, count, rng, folder / kind)
    return record.totals()


def _damage_newest(record: Record, count: int, rng: random.Random, folder: Path) -> None:
    """Flip bits in the newest checkpoint, cut, empty and delete its files."""
    for n in (0, 1):
        checkpoint.save(folder, _numbered_state(n))
    newest = max(folder.glob("checkpoint-*"))
    litter = [p.name for p in folder.iterdir() if p.name.startswith(".tmp-")]
    record.case("the next save", 1, [f"left behind: {name}" for name in litter], 0.0)
    damages: list[tuple[str, Callable[[bytes], bytes | None]]] = [
        ("cut in half", lambda raw: raw[: len(raw) // 2]),
        ("emptied", lambda raw: b""),
        ("deleted", lambda raw: None),
        *[("a bit flipped", lambda raw: flip(raw, rng.randrange(8 * len(raw))))] * count,
    ]
    for (how, spoil), file in itertools.product(damages, sorted(newest.iterdir())):
        raw = file.read_bytes()
        file.unlink()
        spoilt = spoil(raw)
        if spoilt is not None:
            file.write_bytes(spoilt)
        started = time.perf_counter()
        with _logged(checkpoint.__name__) as lines:
            found = _number_of("ours", folder)
        ms = (time.perf_counter() - started) * 1e3
        problems = [] if found == 0 else [f"loaded {found}, not the one before"]
        if not any(newest.name in line for line in lines):
            problems.append(f"the log does not name {newest.name}: {lines}")
        record.case(f"newest: {file.name} {how}", int(found == 0), problems, ms)
        file.write_bytes(raw)


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _logged(name: str) -> Iterator[list[str]]:
    """Lines that this logger writes meanwhile."""
    logger, handler = logging.getLogger(name), _Lines()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


# T2: stop and resume.

ROLLOUT = 32 * 8
"""Steps of one update of :func:`_learner`."""


def _small(seed: int, bonus: str = "", ppo: PPOConfig | None = None) -> Recipe:
    """Eight robots that reach the goal 6 cm from the start, or run out of time in 50 steps."""
    from ..recipes import RECIPES

    return replace(
        RECIPES["agv-simple-static"], num_envs=8, randomization="training", seed=seed, bonus=bonus,
        bonus_options={}, task_options={"goal_radius_m": 13.52, "max_steps": 50},
        ppo=ppo or PPOConfig(),
    )  # fmt: skip


def _learner(
    seed: int,
    own: int | None = None,
    *,
    bonus: str = "",
    spoil: Spoil | None = None,
    **changes: Any,
) -> PPO:
    """A small learner; ``own`` seeds its weights and noise, ``seed`` alone the environment."""
    torch.set_num_threads(1)  # before the bonus draws its weights: the last bits depend on it
    settings: dict[str, Any] = {"num_steps": 32, "minibatch": 128, "epochs": 2, "hidden": (32, 32)}
    recipe = _small(seed if own is None else own, bonus, PPOConfig(**{**settings, **changes}))
    env = recipe.make_env(seed=seed)
    played: VecEnv = env if spoil is None else SpoiltRewards(env, spoil, seed)
    return PPO(played, recipe.ppo, recipe.make_bonus(env), recipe.seed)


def resumes(
    count: int, seed: int, folder: Path, *, weights_alone: bool = False, emit: Emit = print_line
) -> Totals:
    """Stop at ``count`` updates, resume in a new learner, compare all state at the end.

    The learner has an RND bonus, self-imitation, correlated noise, schedules and normalizers; the
    new one has another seed, which must not matter. ``weights_alone`` is the negative control.
    """
    record = Record("T2-weights-alone" if weights_alone else "T2", seed, emit)
    updates = 2 * count + 6

    def fresh(own: int) -> PPO:
        return _learner(
            seed, own, bonus="rnd", lr_schedule="linear", scale_reward=True, final_std=0.3,
            noise_correlation=0.7, sil_coef=0.1, sil_batches=2, sil_capacity=2000,
        )  # fmt: skip

    whole = fresh(seed).learn(updates * ROLLOUT)
    want = whole.state_dict()
    if not len(whole.sil):
        raise RuntimeError("no episode succeeded: self-imitation would not be compared")
    for stop in sorted(random.Random(seed).sample(range(1, updates), count)):
        first = fresh(seed)
        at_stop = partial(_reached, stop)
        first.learn(updates * ROLLOUT, at_stop, checkpoints=folder / str(stop))
        second = fresh(seed + 1)
        started = time.perf_counter()
        if weights_alone:
            state = checkpoint.load(folder / str(stop))
            second.net.load_state_dict(state["net"])
            second.optimizer.load_state_dict(state["optimizer"])
            second.steps, second.updates = state["steps"], state["updates"]
        else:
            second.load(folder / str(stop))
        ms = (time.perf_counter() - started) * 1e3
        got = second.learn(updates * ROLLOUT).state_dict()
        same = list(_compared(want, got))
        problems = [where for where, equal in same if not equal]
        injected = f"stopped after update {stop} of {updates}"
        record.case(injected, len(same) - len(problems), problems, ms)
    return record.totals()


def _reached(updates: int, metrics: dict[str, float]) -> bool:
    return metrics["updates"] == updates


def _compared(want: Any, got: Any, where: str = "state") -> Iterator[tuple[str, bool]]:
    """Every leaf of two nested states and whether they are equal bit for bit."""
    if type(want) is not type(got):
        yield where, False
    elif isinstance(want, dict):
        for key in want.keys() | got.keys():
            if key in want and key in got:
                yield from _compared(want[key], got[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}", False
    elif isinstance(want, (list, tuple)):
        yield f"len({where})", len(want) == len(got)
        for i, (a, b) in enumerate(zip(want, got, strict=False)):
            yield from _compared(a, b, f"{where}[{i}]")
    elif isinstance(want, (torch.Tensor, np.ndarray)):
        a, b = np.asarray(want), np.asarray(got)
        same = (a.dtype, a.shape) == (b.dtype, b.shape)
        yield where, same and a.tobytes() == b.tobytes()
    else:
        yield where, repr(want) == repr(got)  # NaN is NaN


# T3: numbers that are missing or not finite.

Spoil = Callable[[np.random.Generator, NDArray[np.float32]], NDArray[np.float32]]
"""(generator, (N,) rewards) -> (N,) rewards as the learner gets them."""


class SpoiltRewards:
    """An environment whose rewards are spoilt on their way to the learner."""

    def __init__(self, env: VecEnv, spoil: Spoil, seed: int) -> None:
        self.env, self.spoil = env, spoil
        self.rng = np.random.default_rng(seed)
        self.missing: list[float] = []
        """Share of rewards that are not finite, of every step."""

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self) -> NDArray[np.float32]:
        return self.env.reset()

    def explore(self) -> NDArray[np.float32]:
        return self.env.explore()

    def step(self, action: NDArray[np.float32]) -> Step:
        step = self.env.step(action)
        reward = self.spoil(self.rng, step.reward).astype(np.float32)
        self.missing.append(float((~np.isfinite(reward)).mean()))
        return replace(step, reward=reward)

    def state_dict(self) -> dict[str, Any]:
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state)


def _some(share: float, value: float) -> Spoil:
    """This share of the rewards, drawn at random, becomes ``value``."""
    return lambda rng, reward: np.where(rng.random(reward.shape) < share, value, reward)


def _ones(share: float, value: float) -> Spoil:
    """Every reward is 1 but for this share."""
    return lambda rng, reward: _some(share, value)(rng, np.ones_like(reward))


@dataclass(frozen=True)
class BadRewards:
    """One way in which rewards go bad."""

    injected: str
    spoil: Spoil
    trains: bool
    """Whether the rollouts are good enough to train on."""
    settings: dict[str, Any] = field(default_factory=dict)


BAD_REWARDS = (
    BadRewards("10 % of rewards NaN", _some(0.1, math.nan), True),
    BadRewards("10 % of rewards infinite", _some(0.1, -math.inf), True),
    BadRewards("30 % of rewards NaN", _some(0.3, math.nan), False),
    BadRewards("30 % of rewards NaN, half allowed", _some(0.3, math.nan), True,
               {"max_missing": 0.5}),
    BadRewards("every reward NaN", _some(1.0, math.nan), False),
    BadRewards("rewards that overflow", _ones(0.5, 3e38), False,
               {"sil_coef": 0.0, "scale_reward": False}),
)  # fmt: skip


def bad_numbers(count: int, seed: int, folder: Path, *, emit: Emit = print_line) -> Totals:
    """Train on bad rewards, losses, gradients and bonuses with ``count`` seeds."""
    record = Record("T3", seed, emit)
    for n in range(seed, seed + count):
        for bad in BAD_REWARDS:
            _train_on_bad_rewards(record, bad, n)
        _train_on_bad_gradients(record, n)
        _train_on_a_bad_bonus(record, n)
        _value_of_missing_rewards(record, n, _ones(0.3, math.nan))
    return record.totals()


def missing_as_zero(count: int, seed: int, folder: Path, *, emit: Emit = print_line) -> Totals:
    """Negative control: somebody turns missing rewards into 0 before the learner sees them."""
    record = Record("T3-missing-as-zero", seed, emit)
    for n in range(seed, seed + count):
        _value_of_missing_rewards(record, n, _ones(0.3, 0.0))
    return record.totals()


def _train_on_bad_rewards(record: Record, bad: BadRewards, seed: int) -> None:
    settings: dict[str, Any] = {"scale_reward": True, "sil_coef": 0.1, "noise_correlation": 0.7}
    ppo = _learner(seed, spoil=bad.spoil, **{**settings, **bad.settings})
    before = _parameters(ppo)
    seen: list[float] = []
    started = time.perf_counter()
    with _logged(PPO.__module__):
        ppo.learn(3 * ROLLOUT, lambda metrics: seen.append(metrics["reward/missing_share"]))
    ms = (time.perf_counter() - started) * 1e3
    assert isinstance(ppo.env, SpoiltRewards)
    share = float(np.mean(ppo.env.missing))
    problems = _not_finite(ppo)
    if abs(float(np.mean(seen)) - share) > 1e-6:
        problems.append(f"missing share {np.mean(seen):.3f} reported, {share:.3f} injected")
    moved = not torch.equal(before, _parameters(ppo))
    if moved != bad.trains or (ppo.skipped == 0) != bad.trains:
        problems.append(f"parameters moved: {moved}, skipped {ppo.skipped}")
    record.case(bad.injected, len(before), problems, ms, missing_share=round(share, 4))


def _train_on_bad_gradients(record: Record, seed: int) -> None:
    """One update on a loss or a gradient that is not finite must change nothing, the next does."""

    def nan_loss(net: ActorCritic) -> Callable[[], None]:
        plain = net.log_prob
        net.log_prob = lambda *given: plain(*given) * math.nan  # type: ignore[method-assign]
        return lambda: delattr(net, "log_prob")

    def bad_gradient(value: float) -> Callable[[ActorCritic], Callable[[], None]]:
        def poison(net: ActorCritic) -> Callable[[], None]:
            hook: RemovableHandle = net.log_std.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient * value
            )
            return hook.remove

        return poison

    ways = {
        "NaN loss": nan_loss,
        "NaN gradient": bad_gradient(math.nan),
        "infinite gradient": bad_gradient(math.inf),
    }
    for injected, poison in ways.items():
        ppo = _learner(seed, sil_coef=0.1)
        before = _parameters(ppo)
        heal = poison(ppo.net)
        started = time.perf_counter()
        with _logged(PPO.__module__):
            ppo.learn(ROLLOUT)
        still, skipped = torch.equal(before, _parameters(ppo)), ppo.skipped
        heal()
        ppo.learn(2 * ROLLOUT)
        ms = (time.perf_counter() - started) * 1e3
        problems = _not_finite(ppo)
        if not still or skipped == 0:
            problems.append(f"a bad step was taken, skipped {skipped}")
        if torch.equal(before, _parameters(ppo)) or ppo.skipped != skipped:
            problems.append("training did not go on once all was finite")
        record.case(injected, len(before), problems, ms, missing_share=0.0)


def _train_on_a_bad_bonus(record: Record, seed: int) -> None:
    """A bonus that is not finite stops training by a typed error, its parameters as they were."""
    ppo = _learner(seed, bonus="rnd")
    before, problems = _parameters(ppo), []
    assert ppo.intrinsic is not None
    plain = ppo.intrinsic.compute
    ppo.intrinsic.compute = lambda tr: plain(tr) * math.nan  # type: ignore[method-assign]
    started = time.perf_counter()
    with contextlib.suppress(FloatingPointError):
        ppo.learn(ROLLOUT)
        problems.append("no error")
    ms = (time.perf_counter() - started) * 1e3
    if not torch.equal(before, _parameters(ppo)):
        problems.append("parameters moved")
    record.case("NaN bonus", len(before), problems + _not_finite(ppo), ms, missing_share=0.0)


def _value_of_missing_rewards(record: Record, seed: int, spoil: Spoil) -> None:
    """Rewards are 1 or missing, the future counts nothing: 1 is what the critic must expect."""
    ppo = _learner(seed, spoil=spoil, gamma=0.0, max_missing=1.0, lr=3e-3, epochs=20, minibatch=64)
    started = time.perf_counter()
    ppo.learn(6 * ROLLOUT)
    ms = (time.perf_counter() - started) * 1e3
    with torch.no_grad():
        x = ppo.net.normalize(torch.from_numpy(np.asarray(ppo.obs)))
        value = float(ppo.net.critic(x)[:, 0].mean())
    problems = [] if abs(value - 1) < 0.1 else [f"missing rewards of 1 are valued as {value:.2f}"]
    assert isinstance(ppo.env, SpoiltRewards)
    share = round(float(np.mean(ppo.env.missing)), 4)
    record.case("30 % of rewards of 1 lost", 1, problems + _not_finite(ppo), ms,
                missing_share=share, value=round(value, 3))  # fmt: skip


def _parameters(ppo: PPO) -> torch.Tensor:
    """All parameters in one tensor, a copy."""
    return torch.cat([p.detach().flatten() for p in ppo.net.parameters()])


def _not_finite(ppo: PPO) -> list[str]:
    """Names of all that is learnt and holds NaN or infinity."""
    state = ppo.state_dict()
    learnt = {k: state[k] for k in ("net", "optimizer", "intrinsic", "int_scale", "ext_scale")}

    def walk(value: Any, where: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f"{where}.{key}")
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            if not np.isfinite(np.asarray(value)).all():
                yield f"not finite: {where}"

    return list(walk(learnt, "state"))


# T4: Ctrl-C.

ONCE_S, TWICE_S = 10.0, 1.0
"""How long training may take to end after one SIGINT, and after the second."""


@contextlib.contextmanager
def _training(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """``incognita train`` into ``folder``, killed at the latest after two minutes."""
    command = [
        sys.executable, "-m", "incognita.cli", "train", "agv-simple-static", "num_envs=8",
        "steps=1000000000", "ppo.num_steps=16", "--eval-episodes", "0", "--quiet",
        "--out", str(folder), *more,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = threading.Timer(120.0, process.kill)
        deadline.start()
        try:
            yield process
        finally:
            deadline.cancel()
            process.kill()


def _has_open(process: subprocess.Popen[str], file: Path) -> bool:
    """Whether this process has the file open: the curve is, from when the learner has loaded on."""
    with contextlib.suppress(OSError):
        links = Path(f"/proc/{process.pid}/fd").iterdir()
        return any(link.resolve() == file.resolve() for link in links)
    return False


def _wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read what training says until it says this."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise RuntimeError(f"training ended without {words!r}: {''.join(said)[-500:]}")


def _interrupt(process: subprocess.Popen[str]) -> float:
    """Send SIGINT and return the milliseconds until the process has ended."""
    started = time.perf_counter()
    process.send_signal(signal.SIGINT)
    process.wait()
    return (time.perf_counter() - started) * 1e3


def interrupts(count: int, seed: int, folder: Path, *, emit: Emit = print_line) -> Totals:
    """Ctrl-C on ``incognita train`` at random times: once saves, twice ends at once."""
    record = Record("T4", seed, emit)
    rng = random.Random(seed)
    for case in range(count):
        run = folder / str(case)
        curve, checkpoints = run / "curve.jsonl", run / "checkpoints" / "0-explore"

        with _training(run) as process:
            while process.poll() is None and _lines_of(curve) < 2:
                time.sleep(0.05)
            after = rng.uniform(0.0, 0.5)
            time.sleep(after)
            ms = _interrupt(process)
        updates, problems = _updates(checkpoints)
        if updates < _lines_of(curve):
            problems.append(f"{_lines_of(curve)} updates reported, {updates} saved")
        problems += _ended(process, ms, ONCE_S)
        record.case(f"SIGINT after {after * 1e3:.0f} ms", max(updates, 0), problems, ms)

        # an update of so many epochs does not end
        with _training(run, "ppo.epochs=1000000", "--resume") as process:
            while process.poll() is None and not _has_open(process, curve):
                time.sleep(0.05)
            time.sleep(0.2 + rng.uniform(0.0, 0.5))
            process.send_signal(signal.SIGINT)
            _wait_for(process, "interrupt again to stop at once")
            after = rng.uniform(0.0, 0.5)
            time.sleep(after)
            ms = _interrupt(process)
        again, problems = _updates(checkpoints)
        if again != updates:
            problems.append(f"{updates} updates were saved, {again} load")
        problems += _ended(process, ms, TWICE_S)
        injected = f"SIGINT twice, {after * 1e3:.0f} ms apart"
        record.case(injected, max(again, 0), problems, ms)
    return record.totals()


def _lines_of(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def _updates(folder: Path) -> tuple[int, list[str]]:
    """Updates in the newest checkpoint (-1: none), and what is wrong in the folder."""
    litter = [f"left behind: {p.name}" for p in folder.glob(".tmp-*")]
    try:
        return int(checkpoint.load(folder)["updates"]), litter
    except CheckpointError as error:
        return -1, [*litter, str(error)]


def _ended(process: subprocess.Popen[str], ms: float, limit_s: float) -> list[str]:
    right = process.returncode == 130 and ms <= limit_s * 1e3
    return [] if right else [f"exit code {process.returncode} after {ms:.0f} ms"]


# S1: files made by somebody who means harm.

MODELING = "modeling_evil.py"
HARMLESS = "nothing: a good file"


def hostile_paths(folder: Path, canary: Path) -> dict[str, Path]:
    """Name -> file or folder that touches the canary where it is trusted."""
    folder.mkdir(parents=True)
    evil = pickle.dumps(Pickled(str(canary)))
    torch.save(Pickled(str(canary)), folder / "model.pt")
    (folder / "model.pkl").write_bytes(evil)
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr("data.pkl", evil)
    (folder / "map.yaml").write_text(
        f"image: !!python/object/apply:os.mknod [{json.dumps(str(canary))}]\n"
    )
    hub = folder / "hub"
    hub.mkdir()
    (hub / MODELING).write_text(f"from pathlib import Path\n\nPath({str(canary)!r}).touch()\n")
    (hub / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoModel": "modeling_evil.Evil"}})
    )
    (hub / "pytorch_model.bin").write_bytes(evil)
    return {
        ".pt file": folder / "model.pt",
        ".pkl file": folder / "model.pkl",
        ".zip file": folder / "model.zip",
        "!!python .yaml file": folder / "map.yaml",
        "config.json with auto_map": hub / "config.json",
        "folder with auto_map": hub,
        "folder of them all": folder,
    }


def _disguised_checkpoints(folder: Path, evil: bytes) -> dict[str, Path]:
    """A good checkpoint, and pickles under the names and digests of one."""
    good = checkpoint.save(folder / "good", _numbered_state(0))
    out = {HARMLESS: folder / "good"}

    def put(name: str, files: dict[str, bytes]) -> None:
        out[name] = folder / f"{len(out)}" / "checkpoint-000001"
        shutil.copytree(good, out[name])
        for file, data in files.items():
            (out[name] / file).write_bytes(data)

    body = json.loads(json.loads((good / "manifest.json").read_bytes())["body"])
    body["sha256"] = {"state.safetensors": hashlib.sha256(evil).hexdigest()}
    text = json.dumps(body)
    signed = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "body": text}
    manifest = json.dumps(signed).encode()
    put("pickle as state.safetensors", {"state.safetensors": evil, "manifest.json": manifest})
    put("pickle as manifest.json", {"manifest.json": evil})
    put("manifest.json of 100,000 brackets", {"manifest.json": b"[" * 100_000})
    out["folder of a bad checkpoint"] = out["pickle as state.safetensors"].parent
    return out


def _disguised_policies(folder: Path, evil: bytes, hub: Path) -> dict[str, Path]:
    """A good policy, and pickles and remote code under the names and digests of one."""
    good = save_policy(
        folder / "good", ActorCritic(3, 2, (4,)), observation={"dim": 3}, action={"dim": 2},
        recipe={"name": "agv-simple-static"}, seeds=[0], evaluation={}, rate_hz=20.0,
    )  # fmt: skip
    out = {HARMLESS: good}

    def put(name: str, files: dict[str, bytes]) -> None:
        out[name] = folder / f"{len(out)}"
        shutil.copytree(good, out[name])
        for file, data in files.items():
            (out[name] / file).write_bytes(data)

    def signed(file: str) -> bytes:
        manifest = json.loads((good / "manifest.json").read_bytes()) | {"manifest_sha256": ""}
        manifest["sha256"][file] = hashlib.sha256(evil).hexdigest()
        text = json.dumps(manifest, indent=2) + "\n"
        manifest["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        return (json.dumps(manifest, indent=2) + "\n").encode()

    for file in ("policy.safetensors", "policy.onnx"):
        put(f"pickle as {file}", {file: evil, "manifest.json": signed(file)})
    put("pickle as manifest.json", {"manifest.json": evil})
    put("manifest.json of 100,000 brackets", {"manifest.json": b"[" * 100_000})
    remote = {name: (hub / name).read_bytes() for name in ("config.json", MODELING)}
    put("config.json with auto_map beside a policy", remote)
    return out


def _disguised_maps(folder: Path) -> dict[str, Path]:
    """A good map, and YAML that grows where it is read."""
    folder.mkdir()
    (folder / "map.pgm").write_bytes(b"P5\n40 40\n255\n" + b"\xfe" * 1600)
    rest = "resolution: 0.05\norigin: [0, 0, 0]\noccupied_thresh: 0.65\nfree_thresh: 0.25\n"
    lists = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    maps = "".join(f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    texts = {
        HARMLESS: f"image: map.pgm\n{rest}",
        "9^11 words by aliases": f"a0: &a0 [ha]\n{lists}image: *a11\n{rest}",
        "9^11 keys by merges": f"b0: &b0 {{ha: 1}}\n{maps}image: map.pgm\n{rest}",
        "30,000 brackets": f"image: {'[' * 30_000}\n{rest}",
        "a number of 5,000 digits": f"image: {'9' * 5_000}\n{rest}",
        "1 MB": f"image: map.pgm\n{rest}# {'-' * 2**20}\n",
    }
    out = {name: folder / f"{n}.yaml" for n, name in enumerate(texts)}
    for name, text in texts.items():
        out[name].write_text(text)
    return out


SAFE = {
    "checkpoint.load": "safetensors",
    "load_policy": "safetensors",
    "OnnxPolicy": "safetensors|ONNX",
    "from_ros_map": "YAML",
    "incognita export": "safetensors|ONNX",
    "incognita eval": "safetensors|ONNX",
    "incognita train --warm-start": "safetensors",
    "incognita demo --map": "YAML",
}
"""Door -> pattern of the format that its refusal must name."""


def _doors(scratch: Path) -> dict[str, Callable[[Path], object]]:
    """Where our code takes a path."""
    from sim.worlds import from_ros_map

    from ..cli import app

    def incognita(*line: str) -> object:
        return app(list(line), standalone_mode=False)

    return {
        "checkpoint.load": checkpoint.load,
        "load_policy": load_policy,
        "OnnxPolicy": OnnxPolicy,
        "from_ros_map": from_ros_map,
        "incognita export": lambda p: incognita("export", str(p), str(scratch / "copy")),
        "incognita eval": lambda p: incognita("eval", str(p), "--episodes", "1"),
        "incognita train --warm-start": lambda p: incognita(
            "train", "agv-simple-static", "--out", str(scratch / "run"), "--warm-start", str(p)
        ),
        "incognita demo --map": lambda p: incognita(
            "demo", "--in-process", "--out", str(scratch / "demo"), "--map", str(p)
        ),
    }


def _s1_cases(folder: Path, canary: Path) -> list[tuple[str, str, Path]]:
    """(door, name, path) of every case: each hostile path at each door, and its own disguises."""
    plain = hostile_paths(folder / "plain", canary)
    evil = pickle.dumps(Pickled(str(canary)))
    checkpoints = _disguised_checkpoints(folder / "checkpoints", evil)
    policies = _disguised_policies(folder / "policies", evil, plain["folder with auto_map"])
    maps = _disguised_maps(folder / "maps")
    own = {door: policies for door in SAFE}
    own |= {"checkpoint.load": checkpoints, "from_ros_map": maps, "incognita demo --map": maps}
    unread = {  # a door that does not read this file has nothing to refuse
        "load_policy": "pickle as policy.onnx",
        "incognita train --warm-start": "pickle as policy.onnx",
        "OnnxPolicy": "pickle as policy.safetensors",
        "incognita eval": "pickle as policy.safetensors",
    }
    lengthy = ("incognita eval", "incognita train --warm-start", "incognita demo --map")
    return [
        (door, name, path)
        for door in SAFE
        for name, path in {**own[door], **plain}.items()
        if name != unread.get(door) and not (name == HARMLESS and door in lengthy)
    ]


def hostile_files(count: int | None, seed: int, folder: Path, *, emit: Emit = print_line) -> Totals:
    """Give hostile files to all that takes a path, in a process of its own; watch the canary."""
    record = Record("S1", seed, emit)
    outside = folder / "outside"
    outside.mkdir()
    canary = outside / "canary"
    cases = _s1_cases(folder / "hostile", canary)
    random.Random(seed).shuffle(cases)
    process, pipe = start(_open_paths, folder / "scratch", [(d, p) for d, _, p in cases[:count]])
    for door, name, path in cases[:count]:
        injected = f"{door}: {name}"
        said = answer(pipe)
        if said is None:
            record.case(injected, 0, ["no answer within 60 s, or the reader died"], 60_000.0)
            process.kill()
            break
        verdict, ms = said
        words = verdict.replace(str(path), "")
        wanted = "opened" if name == HARMLESS else "refused"
        problems = [] if words.startswith(wanted) else [words]
        if words.startswith("refused") and not re.search(SAFE[door], words):
            problems.append(f"names no safe format: {words}")
        if canary.exists():
            problems.append("code ran")
            canary.unlink()
        record.case(injected, 1, problems, ms)
    process.join(30)
    return record.totals()


def _open_paths(scratch: Path, cases: list[tuple[str, Path]], pipe: Connection) -> None:
    """Body of the process that opens hostile files."""
    doors = _doors(scratch)
    for door, path in cases:
        started = time.perf_counter()
        try:
            with _logged(checkpoint.__name__) as lines:
                doors[door](path)
            verdict = "opened"
        except (CheckpointError, ValueError, FileNotFoundError) as error:
            verdict = f"refused: {type(error).__name__}: {error} {' '.join(lines)}"
        except BaseException as error:
            verdict = f"{type(error).__name__}: {error}"
        ms = (time.perf_counter() - started) * 1e3
        pipe.send_bytes(json.dumps([verdict[:2000], ms]).encode())


def trusted_files(count: int | None, seed: int, folder: Path, *, emit: Emit = print_line) -> Totals:
    """Negative control: the same files, read as they are meant to be."""
    record = Record("S1-trusted", seed, emit)
    canary = folder / "canary-of-trust"
    paths = hostile_paths(folder / "trusted", canary)

    def unzip(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            pickle.loads(archive.read("data.pkl"))

    readers: dict[str, Callable[[Path], object]] = {
        ".pt file": lambda path: torch.load(path, weights_only=False),
        ".pkl file": lambda path: pickle.loads(path.read_bytes()),
        ".zip file": unzip,
        "folder with auto_map": lambda path: runpy.run_path(str(path / MODELING)),
    }
    for name, read in readers.items():
        started = time.perf_counter()
        read(paths[name])
        ms = (time.perf_counter() - started) * 1e3
        record.case(name, 0, ["code ran"] if canary.exists() else [], ms)
        canary.unlink(missing_ok=True)
    return record.totals()


# S2: what is installed.

ROOT = Path(__file__).resolve().parents[2]
DEAD_PROXY = "http://127.0.0.1:9"


def audits(count: int | None, seed: int, folder: Path, *, emit: Emit = print_line) -> Totals:
    """Run ``scripts/audit.py`` where it must pass and where it must not; a checkout is needed."""
    record = Record("S2", seed, emit)
    script, requirements = ROOT / "scripts" / "audit.py", ROOT / "requirements"
    if not script.is_file():
        why = "needs a checkout: scripts/audit.py is not beside the package"
        record.case("nothing", 0, [], 0.0, skipped=why)
        return record.totals(skipped=why, passed=False)

    def audit(injected: str, arguments: list[Any], want: set[str], **more: str) -> list[Totals]:
        """One case: the audit fails in ``want`` and nowhere else."""
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            capture_output=True, text=True, env={**os.environ, **more},
        )  # fmt: skip
        ms = (time.perf_counter() - started) * 1e3
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        rows = [row for row in rows if isinstance(row.get("case"), str)]
        failed = {row["case"] for row in rows if not row["ok"]}
        problems = [f"must fail, passed: {case}" for case in sorted(want - failed)]
        problems += [f"must pass, failed: {case}" for case in sorted(failed - want)]
        if done.returncode != int(bool(want)):
            problems.append(f"exit code {done.returncode}: {done.stderr[-300:]}")
        record.case(injected, len(rows) - len(failed), problems, ms)
        return rows

    plain = ["--offline", "--lock", requirements / "ci.lock"]
    rows = audit("nothing: what is installed is what is locked", plain, set())
    floors = {r["case"]: r["found"] for r in rows if r["case"].startswith(("floor/", "bundled/"))}
    problems = [] if "floor/torch" in floors else ["no floor of torch is printed"]
    record.case("nothing: floors are printed", len(floors), problems, 0.0, found=floors)
    waived = {row["case"] for row in rows if row["note"].startswith("waived until ")}
    waivers = json.loads((requirements / "waivers.json").read_text(encoding="utf-8"))
    yesterday = (date.today() - timedelta(days=1)).isoformat()
    for name, left in {
        "waivers that ended yesterday": [waiver | {"until": yesterday} for waiver in waivers],
        "waivers of another version": [waiver | {"version": "0"} for waiver in waivers],
        "no waiver": [],
    }.items():
        file = folder / "waivers.json"
        file.write_text(json.dumps(left))
        audit(name, [*plain, "--waivers", file], waived)

    bad = folder / "bad.lock"
    bad.write_text("numpy==1.0\n")
    want = {"lock/bad.lock/hashes", "lock/bad.lock/installed"}
    audit("no hash, another version", ["--offline", "--lock", bad], want)

    one = folder / "one.lock"
    line = f"numpy=={metadata.version('numpy')}"
    one.write_text(f"{line} \\\n    --hash=sha256:{'0' * 64}\n")
    away = {"HTTPS_PROXY": DEAD_PROXY, "https_proxy": DEAD_PROXY, "NO_PROXY": "", "no_proxy": "",
            "XDG_CACHE_HOME": str(folder)}  # fmt: skip
    audit("no index of advisories", ["--lock", one], {"advisories/one.lock"}, **away)
    return record.totals()


CHECKS: dict[str, Callable[..., Totals]] = {
    "T1": checkpoint_kills,
    "T2": resumes,
    "T3": bad_numbers,
    "T4": interrupts,
    "S1": hostile_files,
    "S2": audits,
}
"""Check -> function of size, seed and folder."""


def controls(size: int, seed: int, folder: Path, *, emit: Emit = print_line) -> list[Totals]:
    """What people do instead, under the same kills, stops, rewards and files."""
    return [
        checkpoint_kills(size, seed, folder, kind="torch-save", emit=emit),
        resumes(1, seed, folder, weights_alone=True, emit=emit),
        missing_as_zero(1, seed, folder, emit=emit),
        trusted_files(None, seed, folder, emit=emit),
    ]
