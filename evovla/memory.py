r"""Long-horizon memory (EvoVLA, arXiv:2511.16166, Eqs. 9 to 12), step by step or over sequences.

.. math:: \tilde x_t = (1 - g_t) x_t + g_t \hat h_t, \qquad g_t = \sigma(w^\top [\hat h_t; x_t])

The paper describes it twice, and not alike: slots that are read by attention, and a GRU with a
sigmoid readout. Both are here, behind one face, and so is none (``kind="off"``). A memory holds
weights alone. What a row remembers is a tuple of tensors that the caller carries, (B, ...) each;
all zeros is an empty memory, so a row is forgotten by zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from curiosity.base import EnvIds, env_rows

State = tuple[Tensor, ...]
"""What B rows remember, (B, ...) float32 each."""
_NEVER = -1e9


@dataclass(frozen=True)
class MemoryConfig:
    """Kind and sizes of a memory."""

    kind: Literal["attention", "gru", "off"] = "attention"
    """Slots read by attention, one recurrent state, or nothing."""
    dim: int = 128
    """Width of x, d; even."""
    slots: int = 16
    """Moments kept by attention, L."""
    top_k: int = 4
    """Moments that are read at a step (the paper gives no number)."""
    usage_weight: float = 0.5
    """Of a slot's usage in what it is worth keeping; 1 is the weight of its learned strength."""
    usage_decay: float = 0.99
    """Share of the usage that is left after a step."""
    recency_weight: float = 0.1
    """Of a slot's recency."""
    recency_steps: float = 32.0
    """Steps in which the recency falls to 1 / e."""
    redundancy_weight: float = 1.0
    """Of what is said again by a newer slot."""
    alike: float = 0.95
    """Cosine from which on one slot begins to say what another says."""
    horizon: int = 200
    """Steps over which the recurrent state is kept at first (Tallec and Ollivier 2018)."""
    seed: int = 0
    """Of the weights."""

    def __post_init__(self) -> None:
        if self.kind not in ("attention", "gru", "off"):
            raise ValueError(f'kind must be "attention", "gru" or "off", got {self.kind!r}')
        if self.dim < 2 or self.dim % 2 or not 1 <= self.top_k <= self.slots:
            raise ValueError(f"dim must be even and >= 2, 1 <= top_k <= slots, got {self}")
        if min(self.usage_weight, self.recency_weight, self.redundancy_weight) < 0:
            raise ValueError(f"weights must be >= 0, got {self}")
        if not (0 <= self.usage_decay <= 1 and -1 <= self.alike < 1 and self.recency_steps > 0):
            raise ValueError(f"usage_decay in [0, 1], alike in [-1, 1), got {self}")
        if self.horizon < 3:
            raise ValueError(f"horizon must be >= 3 steps, got {self.horizon}")


