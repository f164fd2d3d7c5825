r"""PPO (Schulman et al. 2017, arXiv:1707.06347) with an extrinsic and an intrinsic value head.

.. math:: A_t = c_e A^e_t + c_i(t) A^i_t

Two streams as in Burda et al. 2018 (arXiv:1810.12894, Sec. 2.3): the extrinsic return ends with
the episode, the intrinsic one of a lifelong bonus runs on through resets. A time limit is no end:
its last observation is valued (Pardo et al. 2018). Departures: separate actor and critic networks,
gradients clipped per network, so that a large value error cannot starve the policy.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curiosity.base import IntrinsicReward, Transition, summary
from curiosity.normalization import DiscountedReturnStd

from . import checkpoint
from .cloning import CloningLoss, cloning_share
from .policy import Arrays, Obs, Policy, Sample, Sampler, each, state_of
from .self_imitation import SelfImitation
from .vec_env import Step, VecEnv

log = logging.getLogger(__name__)

Callback = Callable[[dict[str, float]], "bool | None"]

WINDOW = 100
"""Finished episodes over which success, collision, … are averaged."""
_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class PPOConfig:
    """Settings of :class:`PPO`. A rollout is ``num_steps`` steps of every environment."""

    num_steps: int = 32
    """Steps per environment and rollout, T."""
    minibatch: int = 2048
    """Samples per gradient step (at most a whole rollout)."""
    epochs: int = 5
    """Passes over a rollout."""
    lr: float = 3e-4
    """Adam's learning rate at the start."""
    lr_schedule: str = "constant"
    """"constant", "linear" (to 0 at ``total_steps``) or "adaptive" (KL kept near target_kl)."""
    target_kl: float | None = None
    """Stop a rollout's epochs beyond 1.5 x this KL; None never does (adaptive aims at 0.01)."""
    gamma: float = 0.99
    """Discount per step of the extrinsic reward."""
    int_gamma: float = 0.99
    """Discount per step of the intrinsic reward."""
    lam: float = 0.95
    """GAE's lambda."""
    clip: float = 0.2
    """Clip range of the probability ratio."""
    ent_coef: float = 0.003
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the squared value errors."""
    critic_first: int = 0
    """Updates at the start in which the critic alone learns: a cloned policy comes with one that
    has only seen demonstrations."""
    max_grad_norm: float = 0.5
    """Gradient norm limit, actor and critic each."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the tanh layers of actor and of critic."""
    init_log_std: float = -0.5
    """Log standard deviation of the actions at the start (actions span [-1, 1])."""
    final_std: float | None = None
    """Bring the standard deviation of the actions down to this at most at ``total_steps``, along a
    line in its log from where training began: the mean is what drives a robot, so train that."""
    noise_correlation: float = 0.0
    """Correlation of the action noise with that of the step before; 0 is white (Hollenstein et al.
    2024, arXiv:2312.11091: correlated noise explores further, the update stays as it is)."""
    sequence: int = 32
    """Steps through which gradients flow back in a policy that remembers; divides num_steps."""
    normalize_obs: bool = True
    """Whiten observations by running mean and std, clipped to +-10."""
    scale_reward: bool = False
    """Divide extrinsic rewards by the running std of their discounted returns."""
    ext_coef: float = 2.0
    """c_e, weight of the extrinsic advantage."""
    int_coef: float = 1.0
    """c_i at the start, weight of the intrinsic advantage."""
    int_anneal_success: float = 0.8
    """Successes among the last 100 episodes, over 100, from which c_i falls."""
    int_anneal_steps: int = 200_000
    """Environment steps in which c_i then falls linearly to 0; 0 keeps it."""
    max_missing: float = 0.2
    """Rollouts with a larger share of missing (non-finite) rewards train nothing."""
    sil_coef: float = 0.0
    """Weight of self-imitation of successful episodes (Oh et al. 2018); 0 is off."""
    sil_batches: int = 4
    """Self-imitation gradient steps per rollout."""
    sil_capacity: int = 100_000
    """Transitions of successes kept."""
    sil_horizon: int = 1000
    """Last steps of a success that are looked at."""
    sil_cell_m: float = 0.0
    """Cut loops out of successes, back to a cell of this edge, m; 0 keeps them."""
    clone_coef: float = 0.0
    """Weight of cloning demonstrations beside RL while no episode succeeds; it falls in proportion
    to success, see :func:`learning.cloning.cloning_share`."""
    threads: int = 1
    """torch threads of this process; more than 1 is slower for these sizes, and not bit-exact."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        sizes = (self.num_steps, self.minibatch, self.epochs, self.threads, self.sequence,
                 *self.hidden)  # fmt: skip
        if min(sizes) < 1 or min(self.sil_batches, self.sil_capacity, self.sil_horizon) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not (0 <= self.gamma < 1 and 0 <= self.int_gamma < 1):
            raise ValueError(f"gamma and int_gamma must be in [0, 1), got {self}")
        if not 0 <= self.noise_correlation < 1:
            raise ValueError(f"noise_correlation must be in [0, 1), got {self.noise_correlation}")
        if self.final_std is not None and not self.final_std > 0:
            raise ValueError(f"final_std must be > 0 or None, got {self.final_std}")
        if not (0 <= self.lam <= 1 and 0 <= self.max_missing <= 1):
            raise ValueError(f"lam and max_missing must be in [0, 1], got {self}")
        positive = (self.lr, self.clip, self.max_grad_norm)
        weights = (self.ent_coef, self.vf_coef, self.ext_coef, self.int_coef, self.sil_coef,
                   self.sil_cell_m, self.clone_coef)  # fmt: skip
        if not (min(positive) > 0 and min(*weights, self.int_anneal_steps) >= 0):
            raise ValueError(f"rates must be > 0 and weights >= 0, got {self}")
        if self.target_kl is not None and not self.target_kl > 0:
            raise ValueError(f"target_kl must be > 0 or None, got {self.target_kl}")
        if self.lr_schedule not in ("constant", "linear", "adaptive"):
            raise ValueError(
                f'lr_schedule must be "constant", "linear" or "adaptive", got {self.lr_schedule!r}'
            )


class ActorCritic(Policy):
    """Gaussian policy and two value heads over one flat observation, normalizer inside.

    The action is ``clip(mean(obs) + std * eps, -1, 1)``; std does not depend on the observation.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: tuple[int, ...] = (128, 128),
        init_log_std: float = -0.5,
        seed: int = 0,
    ) -> None:
        if min(obs_dim, action_dim, *hidden) < 1:
            raise ValueError(f"sizes must be >= 1, got {obs_dim=}, {action_dim=}, {hidden=}")
        super().__init__(obs_dim, action_dim)
        self.hidden = tuple(hidden)
        generator = torch.Generator().manual_seed(seed)
        self.actor = _mlp(obs_dim, self.hidden, action_dim, 0.01, generator)
        self.critic = _mlp(obs_dim, self.hidden, 2, 1.0, generator)
        self.log_std = nn.Parameter(torch.full((action_dim,), float(init_log_std)))

    def forward(self, obs: Tensor) -> Tensor:
        """Deterministic action: (B, obs_dim) raw observations -> (B, action_dim) in [-1, 1]."""
        if obs.ndim != 2 or obs.shape[1] != self.obs_dim:
            raise ValueError(f"obs must be (B, {self.obs_dim}), got {tuple(obs.shape)}")
        mean: Tensor = self.actor(self.normalize(obs))
        return mean.clamp(-1.0, 1.0)

    @torch.no_grad()
    def act(self, obs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Deterministic action on arrays: (B, obs_dim) -> (B, action_dim) float32 in [-1, 1]."""
        return self.forward(torch.as_tensor(obs, dtype=torch.float32)).numpy()

    def mean_of(self) -> Callable[[Tensor], Tensor]:
        """:attr:`actor` with the weights of now, without gradients: a third of the calls."""
        linear = [m for m in self.actor if isinstance(m, nn.Linear)]
        layers = [(m.weight.detach().t(), m.bias.detach()) for m in linear]

        def mean(x: Tensor) -> Tensor:
            for weight, bias in layers[:-1]:
                x = _tanh(torch.addmm(bias, x, weight))
            return torch.addmm(layers[-1][1], x, layers[-1][0])

        return mean

    def sampler(self) -> Sampler:
        """See :meth:`learning.policy.Policy.sampler`; the trace is the action before it is cut."""
        mean, std = self.mean_of(), self.log_std.detach().exp()

        def sample(x: Any, memory: Tensor, noise: Tensor) -> Sample:
            action = torch.add(mean(x), noise * std)
            return Sample(action, action.clamp(-1.0, 1.0), memory)

        return sample

    def log_prob(self, x: Any, trace: Tensor, memory: Tensor | None = None) -> Tensor:
        """(B,) log-density of unclipped actions (B, A) at normalized x (B, obs_dim)."""
        noise: Tensor = (trace - self.actor(x)) * torch.exp(-self.log_std)
        constant = self.log_std.sum() + 0.5 * _LOG_2PI * self.action_dim
        return -0.5 * noise.square().sum(dim=-1) - constant

    def value(self, x: Any, memory: Tensor | None = None) -> Tensor:
        """(B, 2) extrinsic and intrinsic value of normalized x."""
        return self.critic(x)  # type: ignore[no-any-return]

    def evaluate(
        self, x: Any, trace: Tensor, memory: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`learning.policy.Policy.evaluate`."""
        return self.log_prob(x, trace), self.critic(x)

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """See :meth:`learning.policy.Policy.groups`."""
        return [*self.actor.parameters(), self.log_std], list(self.critic.parameters())

    def entropy(self) -> Tensor:
        """Entropy of the action distribution, the same at every observation."""
        return self.log_std.sum() + 0.5 * (1 + _LOG_2PI) * self.action_dim


def _tanh(x: Tensor) -> Tensor:
    """2 sigmoid(2x) - 1, off by less than 2e-7: torch's sigmoid takes a third of its tanh."""
    return torch.add(x, x).sigmoid_().mul_(2).sub_(1)


class _FastTanh(torch.autograd.Function):
    """:func:`_tanh` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = _tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grads[0], out)  # type: ignore[no-any-return]


class FastTanh(nn.Module):
    """Elementwise tanh."""

    def forward(self, x: Tensor) -> Tensor:
        return _FastTanh.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def _mlp(
    inputs: int, hidden: tuple[int, ...], outputs: int, gain: float, generator: torch.Generator
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [_linear(inputs, width, math.sqrt(2), generator), FastTanh()]
        inputs = width
    return nn.Sequential(*layers, _linear(inputs, outputs, gain, generator))


def _linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, cut: Tensor, gamma: float, lam: float
) -> Tensor:
    r"""Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438, Eq. 16).

    .. math:: A_t = r_t + \gamma V(s_{t+1}) - V(s_t) + \gamma \lambda (1 - cut_t) A_{t+1}

    Args:
        reward, value: (T, N).
        next_value: (T, N) value of the state that step t led to: 0 where it is terminal, the value
            of the final observation where a time limit cut the episode.
        cut: (T, N) bool, the episode ended at t either way, so nothing is carried back over it.

    Returns:
        (T, N) advantages; add ``value`` for the returns.
    """
    delta = reward + gamma * next_value - value
    carry = gamma * lam * (~cut).to(delta.dtype)
    advantage = torch.empty_like(delta)
    last = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        last = torch.addcmul(delta[t], carry[t], last)
        advantage[t] = last
    return advantage


class PPO:
    """Trains a :class:`Policy` on a :class:`VecEnv`.

    Args:
        env: reset once at the start of training.
        intrinsic: bonus, built from the env's explore width; None trains on rewards alone.
        seed: of weights, action noise and shuffles. Equal seeds give equal runs on one thread.
        net: train this policy (its normalizer too), on the device it is on, instead of a new
            :class:`ActorCritic`.
        demonstrations: loss on demonstrations that is mixed in with ``clone_coef``.
    """

    def __init__(
        self,
        env: VecEnv,
        config: PPOConfig | None = None,
        intrinsic: IntrinsicReward | None = None,
        seed: int = 0,
        net: Policy | None = None,
        demonstrations: CloningLoss | None = None,
    ) -> None:
        self.env, self.config, self.intrinsic = env, config or PPOConfig(), intrinsic
        cfg, spec = self.config, env.spec
        torch.set_num_threads(cfg.threads)
        if net is None:
            net = ActorCritic(spec.obs_dim, spec.action_dim, cfg.hidden, cfg.init_log_std, seed)
        if (net.obs_dim, net.action_dim) != (spec.obs_dim, spec.action_dim):
            raise ValueError(
                f"net must map {spec.obs_dim} observations to {spec.action_dim} actions, "
                f"got {net.obs_dim} to {net.action_dim}"
            )
        if cfg.sil_coef > 0 and not isinstance(net, ActorCritic):
            raise ValueError(f"sil_coef must be 0 but for ActorCritic, got {type(net).__name__}")
        if net.memory_dim and cfg.num_steps % cfg.sequence:
            raise ValueError(f"num_steps must be a multiple of sequence, got {cfg}")
        if (cfg.clone_coef > 0) != (demonstrations is not None):
            raise ValueError(f"clone_coef > 0 and demonstrations go together, got {cfg.clone_coef}")
        self.demonstrations = demonstrations
        self.net: Any = net
        """The policy, as it was handed in."""
        self.device = net.log_std.device
        self.optimizer = torch.optim.Adam(net.parameters(), lr=cfg.lr, eps=1e-5, fused=True)
        self.generator = torch.Generator().manual_seed(seed)
        episodic = intrinsic is not None and intrinsic.horizon == "episodic"
        self.int_scale = DiscountedReturnStd(cfg.int_gamma, spec.num_envs, episodic=episodic)
        self.ext_scale = DiscountedReturnStd(cfg.gamma, spec.num_envs, episodic=True)
        self.sil = SelfImitation(spec, cfg.num_steps, cfg.gamma, cfg.sil_capacity, cfg.sil_horizon)
        self.steps = 0
        """Environment steps so far, over all environments."""
        self.updates = 0
        self.skipped = 0
        """Gradient steps not taken because rewards or gradients were not finite."""
        self.lr = cfg.lr
        self.anneal_from: int | None = None
        self._noise_from: tuple[int, float] | None = (
            None  # steps and log std before the first update
        )
        self.windows: dict[str, deque[float]] = {}
        self.obs: Arrays | None = None
        self._last_noise: Tensor | None = None
        self.running = np.zeros((2, spec.num_envs))  # return and length of the open episodes
        steps, n = cfg.num_steps, spec.num_envs
        zeros = partial(torch.zeros, device=self.device)
        self._raw: Any = zeros(steps, n, spec.obs_dim)
        self._x: Any = torch.zeros_like(self._raw)
        if spec.frames:
            frames = zeros(steps, n, *spec.frames, dtype=torch.uint8)  # raw and x share them
            self._raw, self._x = ({"state": s, "frames": frames} for s in (self._raw, self._x))
        self._trace = zeros(steps, n, net.trace_dim)
        self._sent = zeros(steps, n, spec.action_dim)
        self._memory = zeros(steps, n, net.memory_dim)  # before each step
        self._remembered = zeros(n, net.memory_dim)
        self._first = zeros(steps, n, dtype=torch.bool)
        self._begins = torch.ones(n, dtype=torch.bool, device=self.device)
        self.gate = torch.ones(steps, n)
        """(T, N) what the policy's memory lets through of a progress reward, of the rollout."""
        self._explore = torch.zeros(2, steps, n, spec.explore_dim)  # before and after each step
        self._reward = torch.zeros(steps, n)
        self._terminated = torch.zeros(steps, n, dtype=torch.bool)
        self._truncated = torch.zeros(steps, n, dtype=torch.bool)
        self._success = torch.zeros(steps, n, dtype=torch.bool)
        self._length = torch.zeros(steps, n, dtype=torch.int64)

    @property
    def int_weight(self) -> float:
        """c_i now."""
        cfg = self.config
        if self.intrinsic is None or self.anneal_from is None or cfg.int_anneal_steps == 0:
            return cfg.int_coef if self.intrinsic is not None else 0.0
        return cfg.int_coef * max(0.0, 1 - (self.steps - self.anneal_from) / cfg.int_anneal_steps)

    @property
    def clone_weight(self) -> float:
        """Weight of the cloning loss now."""
        coef = self.config.clone_coef
        return coef * cloning_share(self.windows.get("success", ())) if coef > 0 else 0.0

    def learn(
        self,
        total_steps: int,
        callback: Callback | None = None,
        *,
        checkpoints: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 50,
    ) -> PPO:
        """Train until ``total_steps`` environment steps in all, those before a resume included.

        Args:
            callback: is given the metrics of every update; True stops training.
            checkpoints: folder to save into every ``checkpoint_every`` updates and at the end.

        Raises:
            KeyboardInterrupt: after SIGINT, at the end of the update and once saved; a second
                SIGINT raises at once.
            FloatingPointError: the environment gave observations that are not finite.
        """
        with _interruptible() as interrupted:
            while self.steps < total_steps:
                start = time.perf_counter()
                metrics = self._collect()
                collected = time.perf_counter()
                metrics |= self._update(total_steps)
                taken = time.perf_counter() - start
                metrics["steps_per_s"] = self._reward.numel() / taken
                metrics["collect_share"] = (collected - start) / taken
                stop = (callback is not None and callback(metrics) is True) or interrupted()
                done = stop or self.steps >= total_steps
                if checkpoints is not None and (done or self.updates % checkpoint_every == 0):
                    self.save(checkpoints)
                if interrupted():
                    raise KeyboardInterrupt(f"stopped at {self.steps} steps")
                if stop:
                    break
        return self

    @torch.no_grad()
    def _collect(self) -> dict[str, float]:
        """Fill the rollout buffers; parameters and normalizer stand still."""
        cfg, env = self.config, self.env
        net: Policy = self.net
        if self.obs is None:
            self.obs = each(_copied, env.reset())
        noise = self._noise()
        whiten, sample = net.whitener(), net.sampler()
        self._finals: list[tuple[int, np.ndarray[Any, Any], Obs, Tensor]] = []
        sums: dict[str, float] = {}
        for t in range(cfg.num_steps):
            obs = each(self._tensor, self.obs)
            numbers = state_of(obs)
            if not math.isfinite(float(numbers.sum())):
                bad = int((~numbers.isfinite()).any(dim=1).sum())
                raise FloatingPointError(
                    f"obs must be finite, got NaN or infinity in {bad} of {len(numbers)} "
                    "environments"
                )
            each(lambda kept, new, t=t: kept[t].copy_(new), self._raw, obs)
            each(lambda kept, new, t=t: kept[t].copy_(new), self._x, whiten(obs))
            if self.intrinsic is not None:
                self._explore[0, t] = torch.from_numpy(env.explore())
            self._memory[t], self._first[t] = self._remembered, self._begins
            drawn = sample(each(lambda kept, t=t: kept[t], self._x), self._memory[t], noise[t])
            self._trace[t], self._sent[t] = drawn.trace, drawn.action
            if drawn.gate is not None:
                self.gate[t] = drawn.gate
            step = env.step(self._sent[t].cpu().numpy())
            self._reward[t] = torch.from_numpy(step.reward)
            self._terminated[t] = torch.from_numpy(step.terminated)
            self._truncated[t] = torch.from_numpy(step.truncated)
            self._explore[1, t] = torch.from_numpy(step.explore)
            cut = np.flatnonzero(step.truncated & ~step.terminated)
            if len(cut):
                final = each(lambda rows, cut=cut: self._tensor(rows[cut]), step.final_obs)
                self._finals.append((t, cut, final, drawn.memory[cut]))
            self._begins = self._tensor(step.terminated | step.truncated)
            self._remembered = drawn.memory.masked_fill(self._begins[:, None], 0.0)
            self._count(t, step, sums)
            self.obs = each(_copied, step.obs)
        self.steps += self._reward.numel()
        metrics = {"steps": float(self.steps), "success": 0.0, "collision": 0.0}
        metrics |= {name: value / cfg.num_steps for name, value in sums.items()}
        metrics |= {name: sum(window) / len(window) for name, window in self.windows.items()}
        metrics["episodes"] = float(len(self.windows.get("success", ())))  # that these are means of
        return metrics

    def _noise(self) -> Tensor:
        """(T, N, trace_dim) standard normal noise, an AR(1) process along time."""
        noise = torch.randn(self._trace.shape, generator=self.generator)
        rho = self.config.noise_correlation
        if rho > 0:
            if self._last_noise is None:
                self._last_noise = torch.randn(noise.shape[1:], generator=self.generator)
            noise *= math.sqrt(1 - rho * rho)
            for t, last in enumerate([self._last_noise, *noise[:-1]]):
                noise[t] += rho * last
            self._last_noise = noise[-1].clone()
        return noise.to(self.device)

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        """On the policy's device."""
        return torch.from_numpy(array).to(self.device)

    def _count(self, t: int, step: Step, sums: dict[str, float]) -> None:
        """Keep episode statistics."""
        reward = step.reward
        if not np.isfinite(reward).all():
            reward = np.where(np.isfinite(reward), reward, 0.0)
        self.running[0] += reward
        self.running[1] += 1
        for name, values in step.terms.items():
            if name.startswith("reward/"):
                sums[name] = sums.get(name, 0.0) + float(values.sum()) / len(values)
        done = step.terminated | step.truncated
        self._length[t] = torch.from_numpy(self.running[1].astype(np.int64))
        self._success[t] = False
        if not done.any():
            return
        if "success" in step.terms:
            self._success[t] = torch.from_numpy(
                done & np.asarray(step.terms["success"], dtype=bool)
            )
        outcomes = {k: v for k, v in step.terms.items() if not k.startswith("reward/")}
        outcomes |= {"return": self.running[0], "episode_length": self.running[1]}
        for name, values in outcomes.items():
            window = self.windows.setdefault(name, deque(maxlen=WINDOW))
            window.extend(np.asarray(values)[done].astype(float).tolist())
        self.running[:, done] = 0

    def _update(self, total_steps: int) -> dict[str, float]:
        """Learn from the rollout in the buffers."""
        cfg, net = self.config, self.net
        success = self.windows.get("success", ())
        if self.anneal_from is None and sum(success) >= cfg.int_anneal_success * WINDOW:
            self.anneal_from = self.steps
        self._schedule(total_steps)
        weight = self.int_weight
        bonus, metrics = self._bonus(weight)
        missing = ~self._reward.isfinite()
        share = float(missing.float().mean())
        metrics |= {"intrinsic/weight": weight, "reward/missing_share": share}
        advantage, returns, shares = self._advantages(bonus, missing, weight)
        metrics |= shares
        if share > cfg.max_missing or bool(missing.all()):
            log.warning("%.0f %% of rewards are missing: this rollout trains nothing", 100 * share)
            self.skipped += 1
        else:
            metrics |= self._optimize(advantage, returns, ~missing.flatten(), weight)
        if cfg.normalize_obs:
            net.update_normalizer(state_of(self._raw).flatten(0, 1))
        self.updates += 1
        return metrics | {"updates": float(self.updates), "loss/skipped": float(self.skipped)}

    def _schedule(self, total_steps: int) -> None:
        if self.config.lr_schedule == "linear":
            left = 1 - (self.steps - self._reward.numel()) / total_steps
            self.lr = self.config.lr * max(left, 0.0)
        self.optimizer.param_groups[0]["lr"] = self.lr
        if self.config.final_std is not None:
            log_std = self.net.log_std.data
            if self._noise_from is None:
                self._noise_from = self.steps, float(log_std.max())
            since, first = self._noise_from
            done = (self.steps - since) / max(total_steps - since, 1)
            log_std.clamp_(max=first + done * (math.log(self.config.final_std) - first))

    def _bonus(self, weight: float) -> tuple[Tensor, dict[str, float]]:
        """(T, N) normalized intrinsic rewards."""
        if self.intrinsic is None or weight == 0.0:
            return torch.zeros_like(self._reward), {}
        before, after = self._explore
        sent = self._sent.cpu()
        rollout = Transition(before, sent, after, self._terminated, self._truncated)
        raw = self.intrinsic.compute(rollout)
        if not bool(raw.isfinite().all()):
            raise FloatingPointError(f"{type(self.intrinsic).__name__} gave non-finite rewards")
        metrics = {
            "intrinsic/raw_mean": float(raw.mean()),
            "intrinsic/p95": summary(raw)["p95"],
        }
        self.int_scale.update(raw, rollout.done)
        learned = self.intrinsic.update(rollout)
        metrics |= {f"intrinsic/{name}": value for name, value in learned.items()}
        return (self.int_scale.normalize(raw) if self.intrinsic.normalize else raw), metrics

    @torch.no_grad()
    def _advantages(
        self, bonus: Tensor, missing: Tensor, weight: float
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(T, N) combined advantages and (T, N, 2) returns of both streams."""
        cfg, net = self.config, self.net
        assert self.obs is not None
        done = self._terminated | self._truncated
        x, memory = each(_flat, self._x), self._memory.flatten(0, 1)
        value = net.value(x, memory).cpu().view(*done.shape, 2)
        last = net.value(net.normalize(each(self._tensor, self.obs)), self._remembered).cpu()
        after = torch.cat([value[1:], last[None]])  # of the observation to act on next
        ended = after.masked_fill(done[..., None], 0.0)  # of the state before the reset
        for t, rows, final_obs, memory in self._finals:
            ended[t, torch.from_numpy(rows)] = net.value(net.normalize(final_obs), memory).cpu()
        reward = self._reward.masked_fill(missing, 0.0)
        if cfg.scale_reward:
            self.ext_scale.update(reward, done)
            reward = self.ext_scale.normalize(reward)
        # a missing reward is not 0: it is taken to be what the critic expected
        guess = value[..., 0] - cfg.gamma * ended[..., 0]
        reward = torch.where(missing, guess, reward)
        ext = gae(reward, value[..., 0], ended[..., 0], done, cfg.gamma, cfg.lam)
        episodic = self.intrinsic is not None and self.intrinsic.horizon == "episodic"
        on = ended if episodic else after
        cut = done if episodic else torch.zeros_like(done)
        int_ = gae(bonus, value[..., 1], on[..., 1], cut, cfg.int_gamma, cfg.lam)
        returns = torch.stack([ext, int_], dim=-1) + value
        advantage = cfg.ext_coef * ext + weight * int_
        if cfg.sil_coef > 0:
            place = None
            if cfg.sil_cell_m > 0:
                x, y = (self._explore[1, ..., :2] / cfg.sil_cell_m).floor().long().unbind(-1)
                place = x * 1_000_003 + y
            self.sil.add(
                self._raw, self._trace, reward.nan_to_num(), done, self._success, self._length,
                place,
            )  # fmt: skip
        spread = cfg.ext_coef * float(ext.std()), weight * float(int_.std())
        return advantage, returns, {
            "intrinsic/share": spread[1] / max(sum(spread), 1e-12),
            "value/explained": _explained(value[..., 0], returns[..., 0]),
        }  # fmt: skip

    def _optimize(
        self, advantage: Tensor, returns: Tensor, usable: Tensor, weight: float
    ) -> dict[str, float]:
        cfg, net = self.config, self.net
        kept = usable.nonzero().squeeze(1)
        x, trace = each(_flat, self._x), self._trace.flatten(0, 1)
        with torch.no_grad():
            old = net.log_prob(x, trace, self._memory.flatten(0, 1)).cpu()
            scale = advantage.flatten()[kept]
            advantage = (advantage.flatten() - scale.mean()) / (scale.std() + 1e-8)
            columns = [old[:, None], advantage[:, None], returns.flatten(0, 1)]
            rest = torch.cat(columns, dim=1).to(self.device)
        heads = torch.tensor([1.0, 1.0 if weight > 0 else 0.0], device=self.device)
        pieces = math.ceil(len(kept) / cfg.minibatch)
        totals = torch.zeros(5)
        count = 0
        for _ in range(cfg.epochs):
            epoch_kl = 0.0
            for rows in self._minibatches(kept, pieces):
                stats = self._step(x, trace, rest, usable, rows, heads)
                totals += stats
                epoch_kl += float(stats[3]) / pieces
                count += 1
            if cfg.target_kl is not None and epoch_kl > 1.5 * cfg.target_kl:
                break
        if cfg.lr_schedule == "adaptive":
            target = cfg.target_kl or 0.01
            if epoch_kl > 2 * target:
                self.lr = max(self.lr / 1.5, 1e-5)
            elif epoch_kl < target / 2:
                self.lr = min(self.lr * 1.5, 1e-2)
        policy, ext, int_, kl, clipped = (totals / count).tolist()
        metrics = {
            "loss/policy": policy, "loss/value": ext, "loss/value_intrinsic": int_, "loss/kl": kl,
            "loss/clipped": clipped, "loss/entropy": float(net.entropy().detach()),
            "loss/std": float(net.log_std.detach().exp().mean()), "loss/lr": self.lr,
            "loss/clone_weight": self.clone_weight,
        }  # fmt: skip
        if cfg.sil_coef > 0:
            metrics |= self._imitate()
        return metrics

    def _minibatches(self, kept: Tensor, pieces: int) -> Iterator[Tensor]:
        """Row numbers of the flat rollout in random order, in ``pieces`` parts.

        (B,) usable rows each; of a policy that remembers (S, B), sequences of S steps.
        """
        if self.net.memory_dim == 0:
            yield from kept[torch.randperm(len(kept), generator=self.generator)].chunk(pieces)
            return
        (steps, n), length = self._reward.shape, self.config.sequence
        order = torch.randperm(steps // length * n, generator=self.generator)
        begins = order // n * (length * n) + order % n
        for starts in begins.chunk(pieces):
            yield starts + n * torch.arange(length)[:, None]

    def _step(
        self, x: Obs, trace: Tensor, rest: Tensor, usable: Tensor, rows: Tensor, heads: Tensor
    ) -> Tensor:
        """One gradient step on a minibatch; returns policy, value, value, KL, clipped."""
        cfg, net = self.config, self.net
        begin = rows[0] if rows.ndim == 2 else rows
        log_prob, value = net.evaluate(
            each(lambda part: part[rows], x), trace[rows], self._memory.flatten(0, 1)[begin],
            self._first.flatten()[rows],
        )  # fmt: skip
        rest = rest[rows]
        if rows.ndim == 2:
            good = usable[rows]
            log_prob, value, rest = log_prob[good], value[good], rest[good]
        old, advantage, returns = rest[:, 0], rest[:, 1], rest[:, 2:]
        log_ratio = log_prob - old
        ratio = log_ratio.exp()
        bounded = ratio.clamp(1 - cfg.clip, 1 + cfg.clip)
        policy = -torch.minimum(ratio * advantage, bounded * advantage).mean()
        errors = (value - returns).square().mean(dim=0)
        loss = cfg.vf_coef * (errors * heads).sum()
        if self.updates >= cfg.critic_first:
            loss = loss + policy - cfg.ent_coef * net.entropy()
        if self.clone_weight > 0 and self.demonstrations is not None:
            loss = loss + self.clone_weight * self.demonstrations(self.generator)
        self._descend(loss)
        with torch.no_grad():
            kl = (ratio - 1 - log_ratio).mean()
            clipped = (ratio != bounded).float().mean()
            return torch.stack([policy, errors[0], errors[1], kl, clipped]).cpu()

    def _imitate(self) -> dict[str, float]:
        """Self-imitation gradient steps, see :mod:`learning.self_imitation`."""
        cfg, net = self.config, self.net
        total = 0.0
        for _ in range(cfg.sil_batches if len(self.sil) else 0):
            obs, action, returns = self.sil.sample(cfg.minibatch, self.generator)
            loss = cfg.sil_coef * self.sil.loss(net, obs, action, returns)
            self._descend(loss)
            total += float(loss.detach())
        return {"loss/sil": total / cfg.sil_batches, "sil/transitions": float(len(self.sil))}

    def _descend(self, loss: Tensor) -> None:
        """Step down unless the gradient is not finite, which is counted and logged."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        actor, critic = self.net.groups()
        norm = nn.utils.clip_grad_norm_(actor, self.config.max_grad_norm)
        norm = norm + nn.utils.clip_grad_norm_(critic, self.config.max_grad_norm)
        if not math.isfinite(float(norm)):
            self.skipped += 1
            log.warning("gradient is not finite, step skipped (%d so far)", self.skipped)
            return
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on, environment and random state included."""
        return {
            "config": asdict(self.config),
            "net": dict(self.net.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "intrinsic": None if self.intrinsic is None else dict(self.intrinsic.state_dict()),
            "int_scale": self.int_scale.state_dict(),
            "ext_scale": self.ext_scale.state_dict(),
            "sil": self.sil.state_dict() if self.config.sil_coef > 0 else None,
            "steps": self.steps,
            "updates": self.updates,
            "skipped": self.skipped,
            "lr": self.lr,
            "anneal_from": self.anneal_from,
            "noise_from": self._noise_from,
            "windows": {name: list(window) for name, window in self.windows.items()},
            "obs": self.obs,
            "running": self.running,
            "noise": self._last_noise,
            "memory": self._remembered if self.net.memory_dim else None,
            "begins": self._begins if self.net.memory_dim else None,
            "env": self.env.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, bit for bit on one thread.

        Raises:
            ValueError: the checkpoint has a bonus or self-imitation and this learner has not, or
                the other way round.
        """
        mine = asdict(self.config)
        changed = {k: (v, mine.get(k)) for k, v in state["config"].items() if v != mine.get(k)}
        if changed:
            log.warning("resuming with other settings (saved, now): %s", changed)
        for name, have in (("intrinsic", self.intrinsic), ("sil", self.config.sil_coef or None)):
            if (state[name] is None) != (have is None):
                raise ValueError(f"{name} must be on or off as in the checkpoint, got {have!r}")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        if self.intrinsic is not None:
            self.intrinsic.load_state_dict(state["intrinsic"])
        self.int_scale.load_state_dict(state["int_scale"])
        self.ext_scale.load_state_dict(state["ext_scale"])
        if state["sil"] is not None:
            self.sil.load_state_dict(state["sil"])
        self.steps, self.updates, self.skipped = state["steps"], state["updates"], state["skipped"]
        self.lr, self.anneal_from = state["lr"], state["anneal_from"]
        self._noise_from = state.get("noise_from")
        self.windows = {k: deque(v, maxlen=WINDOW) for k, v in state["windows"].items()}
        self.obs, self.running = state["obs"], state["running"]
        self._last_noise = state.get("noise")
        if self.net.memory_dim:
            self._remembered = state["memory"].to(self.device)
            self._begins = state["begins"].to(self.device)
        self.env.load_state_dict(state["env"])

    def save(self, folder: str | os.PathLike[str], keep: int = 3) -> None:
        """Write a checkpoint into ``folder``, atomically, see :func:`learning.checkpoint.save`."""
        checkpoint.save(folder, self.state_dict(), keep)

    def load(self, folder: str | os.PathLike[str]) -> PPO:
        """Go on from the newest valid checkpoint in ``folder``."""
        self.load_state_dict(checkpoint.load(folder))
        return self


def _copied(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy; numbers as float32, frames as they are."""
    return np.array(array, dtype=np.uint8 if array.dtype == np.uint8 else np.float32)


def _flat(tensor: Tensor) -> Tensor:
    """(T, N, ...) -> (T N, ...)."""
    return tensor.flatten(0, 1)


def _explained(value: Tensor, returns: Tensor) -> float:
    """Share of the returns' variance that the critic explains; 0 where they do not vary."""
    spread = float(returns.var())
    return 1 - float((returns - value).var()) / spread if spread > 1e-12 else 0.0


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT into a flag; the second acts as it would have without us."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, previous)
        log.warning("stopping after this update; interrupt again to stop at once")

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
