"""The services that workflows calls, and receivers of webhooks, at the HTTP edge: they speak the contracts' shapes and can misbehave."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chassis.clock import rfc3339, utcnow
from chassis.context import Context
from chassis.events import Event, new_event
from tests.support.identity import TestIdentity

EMPTY_LEAD: dict[str, Any] = {
    "email": None,
    "phone": None,
    "first_name": None,
    "last_name": None,
    "company": None,
    "title": None,
    "source": None,
    "stage": "new",
    "score": 0,
    "owner_id": None,
    "tags": [],
    "custom": {},
    "consent": {},
    "external_ids": {},
}


def make_lead(lead_id: str = "lead_1", **fields: Any) -> dict[str, Any]:
    """A lead as the API and events show it."""
    now = rfc3339(utcnow())
    return {"id": lead_id, **EMPTY_LEAD, "version": 1, "created_at": now, "updated_at": now, **fields}


@dataclass(frozen=True)
class Received:
    """A request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """How a path answers next. `hold` waits for an event first; `drop` does the work and cuts the connection."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    hold: threading.Event | None = None
    raw: bytes | None = None


class Neighbours:
    """auth's tokens, leads with idempotency keys, crm-sync's wish list, and `/hooks/…` for webhooks."""

    def __init__(self, identity: TestIdentity) -> None:
        self._identity = identity
        self.requests: list[Received] = []
        self.leads: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: list[Event] = []
        """What leads announced since the test last took it."""
        self._replies: dict[str, list[Reply]] = {}
        self._answers: dict[str, tuple[int, Any]] = {}
        self._lock = threading.Lock()
        with closing(socket(AF_INET, SOCK_STREAM)) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        app = Starlette(
            routes=[
                Route("/internal/auth/jwks.json", self._jwks),
                Route("/internal/auth/sessions/ended", self._ended),
                Route("/api/auth/token", self._token, methods=["POST"]),
                Route("/api/leads/{lead_id}", self._lead, methods=["GET", "PATCH"]),
                Route("/api/crm/leads/{lead_id}/sync", self._sync, methods=["POST"]),
                Route("/{path:path}", self._hook, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the neighbours did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    def forget(self) -> None:
        """Be as new."""
        self.requests.clear()
        self.leads.clear()
        self._replies.clear()
        self._answers.clear()
        self.take_events()

    # -- what tests say and ask ------------------------------------------------------------------------------------

    def put_lead(self, lead: dict[str, Any], workspace: str = "ws_1") -> dict[str, Any]:
        self.leads[workspace, lead["id"]] = lead
        return lead

    def script(self, path: str, *replies: Reply) -> None:
        """The next answers of requests whose path begins with `path`; afterwards it behaves again."""
        self._replies.setdefault(path, []).extend(replies)

    def received(self, path: str, method: str | None = None) -> list[Received]:
        """The requests whose path begins with `path`."""
        return [r for r in list(self.requests) if r.path.startswith(path) and method in (None, r.method)]

    def take_events(self) -> list[Event]:
        with self._lock:
            taken, self.events = self.events, []
        return taken

    # -- routes ----------------------------------------------------------------------------------------------------

    async def _jwks(self, _request: Request) -> Response:
        return JSONResponse(await self._identity.keys())

    async def _ended(self, _request: Request) -> Response:
        return JSONResponse({"ended": list(await self._identity.ended_sessions())})

    async def _token(self, request: Request) -> Response:
        form = dict(item.split("=", 1) for item in (await request.body()).decode().split("&"))
        token = self._identity.service_headers(form["client_id"], workspace=form["workspace_id"])["Authorization"]
        return JSONResponse({"access_token": token.split()[1], "token_type": "bearer", "expires_in": 900})

    async def _lead(self, request: Request) -> Response:
        body = await self._note(request)
        if (scripted := await self._scripted(request)) is not None:
            return scripted
        key = (self._workspace(request), request.path_params["lead_id"])
        if key not in self.leads:
            return JSONResponse({"detail": "There is no such lead."}, 404)
        if request.method == "GET":
            return JSONResponse(self.leads[key])
        return self._once(request, lambda: self._patch(request, key, json.loads(body)))

    def _patch(self, request: Request, key: tuple[str, str], changes: dict[str, Any]) -> tuple[int, Any]:
        old = self.leads[key]
        merged = {name: value for name, value in changes.items() if name != "custom"}
        if "custom" in changes:
            merged["custom"] = {**old["custom"], **changes["custom"]}
        changed = sorted(name for name, value in merged.items() if old[name] != value)
        if not changed:
            return 200, old
        lead = {**old, **merged, "version": old["version"] + 1, "updated_at": rfc3339(utcnow())}
        self.leads[key] = lead
        previous = {name: old[name] for name in changed}
        context = Context(
            origin=request.headers["x-origin"],
            chain=tuple(filter(None, request.headers["x-chain"].split(","))),
            request_id=request.headers.get("x-request-id"),
        )
        with self._lock:
            self.events.append(lead_event("lead.updated", lead, changed, previous, workspace=key[0], context=context))
        return 200, lead

    async def _sync(self, request: Request) -> Response:
        await self._note(request)
        if (scripted := await self._scripted(request)) is not None:
            return scripted
        return self._once(request, lambda: (202, {"connections": []}))

    async def _hook(self, request: Request) -> Response:
        await self._note(request)
        scripted = await self._scripted(request)
        return scripted if scripted is not None else JSONResponse({"received": True})

    def _once(self, request: Request, work: Callable[[], tuple[int, Any]]) -> Response:
        """As the house's services do: one effect per Idempotency-Key, the first answer for every repetition."""
        key = request.headers["idempotency-key"]
        if key not in self._answers:
            self._answers[key] = work()
        status, document = self._answers[key]
        return JSONResponse(document, status)

    async def _note(self, request: Request) -> bytes:
        body = await request.body()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.requests.append(Received(request.method, path, dict(request.headers), body, time.monotonic()))
        return body

    async def _scripted(self, request: Request) -> Response | None:
        for path, replies in self._replies.items():
            if request.url.path.startswith(path) and replies:
                reply = replies.pop(0)
                if reply.hold is not None:
                    await asyncio.to_thread(reply.hold.wait, 30)
                await asyncio.sleep(reply.delay)
                content = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
                return Response(content, reply.status, {"content-type": "application/json", **reply.headers})
        return None

    @staticmethod
    def _workspace(request: Request) -> str:
        import jwt

        claims = jwt.decode(request.headers["authorization"].split()[1], options={"verify_signature": False})
        return str(claims["ws"])