class Memory(nn.Module):
    """No memory: x comes out as it went in. Base of the two that remember; see :func:`memory`."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config

    def initial(self, rows: int) -> State:
        """The state of ``rows`` rows that remember nothing, on the device of the weights."""
        del rows
        return ()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """One step, at acting time or in training.

        Args:
            x: (B, dim) what is seen now.
            state: from :meth:`initial`, or from the step before.

        Returns:
            (B, dim) what is seen and remembered; (B,) gate g in [0, 1] for the progress reward,
            without gradient; the next state. Without a memory the gate is 1: nothing is held back.
        """
        return x, torch.ones_like(x[:, 0]), state

    def sequence(
        self, x: Tensor, state: State, first: Tensor, truncate: int | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """The same steps over a rollout, with gradient through time.

        Args:
            x: (T, B, dim).
            state: before the first step, as it was when the rollout began.
            first: (T, B) bool, an episode begins here: the row forgets before this step.
            truncate: cut the gradient every so many steps; None never does.

        Returns:
            (T, B, dim), gates (T, B), and the state after the last step.

        Raises:
            ValueError: wrong shapes, or no step at all.
        """
        dim, lead = self.config.dim, tuple(first.shape)
        if x.ndim != 3 or x.shape[2] != dim or x.shape[0] < 1:
            raise ValueError(f"x must be (T, B, {dim}), T >= 1, got {tuple(x.shape)}")
        if lead != tuple(x.shape[:2]):
            raise ValueError(f"first must be {tuple(x.shape[:2])} like x, got {lead}")
        if truncate is not None and truncate < 1:
            raise ValueError(f"truncate must be >= 1 step or None, got {truncate}")
        begins = first.any(dim=1).tolist()
        out, gates = [], []
        for t in range(len(x)):
            if truncate is not None and t % truncate == 0:
                state = tuple(part.detach() for part in state)
            if begins[t]:
                state = _without(state, first[t])
            seen, gate, state = self(x[t], state)
            out.append(seen)
            gates.append(gate)
        return torch.stack(out), torch.stack(gates), state

    @staticmethod
    def reset(state: State, env_ids: EnvIds = None) -> State:
        """A copy of the state in which these rows (all by default) remember nothing."""
        if not state:
            return state
        rows = torch.from_numpy(env_rows(env_ids, len(state[0]))).to(state[0].device)
        gone = torch.zeros(len(state[0]), dtype=torch.bool, device=rows.device)
        gone[rows] = True
        return _without(state, gone)


class AttentionMemory(Memory):
    r"""Up to L moments of the episode, read by attention.

    .. math:: a_i \propto s_i \exp(q^\top k_i / \sqrt d), \qquad
        \hat h = \sum_{i \in top K} a_i W_v m_i, \qquad k_i = W_k (m_i + PE(\tau_i))

    with the query :math:`W_q (x + PE(t))`, and m the :math:`\tilde x` of step :math:`\tau`. What
    the paper leaves open, and we do:

    * *Selective write.* A moment has a strength :math:`s = \sigma(w_s^\top \tilde x)`, learned
      because it weighs in the attention. Among the L slots and the new moment, the one that is
      worth least goes; it may be the new one.
    * *Worth*: strength + usage (the largest attention it got, decaying) + recency - redundancy (how
      near a *newer* moment is, so that of a standing scene the last view stays).
    * The top K weights are normalized to sum 1.

    The state: slots (B, L, d), strength (B, L) with 0 for an empty slot, time (B, L), usage (B, L),
    clock (B,) in steps since the episode began.
    """

    frequency: Tensor
    places: Tensor

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config)
        d, g = config.dim, torch.Generator().manual_seed(config.seed)
        self.query, self.key = _linear(d, d, g, False), _linear(d, d, g, False)
        self.value = _linear(d, d, g, False)
        self.gate, self.strength = _linear(2 * d, 1, g), _linear(d, 1, g)
        half = torch.arange(d // 2) / (d // 2)
        self.register_buffer("frequency", 1e4**-half, persistent=False)  # Vaswani et al. 2017
        self.register_buffer("places", torch.arange(config.slots), persistent=False)

    def initial(self, rows: int) -> State:
        """No slot filled."""
        cfg, like = self.config, self.query.weight
        per_slot = like.new_zeros(rows, cfg.slots)
        slots = like.new_zeros(rows, cfg.slots, cfg.dim)
        return slots, per_slot, per_slot.clone(), per_slot.clone(), like.new_zeros(rows)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Read, fuse, write."""
        slots, strength = state[:2]
        weight = self.attention(x, state)
        told = self.value((weight.unsqueeze(1) @ slots).squeeze(1))
        there = (strength > 0).any(dim=1, keepdim=True)
        gate = torch.sigmoid(self.gate(torch.cat((told, x), dim=1))) * there
        fused = (1 - gate) * x + gate * told
        return fused, gate.detach().squeeze(1), self._write(fused, weight.detach(), state)

    def attention(self, x: Tensor, state: State) -> Tensor:
        """(B, L) weights of the slots: top K, of sum 1, or 0 where nothing is remembered."""
        slots, strength, time, _, clock = state
        asked = self.query(x + self.when(clock)) @ self.key.weight  # (B, d), W_k^T q
        score = ((slots + self.when(time)) @ asked.unsqueeze(2)).squeeze(2)
        score = score / math.sqrt(self.config.dim) + strength.clamp(min=1e-6).log()
        filled = strength > 0
        score = torch.where(filled, score, _NEVER)
        least = score.topk(self.config.top_k, dim=1).values[:, -1:]
        return torch.where(score >= least, score, _NEVER).softmax(dim=1) * filled

    def when(self, time: Tensor) -> Tensor:
        """(..., d) sines and cosines of steps (...)."""
        angle = time.unsqueeze(-1) * self.frequency
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def _write(self, fused: Tensor, weight: Tensor, state: State) -> State:
        """Let the new moment take the place of the one that is worth least."""
        slots, strength, time, usage, clock = state
        new = torch.sigmoid(self.strength(fused))  # (B, 1)
        usage = torch.maximum(self.config.usage_decay * usage, weight)
        worth = self._worth(slots, strength, time, usage, clock, fused, new)
        here = worth.argmin(dim=1, keepdim=True) == self.places  # none where the new one goes
        slots = torch.where(here.unsqueeze(2), fused.unsqueeze(1), slots)
        strength = torch.where(here, new.clamp(min=1e-6), strength)
        time = torch.where(here, clock.unsqueeze(1), time)
        usage = torch.where(here, torch.zeros_like(usage), usage)
        return slots, strength, time, usage, clock + 1

    @torch.no_grad()
    def _worth(
        self, slots: Tensor, strength: Tensor, time: Tensor, usage: Tensor, clock: Tensor,
        fused: Tensor, new: Tensor,
    ) -> Tensor:  # fmt: skip
        """(B, L + 1) what the slots, and last the new moment, are worth; empty ones least."""
        cfg = self.config
        item = torch.cat((slots, fused.unsqueeze(1)), dim=1)
        unit = item / item.norm(dim=2, keepdim=True).clamp(min=1e-6)
        cosine = unit @ unit.transpose(1, 2)  # (B, L + 1, L + 1)
        since = torch.cat((time, clock.unsqueeze(1)), dim=1)
        filled = torch.cat((strength, new), dim=1) > 0
        newer = (since.unsqueeze(1) > since.unsqueeze(2)) & filled.unsqueeze(1)
        again = ((cosine - cfg.alike) / (1 - cfg.alike)).clamp(min=0) * newer
        recency = ((since - clock.unsqueeze(1)) / cfg.recency_steps).exp()
        used = torch.cat((usage, torch.zeros_like(new)), dim=1)
        worth = torch.cat((strength, new), dim=1) + cfg.usage_weight * used
        worth = worth + cfg.recency_weight * recency
        worth = worth - cfg.redundancy_weight * again.max(dim=2).values
        return torch.where(filled, worth, _NEVER)


