r"""Training of the small scorer: frames, and which stages' results hold in them.

The loss is on what the reward reads, the triplet of each stage. With
:math:`l_k = s^+_k / \tau - \log \sum_j e^{s^-_{k,j} / \tau}` over the negative and the hard
negatives, it is the cross-entropy of :math:`\sigma(l_k)` with whether stage k's result holds: the
positive must beat every near miss in frames where it is true, and lose to one of them elsewhere.
The labels come from the simulator (the paper has a pretrained CLIP and no training of it).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .scorer import Images, check_images
from .stages import StageDictionary
from .tiny_scorer import TinyContrastive
from .triplets import Triplets

Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class TinyTraining:
    """How the scorer is trained."""

    steps: int = 3000
    batch: int = 96
    """Frames per step."""
    lr: float = 1e-3
    """Peak; warmed up over a twentieth of the steps, then down to 0 along a cosine."""
    weight_decay: float = 1e-2
    tau: float = 0.05
    """Temperature of the similarities, that of the reward."""
    hard: bool = True
    """Whether hard negatives are in the triplets; False is the ablation."""
    positive_weight: float = 2.0
    """Weight of a stage whose result holds: few do in any one frame."""
    jitter: float = 0.2
    """Share by which brightness, contrast and each colour vary from frame to frame."""
    shift_px: int = 2
    """Most pixels by which a picture is moved."""
    noise: float = 0.02
    """Standard deviation of noise in a pixel, of 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.shift_px < 0:
            raise ValueError(f"steps and batch must be >= 1, shift_px >= 0, got {self}")
        if not (self.lr > 0 and self.tau > 0 and self.positive_weight > 0):
            raise ValueError(f"lr, tau and positive_weight must be > 0, got {self}")
        if not (0 <= self.jitter < 1 and self.noise >= 0 and self.weight_decay >= 0):
            raise ValueError(f"jitter in [0, 1), noise and weight_decay >= 0 wanted, got {self}")


@dataclass(frozen=True)
class LabelledFrames:
    """Frames and what is known of them."""

    images: Images
    """(M, V, H, W, 3) uint8."""
    done: NDArray[np.bool_]
    """(M, K) whether the result of each stage holds."""
    known: NDArray[np.bool_]
    """(M, K) whether ``done`` is known there; the rest does not count."""

    def __post_init__(self) -> None:
        shape = self.done.shape
        if len(shape) != 2 or self.known.shape != shape or len(self.images) != shape[0]:
            got = f"{np.shape(self.images)}, {shape}, {self.known.shape}"
            raise ValueError(f"images, done, known must be (M, ...), (M, K), (M, K), got {got}")

    def __len__(self) -> int:
        return len(self.images)

    def joined(self, more: LabelledFrames) -> LabelledFrames:
        """Both, these first."""
        return LabelledFrames(
            np.concatenate([self.images, more.images]),
            np.concatenate([self.done, more.done]),
            np.concatenate([self.known, more.known]),
        )


