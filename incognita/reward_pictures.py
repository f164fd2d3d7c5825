"""Pictures of what a reward model believes: frames, progress beside the truth, the distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
from matplotlib import pyplot

from reward_vlm.model import Clip, Judgement


@dataclass(frozen=True)
class Shown:
    """A judged clip with its truth."""

    clip: Clip
    judgement: Judgement
    labels: NDArray[np.int8]
    """(T,) 1..5 at each frame of the clip."""
    note: str
    """What kind of clip it is."""


def filmstrips(shown: Sequence[Shown], file: str | Path, count: int = 8) -> None:
    """Draw clips below one another: ``count`` frames, progress, probabilities of the scores.

    Args:
        file: PNG to write.
    """
    rows = len(shown)
    figure, axes = pyplot.subplots(
        rows, 3, figsize=(15, 1.75 * rows), squeeze=False, width_ratios=(8, 2, 1.4)
    )
    for (strip, curve, bars), item in zip(axes, shown, strict=True):
        frames = next(iter(item.clip.views.values()))
        at = np.rint(np.linspace(0, len(frames) - 1, count)).astype(int)
        strip.imshow(np.concatenate(list(frames[at]), axis=1))
        strip.set_title(f"{item.note}: {item.clip.task}", fontsize=9, loc="left")
        strip.axis("off")
        truth = (item.labels.astype(float) - 1) / 4
        curve.step(np.linspace(0, 1, len(truth)), truth, where="mid", color="0.6", label="truth")
        if item.judgement.progress is not None:
            believed = item.judgement.progress
            curve.plot(np.linspace(0, 1, len(believed)), believed, "o-", ms=3, label="believed")
        curve.set(ylim=(-0.05, 1.05), xticks=[], yticks=(0, 1))
        bars.bar(range(1, 6), item.judgement.probs, color="tab:blue")
        bars.axvline(float(item.labels[-1]), color="0.6", lw=2)
        bars.set(ylim=(0, 1), xticks=range(1, 6), yticks=[])
        bars.set_title(f"score {item.judgement.score}, true {item.labels[-1]}", fontsize=8)
    axes[0][1].legend(fontsize=7, frameon=False)
    axes[0][1].set_title("progress", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