class GRUMemory(Memory):
    """One recurrent state of width d (Cho et al. 2014), read out and mixed in by the same gate.

    The state: (B, d). The gates that keep start open for up to ``horizon`` steps (Tallec and
    Ollivier 2018, "chrono" initialization): without, nothing is learned from 60 steps ago.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config)
        d, g = config.dim, torch.Generator().manual_seed(config.seed)
        self.inputs, self.hidden = _linear(d, 3 * d, g), _linear(d, 3 * d, g)
        self.value, self.gate = _linear(d, d, g, False), _linear(2 * d, 1, g)
        steps = 1 + (config.horizon - 2) * torch.rand(d, generator=g)
        with torch.no_grad():
            self.inputs.bias[d : 2 * d] = steps.log()

    def initial(self, rows: int) -> State:
        """Zeros."""
        return (self.value.weight.new_zeros(rows, self.config.dim),)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Remember, read, fuse."""
        (h,) = state
        reset, keep, new = self.inputs(x).chunk(3, dim=1)
        reset_h, keep_h, new_h = self.hidden(h).chunk(3, dim=1)
        keep = torch.sigmoid(keep + keep_h)
        new = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
        h = (1 - keep) * new + keep * h
        told = self.value(h)
        gate = torch.sigmoid(self.gate(torch.cat((told, x), dim=1)))
        return (1 - gate) * x + gate * told, gate.detach().squeeze(1), (h,)


def memory(config: MemoryConfig) -> Memory:
    """The memory of this kind."""
    kinds = {"attention": AttentionMemory, "gru": GRUMemory, "off": Memory}
    return kinds[config.kind](config)


def _without(state: State, gone: Tensor) -> State:
    """The state with zeros in the rows (B,) that are gone."""
    return tuple(part.masked_fill(gone.view(-1, *[1] * (part.ndim - 1)), 0.0) for part in state)


def _linear(inputs: int, outputs: int, g: torch.Generator, bias: bool = True) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore
    nn.init.orthogonal_(layer.weight, generator=g)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
