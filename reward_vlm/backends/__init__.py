"""The models that the service can run, by one line of text each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ..model import RewardModel
from .vlm_input import SAMPLING

SPECS = """\
  small                    the model that is shipped: simulated table, CPU
  small:FOLDER             one that `incognita train reward` wrote
  qwen:FOLDER              a Qwen3-VL checkpoint such as RoboReward, run here by transformers
  qwen:HUB_ID@REVISION     the same from the hub, REVISION a commit of 40 hex digits
  openai:URL#MODEL         an engine with the OpenAI API, such as vLLM
  openai:URL#MODEL@REVISION    the same, with the commit that the engine was started on
Options of the last four follow as ?NAME=VALUE&NAME=VALUE, such as ?order=video_first&fps=4"""
FRAMES = ("fps", "least", "most", "side")
"""Options that change which frames a VLM looks at, see :class:`..model.Sampling`."""


def open_model(spec: str, **options: Any) -> RewardModel:
    """Load a model, or connect to its engine.

    Args:
        spec: one of :data:`SPECS`.
        options: :data:`FRAMES`, and the fields of the backend's configuration,
            :class:`.qwen.QwenConfig` or :class:`.openai.EngineConfig`; they win over those in the
            spec. The small model has none.

    Raises:
        ImportError: an extra is missing; says which.
        TypeError: the backend has no such option.
        ValueError: no such spec (lists what there is), or a value that an option does not take.
    """
    main, _, query = spec.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    options = {name: _value(text) for name, text in pairs} | options
    kind, colon, rest = main.partition(":")
    if kind == "small" and not options and bool(colon) == bool(rest):
        return _small(Path(rest) if rest else None)
    if kind not in ("qwen", "openai") or not rest:
        raise ValueError(f"a model must be one of these, got {spec!r}:\n{SPECS}")
    frames = {name: options.pop(name) for name in FRAMES if name in options}
    if frames:
        options["sampling"] = replace(options.get("sampling", SAMPLING), **frames)
    return _qwen(rest, options) if kind == "qwen" else _engine(rest, options)


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value


def _small(folder: Path | None) -> RewardModel:
    try:
        from .small import SmallModel
    except ImportError as error:
        raise ImportError("pip install 'incognita[serve]' to run the small model") from error
    return SmallModel(folder)


def _qwen(source: str, options: dict[str, Any]) -> RewardModel:
    try:
        from .qwen import QwenConfig, QwenModel
    except ImportError as error:
        raise ImportError("pip install 'incognita[vlm]' to run VLM checkpoints") from error
    return QwenModel(source, QwenConfig(**options))


def _engine(source: str, options: dict[str, Any]) -> RewardModel:
    try:
        from .openai import EngineConfig, EngineModel
    except ImportError as error:
        raise ImportError("pip install 'incognita[serve]' to call an engine") from error
    return EngineModel(source, EngineConfig(**options))
