"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ..wire import (
    MAX_VIEWS,
    BatchAnswer,
    BatchItem,
    BatchRequest,
    ModelList,
    PreferenceAnswer,
    PreferenceRequest,
    RewardAnswer,
    RewardRequest,
)
from .auth import Keys
from .limits import Call, Gate
from .openapi import body_of, openapi, problems
from .problems import Refused, invalid, refusal
from .requests import Body, File, inline, parse, read_body
from .service import Service
from .streams import Streams

VIEW = re.compile(r"[A-Za-z0-9_-]{1,32}")
IDEMPOTENCY_KEY = r"^[!-~]{1,200}$"
_STATUSES = (400, 401, 404, 413, 415, 422, 429, 500, 502, 503, 504)


def create_app(service: Service, keys: Keys) -> Gate:
    """The ASGI application of a service; its lifespan starts and closes the service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="Incognita reward service", version="1", lifespan=lifespan, docs_url=None,
        redoc_url=None, responses=problems(401, 500, 503),
    )  # fmt: skip
    app.exception_handler(Refused)(_refused)
    app.exception_handler(RequestValidationError)(_refused)
    app.exception_handler(HTTPException)(_refused)
    app.exception_handler(ClientDisconnect)(_refused)
    app.exception_handler(Exception)(_refused)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    gate = Gate(
        app, settings=service.settings, keys=keys, metrics=service.metrics,
        draining=lambda: service.draining,
    )  # fmt: skip
    _operations(app, service)
    _rewards(app, service)
    _comparisons(app, service)
    return gate


def _operations(app: FastAPI, service: Service) -> None:
    """Routes for whoever runs the service."""

    @app.get("/healthz", summary="The process answers; no key needed.")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @app.get("/readyz", summary="Every model does a real forward pass.")
    async def readyz(request: Request) -> dict[str, str]:
        if service.draining:
            raise Refused(503, "draining", "the service is shutting down", 5)
        found = await service.ready()
        broken = [f"{name}: {why}" for name, why in found.items() if why != "ok"]
        if broken:
            raise Refused(503, "not_ready", "; ".join(broken), 2)
        return found

    @app.get("/metrics", summary="For Prometheus.", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", summary="The models there are.")
    async def models() -> ModelList:
        return service.cards()


def _rewards(app: FastAPI, service: Service) -> None:
    """Routes that judge clips."""
    limit = service.settings.body_bytes

    @app.post(
        "/v1/rewards", summary="Judge one clip.", response_model=RewardAnswer,
        responses=problems(*_STATUSES), openapi_extra=body_of(RewardRequest, ""),
    )  # fmt: skip
    async def rewards(request: Request, idempotency_key: _Key = None) -> Response:
        call = _call(request, service)
        body = await read_body(request, call, limit)

        async def make() -> BaseModel:
            wanted = await parse(RewardRequest, body.request)
            files = await _files(body, wanted.views)
            return await service.reward(wanted, files, call)

        return await _answered(service, request, body, idempotency_key, make)

    @app.post(
        "/v1/rewards:batch", summary="Judge several clips, each on its own.",
        response_model=BatchAnswer, responses=problems(*_STATUSES),
        openapi_extra=body_of(BatchRequest, None),
    )  # fmt: skip
    async def batch(request: Request, idempotency_key: _Key = None) -> Response:
        call = _call(request, service)
        body = await read_body(request, call, limit)
        if body.multipart:
            raise Refused(415, "content_type", "wanted application/json")

        async def one(wanted: RewardRequest) -> BatchItem:
            try:
                files = await _files(body, wanted.views)
                return BatchItem(answer=await service.reward(wanted, files, call))
            except Refused as refused:
                return BatchItem(problem=refused.problem(call.id))

        async def make() -> BaseModel:
            wanted = await parse(BatchRequest, body.request)
            results = await asyncio.gather(*(one(each) for each in wanted.requests))
            return BatchAnswer(results=list(results))

        return await _answered(service, request, body, idempotency_key, make)


def _comparisons(app: FastAPI, service: Service) -> None:
    """Routes that compare clips, or judge them as they grow."""
    limit = service.settings.body_bytes

    @app.post(
        "/v1/preferences", summary="Which of two clips did better?",
        response_model=PreferenceAnswer, responses=problems(*_STATUSES),
        openapi_extra=body_of(PreferenceRequest, "first. or second."),
    )  # fmt: skip
    async def preferences(request: Request, idempotency_key: _Key = None) -> Response:
        call = _call(request, service)
        body = await read_body(request, call, limit, 2 * MAX_VIEWS)

        async def make() -> BaseModel:
            wanted = await parse(PreferenceRequest, body.request)
            first = await _files(body, wanted.first, "first")
            second = await _files(body, wanted.second, "second")
            if len(first) + len(second) < len(body.files):
                raise Refused(422, "parts", "wanted parts first.VIEW and second.VIEW")
            return await service.prefer(wanted, first, second, call)

        return await _answered(service, request, body, idempotency_key, make)

    streams = Streams(service)

    @app.websocket("/v1/streams")
    async def stream(socket: WebSocket) -> None:
        await streams.run(socket, socket.state.call)


_Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", pattern=IDEMPOTENCY_KEY,
        description="The same key and body are answered the same, to the byte.",
    ),
]  # fmt: skip


def _call(request: Request, service: Service) -> Call:
    """What the gate found out; refused here already if no model has room, body unread."""
    call: Call = request.state.call
    full: Refused | None = None
    for batcher in service.batchers.values():
        try:
            batcher.check(call.deadline)
            return call
        except Refused as refused:
            full = refused
    service.metrics.rejects.labels(full.code if full else "no_model").inc()
    raise full or Refused(503, "starting", "no model yet", 1)


async def _files(body: Body, views: Any, prefix: str = "") -> dict[str, File]:
    """Files of a request: inline, or the parts whose name begins with ``prefix.``."""
    if not body.multipart:
        return await inline(views, prefix or "views")
    if views:
        raise Refused(422, "parts", "views come as parts of their own in multipart")
    start = f"{prefix}." if prefix else ""
    files = {k.removeprefix(start): v for k, v in body.files.items() if k.startswith(start)}
    if not 1 <= len(files) <= MAX_VIEWS or not all(VIEW.fullmatch(name) for name in files):
        raise Refused(422, "parts", f"wanted 1 to {MAX_VIEWS} parts named {start}VIEW")
    return files


async def _answered(
    service: Service,
    request: Request,
    body: Body,
    key: str | None,
    make: Callable[[], Awaitable[BaseModel]],
) -> Response:
    """Run ``make`` once per idempotency key, or until the client goes away."""

    async def text() -> bytes:
        return (await make()).model_dump_json().encode()

    if key is None:
        return Response(await _while_there(request, text()), media_type="application/json")
    whose = request.state.call.key
    print_ = body.fingerprint(request.url.path)
    content, again = await service.once.answer((whose, key), print_, text)
    headers = {"Idempotency-Replayed": "true"} if again else None
    return Response(content, headers=headers, media_type="application/json")


async def _while_there(request: Request, work: Awaitable[bytes]) -> bytes:
    """The outcome of ``work``, which is cancelled when the client hangs up."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: nothing else can come
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refused(408, "client_gone", "the client went away")
        return working.result()
    finally:
        gone.cancel()
        working.cancel()


async def _refused(request: Request, error: Exception) -> Response:
    """Any error as a problem."""
    id = request.state.call.id
    if isinstance(error, RequestValidationError):
        return invalid(error.errors()).response(id)
    if isinstance(error, HTTPException):
        code = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "http")
        response = Refused(error.status_code, code, str(error.detail)).response(id)
        response.headers.update(error.headers or {})
        return response
    if isinstance(error, ClientDisconnect):
        return Refused(408, "client_gone", "the client went away").response(id)
    return refusal(error).response(id)
