"""The parts of public checkpoints that ``transformers`` has: Llama, SmolVLM, tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MISSING = "adapters need transformers: pip install 'incognita[vlm]'"


def llama(settings: Mapping[str, Any]) -> Any:
    """A Llama without a head, of random weights; attention by torch's own function."""
    LlamaConfig, LlamaModel = _named("LlamaConfig", "LlamaModel")
    given = {k: v for k, v in settings.items() if k not in ("model_type", "torch_dtype")}
    return LlamaModel._from_config(LlamaConfig(**given), attn_implementation="sdpa")


def smolvlm(settings: Mapping[str, Any], text_layers: int) -> Any:
    """SmolVLM of random weights; of its text model only the first ``text_layers`` layers."""
    SmolVLMConfig, SmolVLMModel = _named("SmolVLMConfig", "SmolVLMModel")
    given = {k: v for k, v in settings.items() if k not in ("model_type", "architectures")}
    config = SmolVLMConfig(**given)
    if text_layers > 0:
        config.text_config.num_hidden_layers = text_layers
    return SmolVLMModel._from_config(config, attn_implementation="sdpa")


def tokenizer(folder: str | Path) -> Any:
    """The tokenizer saved in a folder.

    Raises:
        OSError: there is none.
    """
    (AutoTokenizer,) = _named("AutoTokenizer")
    return AutoTokenizer.from_pretrained(
        Path(folder), local_files_only=True, trust_remote_code=False
    )


def _named(*names: str) -> tuple[Any, ...]:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return tuple(getattr(transformers, name) for name in names)
