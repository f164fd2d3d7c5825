r"""Online intrinsic rewards from an annotator's feedback, ONI (arXiv 2410.23022).

Each step has a caption (a message of the environment, a VLM's sentence). An annotator that may take
seconds labels captions in a thread of its own, and a reward model is distilled from the labels as
they come. The learner never waits.

.. math:: r_t = w \, \hat r(c_t) / N_{ep}(c_t)^3

:math:`N_{ep}` counts the caption in its episode. Three models: *retrieval* looks labels up and
gives 0 to what has none yet; *classification* learns them and so knows captions that were never
labelled; *ranking* learns from which of two captions is the better one. Here what ranking
normalizes and cuts off is what the learner gets (the published code computes it, then pays the raw
value).
"""

from __future__ import annotations

import logging
import math
import threading
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise ImportError("torch is missing: pip install 'incognita[train]'") from error

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Pair = tuple[str, str]
RETRY_S = 0.5
"""Pause after an annotator failed."""


@dataclass(frozen=True)
class OniConfig:
    """Numbers of the paper's code where it has them."""

    variant: Literal["retrieval", "classification", "ranking"] = "retrieval"
    weight: float = 0.4
    """Of the bonus; the paper takes it beside .1 times a dense or 10 times a sparse reward."""
    power: float = 3.0
    """Of the count in the episode."""
    batch: int = 100
    """Captions or pairs that the annotator gets at once, newest first."""
    queue: int = 4096
    """That wait for it; beyond, the oldest are dropped."""
    labels: int = 100_000
    """Labels kept; the oldest go."""
    pairs: int = 100
    """Offered at each update, ranking."""
    keep_above: float = -0.5
    """Normalized rewards from here down are 0, ranking."""
    buckets: int = 2048
    """Hashed character trigrams of a caption that the model sees."""
    hidden: int = 128
    lr: float = 1e-4
    train_batch: int = 256
    train_steps: int = 32
    """Gradient steps of an update."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variant not in ("retrieval", "classification", "ranking"):
            raise ValueError(f"variant: retrieval, classification, ranking, got {self.variant!r}")
        sizes = (self.batch, self.queue, self.labels, self.pairs, self.buckets, self.hidden)
        if min(*sizes, self.train_batch, self.train_steps) < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        if not (self.lr > 0 and self.power >= 0 and math.isfinite(self.weight)):
            raise ValueError(f"lr > 0, power >= 0 and a finite weight wanted, got {self}")


class Annotator(Generic[Item]):
    """Asks for labels in a thread: bounded, newest first, each item once."""

    def __init__(
        self,
        label: Callable[[Sequence[Item]], Sequence[float | None]],
        batch: int = 100,
        queue: int = 4096,
        labels: int = 100_000,
    ) -> None:
        """Args:
        label: one label in [0, 1] for each item, None where there is none. It may take long.
        """
        self._label, self._batch, self._queue, self._most = label, batch, queue, labels
        self._changed = threading.Condition()
        self._pending: OrderedDict[Item, None] = OrderedDict()  # newest last
        self._asked: OrderedDict[Item, None] = OrderedDict()
        self._new: list[tuple[Item, float]] = []
        self._closed = False
        self.counts = Counter[str](labelled=0, dropped=0, unanswered=0, failures=0)
        self._thread = threading.Thread(target=self._work, name="annotator", daemon=True)
        self._thread.start()

    def offer(self, items: Sequence[Item]) -> None:
        """Have items labelled that are not yet; returns at once."""
        with self._changed:
            for item in items:
                if item not in self._asked:
                    self._pending[item] = None
                    self._pending.move_to_end(item)
            while len(self._pending) > self._queue:
                self._pending.popitem(last=False)
                self.counts["dropped"] += 1
            self._changed.notify()

    def collect(self) -> list[tuple[Item, float]]:
        """Labels that came since the last time."""
        with self._changed:
            new, self._new = self._new, []
        return new

    def close(self) -> None:
        """Stop asking; an answer that is under way is not waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(0.5)

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            try:
                labels = self._label(batch)
                if len(labels) != len(batch):
                    raise ValueError(f"wanted {len(batch)} labels, got {len(labels)}")
            except Exception as error:
                log.warning("annotator failed: %s", type(error).__name__)
                self._put(batch, [None] * len(batch), failed=True)
            else:
                self._put(batch, labels)

    def _take(self) -> list[Item] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed)
            if self._closed:
                return None
            size = min(self._batch, len(self._pending))
            batch = [self._pending.popitem()[0] for _ in range(size)]
            self._asked.update(dict.fromkeys(batch))
            while len(self._asked) > self._most:
                self._asked.popitem(last=False)
            return batch

    def _put(self, batch: list[Item], labels: Sequence[float | None], failed: bool = False) -> None:
        with self._changed:
            for item, label in zip(batch, labels, strict=True):
                if label is not None and 0 <= label <= 1:  # NaN is not
                    self._new.append((item, float(label)))
                    self.counts["labelled"] += 1
                else:
                    self._asked.pop(item, None)  # it is asked again when it is seen again
                    self.counts["unanswered"] += 1
            if failed:
                self.counts["failures"] += 1
                self._changed.wait_for(lambda: self._closed, RETRY_S)


