"""Train the H-DQN baseline on tier K: both Q-nets by plain DQN, as Kulkarni et al. (2016).

First the sub-controller alone, under random sub-goals, then both. Replay, a target net for each
level, linear epsilon schedules. The hierarchy is trained inside the loop that it is measured in:
:class:`toponav.goal.GoalSearch` maps and keeps the books, the nets choose.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import load_file, save_file
from torch import nn

from learning.vec_env import Step
from rnd_agv.command import action_from_command
from sim.backend import CONTROL_DT, SCAN_EVERY
from sim.batch import BatchEnv
from sim.tasks import make
from toponav.exploration import Decision, ExplorationConfig, Task
from toponav.goal import GoalSearch
from toponav.h_dqn import PRIMITIVES, Hdqn, HdqnConfig, meta_features, sub_features, way_left
from toponav.rewards import Account, MetaRewardConfig, SubRewardConfig, SubRewards, meta_rewards
from toponav.snapshot import Snapshot

from ..goal import in_sight

WEIGHTS = "weights.safetensors"
MAP_EVERY = 2 * SCAN_EVERY
"""Control periods between scans that are entered in training: mapping is half of its cost."""


@dataclass(frozen=True)
class HdqnRecipe:
    """A training job of the baseline."""

    name: str = "h-dqn-goal"
    about: str = "baseline of TopoNav: H-DQN on unseen mazes and rooms, sparse goals"
    steps: int = 800_000
    """Environment steps (control periods of 50 ms) in all."""
    pretrain: float = 0.25
    """Share of them in which sub-goals are random and only the sub-controller learns."""
    explore: float = 0.5
    """Share at which both epsilons have reached their end."""
    meta_epsilon: float = 0.1
    sub_epsilon: float = 0.05
    num_envs: int = 16
    layouts: int = 256
    """Layouts trained on, from 0; those from 100 000 on are for tests."""
    max_steps: int = 2400
    """Of an episode."""
    untold: float = 0.33
    """Share of the robots that learn where the goal is when it comes into sight."""
    net: HdqnConfig = HdqnConfig()
    meta_reward: MetaRewardConfig = MetaRewardConfig()
    sub_reward: SubRewardConfig = SubRewardConfig()
    meta_gamma: float = 0.95
    """Per sub-goal."""
    lr: float = 5e-4
    batch: int = 128
    replay: int = 60_000
    """Primitives remembered; a tenth as many sub-goals."""
    updates: int = 4
    """Of the sub-controller for every primitive of all environments; one of the other."""
    target_every: int = 500
    """Updates between copies to the target net."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.num_envs, self.layouts, self.batch, self.updates) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not (0 <= self.pretrain < self.explore <= 1 and 0 <= self.untold <= 1):
            raise ValueError(f"0 <= pretrain < explore <= 1, 0 <= untold <= 1 wanted, got {self}")

    def epsilons(self, step: int) -> tuple[float, float]:
        """Of the meta- and the sub-controller at an environment step."""
        share = step / self.steps
        meta = (share - self.pretrain) / (self.explore - self.pretrain)
        sub = share / self.explore
        return (
            1 + (self.meta_epsilon - 1) * min(max(meta, 0.0), 1.0),
            1 + (self.sub_epsilon - 1) * min(sub, 1.0),
        )


H_DQN = HdqnRecipe()


class _Level:
    """One Q-net, its target net and its optimizer."""

    def __init__(self, sizes: Iterable[int], lr: float, target_every: int) -> None:
        widths = list(sizes)
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])
        self.target = nn.Sequential(*[
            nn.Linear(m.in_features, m.out_features) if isinstance(m, nn.Linear) else nn.ReLU()
            for m in self.net
        ]).requires_grad_(False)  # fmt: skip
        self.target.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=lr)
        self.every, self.count = target_every, 0

    def fit(self, value: torch.Tensor, wanted: torch.Tensor) -> float:
        """One step of Huber loss."""
        loss = nn.functional.smooth_l1_loss(value, wanted)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 10.0)
        self.optimizer.step()
        self.count += 1
        if self.count % self.every == 0:
            self.target.load_state_dict(self.net.state_dict())
        return float(loss.detach())

    def weights(self, level: str) -> dict[str, NDArray[np.float32]]:
        """As :class:`toponav.h_dqn.Hdqn` takes them."""
        linear = [m for m in self.net if isinstance(m, nn.Linear)]
        out = {}
        for k, layer in enumerate(linear):
            out[f"{level}.w{k}"] = layer.weight.detach().numpy().copy()
            out[f"{level}.b{k}"] = layer.bias.detach().numpy().copy()
        return out


