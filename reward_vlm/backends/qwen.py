"""RoboReward and other Qwen3-VL checkpoints, run in this process through transformers.

The score comes from one forward pass: the assistant's turn begins with ``ANSWER: ``, so that the
next token is the digit, and the judgement is the distribution over the five digits there.
Nothing is generated, nothing drawn.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoTokenizer

from ..model import (
    Clip,
    Judgement,
    ModelError,
    ModelInfo,
    ModelOutOfMemory,
    Sampling,
    digit_distribution,
)
from ..rubric import ANSWER
from .qwen_files import chat_template, checkpoint, digit_ids, weights, weights_digest
from .qwen_input import patches, read_format, spelled
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

VIDEO_MARK = "<|vision_start|><|video_pad|><|vision_end|>"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class QwenConfig:
    """How a checkpoint is run."""

    device: str = "auto"
    """As torch names it; auto: ``cuda`` where there is one, else ``cpu``."""
    dtype: str = "auto"
    """Of :data:`DTYPES`; auto: bfloat16 on a GPU, float32 on a CPU."""
    order: Order = "text_first"
    """The benchmark sends the text before the video. Scores hang on it: on frames sent as images,
    one third-party measurement has an error of 1.56 with text first and 1.10 with it last."""
    cap_pixels_per_frame: bool = False
    """As the processor's setting of that name; False is what transformers 4.57 did."""
    sampling: Sampling = SAMPLING
    max_batch: int = 8
    """Views in one forward pass. Memory grows with it."""

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"dtype must be auto or one of {list(DTYPES)}, got {self.dtype!r}")
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {self.order!r}")
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be >= 1, got {self.max_batch}")


class QwenModel:
    """A Qwen3-VL checkpoint as a :class:`~reward_vlm.model.RewardModel`."""

    def __init__(self, source: str, config: QwenConfig | None = None) -> None:
        """Load ``source``, a folder or ``HUB_ID@COMMIT``, and check that digits are tokens.

        Raises:
            ValueError: no such folder, no pinned commit, no checkpoint that we know how to run.
        """
        self.config = config = config or QwenConfig()
        folder, commit = checkpoint(source)
        files = weights(folder)
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        dtype = config.dtype
        if dtype == "auto":
            dtype = "bfloat16" if self.device.type == "cuda" else "float32"
        self.form = read_format(folder, config.cap_pixels_per_frame)
        self.words, self.net = _load(folder, DTYPES[dtype])
        self.net.to(self.device)
        self.template = chat_template(self.words, folder)
        self.digits = digit_ids(self.words)
        self.video_id = self.words.convert_tokens_to_ids("<|video_pad|>")
        if self.video_id != self.net.config.video_token_id:
            raise ValueError(
                f"<|video_pad|> must be token {self.net.config.video_token_id}, got {self.video_id}"
            )
        self.info = ModelInfo(
            name=folder.resolve().name if commit is None else source.partition("@")[0],
            backend="transformers",
            revision=commit or weights_digest(files),
            sampling=config.sampling,
            preprocess=self._preprocess(dtype),
            domain="what the checkpoint was trained on; RoboReward: real robots, one camera",
            max_batch=config.max_batch,
        )

    def _preprocess(self, dtype: str) -> dict[str, Any]:
        template = hashlib.sha256(self.template.encode()).hexdigest()[:16]
        video = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.form).items()}
        return shared_preprocess(self.config.order) | {
            "video": video,
            "resize": "bicubic, antialiased, 8 bits",
            "marks_around_video": False,
            "template_sha": template,
            "digits": self.digits,
            "dtype": dtype,
        }

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        """Judge clips; every camera view is judged alone, see :func:`.vlm_input.fused`.

        Raises:
            ModelOutOfMemory: fewer or smaller clips may do; what the try held is free again.
            BadOutput: the network answered with NaN.
        """
        views = [(n, clip.task, v) for n, clip in enumerate(clips)
                 for v in videos(clip, self.config.sampling)]  # fmt: skip
        found: list[list[tuple[NDArray[np.float64], float]]] = [[] for _ in clips]
        for start in range(0, len(views), self.config.max_batch):
            part = views[start : start + self.config.max_batch]
            log = self._guarded([(task, video) for _, task, video in part])
            for (n, _, _), row in zip(part, log, strict=True):
                found[n].append(digit_distribution(row))
        return [fused(each) for each in found]

    def ready(self) -> None:
        """One forward pass on a clip of our own."""
        self.judge([self_check_clip()])

    def close(self) -> None:
        """Free the weights."""
        if self.net is not None:
            self.net = None
            self._free()

    def _guarded(self, pairs: Sequence[tuple[str, Video]]) -> NDArray[np.float64]:
        if self.net is None:
            raise ModelError("the model is closed")
        try:
            return self._forward(pairs)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):  # as torch says it without a GPU
                raise
        # Only here do no frames of the failed pass hold its tensors any more.
        self._free()
        raise ModelOutOfMemory(f"out of memory with {len(pairs)} views in one forward pass")

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _forward(self, pairs: Sequence[tuple[str, Video]]) -> NDArray[np.float64]:
        """(B, 5) log-probabilities of the digits, over the whole vocabulary."""
        inputs = self._inputs(pairs)
        logits: Tensor = self.net(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        log = torch.log_softmax(logits.float(), dim=-1)[:, self.digits]
        return np.asarray(log.double().cpu().numpy(), np.float64)

    def _inputs(self, pairs: Sequence[tuple[str, Video]]) -> dict[str, Tensor]:
        ids, pixels, grids = [], [], []
        for task, video in pairs:
            cut, grid = patches(video.frames, self.form)
            text = self._text(task).replace(VIDEO_MARK, spelled(video.seconds(), grid, self.form))
            ids.append(self.words(text, add_special_tokens=False)["input_ids"])
            pixels.append(cut)
            grids.append(grid)
        longest = max(map(len, ids))
        tokens = torch.zeros((len(ids), longest), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, each in enumerate(ids):  # padding on the left: the answer comes last in all
            tokens[row, longest - len(each) :] = torch.tensor(each)
            mask[row, longest - len(each) :] = 1
        return {
            "input_ids": tokens.to(self.device),
            "attention_mask": mask.to(self.device),
            # 2 marks the tokens of a video, as Qwen3VLProcessor does
            "mm_token_type_ids": ((tokens == self.video_id) * 2).int().to(self.device),
            "pixel_values_videos": torch.cat(pixels).to(self.device, self.net.dtype),
            "video_grid_thw": torch.tensor(grids, device=self.device),
        }

    def _text(self, task: str) -> str:
        """The chat up to the answer, with :data:`VIDEO_MARK` where the video goes."""
        parts = ordered(
            self.config.order, {"type": "text", "text": question(task)}, [{"type": "video"}]
        )
        chat = self.words.apply_chat_template(
            [{"role": "user", "content": parts}],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        if chat.count(VIDEO_MARK) != 1:
            raise ModelError(f"the chat template must write {VIDEO_MARK} once for a video")
        return str(chat) + ANSWER


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer and network, from this folder alone and without running anything that is in it."""
    safe = {"local_files_only": True, "trust_remote_code": False}
    words = AutoTokenizer.from_pretrained(folder, **safe)
    net: torch.nn.Module = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, **safe
    )
    return words, net.eval().requires_grad_(False)
