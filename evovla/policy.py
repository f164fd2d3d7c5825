"""The vision-language-action policy: cameras, texts, numbers and memory in, chunks of actions out.

One class for all: without ``views`` it sees numbers alone (the state variant), without a memory it
forgets, with either head it is cloned and improved by :class:`learning.ppo.PPO`. EvoVLA (arXiv
2511.16166) fine-tunes a model of 7e9 weights; this one has some 1e5 and is trained from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from learning.policy import Arrays, Policy, Sample, Sampler, each, state_of

from .heads import FlowHead, L1Head
from .memory import MemoryConfig, State, memory
from .stages import StageDictionary
from .tiny_scorer import tokens
from .vision import PATCH, Camera

ALL_DONE = "all is done, stay still"
PART = 1024
"""Rows with frames that are looked at at once outside training, to bound memory."""


@dataclass(frozen=True)
class VLAConfig:
    """What a policy sees, says and consists of."""

    obs_dim: int
    """Numbers seen; one of them is the share of the K stages that are done, stage / K."""
    texts: tuple[str, ...]
    """K + 1 texts: what is to be done in each stage, and when all is done; :func:`policy_texts`."""
    stage_column: int = -1
    """Which of the numbers that share is; negative ones count from the end."""
    action_dim: int = 5
    """Of one action, A."""
    views: tuple[str, ...] = ()
    """Cameras, in the order of the frames; none is the state variant."""
    side: int = 64
    """Of the square frames, pixels; a multiple of 4."""
    channels: int = 32
    """Of the convolutions; a multiple of 4."""
    maps: int = 16
    """Places that are looked at in a view."""
    width: int = 128
    """Of what is seen, and of the memory."""
    text_width: int = 32
    buckets: int = 1024
    """Of the hash of trigrams."""
    chunk: int = 8
    """Actions that are foreseen, C."""
    execute: int = 1
    """Of them, how many are carried out before the next look: 1 as in the paper, up to C."""
    head: Literal["l1", "flow"] = "l1"
    flow_steps: int = 4
    """Euler steps of the flow, K."""
    init_log_std: float = -1.0
    """Log standard deviation of the noise of exploration at the start; actions span [-1, 1]."""
    memory: MemoryConfig = MemoryConfig(kind="off")
    seed: int = 0
    """Of the weights."""

    def __post_init__(self) -> None:
        for name in ("texts", "views"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.memory, dict):  # from JSON
            object.__setattr__(self, "memory", MemoryConfig(**self.memory))
        sizes = (self.obs_dim, self.action_dim, self.maps, self.text_width, self.flow_steps)
        if min(sizes) < 1 or self.buckets < 2:
            raise ValueError(f"sizes must be >= 1, buckets >= 2, got {self}")
        if len(self.texts) < 2 or not all(text.strip() for text in self.texts):
            raise ValueError(f"texts must be of stages and of all done, got {self.texts}")
        if not -self.obs_dim <= self.stage_column < self.obs_dim:
            raise ValueError(f"stage_column must be one of {self.obs_dim}, got {self.stage_column}")
        if len(set(self.views)) != len(self.views):
            raise ValueError(f"views must be different names, got {self.views}")
        if self.side % PATCH or self.side < 16 or self.channels % 4 or self.channels < 4:
            raise ValueError(f"side and channels must be multiples of 4, side >= 16, got {self}")
        if not 1 <= self.execute <= self.chunk:
            raise ValueError(f"1 <= execute <= chunk wanted, got {self.execute}, {self.chunk}")
        if self.head not in ("l1", "flow"):
            raise ValueError(f'head must be "l1" or "flow", got {self.head!r}')
        if self.memory.dim != self.width:
            raise ValueError(f"memory.dim must be width {self.width}, got {self.memory.dim}")
        if not math.isfinite(self.init_log_std):
            raise ValueError(f"init_log_std must be finite, got {self.init_log_std}")


def policy_texts(dictionary: StageDictionary) -> tuple[str, ...]:
    """What a policy is told in each stage, the result that is wanted; last, that all is done."""
    return (*(stage.positive for stage in dictionary.stages), ALL_DONE)


class Seen:
    """What one look at B rows gave."""

    def __init__(self, fused: Tensor, about: Tensor) -> None:
        self.fused = fused
        """(B, width) before the memory."""
        self.about = about
        """(B, ...) numbers, texts and views, for the critic: no gradient flows back from it."""


class VLAPolicy(Policy):
    """See the module. Observations are rows of numbers, or with ``views`` dicts that hold these
    and frames, see :data:`learning.policy.Obs`. The stage in them may be the true or a believed
    one.
    """

    words: Tensor

    def __init__(self, config: VLAConfig) -> None:
        c = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            super().__init__(c.obs_dim, c.execute * c.action_dim)
            self.config = c
            self.register_buffer("words", _tokens(c.texts, c.buckets), persistent=False)
            self.grams = nn.Embedding(c.buckets, c.text_width, padding_idx=0)
            self.phrases = nn.Conv1d(c.text_width, c.text_width, 3, padding=1)
            self.stages = nn.Parameter(0.1 * torch.randn(len(c.texts), c.text_width))
            self.cameras = nn.ModuleList(
                Camera(c.side, c.channels, c.maps, c.width // 2) for _ in c.views
            )
            about = c.obs_dim + c.text_width + len(c.views) * (c.width // 2)
            self.fuse, self.film = nn.Linear(about, c.width), nn.Linear(c.text_width, 2 * c.width)
            self.norm, self.deep = nn.LayerNorm(c.width), nn.Linear(c.width, c.width)
            self.memory = memory(c.memory)
            self.trunk = nn.Linear(2 * c.width, c.width)
            sizes = (c.width, c.chunk, c.execute, c.action_dim)
            self.head = FlowHead(*sizes, c.flow_steps) if c.head == "flow" else L1Head(*sizes)
            self.critic = nn.Sequential(
                nn.Linear(about + c.width, c.width), nn.Tanh(),
                nn.Linear(c.width, c.width), nn.Tanh(), nn.Linear(c.width, 2),
            )  # fmt: skip
        self.log_std = nn.Parameter(self.head.noise(c.init_log_std))
        self.trace_dim = self.head.trace_dim
        self._parts = [part[0].shape for part in self.memory.initial(1)]
        self.memory_dim = sum(math.prod(shape) for shape in self._parts)

    # seeing and remembering

    def whitener(self) -> Callable[[Any], Any]:
        """See :meth:`learning.policy.Policy.whitener`; stage and frames stay as they are."""
        plain, column = super().whitener(), self.config.stage_column

        def whiten(obs: Any) -> Any:
            numbers = state_of(obs)
            x = plain(numbers)
            x[..., column] = numbers[..., column]
            return obs | {"state": x} if isinstance(obs, dict) else x

        return whiten

    def told(self) -> Tensor:
        """(K + 1, text_width) what is understood of the texts, and of their numbers."""
        there = (self.words > 0).float()
        words = self.grams(self.words).sum(dim=2) / there.sum(dim=2, keepdim=True).clamp(min=1)
        word = (there.sum(dim=2) > 0).float()[:, None]
        phrases = functional.gelu(self.phrases(words.transpose(1, 2))) * word
        return phrases.sum(dim=2) / word.sum(dim=2).clamp(min=1) + self.stages

    def look(self, x: Any, told: Tensor | None = None) -> Seen:
        """Normalized observations of B rows -> what is seen, before the memory.

        Args:
            told: :meth:`told`, worked out once for many looks with the same weights.
        """
        numbers = state_of(x)
        last = len(self.config.texts) - 1
        share = numbers[:, self.config.stage_column].clamp(0.0, 1.0)
        told = (self.told() if told is None else told)[(share * last).round().long()]
        parts = [numbers, told]
        for v, camera in enumerate(self.cameras):
            parts.append(functional.gelu(camera(x["frames"][:, v])))
        about = torch.cat(parts, dim=1)
        scale, shift = self.film(told).chunk(2, dim=1)
        h = functional.gelu(self.norm(self.fuse(about)) * (1 + scale) + shift)
        return Seen(h + functional.gelu(self.deep(h)), about.detach())

    def look_on(self, x: Any, memory: Tensor, first: Tensor) -> tuple[Seen, Tensor]:
        """:meth:`look` at S steps of B rows, and what comes out of the memory, (S * B, ...) each.

        Args:
            x: (S, B, ...) normalized observations.
            memory: (B, memory_dim) before the first step.
            first: (S, B) bool, an episode begins here: nothing is remembered.
        """
        seen = self.look(each(lambda part: part.flatten(0, 1), x))
        steps = seen.fused.view(*first.shape, -1)
        return seen, self.memory.sequence(steps, self.unpack(memory), first)[0].flatten(0, 1)

    def think(self, seen: Tensor, remembered: Tensor) -> Tensor:
        """(B, width) what the head reads; the first argument goes round the memory."""
        return functional.gelu(self.trunk(torch.cat([seen, remembered], dim=1)))

    def pack(self, state: State, rows: int) -> Tensor:
        """A memory's state as (B, memory_dim)."""
        if not state:
            return self.log_std.new_zeros(rows, 0)
        return torch.cat([p.flatten(1) if p.ndim > 1 else p[:, None] for p in state], dim=1)

    def unpack(self, flat: Tensor) -> State:
        """And back."""
        if not flat.shape[1]:
            return ()
        sizes = [math.prod(shape) for shape in self._parts]
        parts = torch.split(flat, sizes, dim=1)
        return tuple(p.view(-1, *shape) for p, shape in zip(parts, self._parts, strict=True))

    # acting

    def forward(
        self, x: Any, memory: Tensor, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Chunk without noise (B, C * A) in [-1, 1], memory after this step, gate (B,).

        Args:
            x: normalized observations of B rows.
            memory: (B, memory_dim).
            told: see :meth:`look`.
        """
        seen = self.look(x, told).fused
        fused, gate, state = self.memory(seen, self.unpack(memory))
        chunk = self.head.best(self.think(seen, fused)).clamp(-1.0, 1.0)
        return chunk, self.pack(state, len(seen)), gate

    @torch.no_grad()
    def chunk(
        self, obs: Arrays, memory: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same on arrays: raw observations and memory -> chunks (B, C, A) and memory."""
        device = self.log_std.device
        x = self.normalize(each(lambda part: torch.from_numpy(part).to(device), obs))
        chunk, after, _ = self.forward(x, torch.from_numpy(memory).to(device))
        shape = (-1, self.config.chunk, self.config.action_dim)
        return chunk.view(shape).cpu().numpy(), after.cpu().numpy()

    # what PPO asks for

    def sampler(self) -> Sampler:
        """See :meth:`learning.policy.Policy.sampler`."""
        with torch.no_grad():
            log_std, told = self.log_std.detach(), self.told()

        @torch.no_grad()
        def sample(x: Any, memory: Tensor, noise: Tensor) -> Sample:
            seen = self.look(x, told).fused
            fused, gate, state = self.memory(seen, self.unpack(memory))
            trace, action = self.head.draw(self.think(seen, fused), noise, log_std)
            return Sample(trace, action.clamp(-1.0, 1.0), self.pack(state, len(seen)), gate)

        return sample

    def log_prob(self, x: Any, trace: Tensor, memory: Tensor) -> Tensor:
        """See :meth:`learning.policy.Policy.log_prob`."""
        return self._by_parts(lambda *part: self._one(*part)[0], x, trace, memory)

    def value(self, x: Any, memory: Tensor) -> Tensor:
        """See :meth:`learning.policy.Policy.value`."""
        return self._by_parts(lambda *part: self._one(*part)[1], x, None, memory)

    def evaluate(
        self, x: Any, trace: Tensor, memory: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`learning.policy.Policy.evaluate`."""
        if not self.memory_dim:
            return self._one(x, trace, memory)
        seen, fused = self.look_on(x, memory, first)
        log_prob, value = self._judge(seen, fused, trace.flatten(0, 1))
        return log_prob.view(first.shape), value.view(*first.shape, 2)

    def entropy(self) -> Tensor:
        """See :meth:`learning.policy.Policy.entropy`."""
        return self.head.entropy(self.log_std)

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """See :meth:`learning.policy.Policy.groups`."""
        critic = list(self.critic.parameters())
        apart = {id(p) for p in critic}
        return [p for p in self.parameters() if id(p) not in apart], critic

    def _one(self, x: Any, trace: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.look(x)
        fused = self.memory(seen.fused, self.unpack(memory))[0]
        return self._judge(seen, fused, trace)

    def _judge(self, seen: Seen, fused: Tensor, trace: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-densities (B,), zeros without a trace, and values (B, 2)."""
        value = self.critic(torch.cat([seen.about, fused.detach()], dim=1))
        if trace is None:
            return value[:, 0].new_zeros(len(value)), value
        return self.head.log_prob(self.think(seen.fused, fused), trace, self.log_std), value

    def _by_parts(
        self, f: Callable[..., Tensor], x: Any, trace: Tensor | None, memory: Tensor
    ) -> Tensor:
        rows = range(0, len(memory), PART)
        cut = [slice(i, i + PART) for i in rows]
        return torch.cat([
            f(each(lambda part, s=s: part[s], x), None if trace is None else trace[s], memory[s])
            for s in cut
        ])  # fmt: skip


def config_json(config: VLAConfig) -> dict[str, Any]:
    """As JSON holds it; ``VLAConfig(**that)`` is the same again."""
    return asdict(config)


def _tokens(texts: tuple[str, ...], buckets: int) -> Tensor:
    """(K + 1, words, trigrams) of the texts, as short as they allow."""
    found = np.stack([tokens(text, buckets) for text in texts])
    most = int((found > 0).any(axis=(0, 2)).sum())
    return torch.from_numpy(found[:, : max(most, 1)].copy())
