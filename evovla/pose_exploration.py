r"""Pose-based object exploration (EvoVLA, arXiv:2511.16166, Eqs. 7 and 8).

.. math:: r_{cur} = \tfrac{\eta}{2} \lVert \hat z_{t+1} - z_{t+1} \rVert^2 \qquad
    r_{prog} = g_t \max(0, \bar L_{t-1} - \bar L_t)

z is the pose of the object of the current stage as the gripper sees it. What we do otherwise, and
why, stands at :class:`PoseExploration`. No image enters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from curiosity.base import EnvIds, Transition, env_rows, summary
from curiosity.learned import LearnedReward
from curiosity.normalization import RunningMeanStd

from .pose import POSE
from .pose_model import PoseModel, pose_change

STATE = (*POSE, "object")
"""First columns of a state: the pose of :func:`evovla.pose.relative_pose_wxyz`, and the number of
the object that it is of (whole, >= 0; negative where there is none or its pose is not known)."""
_Z = len(POSE)


@dataclass(frozen=True)
class PoseExplorationConfig:
    """Sizes, training and payment of :class:`PoseExploration`."""

    action_dim: int = 7
    """Length of one action."""
    context_dim: int = 0
    """Columns that follow :data:`STATE` in a state: what the models may see of the arm, such as its
    joint angles, on which it depends what an action does. Never anything of an image."""
    num_envs: int = 1
    """Rows of a transition: each has its own smoothed loss."""
    hidden: int = 256
    """Width of the two hidden layers of both models."""
    lr: float = 1e-3
    """Adam step size."""
    replay: int = 50_000
    """Transitions kept to learn from, the latest."""
    reuse: float = 4.0
    """How often a transition is drawn from the replay on average."""
    minibatch: int = 256
    """Samples in a gradient step."""
    curiosity_weight: float = 1.0
    """Of the curiosity in the bonus; 0 turns it off."""
    progress_weight: float = 1.0
    """Of the progress reward in the bonus; 0 turns it off."""
    smoothing: float = 0.9
    """Share of the old value in the smoothed loss of a row."""
    clip: float = 1.0
    """Largest curiosity and largest progress, in their standard deviations."""
    deadband: float = 0.05
    """Curiosity and progress below are not paid, in their standard deviations."""
    warmup: int = 20
    """Updates in which nothing is paid: an untrained model is surprised by everything."""
    decay_from: int = 100
    """Updates after which the curiosity falls."""
    decay_to: int = 600
    """Updates after which it stays at ``decay_floor``."""
    decay_floor: float = 0.1
    """Share of the curiosity that remains."""
    scale: float = 1.0
    """Factor on the bonus, eta in the paper."""
    seed: int = 0
    """Of the weights and the sampling."""

    def __post_init__(self) -> None:
        sizes = (self.action_dim, self.num_envs, self.hidden, self.replay, self.minibatch)
        if min(sizes) < 1 or self.context_dim < 0:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not min(self.lr, self.reuse, self.clip, self.scale) > 0:
            raise ValueError(f"lr, reuse, clip and scale must be > 0, got {self}")
        if not min(self.curiosity_weight, self.progress_weight, self.deadband) >= 0:
            raise ValueError(f"weights and deadband must be >= 0, got {self}")
        if not (0 <= self.smoothing < 1 and 0 <= self.decay_floor <= 1):
            raise ValueError(f"smoothing must be in [0, 1), decay_floor in [0, 1], got {self}")
        if not 0 <= self.warmup <= self.decay_from <= self.decay_to:
            want = "0 <= warmup <= decay_from <= decay_to"
            got = f"{self.warmup}, {self.decay_from}, {self.decay_to}"
            raise ValueError(f"{want} wanted, got {got}")


@dataclass(frozen=True)
class PoseTerms:
    """What a rollout earns, term by term, each (T, N)."""

    error: Tensor
    """Half the squared error of the forward model in standard deviations of the motion; 0 where
    ``known`` is false."""
    fall: Tensor
    """Fall of the smoothed error, >= 0."""
    curiosity: Tensor
    """``error`` normalized, clipped, decayed; 0 during the warm-up."""
    progress: Tensor
    """``fall`` normalized, clipped, times the gate; 0 during the warm-up."""
    known: Tensor
    """bool, both poses are known and of one object."""


class PoseExploration(LearnedReward):
    r"""Surprise of a model of how the object moves in the hand, and reward for getting better.

    A state has seven columns, see :data:`STATE`, and the context. A transition whose two ends speak
    of different objects (the stage went on) or of none is not motion: it earns nothing, is not
    learned from, and starts the smoothed loss anew.

    Where the paper is silent or would not work:

    * The forward model gives the *change* of pose, and is judged in running standard deviations of
      the change, dimension by dimension. Poses in metres and radians would leave the reward at
      1e-5; a model of the next pose is nearly right if it says "nothing moves", and a fresh one
      spends its training on learning to say so.
    * It may see the arm's posture (``context_dim``): what joint targets do to a pose depends on it.
    * Rotations are compared as rotations (:func:`evovla.pose_model.pose_change`): rotation vectors
      jump at pi.
    * Both rewards are divided by their running standard deviation (not centred), cut at ``clip``,
      not paid below ``deadband`` nor during the warm-up; curiosity decays by a schedule.
    * The smoothed loss belongs to a row, and begins with the first error of its episode.

    The inverse model shares no weight with the forward one (poses need no encoder), so it moves no
    reward. Its loss tells in the log whether the pose answers to the action: a stuck or mistaken
    pose source leaves it at 1, where guessing the mean action is.
    """

    name = "pose"
    horizon = "lifelong"
    normalize = False
    loss: Tensor
    running: Tensor
    updates: Tensor
    stored: Tensor
    replay: Tensor

    def __init__(self, config: PoseExplorationConfig) -> None:
        super().__init__(len(STATE) + config.context_dim, config.action_dim, config.seed)
        self.config = config
        self.rows = config.num_envs
        self.model = PoseModel(
            config.context_dim, config.action_dim, config.hidden, self._generator
        )
        self.error_stat, self.fall_stat = RunningMeanStd(), RunningMeanStd()
        self.register_buffer("loss", torch.zeros(config.num_envs))
        self.register_buffer("running", torch.zeros(config.num_envs, dtype=torch.bool))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))
        self._widths = [_Z + config.context_dim, config.action_dim, _Z]
        self.register_buffer("replay", torch.zeros(config.replay, sum(self._widths)))
        self._train(self.model.parameters(), config.lr)

    def observe(self, tr: Transition, gate: Tensor | None = None) -> Tensor:
        """As promised by the contract; ``gate`` (N,) as for :meth:`compute`."""
        self._check(tr, ndim=1)
        return self._total(self._terms(tr[None], None if gate is None else gate[None], True))[0]

    def compute(self, tr: Transition, gate: Tensor | None = None) -> Tensor:
        """As promised by the contract.

        Args:
            tr: leading shape (T, N), states as :data:`STATE`.
            gate: (T, N) in [0, 1], what the memory lets through of the progress reward, without
                gradient; None lets all through.

        Returns:
            (T, N) float32, >= 0.
        """
        return self._total(self.terms(tr, gate))

    def terms(self, tr: Transition, gate: Tensor | None = None) -> PoseTerms:
        """:meth:`compute`, term by term."""
        self._check(tr, ndim=2)
        return self._terms(tr, gate, commit=False)

    def update(self, tr: Transition, gate: Tensor | None = None) -> dict[str, float]:
        """Remember a rollout, learn from the replay, and log every term (``gate`` is for the log).

        The log's errors are of this rollout before it is learned from; for the two "unexplained"
        see :meth:`evovla.pose_model.PoseModel.left`.
        """
        self._check(tr, ndim=2)
        terms = self._terms(tr, gate, commit=True)
        known = terms.known.flatten()
        new = tuple(part[known] for part in _parts(tr))
        log = {
            **summary(self._total(terms)),
            "curiosity": float(terms.curiosity.mean()),
            "progress": float(terms.progress.mean()),
            "gate": 1.0 if gate is None else float(gate.detach().mean()),
            "decay": self.decay,
            "error": float(terms.error.sum() / known.sum().clamp(min=1)),
            "known_share": float(known.float().mean()),
        }
        if self.model.fitted and int(self.updates) + 1 >= self.config.warmup:
            self.error_stat.update(terms.error[terms.known])
            self.fall_stat.update(terms.fall[terms.known])
        log |= {"error_std": float(self.error_stat.std), "fall_std": float(self.fall_stat.std)}
        if bool(known.any()):
            log |= self.model.left(*new)
            self._remember(*new)
            log |= self._learn(int(known.sum()))
        self.updates += 1
        return log

    def reset(self, env_ids: EnvIds = None) -> None:
        """Forget the smoothed loss of these rows."""
        rows = torch.from_numpy(env_rows(env_ids, self.config.num_envs)).to(self.running.device)
        self.running[rows] = False

    @property
    def decay(self) -> float:
        """Share of the curiosity that is paid now; 0 during the warm-up."""
        cfg, done = self.config, int(self.updates)
        if done < cfg.warmup:
            return 0.0
        gone = (done - cfg.decay_from) / max(cfg.decay_to - cfg.decay_from, 1)
        return 1 - (1 - cfg.decay_floor) * min(max(gone, 0.0), 1.0)

    def _run(self, tr: Transition, commit: bool) -> Tensor:
        return self._total(self._terms(tr, None, commit))

    @torch.no_grad()
    def _terms(self, tr: Transition, gate: Tensor | None, commit: bool) -> PoseTerms:
        cfg = self.config
        if gate is not None and gate.shape != tr.terminated.shape:
            want, got = tuple(tr.terminated.shape), tuple(gate.shape)
            raise ValueError(f"gate must be {want} like the transition, got {got}")
        if gate is not None and not bool(((gate >= 0) & (gate <= 1)).all()):
            raise ValueError(
                f"gate must be in [0, 1], got {float(gate.min())} to {float(gate.max())}"
            )
        which, then = tr.obs[..., _Z], tr.next_obs[..., _Z]
        known = (which >= 0) & (which == then)
        error = self.model.surprise(*_parts(tr)).view(known.shape).masked_fill(~known, 0.0)
        fall, loss, running = self._falls(error, known, tr.done)
        if commit:
            self.loss.copy_(loss)
            self.running.copy_(running)
        paid = float(int(self.updates) >= cfg.warmup)
        curiosity = self.decay * self._scaled(error, self.error_stat)
        progress = paid * self._scaled(fall, self.fall_stat)
        if gate is not None:
            progress = progress * gate.detach()
        return PoseTerms(error, fall, curiosity, progress, known)

    def _falls(self, error: Tensor, known: Tensor, done: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(T, N) falls of the smoothed loss; it and whether it runs, (N,) each, at the end."""
        loss, running = self.loss, self.running
        keep = self.config.smoothing
        fall = torch.zeros_like(error)
        for t in range(len(error)):
            smooth = torch.where(running, keep * loss + (1 - keep) * error[t], error[t])
            fall[t] = torch.where(running & known[t], (loss - smooth).clamp(min=0), fall[t])
            loss, running = smooth, known[t] & ~done[t]
        return fall, loss, running

    def _scaled(self, raw: Tensor, stat: RunningMeanStd) -> Tensor:
        value = (raw / stat.std).float().clamp(max=self.config.clip)
        return value.masked_fill(value < self.config.deadband, 0.0)

    def _total(self, terms: PoseTerms) -> Tensor:
        cfg = self.config
        total = cfg.curiosity_weight * terms.curiosity + cfg.progress_weight * terms.progress
        return cfg.scale * total

    @torch.no_grad()
    def _remember(self, seen: Tensor, action: Tensor, motion: Tensor) -> None:
        """Take (B, ...) transitions into the statistics and the replay, oldest out first."""
        self.model.fit(seen, action, motion)
        size = self.config.replay
        new = torch.cat((seen, action, motion), dim=-1)[-size:]
        at = (self.stored + torch.arange(len(new), device=new.device)) % size
        self.replay[at] = new
        self.stored += len(new)

    def _learn(self, new: int) -> dict[str, float]:
        """Gradient steps on the replay, as many as ``new`` transitions are worth."""
        cfg = self.config
        have = min(int(self.stored), cfg.replay)
        steps = math.ceil(cfg.reuse * new / cfg.minibatch)
        total = torch.zeros(2)
        for _ in range(steps):
            rows = torch.randint(have, (cfg.minibatch,), generator=self._generator)
            batch = self.replay[rows.to(self.replay.device)]
            parts = torch.split(batch, self._widths, dim=-1)
            forward = self.model.surprise(*parts).mean()
            inverse = self.model.action_error(*parts).mean()
            self._descend(forward + inverse)
            total += torch.stack((forward, inverse)).detach().cpu() / steps
        return {"forward_loss": float(total[0]), "inverse_loss": float(total[1]),
                "replay": float(have), "gradient_steps": float(steps)}  # fmt: skip


def _parts(tr: Transition) -> tuple[Tensor, Tensor, Tensor]:
    """What is seen (pose and context), done, and comes of it in a rollout, (T N, ...) each."""
    obs, then = tr.obs.flatten(0, 1), tr.next_obs.flatten(0, 1)
    motion = pose_change(obs[:, :_Z], then[:, :_Z])
    return torch.cat((obs[:, :_Z], obs[:, _Z + 1 :]), dim=-1), tr.action.flatten(0, 1), motion
