"""``key=value`` overrides of nested frozen dataclasses; an unknown key is an error."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")


class OverrideError(ValueError):
    """An override that names no field or does not fit it."""


def override(config: T, pairs: Sequence[str]) -> T:
    """``config`` with ``key=value`` pairs applied; a dot leads into a nested dataclass or dict.

    Values are Python literals (``1e6``, ``True``, ``(128, 128)``, ``None``) or else plain strings.
    An integer field takes ``1e6``.

    Raises:
        OverrideError: a pair has no "=", a key is unknown, or a value does not fit.
    """
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise OverrideError(f"override must be key=value, got {pair!r}")
        config = _set(config, key.strip().split("."), _literal(text.strip()), key)
    return config


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _set(config: Any, path: list[str], value: Any, key: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(config, dict):
        inner = config.get(head)
        return {**config, head: _set(inner, rest, value, key) if rest else value}
    if not is_dataclass(config) or isinstance(config, type):
        raise OverrideError(f"{key} leads into a {type(config).__name__}, which has no fields")
    names = [field.name for field in fields(config)]
    if head not in names:
        raise OverrideError(f"{key} is unknown; {head!r} is none of: {', '.join(names)}")
    old = getattr(config, head)
    if rest:
        value = _set(old, rest, value, key)
    elif isinstance(old, bool) != isinstance(value, bool) and isinstance(old, bool):
        raise OverrideError(f"{key} must be True or False, got {value!r}")
    elif isinstance(old, int) and not isinstance(old, bool) and isinstance(value, float):
        if value != int(value):
            raise OverrideError(f"{key} must be a whole number, got {value!r}")
        value = int(value)
    elif isinstance(old, float) and isinstance(value, int):
        value = float(value)
    elif (
        isinstance(old, (int, float)) and not isinstance(value, (int, float)) and value is not None
    ):
        raise OverrideError(f"{key} must be a number, got {value!r}")
    try:
        return replace(config, **{head: value})
    except (TypeError, ValueError) as error:
        raise OverrideError(f"{key}={value!r} does not fit: {error}") from error
