"""A checkpoint behind an engine with the OpenAI API: vLLM, SGLang or another.

The engine is asked for one token after ``ANSWER: `` and for the log-probabilities there; which
token it draws does not matter. Frames go in the request, once, with their times beside them, so
that the engine samples nothing. Its address is the operator's; a request cannot change it.
"""

from __future__ import annotations

import base64
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..model import BadOutput, Clip, Judgement, ModelInfo, Sampling, digit_distribution
from ..rubric import ANSWER, LEVELS
from .engine_http import EngineHTTP, Patience
from .vlm_input import (
    ORDERS,
    SAMPLING,
    Order,
    Video,
    fused,
    ordered,
    question,
    self_check_clip,
    shared_preprocess,
    videos,
)

PATH = "/v1/chat/completions"
"""The only path of an engine that is ever called."""
FORMATS = ("bmp", "png", "jpeg")
DIGITS = {str(n + 1): n for n in range(LEVELS)}


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is asked."""

    order: Order = "text_first"
    """As in :class:`.qwen.QwenConfig`."""
    media: Literal["video", "images"] = "video"
    """video: one part ``data:video/jpeg;base64,f1,f2,...``, with the metadata that vLLM takes since
    its pull request 40133 (April 2026). images: every frame as an image, its time before it; any
    engine takes this, but a checkpoint trained on videos may score it otherwise."""
    image: Literal["bmp", "png", "jpeg"] = "bmp"
    """How frames travel. bmp and png keep every pixel, so that the answer is that of the same
    checkpoint in-process; png is up to a third smaller and costs five times the processor time
    (29 ms a frame of 640 by 480 against 6 with all that is done to it). jpeg is a seventh of the
    size, for an engine behind a slow network; it is another preprocessing, with other scores."""
    jpeg_quality: int = 95
    top_logprobs: int = 20
    """Tokens whose log-probability is asked for. A digit that is not among them counts as
    nothing: its probability is below that of the last one listed."""
    token_ids: tuple[int, ...] | None = None
    """(5,) the tokens of 1..5: asks vLLM for exactly them (``logprob_token_ids``), however unlikely
    they are. The ``digits`` that :class:`.qwen.QwenModel` publishes for the checkpoint."""
    key_env: str = "INCOGNITA_ENGINE_KEY"
    """Environment variable with the engine's API key; not set: none is sent."""
    sampling: Sampling = SAMPLING
    max_batch: int = 4
    """Clips in one call of judge, sent at the same time."""
    workers: int = 4
    """Such calls at the same time."""
    ready_s: float = 3.0
    """An engine that takes longer for our own small clip is not ready."""
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {self.order!r}")
        if self.media not in ("video", "images") or self.image not in FORMATS:
            raise ValueError(f"media and image: see there, got {self.media!r}, {self.image!r}")
        if not 1 <= self.jpeg_quality <= 100 or not 5 <= self.top_logprobs <= 20:
            raise ValueError(f"jpeg_quality is 1..100, top_logprobs 5..20, got {self}")
        if self.token_ids is not None and len(set(self.token_ids)) != LEVELS:
            raise ValueError(f"token_ids must be 5 different tokens, got {self.token_ids}")
        if min(self.max_batch, self.workers) < 1 or self.ready_s <= 0:
            raise ValueError(f"max_batch and workers must be >= 1, ready_s > 0, got {self}")


