"""uvicorn with one thing more: a handler may cut its client's connection, as a failing network would."""

import asyncio

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TRANSPORT = "simulators.transport"


class _CuttableProtocol(HttpToolsProtocol):
    """Leaves the connection's transport in each request's scope."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[_TRANSPORT] = self.transport  # type: ignore[literal-required]


class Dropped(Response):
    """Instead of an answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope[_TRANSPORT]
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


async def until_left(request: Request, seconds: float) -> None:
    """Say nothing for `seconds`, or until the client has had enough. The request's body must have been read."""
    try:
        await asyncio.wait_for(request.receive(), seconds)  # the next message is that the client is gone
    except TimeoutError:
        return


def run(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; requests that hang on purpose are cut after two seconds."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_CuttableProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run()
