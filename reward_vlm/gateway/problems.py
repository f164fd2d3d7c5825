"""Errors as RFC 9457 has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from ..decode import MediaError
from ..model import BadOutput, EngineUnavailable, ModelError, ModelOutOfMemory
from ..wire import Problem

PROBLEM_JSON = "application/problem+json"


class Refused(Exception):
    """A request that gets no answer, and why."""

    def __init__(
        self, status: int, code: str, detail: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.retry_after_s = retry_after_s
        """When another try may help; None if it would not."""

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After``, a whole number, where there is one; ``WWW-Authenticate`` for a 401."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(min(max(math.ceil(self.retry_after_s), 1), 600))}

    def problem(self, id: str) -> Problem:
        """What goes over the wire."""
        title = HTTPStatus(self.status).phrase
        return Problem(title=title, status=self.status, detail=self.detail, code=self.code, id=id)

    def response(self, id: str) -> Response:
        """The problem as an HTTP response."""
        body = self.problem(id).model_dump_json()
        return Response(body, self.status, self.headers, media_type=PROBLEM_JSON)


def refusal(error: Exception) -> Refused:
    """The refusal that an error of the decoder or a model comes to."""
    match error:
        case Refused():
            return error
        case MediaError():
            return Refused(error.status, error.code, error.detail)
        case ModelOutOfMemory():
            return Refused(503, "model_out_of_memory", "the model has no memory for this clip", 1)
        case EngineUnavailable():
            return Refused(503, "engine_unavailable", "the model's engine does not answer", 2)
        case BadOutput():
            return Refused(502, "bad_output", "the model's answer is no judgement")
        case ModelError():
            return Refused(502, "model_failed", "the model cannot judge this clip")
    return Refused(500, "internal", "an error of the service; its log has the id")


def invalid(errors: Sequence[Any]) -> Refused:
    """The refusal for what pydantic found; says where and what, never the value."""
    if any(error["type"] == "json_invalid" for error in errors):
        return Refused(400, "not_json", "the body is not JSON")
    said = []
    for error in errors[:3]:
        where = ".".join(str(part) for part in error["loc"])
        where = "".join(c for c in where if c.isascii() and (c.isalnum() or c in "_.-"))[:80]
        said.append(f"{where or 'body'}: {error['msg'][:120]}")
    return Refused(422, "invalid", "; ".join(said))
