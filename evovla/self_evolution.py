"""New hard negatives from the frames on which vision was fooled.

In EvoVLA (arXiv 2511.16166) nothing evolves once the dictionary is written. Here every round of
training yields frames where the scorer says "done" and pose evidence disagrees; they become
labelled near misses, and the scorer is trained again with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .scorer import Images
from .tiny_training import LabelledFrames


@dataclass(frozen=True)
class EvolutionConfig:
    """Which frames are kept."""

    theta: float = 0.7
    """Scores above it are claims, for stages without a threshold of their own."""
    most_per_stage: int = 64
    """Frames of one stage per round: the most convincing ones."""
    least_difference: float = 0.002
    """Mean absolute difference of two kept frames of one stage, of 1: the same scene seen ten steps
    in a row teaches nothing more than once. Below it, the less convincing one goes."""

    def __post_init__(self) -> None:
        if not 0 < self.theta < 1 or self.most_per_stage < 1 or self.least_difference < 0:
            want = "theta in (0, 1), most_per_stage >= 1, least_difference >= 0"
            raise ValueError(f"{want} wanted, got {self}")


@dataclass(frozen=True)
class HardNegatives:
    """Frames that look done and are not."""

    images: Images
    """(M, V, H, W, 3) uint8."""
    stage: NDArray[np.int64]
    """(M,) stage, 0..K-1, that each was taken to have done."""
    score: NDArray[np.float64]
    """(M,) how sure the scorer was."""
    row: NDArray[np.int64]
    """(M,) where each was among the frames that were handed in."""

    def labelled(self, num_stages: int) -> LabelledFrames:
        """As training data: not done at that stage, nothing known of the others."""
        known = np.zeros((len(self.stage), num_stages), np.bool_)
        known[np.arange(len(self.stage)), self.stage] = True
        return LabelledFrames(self.images, np.zeros_like(known), known)


def new_hard_negatives(
    images: Images,
    stage: ArrayLike,
    score: ArrayLike,
    pose_done: ArrayLike,
    config: EvolutionConfig | None = None,
    theta: ArrayLike | None = None,
) -> HardNegatives:
    """Frames of a round where vision says "done" and the poses say "not done".

    Args:
        images: (B, V, H, W, 3) uint8, the frames that were scored.
        stage: (B,) active stage of each, :attr:`.stage_reward.StageStep.active`.
        score: (B,) its score in that frame, :attr:`.stage_reward.StageStep.raw`.
        pose_done: (B,) bool, whether poses say that this stage's result holds.
        theta: (K,) thresholds of the stages; None: the config's.

    Returns:
        The new near misses, by stage and then by score, the most convincing first.

    Raises:
        ValueError: shapes do not fit, or a stage is outside 0..K-1.
    """
    c = config or EvolutionConfig()
    at, u, holds = np.asarray(stage, np.int64), np.asarray(score), np.asarray(pose_done, np.bool_)
    n = (len(images),)
    if at.shape != n or u.shape != n or holds.shape != n:
        got = f"{at.shape}, {u.shape}, {holds.shape}"
        raise ValueError(f"stage, score, pose_done must be {n} like images, got {got}")
    limit = np.full(int(at.max(initial=0)) + 1, c.theta) if theta is None else np.asarray(theta)
    if at.size and not 0 <= at.min() <= at.max() < len(limit):
        raise ValueError(f"stage must be in [0, {len(limit)}), got {at.min()} to {at.max()}")
    fooled = np.flatnonzero((u > limit[at]) & ~holds)
    kept: list[int] = []
    for k in np.unique(at[fooled]):
        rows = fooled[at[fooled] == k]
        kept += _different(images, rows[np.argsort(-u[rows], kind="stable")], c)
    row = np.array(kept, np.int64)
    return HardNegatives(images[row], at[row], u[row].astype(np.float64), row)


def _different(images: Images, rows: NDArray[np.int64], c: EvolutionConfig) -> list[int]:
    """The first rows that differ enough from those before them, at most ``most_per_stage``."""
    kept: list[int] = []
    seen: list[NDArray[np.float32]] = []
    for row in rows:
        small = images[row][:, ::2, ::2].astype(np.float32) / 255
        if all(np.abs(small - other).mean() >= c.least_difference for other in seen):
            kept.append(int(row))
            seen.append(small)
        if len(kept) == c.most_per_stage:
            break
    return kept
