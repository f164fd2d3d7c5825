"""What a response of the service means: an answer, or a failure that says whether to try again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .results import Missing, RewardRequestError

NEVER_AGAIN = ("bad_output", "model_failed")
"""Codes of a 502: the model itself failed on this clip, and would fail again."""
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Failure:
    """A try that came to nothing."""

    missing: Missing
    again: bool
    """Another try may help."""
    after_s: float = 0.0
    """The service asked to wait so long."""
    alive: bool = False
    """The service is there and says what it wants: not the breaker's business."""


def parsed(answer: type[A], data: bytes) -> A | Failure:
    """The answer as its type."""
    try:
        return answer.model_validate_json(data)
    except ValidationError as error:
        detail = f"no {answer.__name__}: {error.error_count()} errors"
        return Failure(Missing("bad_answer", detail), again=True)


def content(status: int, headers: Mapping[str, str], data: bytes) -> bytes | Failure:
    """The body of a 200, or what went wrong.

    Args:
        headers: with lower-case names.

    Raises:
        RewardRequestError: 4xx that would come again.
    """
    if status == 200:
        return data
    code, detail = _problem(data)
    said = f"{status} {code}: {detail}"
    if status in (429, 503):
        after = _retry_after(headers.get("retry-after"))
        return Failure(Missing("overloaded", said), True, after, alive=status == 429 or after > 0)
    if status in (408, 504):
        return Failure(Missing("timeout", said), again=True, alive=code == "deadline")
    if status == 502 and code in NEVER_AGAIN:
        return Failure(Missing("bad_answer", said), again=False, alive=True)
    if 400 <= status < 500:
        raise RewardRequestError(status, code, detail, headers.get("x-request-id", ""))
    return Failure(Missing("refused", said), again=status >= 500)


def _problem(data: bytes) -> tuple[str, str]:
    """Code and text of a problem, shortened; what is none has neither."""
    try:
        found = json.loads(data)
        return str(found.get("code", ""))[:80], str(found.get("detail", ""))[:400]
    except (ValueError, AttributeError, RecursionError):
        return "", "no problem document"


def _retry_after(text: str | None) -> float:
    """Seconds; 0 for what is no whole number."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else 0.0