class TinyTrainer:
    """The optimizer of a scorer on one dictionary.

    Args:
        device: where the net goes and is trained.
    """

    def __init__(
        self,
        net: TinyContrastive,
        dictionary: StageDictionary,
        config: TinyTraining | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        c = self.config = config or TinyTraining()
        self.net, self.device = net.to(device), torch.device(device)
        self.triplets = Triplets(dictionary, c.hard)
        self._places = torch.from_numpy(self.triplets.places).to(device)
        places = self.triplets.places  # a short row repeats a text, which must count once
        first = [[list(row).index(i) == j for j, i in enumerate(row)] for row in places]
        self._there = torch.tensor(first, device=device)
        self.adam = torch.optim.AdamW(
            net.parameters(), lr=c.lr, weight_decay=c.weight_decay, fused=True
        )
        self.generator = torch.Generator().manual_seed(c.seed)
        self.taken = 0

    def loss(self, images: Tensor, done: Tensor, known: Tensor) -> Tensor:
        """Scalar, see the module. images (B, V, H, W, 3) uint8 or 0..1, done and known (B, K)."""
        c = self.config
        told = self.net(images, self.triplets.texts)[:, self._places] / c.tau  # (B, K, 2 + H)
        told = told.masked_fill(~self._there, -torch.inf)
        logit = told[..., 0] - told[..., 1:].logsumexp(dim=-1)
        each = functional.binary_cross_entropy_with_logits(logit, done.float(), reduction="none")
        weight = known.float() * torch.where(done, c.positive_weight, 1.0)
        return (each * weight).sum() / weight.sum().clamp(min=1.0)

    def step(self, frames: LabelledFrames) -> float:
        """One gradient step on these frames, each changed a little; returns the loss."""
        self._check(frames)
        c = self.config
        self.net.train()
        part = self.taken / c.steps
        scale = min(1.0, (self.taken + 1) / max(c.steps / 20, 1))
        for group in self.adam.param_groups:
            group["lr"] = c.lr * scale * 0.5 * (1 + np.cos(np.pi * min(part, 1.0)))
        images = torch.from_numpy(np.ascontiguousarray(frames.images)).to(self.device)
        flags = (torch.from_numpy(x).to(self.device) for x in (frames.done, frames.known))
        loss = self.loss(_changed(images.float() / 255, c, self.generator), *flags)
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.adam.step()
        self.taken += 1
        return float(loss.detach())

    def fit(self, frames: LabelledFrames, log: Log | None = None, every: int = 100) -> None:
        """Train on random batches until :attr:`TinyTraining.steps` are taken.

        Args:
            log: called every ``every`` steps with their number and the mean loss since.
        """
        self._check(frames)
        since: list[float] = []
        while self.taken < self.config.steps:
            rows = torch.randint(len(frames), (self.config.batch,), generator=self.generator)
            pick = rows.numpy()
            batch = (frames.images[pick], frames.done[pick], frames.known[pick])
            since.append(self.step(LabelledFrames(*batch)))
            if log is not None and self.taken % every == 0:
                log(self.taken, {"loss": float(np.mean(since))})
                since.clear()
        self.net.eval()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and generator: all that the next step depends on."""
        return {
            "net": self.net.state_dict(), "adam": self.adam.state_dict(),
            "generator": self.generator.get_state(), "taken": self.taken,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.net.load_state_dict(state["net"])
        self.adam.load_state_dict(deepcopy(state["adam"]))  # which keeps the tensors
        self.generator.set_state(state["generator"].cpu())
        self.taken = int(state["taken"])

    def _check(self, frames: LabelledFrames) -> None:
        check_images(frames.images, self.net.views)
        if not len(frames) or frames.done.shape[1] != len(self.triplets.places):
            want = f"(M >= 1, {len(self.triplets.places)})"
            raise ValueError(f"done must be {want}, got {frames.done.shape}")


def _changed(images: Tensor, c: TinyTraining, generator: torch.Generator) -> Tensor:
    """(B, V, H, W, 3) 0..1: other light and colour per picture, moved by some pixels, noise."""
    b, v, h, w, _ = images.shape
    draw = torch.rand((b, v, 5), generator=generator) * 2 - 1
    gain = (1 + c.jitter * draw[..., :3]).to(images.device)[:, :, None, None]
    contrast, light = (
        x.to(images.device)[..., None, None, None]
        for x in (1 + c.jitter * draw[..., 3], 0.5 * c.jitter * draw[..., 4])
    )
    x = ((images - 0.5) * contrast + 0.5 + light) * gain
    if c.shift_px:
        moves = torch.randint(-c.shift_px, c.shift_px + 1, (b, v, 2), generator=generator)
        rows = (torch.arange(h) + moves[..., :1]).clamp(0, h - 1).to(x.device)  # (B, V, H)
        columns = (torch.arange(w) + moves[..., 1:]).clamp(0, w - 1).to(x.device)
        x = x.gather(2, rows[..., None, None].expand(b, v, h, w, 3))
        x = x.gather(3, columns[:, :, None, :, None].expand(b, v, h, w, 3))
    if c.noise:
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        x = x + c.noise * noise
    return x.clamp(0, 1)
