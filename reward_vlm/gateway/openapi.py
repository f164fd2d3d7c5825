"""What FastAPI cannot know of our routes: bodies that we read ourselves, and problems."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ..wire import BatchRequest, PreferenceRequest, Problem, RewardRequest
from .problems import PROBLEM_JSON

_REF = "#/components/schemas/"
_BODIES = (RewardRequest, BatchRequest, PreferenceRequest)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of these statuses."""
    content = {PROBLEM_JSON: {"schema": {"$ref": f"{_REF}Problem"}}}
    return {status: {"description": "A problem", "content": content} for status in statuses}


def body_of(model: type[BaseModel], parts: str | None) -> dict[str, Any]:
    """Request body of a route for OpenAPI: JSON, and multipart if ``parts`` is not None."""
    ref = {"$ref": f"{_REF}{model.__name__}"}
    content: dict[str, Any] = {"application/json": {"schema": ref, "example": _example(model)}}
    if parts is not None:
        file = {"type": "string", "contentMediaType": "video/mp4", "format": "binary"}
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "description": f"Files are named {parts}VIEW: video/mp4 or application/x-npz.",
                "properties": {"request": ref, f"{parts.split()[0] if parts else ''}front": file},
                "required": ["request"],
                "additionalProperties": file,
            },
            "encoding": {"request": {"contentType": "application/json"}},
        }
    return {"requestBody": {"required": True, "content": content}}


def _example(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON body that is answered as it stands: two frames of 2 x 2 pixels."""
    out = io.BytesIO()
    np.savez_compressed(out, frames=np.zeros((2, 2, 2, 3), np.uint8))
    data = base64.b64encode(out.getvalue()).decode()
    views = {"front": {"type": "application/x-npz", "data": data}}
    asked: dict[str, Any] = {"task": "put the cup on the plate", "fps": 10}
    if model is BatchRequest:
        return {"requests": [asked | {"views": views}]}
    if model is PreferenceRequest:
        return asked | {"first": views, "second": views}
    return asked | {"views": views}


def openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the bodies that we read ourselves."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        modes = [(model, "validation") for model in (*_BODIES, Problem)]
        _, found = models_json_schema(modes, ref_template=f"{_REF}{{model}}")  # type: ignore[arg-type]
        schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
        schemes = {"key": {"type": "http", "scheme": "bearer"}}
        schema["components"]["securitySchemes"] = schemes
        schema["security"] = [{"key": []}]
        schema["paths"]["/healthz"]["get"]["security"] = []
        for path in schema["paths"].values():
            for operation in path.values():  # FastAPI's own 422 is none of ours
                operation["responses"].get("422", {}).setdefault("content", {}).pop(
                    "application/json", None
                )
        app.openapi_schema = schema
    return app.openapi_schema