@dataclass
class _Choice:
    """A sub-goal that is being driven to."""

    features: NDArray[np.float32]
    account: Account


@dataclass
class _Row:
    """One robot: its search and what its meta-controller has begun; an Explorer."""

    trainer: HdqnTrainer
    row: int
    mind: GoalSearch = field(init=False)
    decision: Decision = field(init=False)
    choice: _Choice | None = None
    begun_s: float = 0.0
    closed: bool = False
    """The last decision found the sub-goal seen."""

    def start(self) -> None:
        """A new episode."""
        t = self.trainer
        config = ExplorationConfig(range_m=t.recipe.net.range_m, return_home=False)
        state = t.env.state
        told = self.row >= t.recipe.untold * t.recipe.num_envs
        goal = state.goal_w[self.row] if told else None
        self.mind = GoalSearch(config, self, goal, t.task.config.goal_radius_m)
        self.choice, self.begun_s = None, t.time_s
        self.observe()
        self.decide()

    def decide(self) -> None:
        """What to do in the next round."""
        self.closed = False
        self.decision = self.mind.decide(self.trainer.time_s - self.begun_s)

    def observe(self) -> None:
        """Enter the newest scan."""
        env, t = self.trainer.env, self.trainer
        self.mind.observe(
            t.time_s - self.begun_s, env.state.seen_pose_w[self.row], env.ranges[self.row],
            env.scan.angles, env.scan.range_max, (env.robot.lidar_x_m, 0.0, 0.0),
        )  # fmt: skip
        if self.mind.goal_w is None:
            goal, world = env.state.goal_w[self.row], env.placements[self.row].world  # type: ignore[union-attr]
            if in_sight(world, env.state.pose_w[self.row], goal, t.recipe.net.range_m):
                self.mind.spot(goal)

    def choose(self, view: Snapshot) -> int:
        """Keep the sub-goal while it stands, else the best or, by chance, any."""
        if view.held is not None and self.choice is not None:
            return view.held
        t, state = self.trainer, self.trainer.env.state
        seen = meta_features(t.recipe.net, view, float(state.seen_pose_w[self.row, 2]),
                             state.frames[self.row, 0])  # fmt: skip
        account = Account.of(self.mind, t.time_s)
        self.closed = view.target is not None  # else the search has given it up
        self.close(account, seen)
        if t.rng.random() < t.meta_epsilon:
            chosen = int(t.rng.integers(len(seen)))
        else:
            with torch.no_grad():
                chosen = int(t.meta.net(torch.from_numpy(seen))[:, 0].argmax())
        self.choice = _Choice(seen[chosen], account)
        return chosen

    def close(self, account: Account, following: NDArray[np.float32] | None) -> None:
        """Remember what the sub-goal brought; ``following`` are the choices after it."""
        if self.choice is None:
            return
        t, before = self.trainer, self.choice
        terms = meta_rewards(t.recipe.meta_reward, before.account, account, self.closed)
        t.remember_meta(before.features, terms, following)
        self.choice = None


