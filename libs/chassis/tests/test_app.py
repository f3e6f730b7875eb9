"""Around every request: ids, limits, deadlines, and a problem document for whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict

from chassis.app import create_app
from chassis.context import current
from chassis.database import NotDurable, check_durability
from chassis.errors import Conflict, FieldError, TooManyRequests, Unprocessable
from chassis.health import Health
from chassis.principal import Principal
from chassis.security import require
from chassis.settings import ServiceSettings
from chassis.tokens import TokenVerifier
from tests.support.identity import TestIdentity


class ThingSettings(ServiceSettings):
    service: ClassVar[str] = "leads"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


class FakeResources:
    """Just what the routes below look at."""

    def __init__(self, tokens: TokenVerifier) -> None:
        self.tokens = tokens
        self.health = Health()


router = APIRouter()


@router.get("/boom")
async def boom() -> None:
    raise ZeroDivisionError


@router.get("/slow")
async def slow() -> None:
    await asyncio.sleep(30)


@router.get("/conflict")
async def conflict() -> None:
    raise Conflict("There is one already.", existing_id="thing_1")


@router.get("/limited")
async def limited() -> None:
    raise TooManyRequests("Slow down.", retry_after=7)


@router.get("/fields")
async def fields() -> None:
    raise Unprocessable("Wrong.", errors=[FieldError("/a/b", "is wrong")])


@router.post("/things")
async def things(body: Body, number: int = 0) -> dict[str, Any]:
    return {"name": body.name, "number": number}


@router.post("/raw")
async def raw(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@router.get("/who")
async def who(principal: Annotated[Principal, Depends(require("leads:read"))]) -> dict[str, Any]:
    return {"subject": principal.subject, "origin": current().origin, "chain": list(current().chain)}


@pytest.fixture
async def client(identity: TestIdentity) -> AsyncIterator[httpx2.AsyncClient]:
    verifier = TokenVerifier(identity, refresh_seconds=1, poll_seconds=1)
    verifier.start()
    await verifier.wait_ready(5)
    settings = ThingSettings(
        port=1,
        internal_url="http://127.0.0.1:9",
        database_url="postgresql://x",
        broker_url="amqp://x",
        cache_url="redis://x",
        service_client_secret="x",
        body_limit_bytes=1000,
        request_deadline_seconds=0.5,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {}

    app = create_app(settings, title="Things", lifespan=lifespan, routers=[router])
    resources = FakeResources(verifier)

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["resources"] = resources
        await app(scope, receive, send)

    transport = httpx2.ASGITransport(app=with_state, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made
    await verifier.stop()


async def test_a_request_id_is_echoed_or_made(client: httpx2.AsyncClient) -> None:
    kept = await client.post("/things", json={"name": "a"}, headers={"X-Request-ID": "req_mine"})
    made = await client.post("/things", json={"name": "a"})
    assert kept.headers["x-request-id"] == "req_mine"
    assert made.headers["x-request-id"].startswith("req_")


async def test_our_own_fault_is_a_problem_without_a_trace(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/boom")
    document = answer.json()
    assert answer.status_code == document["status"] == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == answer.headers["x-request-id"]
    assert "ZeroDivision" not in answer.text


async def test_a_request_past_its_deadline_is_503_with_retry_after(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/slow")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_problems_carry_what_the_client_needs(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/conflict")).json()["existing_id"] == "thing_1"
    assert (await client.get("/limited")).headers["retry-after"] == "7"
    fields = await client.get("/fields")
    assert fields.json()["errors"] == [{"pointer": "/a/b", "detail": "is wrong"}]
    assert fields.json()["instance"] == "/fields"


@pytest.mark.parametrize(
    ("content", "content_type", "status", "pointer"),
    [
        (b"{", "application/json", 400, None),
        (b"{}", "application/json", 422, "/name"),
        (b'{"name":1}', "application/json", 422, "/name"),
        (b'{"name":"a","colour":"red"}', "application/json", 422, "/colour"),
        (b'{"name":"a"}', "text/plain", 415, None),
    ],
)
async def test_a_wrong_body_is_a_4xx_that_points_at_the_field(
    client: httpx2.AsyncClient, content: bytes, content_type: str, status: int, pointer: str | None
) -> None:
    answer = await client.post("/things", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status
    if pointer is not None:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_a_wrong_query_parameter_is_named(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/things?number=x", json={"name": "a"})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["?number"]


async def test_a_body_above_the_limit_is_413_whether_its_length_is_declared_or_not(client: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    assert (await client.post("/raw", content=b"x" * 1000)).json() == {"size": 1000}
    assert (await client.post("/raw", content=b"x" * 1001)).status_code == 413
    assert (await client.post("/raw", content=chunks())).status_code == 413


async def test_unknown_addresses_and_methods_are_problems(client: httpx2.AsyncClient) -> None:
    unknown, method = await client.get("/nowhere"), await client.delete("/things")
    assert (unknown.status_code, method.status_code) == (404, 405)
    assert method.headers["allow"] == "POST"
    assert {unknown.headers["content-type"], method.headers["content-type"]} == {"application/problem+json"}


async def test_who_acts_is_the_user_and_only_a_service_may_speak_for_another(
    client: httpx2.AsyncClient, identity: TestIdentity
) -> None:
    speaking = {"X-Origin": "workflow:wf_1/run_1", "X-Chain": "wf_1,conn_2"}
    user = await client.get("/who", headers={**identity.headers(), **speaking})
    service = await client.get("/who", headers={**identity.service_headers("workflows"), **speaking})
    assert user.json() == {"subject": "user_1", "origin": "user:user_1", "chain": []}
    assert service.json()["origin"] == "workflow:wf_1/run_1"
    assert service.json()["chain"] == ["wf_1", "conn_2"]


async def test_a_missing_scope_is_403_and_a_missing_token_401(
    client: httpx2.AsyncClient, identity: TestIdentity
) -> None:
    missing = await client.get("/who")
    powerless = await client.get("/who", headers={"Authorization": f"Bearer {identity.token(scope='crm:read')}"})
    assert (missing.status_code, powerless.status_code) == (401, 403)
    assert missing.headers["www-authenticate"] == "Bearer"
    assert powerless.json()["required_scope"] == "leads:read"


async def test_a_dependency_that_fails_shows_in_health(client: httpx2.AsyncClient) -> None:
    health = Health()

    async def good() -> dict[str, int]:
        return {"waiting": 3}

    async def bad() -> None:
        raise ConnectionError

    health.add("postgresql", good)
    health.add("redis", bad, required=False)
    assert (await health.check())["status"] == "degraded"
    assert await health.is_ready()
    health.draining = True
    assert not await health.is_ready()
    health.draining = False
    health.add("rabbitmq", bad)
    found = await health.check()
    assert found["status"] == "failing"
    assert found["dependencies"]["postgresql"]["waiting"] == 3
    assert found["dependencies"]["redis"]["error"] == "ConnectionError"
    assert not await health.is_ready()


async def test_a_dependency_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.health.PING_SECONDS", 0.1)
    health = Health()

    async def hang() -> None:
        await asyncio.Event().wait()

    health.add("postgresql", hang)
    found = await asyncio.wait_for(health.check(), 2)
    assert found["dependencies"]["postgresql"]["error"] == "TimeoutError"


async def test_a_chain_longer_than_any_is_refused(client: httpx2.AsyncClient, identity: TestIdentity) -> None:
    chain = {"X-Chain": ",".join(f"wf_{number}" for number in range(9))}
    answer = await client.get("/who", headers={**identity.service_headers("workflows"), **chain})
    assert answer.status_code == 400


async def test_a_server_that_could_lose_commits_is_refused(new_database: Any) -> None:
    import asyncpg

    connection = await asyncpg.connect(await new_database("chassis"))
    try:
        await check_durability(connection)
        await connection.execute("SET synchronous_commit = off")
        with pytest.raises(NotDurable, match="synchronous_commit"):
            await check_durability(connection)
    finally:
        await connection.close()
