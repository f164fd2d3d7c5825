"""Bodies to requests: read under a limit, multipart or JSON, files as bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..wire import MAX_VIEWS, MEDIA, NPZ, Media
from .limits import Call
from .problems import Refused, invalid

Parsed = TypeVar("Parsed", bound=BaseModel)
Returned = TypeVar("Returned")
HEAVY = 512 << 10
"""Bytes above which work on a body leaves the event loop."""
REQUEST_BYTES = 64 << 10
"""Of the part ``request``."""


@dataclass(frozen=True)
class File:
    """One uploaded view."""

    type: str
    data: bytes


@dataclass
class Body:
    """The request part as it came, and the files by name."""

    request: bytes
    files: dict[str, File] = field(default_factory=dict)
    multipart: bool = False

    def fingerprint(self, route: str) -> bytes:
        """Digest of what was asked: multipart boundaries, which differ each time, are no part."""
        parts = [route.encode(), self.request]
        for name in sorted(self.files):
            file = self.files[name]
            parts += [name.encode(), file.type.encode(), hashlib.sha256(file.data).digest()]
        return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).digest()


async def off_loop(size: int, work: Callable[..., Returned], *args: object) -> Returned:
    """``work(*args)``, in a thread where ``size`` bytes would hold the event loop up."""
    return await asyncio.to_thread(work, *args) if size > HEAVY else work(*args)


class _Parts(MultiPartParser):
    spool_max_size = 1 << 40  # the body limit bounds it; payloads do not go to disk


async def read_body(request: Request, call: Call, limit: int, views: int = MAX_VIEWS) -> Body:
    """The body of a request.

    Args:
        limit: most bytes.
        views: most files.

    Raises:
        Refused: 413 too large, 415 neither JSON nor multipart, 400 no multipart.
    """
    kind, _, _ = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind == "application/json":
        return Body(b"".join([chunk async for chunk in _bounded(request, call, limit)]))
    if kind != "multipart/form-data":
        raise Refused(415, "content_type", "wanted application/json or multipart/form-data")
    try:
        stream = _bounded(request, call, limit)
        parser = _Parts(
            Headers(raw=request.headers.raw), stream, max_files=views + 1, max_fields=1,  # type: ignore[arg-type]
            max_part_size=REQUEST_BYTES,
        )  # fmt: skip
        form = await parser.parse()
    except (MultiPartException, UnicodeError, ValueError):
        raise Refused(400, "multipart", "the body is not well-formed multipart") from None
    try:
        return await _sorted_out(form.multi_items())
    finally:
        await form.close()


async def _sorted_out(items: list[tuple[str, UploadFile | str]]) -> Body:
    body = Body(b"", multipart=True)
    names = [name for name, _ in items]
    if len(set(names)) != len(names) or "request" not in names:
        raise Refused(422, "parts", "wanted one part request and each view once")
    for name, item in items:
        if name == "request":
            body.request = item.encode() if isinstance(item, str) else await item.read()
        elif isinstance(item, str):
            raise Refused(422, "parts", "a view is a file: its part needs a filename")
        elif item.content_type not in MEDIA:
            raise Refused(415, "media_type", f"a view must be one of {', '.join(MEDIA)}")
        else:
            body.files[name] = File(item.content_type, await item.read())
    if len(body.request) > REQUEST_BYTES:
        raise Refused(413, "body_too_large", f"the part request has at most {REQUEST_BYTES} bytes")
    return body


async def _bounded(request: Request, call: Call, limit: int) -> AsyncIterator[bytes]:
    """Chunks of the body, counted as they come."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refused(413, "body_too_large", f"a body has at most {limit} bytes")
        call.hold(len(chunk))
        yield chunk


async def parse(model: type[Parsed], text: bytes) -> Parsed:
    """JSON as a wire type.

    Raises:
        Refused: 400 or 422.
    """
    try:
        return await off_loop(len(text), model.model_validate_json, text)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        raise invalid(found) from None


async def inline(views: dict[str, Media] | None, where: str) -> dict[str, File]:
    """Files of a JSON body.

    Raises:
        Refused: 422, none or not base64.
    """
    if not views:
        raise Refused(422, "views_missing", f"{where} must hold at least one camera view")
    files = {}
    for name, media in views.items():
        try:
            data = await off_loop(len(media.data), media.content)
        except ValueError:
            raise Refused(422, "base64", f"{where}: data must be base64") from None
        files[name] = File(media.type, data)
    return files


def kind_of(file: File) -> str:
    """``mp4`` or ``npz``, what the decoder calls it."""
    return "npz" if file.type == NPZ else "mp4"
