"""What a vision-language model is shown, in-process and behind an engine alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..decode import scaled
from ..model import Clip, Judgement, Sampling
from ..rubric import ANSWER, PROMPT_VERSION, prompt

Order = Literal["text_first", "video_first"]
ORDERS: tuple[Order, ...] = ("text_first", "video_first")
SAMPLING = Sampling(fps=2.0, least=4, most=32, side=640)
"""RoboReward's 2 frames a second. ``most`` and ``side`` keep a clip within 6,400 visual tokens."""


@dataclass(frozen=True)
class Video:
    """One camera view as a model sees it."""

    frames: NDArray[np.uint8]
    """(T, H, W, 3) RGB, no side longer than :attr:`Sampling.side`."""
    indices: tuple[int, ...]
    """(T,) frame numbers in the whole video."""
    fps: float
    """Frames a second of the whole video."""

    def seconds(self) -> list[float]:
        """(T,) when each frame was taken."""
        return [i / self.fps for i in self.indices]


def question(task: str) -> str:
    """The rubric's prompt, with nothing in it that a tokenizer takes for a mark of its own.

    Chat formats frame turns and videos with ``<|...|>``; a task that holds such a mark could end
    the user's turn or claim to be a video. A space in it makes it plain text. No other task
    changes by a byte.
    """
    return prompt(task.replace("<|", "< |"))


def videos(clip: Clip, sampling: Sampling) -> list[Video]:
    """Each view of a clip, in the order of the cameras' names, sampled and scaled down.

    Frames come in pairs, as Qwen3-VL looks at them; where one is missing, the last is there twice.
    """
    kept = clip.sampled(sampling)
    pairs = np.arange(kept.length + kept.length % 2).clip(max=kept.length - 1)
    indices = tuple(int(i) for i in kept.frame_indices[pairs])
    views = [kept.views[name][pairs] for name in sorted(kept.views)]
    small = [np.stack([scaled(f, sampling.side) for f in frames]) for frames in views]
    return [Video(frames, indices, clip.fps) for frames in small]


def ordered(order: Order, text: dict[str, Any], media: list[dict[str, Any]]) -> list[Any]:
    """The parts of the user's turn."""
    return [text, *media] if order == "text_first" else [*media, text]


def fused(distributions: Sequence[tuple[NDArray[np.float64], float]]) -> Judgement:
    """One judgement of (probs, lost mass) of every view: their mean.

    The published checkpoints were trained on one camera, so every view is judged alone, and the
    mean is what a judge says that picks one camera at random. A camera that sees nothing dilutes
    the answer; leave it out of the request.
    """
    probs = np.mean([p for p, _ in distributions], axis=0)
    lost = float(np.mean([mass for _, mass in distributions]))
    return Judgement(np.asarray(probs / probs.sum(), np.float64), lost_mass=min(lost, 1.0))


def shared_preprocess(order: Order) -> dict[str, Any]:
    """What both VLM backends publish of how they show a clip."""
    return {
        "prompt": PROMPT_VERSION,
        "order": order,
        "prefix": ANSWER,
        "marks": "'<|' in a task becomes '< |'",
        "views": "judged one by one in the order of their names, distributions averaged",
        "shrink": "cv2.INTER_AREA",
    }


def self_check_clip() -> Clip:
    """A clip of our own, for :meth:`RewardModel.ready`: four frames, 64 by 64, a moving square."""
    frames = np.full((4, 64, 64, 3), 96, np.uint8)
    for t in range(4):
        frames[t, 24:40, 8 + 12 * t : 20 + 12 * t] = (200, 40, 40)
    return Clip("push the red square to the right", {"front": frames}, fps=2.0)
