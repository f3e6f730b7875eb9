"""The FastAPI application of a service: problems, ids, metrics, logs, deadline and body limit around its routes."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.context import Context, bind
from chassis.errors import (
    BadRequest,
    FieldError,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    ProblemError,
    Unavailable,
    Unprocessable,
    UnsupportedMediaType,
)
from chassis.ids import new_id
from chassis.logs import get_logger
from chassis.metrics import REQUEST_SECONDS, REQUESTS
from chassis.parsing import MAX_ERRORS, check_media_type, pointer
from chassis.settings import ServiceSettings
from chassis.trouble import is_database_trouble

log = get_logger()

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]


class InternalError(ProblemError):
    """Our fault; the log has the trace under the request id."""


def create_app(
    settings: ServiceSettings, *, title: str, lifespan: Lifespan, routers: Sequence[APIRouter], description: str = ""
) -> FastAPI:
    """The service's application. `lifespan` yields `{"resources": Resources, "service": …}`."""
    app = FastAPI(
        title=title,
        description=description,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        telemetry={"auto_configure": False},
    )
    for router in routers:
        app.include_router(router)
    app.include_router(operations_router())
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_middleware(RequestEnvelope, settings=settings)
    return app


def operations_router() -> APIRouter:
    """Health and metrics of the process: for supervisors, the gateway's internal side and Prometheus."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/health/ready")
    async def ready(request: Request) -> Response:
        is_ready = await request.state.resources.health.is_ready()
        return JSONResponse({"status": "ok" if is_ready else "failing"}, status_code=200 if is_ready else 503)

    @router.get("/health/detailed")
    async def detailed(request: Request) -> Response:
        found = await request.state.resources.health.check()
        return JSONResponse(found, status_code=503 if found["status"] == "failing" else 200)

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        await request.state.resources.observers.observe()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for nothing else
    return error.response(request.url.path)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return BadRequest("The body is not valid JSON.").response(request.url.path)
    if any(each["loc"] == ("body",) and each["type"] != "missing" for each in found):
        try:
            check_media_type(request.headers.get("content-type", ""))
        except UnsupportedMediaType as problem:
            return problem.response(request.url.path)
    errors = []
    for each in found[:MAX_ERRORS]:
        place, *rest = each["loc"]
        where = pointer(rest) if place == "body" else f"{'?' if place == 'query' else ''}{'.'.join(map(str, rest))}"
        sentence = f"unknown field {rest[-1]!r}" if each["type"] == "extra_forbidden" else str(each["msg"])
        errors.append(FieldError(where, sentence.removeprefix("Value error, ")))
    return Unprocessable("The request has invalid fields.", errors=errors).response(request.url.path)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    problem: ProblemError
    if error.status_code == 404:
        problem = NotFound("There is nothing at this address.")
    elif error.status_code == 405:
        problem = MethodNotAllowed("This address does not take that method.", headers=error.headers)
    else:
        problem = BadRequest(str(error.detail))
    return problem.response(request.url.path)


class RequestEnvelope:
    """Around every request: binds its ids, bounds its time and body, counts and logs it, and answers what nobody handled."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._deadline = settings.request_deadline_seconds
        self._limit = settings.body_limit_bytes
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1") or new_id("req")
        traceparent = headers.get(b"traceparent")
        bind(Context(request_id, traceparent=traceparent.decode("latin-1") if traceparent else None))
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("latin-1"))]
            await send(message)

        try:
            async with asyncio.timeout(self._deadline):
                await self._app(scope, self._bounded(headers, receive), send_with_id)
        except Exception as error:
            if status:  # an answer has begun: only the connection can say that it failed
                log.exception("break-answer", path=scope["path"])
                raise
            await self._to_problem(error, scope["path"]).response(scope["path"])(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """`receive` that raises PayloadTooLarge above the limit, before the body is read if its length is declared."""
        declared = headers.get(b"content-length", b"0")
        too_large = PayloadTooLarge(f"The body may have at most {self._limit} bytes.")
        received = 0

        async def bounded() -> Message:
            nonlocal received
            if declared.isdigit() and int(declared) > self._limit:
                raise too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise too_large
            return message

        return bounded

    @staticmethod
    def _to_problem(error: Exception, path: str) -> ProblemError:
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, asyncpg.TooManyConnectionsError) or is_database_trouble(error):
            log.warning("answer-unavailable", path=path, error=str(error) or type(error).__name__)
            return Unavailable("The service could not finish in time or lost its database; try again.")
        log.exception("fail-request", path=path)
        return InternalError("Something went wrong on our side. Quote the request id when you report it.")

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path_format", None) or "unmatched"
        key = (scope["method"], path, status)
        children = self._children.get(key)
        if children is None:
            children = REQUESTS.labels(scope["method"], path, status), REQUEST_SECONDS.labels(scope["method"], path)
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)
        if not path.startswith(("/health", "/metrics", "/internal")):
            log.info("answer-request", method=key[0], route=path, status=status, milliseconds=round(seconds * 1000, 2))