class EngineModel:
    """A model behind an engine, as a :class:`~reward_vlm.model.RewardModel`."""

    def __init__(self, source: str, config: EngineConfig | None = None) -> None:
        """Nothing is sent yet: the engine may start later than we do.

        Args:
            source: ``URL#MODEL`` or ``URL#MODEL@REVISION``. What an engine runs it does not prove;
                REVISION is the operator's word, and is stamped on every answer.

        Raises:
            ValueError: not such a text.
        """
        self.config = config = config or EngineConfig()
        url, _, named = source.partition("#")
        model, _, revision = named.partition("@")
        if not model:
            raise ValueError("openai wants URL#MODEL or URL#MODEL@REVISION, got no MODEL")
        connections = config.max_batch * config.workers
        self._http = EngineHTTP(
            url, PATH, config.patience, os.environ.get(config.key_env), connections
        )
        self.info = ModelInfo(
            name=model,
            backend="openai",
            revision=revision or "unpinned",
            sampling=config.sampling,
            preprocess=self._preprocess(),
            domain="what the checkpoint was trained on; RoboReward: real robots, one camera",
            max_batch=config.max_batch,
            workers=config.workers,
        )

    def _preprocess(self) -> dict[str, Any]:
        c = self.config
        return shared_preprocess(c.order) | {
            "media": c.media,
            "image": f"jpeg {c.jpeg_quality}" if c.image == "jpeg" else "every pixel",
            "logprobs": f"top {c.top_logprobs}" if c.token_ids is None else list(c.token_ids),
            "video": "the engine's processor, told not to sample",
        }

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """Judge clips; every view of every clip is a request of its own, all at the same time.

        Raises:
            EngineUnavailable: see :meth:`.engine_http.EngineHTTP.post`.
            BadOutput: the same, or no log-probabilities of a digit in the answer.
        """
        views = [(n, clip.task, v) for n, clip in enumerate(clips)
                 for v in videos(clip, self.config.sampling)]  # fmt: skip
        answers = _at_once([partial(self._asked, task, video) for _, task, video in views])
        found: list[list[tuple[NDArray[np.float64], float]]] = [[] for _ in clips]
        for (n, _, _), answer in zip(views, answers, strict=True):
            found[n].append(distribution(answer))
        return [fused(each) for each in found]

    def ready(self) -> None:
        """One real request with a small clip of our own."""
        clip = self_check_clip()
        (video,) = videos(clip, self.config.sampling)
        distribution(self._http.probe(self.request(clip.task, video), self.config.ready_s))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _asked(self, task: str, video: Video) -> Any:
        return self._http.post(self.request(task, video))

    def request(self, task: str, video: Video) -> dict[str, Any]:
        """What is sent for one view."""
        c = self.config
        images = [base64.b64encode(_encoded(f, c)).decode() for f in video.frames]
        text = {"type": "text", "text": question(task)}
        body: dict[str, Any] = {
            "model": self.info.name,
            "continue_final_message": True,
            "add_generation_prompt": False,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": c.top_logprobs,
        }
        if c.token_ids is not None:
            body["logprob_token_ids"] = list(c.token_ids)
        if c.media == "images":
            media: list[dict[str, Any]] = []
            for seconds, image in zip(video.seconds(), images, strict=True):
                media.append({"type": "text", "text": f"<{seconds:.1f} seconds>"})
                url = f"data:image/{c.image};base64,{image}"
                media.append({"type": "image_url", "image_url": {"url": url}})
        else:
            # vLLM knows a list of frames by this type only; what each is, it sees itself.
            url = "data:video/jpeg;base64," + ",".join(images)
            media = [{"type": "video_url", "video_url": {"url": url}}]
            body["media_io_kwargs"] = {"video": _metadata(video)}
            body["mm_processor_kwargs"] = {"do_sample_frames": False}
        body["messages"] = [
            {"role": "user", "content": ordered(c.order, text, media)},
            {"role": "assistant", "content": ANSWER},
        ]
        return body


def _at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of all of them, or the first error.

    Their threads are daemons, unlike those of a pool: an engine that hangs does not hold up the
    exit of the process.
    """
    if len(calls) == 1:
        return [calls[0]()]
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(n: int) -> None:
        try:
            results[n] = calls[n]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def _encoded(frame: NDArray[np.uint8], config: EngineConfig) -> bytes:
    how = {
        "bmp": [],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality],
    }
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(f".{config.image}", bgr, how[config.image])
    if not done:
        raise BadOutput(f"a frame {frame.shape} cannot be encoded")
    return bytes(data)


def _metadata(video: Video) -> dict[str, Any]:
    """Of vLLM's ``media_io_kwargs``: when each frame was taken. The last frame is always sent."""
    total = max(video.indices[-1] + 1, len(video.indices))
    return {
        "num_frames": len(video.indices),
        "fps": video.fps,
        "frames_indices": list(video.indices),
        "total_num_frames": total,
        "duration": total / video.fps,
        "do_sample_frames": False,
    }


def distribution(answer: Any) -> tuple[NDArray[np.float64], float]:
    """(5,) probabilities of the scores and the lost mass, from an engine's answer.

    A digit with space around it counts as the digit: the benchmark's parser reads it so. A mass
    that is not listed is lost.

    Raises:
        BadOutput: no log-probabilities, more than a whole of them, or none of a digit.
    """
    listed = _listed(answer)
    mass = np.zeros(LEVELS)
    for token, logprob in listed:
        digit = DIGITS.get(token.strip())
        if digit is not None:
            mass[digit] += math.exp(logprob)
    if sum(math.exp(logprob) for _, logprob in listed) > 1.01:
        raise BadOutput("the engine's log-probabilities add up to more than one")
    with np.errstate(divide="ignore"):
        return digit_distribution(np.minimum(np.log(mass), 0))


def _listed(answer: Any) -> list[tuple[str, float]]:
    """(token, log-probability) of the tokens that the engine lists for its one token."""
    try:
        entries = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        listed = [(entry["token"], entry["logprob"]) for entry in entries]
    except (KeyError, IndexError, TypeError):
        raise BadOutput("the engine's answer has no log-probabilities") from None
    for token, logprob in listed:
        number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
        if not isinstance(token, str) or not number or not logprob <= 1e-3:
            raise BadOutput("a log-probability must be a number <= 0 of a token")
    return [(token, float(logprob)) for token, logprob in listed]