class HdqnTrainer:
    """The environments, both nets and their memories."""

    def __init__(self, recipe: HdqnRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.rng = recipe, np.random.default_rng([recipe.seed, 11])
        self.task = make("goal", layouts=recipe.layouts, max_steps=recipe.max_steps)
        n, net = recipe.num_envs, recipe.net
        self.env = BatchEnv(self.task, n, "kinematic", recipe.seed)
        self.meta = _Level([net.meta_dim, *net.hidden, 1], recipe.lr, recipe.target_every)
        self.sub = _Level(
            [net.sub_dim, *net.hidden, len(PRIMITIVES)], recipe.lr, recipe.target_every
        )
        self.pay = SubRewards(n, recipe.sub_reward)
        self.steps = self.ticks = self.held = 0
        self.meta_epsilon = self.sub_epsilon = 1.0
        size = recipe.replay
        self._seen = np.zeros((2, size, net.sub_dim), np.float32)
        self._primitive = np.zeros(size, np.int64)
        self._paid, self._over = np.zeros((2, size), np.float32)
        self._meta: deque[tuple[Any, float, Any]] = deque(maxlen=size // 10)
        self.logged: dict[str, list[float]] = {}
        self.outcomes: deque[bool] = deque(maxlen=100)
        self.rows = [_Row(self, row) for row in range(n)]
        self.env.reset()
        for row in self.rows:
            row.start()

    @property
    def time_s(self) -> float:
        """Simulated time."""
        return self.ticks * CONTROL_DT

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Of both nets."""
        return self.meta.weights("meta") | self.sub.weights("sub")

    def remember_meta(
        self, features: NDArray[np.float32], terms: dict[str, float],
        following: NDArray[np.float32] | None,
    ) -> None:  # fmt: skip
        """Into the memory of the meta-controller."""
        self._meta.append((features, sum(terms.values()), following))
        for name, value in terms.items():
            self.log(f"meta/{name}", value)

    def log(self, name: str, value: float) -> None:
        """Note a value until the next line of the curve."""
        self.logged.setdefault(name, []).append(float(value))

    def round(self) -> None:
        """One primitive and one decision of every robot, then the updates."""
        recipe, env, n = self.recipe, self.env, self.recipe.num_envs
        self.meta_epsilon, self.sub_epsilon = recipe.epsilons(self.steps)
        aims = [row.decision for row in self.rows]
        seen, way = self._look(aims)
        primitive = self._act(seen, aims)
        xy = env.state.pose_w[:, :2].copy()
        next_xy, next_seen, touched, success, ended = self._drive(primitive, aims, seen)
        next_way = np.array([
            np.inf if aim.path_w is None else way_left(aim.path_w, xy_w)
            for aim, xy_w in zip(aims, next_xy, strict=True)
        ])  # fmt: skip
        near = next_way <= self.rows[0].mind.config.reach_m
        for row in self.rows:
            if not ended[row.row]:
                row.decide()
        at_goal = np.array([aim.task == Task.GOAL for aim in aims])
        closed = np.array([row.closed for row in self.rows])
        reached = np.where(at_goal, success, near | closed)
        terms = self.pay.pay(xy, next_xy, way, next_way, reached, touched, ended)
        paid = np.sum(list(terms.values()), axis=0)
        for name, values in terms.items():
            self.log(f"sub/{name}", float(values.mean()))
        driving = np.array([aim.path_w is not None for aim in aims])
        for k in np.flatnonzero(driving):
            self._remember(seen[k], primitive[k], paid[k], next_seen[k], reached[k] or success[k])
        for k in np.flatnonzero(ended):
            row = self.rows[k]
            row.closed = False
            row.close(Account.of(row.mind, self.time_s, bool(success[k])), None)
            self.outcomes.append(bool(success[k]))
            row.start()
        self.steps += n * round(recipe.net.primitive_s / CONTROL_DT)
        self._learn()

    def _look(self, aims: list[Decision]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """(N, sub_dim) features and (N,) way left to the sub-goals."""
        s, net = self.env.state, self.recipe.net
        seen = np.zeros((len(aims), net.sub_dim), np.float32)
        way = np.full(len(aims), np.inf)
        for k, aim in enumerate(aims):
            if aim.target_w is not None and aim.path_w is not None:
                seen[k] = sub_features(net, s.seen_pose_w[k], s.vel_b[k], s.frames[k, 0],
                                       aim.target_w, aim.path_w)  # fmt: skip
                way[k] = way_left(aim.path_w, s.seen_pose_w[k, :2])
        return seen, way

    def _act(self, seen: NDArray[np.float32], aims: list[Decision]) -> NDArray[np.int64]:
        """(N,) numbers of primitives."""
        with torch.no_grad():
            best = self.sub.net(torch.from_numpy(seen)).argmax(dim=1).numpy()
        chance = self.rng.random(len(aims)) < self.sub_epsilon
        out = np.where(chance, self.rng.integers(len(PRIMITIVES), size=len(aims)), best)
        back = np.array([aim.task == Task.BACK_UP for aim in aims])
        return np.asarray(np.where(back, len(PRIMITIVES) - 1, out))

    def _drive(
        self, primitive: NDArray[np.int64], aims: list[Decision], seen: NDArray[np.float32]
    ) -> tuple[
        NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_],
        NDArray[np.bool_],
    ]:  # fmt: skip
        """Hold the primitives: where it led, what is seen there, touched, success, ended."""
        env, net, n = self.env, self.recipe.net, len(aims)
        command = PRIMITIVES[primitive].copy()
        command[[aim.path_w is None and aim.task != Task.BACK_UP for aim in aims]] = 0
        touched, success, ended = np.zeros((3, n), bool)
        next_xy, next_seen = np.zeros((n, 2)), np.zeros_like(seen)
        for _ in range(round(net.primitive_s / CONTROL_DT)):
            out: Step = env.step(action_from_command(command, env.robot.limits))
            self.ticks += 1
            over = (out.terminated | out.truncated) & ~ended
            success |= over & out.terms["success"]
            next_xy[over] = env.arrived_w[over, :2]
            ended |= over
            command[over] = 0  # a new episode waits for its first decision
            touched |= env.state.contact[:, 0] & ~ended
            fresh = ~ended & (env.state.t % MAP_EVERY == 0)
            for k in np.flatnonzero(fresh):
                self.rows[k].observe()
        next_xy[~ended] = env.state.pose_w[~ended, :2]
        after, _ = self._look(aims)
        next_seen[~ended] = after[~ended]
        return next_xy, next_seen, touched, success, ended

    def _remember(
        self, seen: NDArray[np.float32], primitive: int, paid: float,
        next_seen: NDArray[np.float32], over: bool,
    ) -> None:  # fmt: skip
        at = self.held % self.recipe.replay
        self._seen[0, at], self._seen[1, at] = seen, next_seen
        self._primitive[at], self._paid[at], self._over[at] = primitive, paid, over
        self.held += 1

    def _learn(self) -> None:
        """Updates of both levels from what is remembered."""
        r = self.recipe
        filled = min(self.held, r.replay)
        if filled >= 10 * r.batch:
            for _ in range(r.updates):
                pick = self.rng.integers(filled, size=r.batch)
                seen, after = (torch.from_numpy(self._seen[k, pick]) for k in (0, 1))
                with torch.no_grad():
                    best = self.sub.target(after).max(dim=1).values
                go_on = torch.from_numpy(1 - self._over[pick])
                wanted = torch.from_numpy(self._paid[pick]) + r.sub_reward.gamma * go_on * best
                value = self.sub.net(seen)[
                    torch.arange(r.batch), torch.from_numpy(self._primitive[pick])
                ]
                self.log("sub/loss", self.sub.fit(value, wanted))
        if self.steps >= r.pretrain * r.steps and len(self._meta) >= 2 * r.batch:
            rows = [self._meta[k] for k in self.rng.integers(len(self._meta), size=r.batch)]
            following = [row[2] for row in rows]
            some = [f for f in following if f is not None]
            best = torch.zeros(r.batch)
            if some:
                with torch.no_grad():
                    flat = self.meta.target(torch.from_numpy(np.concatenate(some)))[:, 0]
                ends = np.cumsum([0] + [0 if f is None else len(f) for f in following])
                for k, f in enumerate(following):
                    if f is not None:
                        best[k] = flat[ends[k] : ends[k + 1]].max()
            paid = torch.tensor([row[1] for row in rows], dtype=torch.float32)
            value = self.meta.net(torch.from_numpy(np.stack([row[0] for row in rows])))[:, 0]
            self.log("meta/loss", self.meta.fit(value, paid + r.meta_gamma * best))

    def line(self) -> dict[str, float]:
        """What was logged since the last line, by name; forgets it."""
        out = {name: float(np.mean(values)) for name, values in self.logged.items()}
        self.logged = {}
        rate = float(np.mean(self.outcomes)) if self.outcomes else 0.0
        return {"steps": float(self.steps), "success": rate, "meta/epsilon": self.meta_epsilon,
                "sub/epsilon": self.sub_epsilon} | out  # fmt: skip


def train_h_dqn(
    recipe: HdqnRecipe, folder: str | Path, *, console: Console | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train into ``folder``: weights, ``recipe.json``, ``curve.jsonl`` and ``result.json``.

    Raises:
        FileExistsError: the folder holds a run already.
    """
    from .train import git_revision, machine

    torch.set_num_threads(1)
    out = Path(folder)
    if (out / "curve.jsonl").exists():
        raise FileExistsError(f"folder must be new, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    began, revision = time.time(), git_revision()
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    trainer, due = HdqnTrainer(recipe), 0
    with (out / "curve.jsonl").open("w") as curve:
        while trainer.steps < recipe.steps:
            trainer.round()
            if trainer.steps >= due or trainer.steps >= recipe.steps:
                due = trainer.steps + recipe.steps // 60
                line = {k: round(v, 5) for k, v in trainer.line().items()}
                curve.write(json.dumps(line) + "\n")
                curve.flush()
                if console is not None and not quiet:
                    console.print(f"{trainer.steps:,} steps, success {line['success']:.0%}")
    save_file(trainer.weights(), out / WEIGHTS)
    result = {
        "recipe": recipe.name, "seed": recipe.seed, "steps": trainer.steps, "git": revision,
        "machine": machine(), "train_wall_s": round(time.time() - began, 1),
        "success_last_100": trainer.line()["success"],
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result, indent=2, default=str))
    return result


def load_h_dqn(folder: str | Path) -> Hdqn:
    """The greedy agent of a folder that :func:`train_h_dqn` wrote. Nothing is unpickled.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its weights do not fit its recipe.
    """
    path = Path(folder)
    net = json.loads((path / "recipe.json").read_text())["net"]
    weights = load_file(path / WEIGHTS)
    return Hdqn(weights, HdqnConfig(**{**net, "hidden": tuple(net["hidden"])}))