@lru_cache(maxsize=8192)
def _trigrams(caption: str, buckets: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Buckets of a caption's trigrams, and their counts over the length of their vector."""
    text = f"^{caption}$"
    grams = [text[k : k + 3].encode() for k in range(max(len(text) - 2, 1))]
    found = Counter(zlib.crc32(gram) % buckets for gram in grams)
    counts = np.array(list(found.values()), np.float32)
    return np.array(list(found), np.int64), counts / np.linalg.norm(counts)


def features(captions: Sequence[str], buckets: int) -> Tensor:
    """(B, buckets) hashed character trigrams, each row of length 1."""
    out = np.zeros((len(captions), buckets), np.float32)
    for row, caption in enumerate(captions):
        where, value = _trigrams(caption, buckets)
        out[row, where] = value
    return torch.from_numpy(out)


class OniReward:
    """Bonus of N environments that run in parallel.

    >>> oni = OniReward(annotator_function, num_envs=8)
    >>> bonus = oni.step(captions, done)  # every step
    >>> oni.update()                      # once a rollout
    """

    def __init__(
        self,
        label: Callable[[Sequence[Any]], Sequence[float | None]],
        num_envs: int,
        config: OniConfig | None = None,
    ) -> None:
        """Args:
        label: of captions, how helpful each is, 0 to 1; for ranking of pairs of captions, the
            probability that the first is the better one.
        """
        self.config = c = config or OniConfig()
        self.annotator: Annotator[Any] = Annotator(label, c.batch, c.queue, c.labels)
        self.labels: OrderedDict[Any, float] = OrderedDict()
        """What the annotator said, caption or pair -> label."""
        self._counts = [Counter[str]() for _ in range(num_envs)]
        self._recent: deque[str] = deque(maxlen=1000)
        self._rng = np.random.default_rng(c.seed)
        self._net = _net(c)
        self._optimizer = torch.optim.Adam(self._net.parameters(), c.lr)
        self._seen, self._mean, self._m2 = 0, 0.0, 0.0  # of raw ranking values
        self._values: dict[str, float] = {}
        self._steps, self._unknown, self._paid = 0, 0, 0.0

    def step(self, captions: Sequence[str], done: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Bonuses of one step, and the captions offered for labelling.

        Args:
            captions: N; an empty one has no bonus.
            done: (N,) the episode is over with this step.

        Returns:
            (N,) weighted and divided by the count; finite.
        """
        if len(captions) != len(self._counts) or len(done) != len(captions):
            raise ValueError(f"{len(self._counts)} captions and done wanted, got {len(captions)}")
        said = [caption for caption in captions if caption]
        self._offer(said)
        values = self._value(said)
        out = np.zeros(len(captions))
        for i, caption in enumerate(captions):
            if caption:
                self._counts[i][caption] += 1
                out[i] = values[caption] / self._counts[i][caption] ** self.config.power
            if done[i]:
                self._counts[i].clear()
        out *= self.config.weight
        self._steps += len(said)
        self._paid += float(out.sum())
        return out

    def update(self) -> dict[str, float]:
        """Take in what the annotator said meanwhile, and learn from it; metrics."""
        for item, label in self.annotator.collect():
            self.labels[item] = label
            while len(self.labels) > self.config.labels:
                self.labels.popitem(last=False)
        if self.config.variant == "ranking":
            self._offer_pairs()
        loss = self._learn() if self.config.variant != "retrieval" and self.labels else math.nan
        self._values.clear()
        steps = max(self._steps, 1)
        metrics = {"labels": float(len(self.labels)), "unlabelled_share": self._unknown / steps}
        metrics |= {"bonus_mean": self._paid / steps, "loss": loss}
        self._steps, self._unknown, self._paid = 0, 0, 0.0
        return metrics | {name: float(n) for name, n in self.annotator.counts.items()}

    def restart(self) -> None:
        """All environments begin new episodes."""
        for counts in self._counts:
            counts.clear()

    def close(self) -> None:
        """End the annotator's thread."""
        self.annotator.close()

    def state_dict(self) -> dict[str, Any]:
        """Labels, model and statistics; episodes under way are not in it."""
        return {
            "config": asdict(self.config), "net": self._net.state_dict(),
            "optimizer": self._optimizer.state_dict(), "rng": self._rng.bit_generator.state,
            "labels": [[item, label] for item, label in self.labels.items()],
            "scale": [self._seen, self._mean, self._m2],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises:
            ValueError: it is of another configuration.
        """
        if state["config"] != asdict(self.config):
            raise ValueError(f"config must be {state['config']}, got {asdict(self.config)}")
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng.bit_generator.state = state["rng"]
        pairs = self.config.variant == "ranking"
        self.labels = OrderedDict((tuple(k) if pairs else k, v) for k, v in state["labels"])
        self._seen, self._mean, self._m2 = state["scale"]
        self._values.clear()

    def _offer(self, captions: list[str]) -> None:
        if self.config.variant == "ranking":
            self._recent.extend(caption for caption in captions if caption not in self._values)
        else:
            self.annotator.offer([caption for caption in captions if caption not in self.labels])

    def _offer_pairs(self) -> None:
        known = sorted(set(self._recent))
        if len(known) > 1:
            drawn = [
                self._rng.choice(len(known), 2, replace=False) for _ in range(self.config.pairs)
            ]
            self.annotator.offer([(known[i], known[j]) for i, j in drawn])

    def _value(self, captions: list[str]) -> dict[str, float]:
        """Caption -> reward before weight and count; the same until the next update."""
        if self.config.variant == "retrieval":
            self._unknown += sum(caption not in self.labels for caption in captions)
            return {caption: self.labels.get(caption, 0.0) for caption in captions}
        new = list(dict.fromkeys(c for c in captions if c not in self._values))
        if new and not self.labels:
            self._unknown += len(captions)
            return dict.fromkeys(captions, 0.0)  # nothing is learned yet
        if new:
            with torch.no_grad():
                raw = self._net(features(new, self.config.buckets))[:, 0].double().numpy()
            if self.config.variant == "classification":
                raw = (raw > 0).astype(float)  # P > .5
            else:
                raw = self._normalized(raw)
            self._values.update(zip(new, raw.tolist(), strict=True))
        return {caption: self._values[caption] for caption in captions}

    def _normalized(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the running mean and deviation; small ones are 0."""
        for x in raw:  # Welford
            self._seen += 1
            step = x - self._mean
            self._mean += step / self._seen
            self._m2 += step * (x - self._mean)
        deviation = math.sqrt(self._m2 / self._seen) if self._m2 > 0 else 1.0
        z = (raw - self._mean) / max(deviation, 1e-6)
        return np.where(z > self.config.keep_above, z, 0.0)

    def _learn(self) -> float:
        c, items = self.config, list(self.labels)
        wanted = torch.tensor(list(self.labels.values()))
        losses = []
        for _ in range(c.train_steps):
            rows = self._rng.integers(len(items), size=min(c.train_batch, len(items)))
            batch = [items[k] for k in rows]
            if c.variant == "ranking":  # Bradley and Terry 1952
                first = self._net(features([a for a, _ in batch], c.buckets))[:, 0]
                logits = first - self._net(features([b for _, b in batch], c.buckets))[:, 0]
            else:
                logits = self._net(features(batch, c.buckets))[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted[rows])
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))


def _net(c: OniConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(c.seed)
        return nn.Sequential(nn.Linear(c.buckets, c.hidden), nn.ReLU(), nn.Linear(c.hidden, 1))
