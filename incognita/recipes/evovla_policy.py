"""The two kinds of policy that EvoVLA's recipes train: a plain net, and the VLA with a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from evovla.actor import Actor
from evovla.cloning import CloneConfig
from evovla.cloning import Demonstrations as Shown
from evovla.cloning import clone as clone_vla
from evovla.memory import MemoryConfig
from evovla.policy import VLAConfig, VLAPolicy, policy_texts
from evovla.policy_file import load_vla, save_vla
from evovla.pose_exploration import PoseExploration
from evovla.stages import StageDictionary
from learning.cloning import clone as clone_mlp
from learning.policy import Policy
from learning.policy_file import load_policy, save_policy, verify_policy
from learning.ppo import PPO, ActorCritic, PPOConfig
from sim.manipulation.batch import ACTION_DIM
from sim.manipulation.cell import STEP_M, STEP_OPEN, STEP_RAD
from sim.manipulation.pieces import N_EVENTS
from sim.manipulation.task import ArmTask

from .evovla_demos import Demonstrations

Kind = Literal["mlp", "vla"]
MemoryKind = Literal["attention", "gru", "off"]


def make_policy(
    kind: Kind, memory: MemoryKind, task: ArmTask, words: StageDictionary, ppo: PPOConfig, seed: int
) -> Policy:
    """A policy for the observations of :class:`incognita.stage_env.StageEnv`."""
    if kind == "mlp":
        return ActorCritic(task.obs_dim, ACTION_DIM, ppo.hidden, ppo.init_log_std, seed)
    return VLAPolicy(VLAConfig(
        task.obs_dim, policy_texts(words), stage_column=task.base_dim + N_EVENTS + 1,
        action_dim=ACTION_DIM, memory=MemoryConfig(kind=memory, seed=seed), seed=seed,
    ))  # fmt: skip


def fit(
    net: Policy, told: Demonstrations, *, epochs: int, minibatch: int, lr: float, log_std: float,
    seed: int,
) -> None:  # fmt: skip
    """Clone demonstrations, in place."""
    if isinstance(net, ActorCritic):
        clone_mlp(
            net, told.obs, told.action, told.returns, epochs=epochs, minibatch=minibatch, lr=lr,
            log_std=log_std, seed=seed,
        )  # fmt: skip
        return
    assert isinstance(net, VLAPolicy)
    steps = max(epochs * len(told.obs) // minibatch, 1)
    shown = Shown(told.obs, told.action, told.length, told.returns)
    clone_vla(net, shown, CloneConfig(steps, minibatch, lr, log_std=log_std, seed=seed))


class Acting:
    """A policy without noise, for :func:`incognita.stage_eval.evaluate_stages`."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self._actor: Actor | None = None

    def reset(self, num_envs: int) -> None:
        """Episodes of so many rows begin."""
        if not isinstance(self.net, ActorCritic):
            self._actor = Actor(self.net, num_envs)

    def __call__(self, obs: Any) -> Any:
        """(N, A) actions."""
        return self.net.act(obs) if self._actor is None else self._actor(obs)


def save(folder: Path, net: Any, **about: Any) -> None:
    """Write the policy file of either kind; ``about`` as for the two functions called."""
    (save_policy if isinstance(net, ActorCritic) else save_vla)(folder, net, **about)


def load(folder: Path) -> Policy:
    """The policy in a file of either kind, to train on or to evaluate."""
    plain = "kind" not in verify_policy(folder)["network"]
    return load_policy(folder) if plain else load_vla(folder)


class GatedPoseExploration(PoseExploration):
    """Lets the memory of the policy that is trained gate the progress reward (Eq. 12)."""

    learner: PPO | None = None

    def compute(self, tr: Any, gate: torch.Tensor | None = None) -> torch.Tensor:
        """See :meth:`PoseExploration.compute`."""
        return super().compute(tr, self._gate() if gate is None else gate)

    def update(self, tr: Any, gate: torch.Tensor | None = None) -> dict[str, float]:
        """See :meth:`PoseExploration.update`."""
        return super().update(tr, self._gate() if gate is None else gate)

    def _gate(self) -> torch.Tensor | None:
        return None if self.learner is None else self.learner.gate


def observation_spec(task: ArmTask) -> dict[str, Any]:
    """What a policy file's manifest says of the observation, see :mod:`sim.manipulation.task`."""
    stage = task.obs_dim - task.base_dim
    return {
        "dim": task.obs_dim, "task": task.name,
        "parts": [
            {"name": "state", "dim": task.base_dim, "unit": "m", "frame": "base_link"},
            {"name": "believed stage", "dim": stage, "unit": "one-hot, share, m"},
        ],
        "pieces": [p.name for p in task.pieces],
        "stages": [[s.primitive, s.target, s.reference] for s in task.steps],
    }  # fmt: skip


def action_spec() -> dict[str, Any]:
    """What a policy file's manifest says of the action, see :mod:`sim.manipulation.batch`."""
    return {
        "dim": ACTION_DIM,
        "parts": [
            {"name": "move", "dim": 3, "unit": f"{STEP_M} m per step", "frame": "base_link"},
            {"name": "turn", "dim": 1, "unit": f"{STEP_RAD} rad per step", "frame": "base_link"},
            {"name": "fingers", "dim": 1, "unit": f"{STEP_OPEN} of the widest per step"},
        ],
    }  # fmt: skip