def lead_event(
    event_type: str,
    lead: dict[str, Any],
    changed: list[str] | None = None,
    previous: dict[str, Any] | None = None,
    *,
    workspace: str = "ws_1",
    context: Context | None = None,
) -> Event:
    """An event as leads announces it."""
    cause = context or Context(request_id="req_test", origin="user:user_1")
    if changed is None:
        changed = [name for name in EMPTY_LEAD if lead[name]] if event_type == "lead.created" else []
    return new_event(
        event_type,
        source="/services/leads",
        workspace_id=workspace,
        subject=lead["id"],
        subject_version=lead["version"],
        context=cause,
        data={"lead": lead, "changed": changed, "previous": previous or {}, "actor": cause.origin},
    )


def crm_event(event_type: str, lead_id: str, number: int, *, workspace: str = "ws_1", **data: Any) -> Event:
    """An event as crm-sync announces it, of connection conn_1."""
    content = {
        "connection_id": "conn_1",
        "connection_name": "HubSpot",
        "vendor": "hubspot",
        "lead_id": lead_id,
        "external_id": "42",
        "version": 1,
        "operation": "upsert",
        "created": True,
        "request_id": "r",
        "attempts": [],
        **data,
    }
    return new_event(
        event_type,
        source="/services/crm-sync",
        workspace_id=workspace,
        subject=f"{content['connection_id']}/{lead_id}",
        subject_version=number,
        context=Context(origin="connection:conn_1", chain=("conn_1",)),
        data=content,
    )


def user_event(event_type: str, user_id: str, version: int, *, active: bool = True, workspace: str = "ws_1") -> Event:
    """An event as auth announces it."""
    return new_event(
        event_type,
        source="/services/auth",
        workspace_id=workspace,
        subject=user_id,
        subject_version=version,
        context=Context(origin="user:user_admin"),
        data={"user_id": user_id, "name": user_id.title(), "active": active},
    )
