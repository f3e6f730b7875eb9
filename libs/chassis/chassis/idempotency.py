"""A retried write has its effect once: key, effect, event and answer share one transaction.

The key is the client's `Idempotency-Key` (IETF draft "The Idempotency-Key HTTP Header Field": bare or quoted), or, without one,
the gateway's own id of the request, so that the gateway may repeat a write on another replica. Keys belong to a workspace and
a principal, are compared with a fingerprint of method, path, query and body, and are kept for 24 hours (30 days for services).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

import asyncpg
import orjson
from fastapi import Depends, Header, Request
from starlette.responses import Response

from chassis.database import Database, Transaction
from chassis.errors import BadRequest, Conflict, ProblemError, Unavailable, Unprocessable
from chassis.failpoints import failpoint
from chassis.ids import new_id
from chassis.principal import Principal
from chassis.queries import load_queries
from chassis.security import require
from chassis.trouble import CommitUnknown, is_connection_lost

queries = load_queries("chassis")

KEY_LENGTH = 255
CLIENT_KEY_LIFETIME = timedelta(hours=24)
SERVICE_KEY_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a write answers and, for 2xx, what its repetition answers again. Never holds a secret."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, document: Any, headers: Mapping[str, str] | None = None) -> "Answer":
        return cls(status, orjson.dumps(document), headers or {})

    def response(self) -> Response:
        media_type = "application/json" if self.body else None
        return Response(self.body or None, status_code=self.status, headers=dict(self.headers), media_type=media_type)


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A write as idempotency sees it: whose it is, its key, and what it asks for."""

    principal: Principal
    method: str
    path: str
    query: str
    body: bytes
    key: str
    client_key: bool
    content_type: str = "application/json"

    @property
    def fingerprint(self) -> bytes:
        parts = (self.method.encode(), self.path.encode(), self.query.encode(), self.body)
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).digest()

    @property
    def lifetime(self) -> timedelta:
        return SERVICE_KEY_LIFETIME if self.principal.is_service else CLIENT_KEY_LIFETIME

    @property
    def scope(self) -> tuple[str, str, str]:
        return self.principal.workspace_id, self.principal.subject, self.key


def choose_key(client_key: str | None, gateway_request: str | None) -> tuple[str, bool]:
    """The key and whether it is the client's. BadRequest for one that is empty, too long or not printable ASCII."""
    if client_key is not None:
        key = client_key.strip()
        if len(key) >= 2 and key[0] == key[-1] == '"':
            key = key[1:-1]
        if not key or len(key) > KEY_LENGTH or not key.isascii() or not key.isprintable():
            raise BadRequest(f"Idempotency-Key must be 1 to {KEY_LENGTH} printable ASCII characters.")
        if key.startswith("gw:"):
            raise BadRequest("Idempotency-Key must not begin with gw:, which is the gateway's own.")
        return key, True
    return f"gw:{gateway_request or new_id('direct')}", False


def write_request(scope: str | None = None) -> Any:
    """A FastAPI dependency: the authorised WriteRequest of a route that needs `scope` (None: any valid token)."""

    async def dependency(
        request: Request,
        principal: Annotated[Principal, Depends(require(scope))],
        idempotency_key: Annotated[
            str | None,
            Header(description="Repeats with this key have their effect once and get the first answer, for 24 hours."),
        ] = None,
    ) -> WriteRequest:
        return await read_write_request(request, principal, idempotency_key)

    return Depends(dependency)


async def read_write_request(request: Request, principal: Principal, idempotency_key: str | None) -> WriteRequest:
    """The request's body and key, for a principal that is already authorised."""
    key, client_key = choose_key(idempotency_key, request.headers.get("x-gateway-request"))
    return WriteRequest(
        principal=principal,
        method=request.method,
        path=request.url.path,
        query=request.url.query,
        body=await request.body(),
        key=key,
        client_key=client_key,
        content_type=request.headers.get("content-type", ""),
    )


Effect = Callable[[Transaction], Awaitable[Answer]]

_under_way: dict[tuple[str, str, str], asyncio.Future[None]] = {}


async def run_once(write: WriteRequest, database: Database, effect: Effect) -> Answer:
    """Carry `effect` out once for this key and return its answer; a repetition gets the stored one, before any other check.

    `effect` may raise any ProblemError: then nothing is kept, and a repetition tries again. Raises Unprocessable for a key that
    was used for another request, Conflict (a client's key) or Unavailable (the gateway's) while the first is still running.
    """
    async with hold_key(write.scope):
        return await _run_with_retry(write, database, effect)


@asynccontextmanager
async def hold_key(scope: tuple[str, str, str]) -> AsyncIterator[bool]:
    """Be the only one with this key in this process: equal keys wait here, not on a database connection each.

    Gives True if another request with the key went first.
    """
    waited = False
    while (first := _under_way.get(scope)) is not None:
        waited = True
        await asyncio.shield(first)
    done = asyncio.get_running_loop().create_future()
    _under_way[scope] = done
    try:
        yield waited
    finally:
        del _under_way[scope]
        done.set_result(None)


async def _run_with_retry(write: WriteRequest, database: Database, effect: Effect) -> Answer:
    try:
        return await _run(write, database, effect)
    except Exception as error:
        if not (isinstance(error, CommitUnknown) or is_connection_lost(error)):
            raise
    try:
        return await _run(write, database, effect)
    except Exception as error:
        if isinstance(error, CommitUnknown) or is_connection_lost(error):
            raise Unavailable("The database was lost while writing; repeat the request with the same key.") from error
        raise


async def _run(write: WriteRequest, database: Database, effect: Effect) -> Answer:
    async with database.transaction() as tx:
        try:
            inserted = await tx.connection.fetchval(
                queries["insert_key"], *write.scope, write.fingerprint, write.lifetime
            )
        except asyncpg.LockNotAvailableError as error:
            raise still_running(write) from error
        failpoint("idempotency.after_key")
        if inserted is None:
            return await replay(write, tx.connection)
        answer = await effect(tx)
        if not 200 <= answer.status < 300:
            raise AssertionError("an effect raises its problems; it does not return them")
        await tx.connection.execute(
            queries["store_answer"],
            *write.scope,
            answer.status,
            orjson.dumps(dict(answer.headers)).decode(),
            answer.body,
        )
    failpoint("idempotency.before_response")
    return answer


async def replay(write: WriteRequest, connection: Any) -> Answer:
    """The stored answer of this key; Unprocessable if the key was used for another request."""
    record = await connection.fetchrow(queries["read_key"], *write.scope)
    if record is None or record["status"] is None:
        raise still_running(write)
    return stored_answer(write, record)


def stored_answer(write: WriteRequest, record: Mapping[str, Any]) -> Answer:
    """The answer held by a row of `idempotency_keys`, marked as a replay; Unprocessable if the row is of another request."""
    if record["fingerprint"] != write.fingerprint:
        raise Unprocessable("This Idempotency-Key was used for another request.", code_detail="idempotency-key-reused")
    headers = {**orjson.loads(record["headers"]), "Idempotency-Replayed": "true"}
    return Answer(record["status"], record["body"] or b"", headers)


def still_running(write: WriteRequest) -> ProblemError:
    """The answer to a repetition that waited for the first attempt in vain."""
    if write.client_key:
        problem = Conflict("The first request with this Idempotency-Key is still running.")
        problem.headers["Retry-After"] = "1"
        return problem
    return Unavailable("The first attempt of this request is still running; try again.")
