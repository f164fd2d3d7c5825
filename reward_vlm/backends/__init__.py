"""The models that the service can run, by one line of text each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..model import RewardModel

SPECS = """\
  small                    the model that is shipped: simulated table, CPU
  small:FOLDER             one that `incognita train reward` wrote
  qwen:FOLDER              a Qwen3-VL checkpoint such as RoboReward, run here by transformers
  qwen:HUB_ID@REVISION     the same from the hub, REVISION a commit of 40 hex digits
  openai:URL#MODEL         an engine with the OpenAI API, such as vLLM
  openai:URL#MODEL@REVISION    the same, with the commit that the engine was started on"""


def open_model(spec: str, **options: Any) -> RewardModel:
    """Load a model, or connect to its engine.

    Args:
        spec: one of :data:`SPECS`.
        options: fields of the backend's configuration, :class:`.qwen.QwenConfig` or
            :class:`.openai.EngineConfig`; the small model has none.

    Raises:
        ImportError: an extra is missing; says which.
        TypeError: the backend has no such option.
        ValueError: no such spec; lists what there is.
    """
    kind, colon, rest = spec.partition(":")
    match kind:
        case "small" if not options and bool(colon) == bool(rest):
            try:
                from .small import SmallModel
            except ImportError as error:
                raise ImportError(
                    "pip install 'incognita[serve]' to run the small model"
                ) from error
            return SmallModel(Path(rest) if rest else None)
        case "qwen" if rest:
            try:
                from .qwen import QwenConfig, QwenModel
            except ImportError as error:
                raise ImportError("pip install 'incognita[vlm]' to run VLM checkpoints") from error
            return QwenModel(rest, QwenConfig(**options))
        case "openai" if rest:
            try:
                from .openai import EngineConfig, EngineModel
            except ImportError as error:
                raise ImportError("pip install 'incognita[serve]' to call an engine") from error
            return EngineModel(rest, EngineConfig(**options))
    raise ValueError(f"a model must be one of these, got {spec!r}:\n{SPECS}")
