"""A retried write has its effect once, whatever happened to the first attempt."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from chassis.bus import Bus
from chassis.database import Database, Transaction, open_database
from chassis.errors import BadRequest, Conflict, NotFound, Unavailable, Unprocessable
from chassis.idempotency import Answer, WriteRequest, choose_key, run_once
from chassis.ids import new_id
from chassis.principal import Principal
from tests.support.fixtures import NewDatabase, owner_dsn
from tests.support.servers import TestServers

ALICE = Principal(workspace_id="ws_1", subject="user_alice", scopes=frozenset())


def write(
    key: str = "key-1", *, body: bytes = b"{}", client_key: bool = True, principal: Principal = ALICE
) -> WriteRequest:
    return WriteRequest(principal, "POST", "/api/things", "", body, key, client_key)


class Counting:
    """An effect that inserts one row each time it is carried out."""

    def __init__(self, *, status: int = 201, hold: asyncio.Event | None = None) -> None:
        self.times = 0
        self._status = status
        self._hold = hold

    async def __call__(self, tx: Transaction) -> Answer:
        self.times += 1
        await tx.connection.execute("INSERT INTO seeds (name) VALUES ($1)", new_id("effect"))
        if self._hold is not None:
            await self._hold.wait()
        return Answer.json(self._status, {"number": self.times}, {"Location": "/api/things/1"})


@pytest.fixture
async def dsn(emptied_database: NewDatabase) -> str:
    return await emptied_database("chassis")


@pytest.fixture
async def database(dsn: str, broker_url: str) -> AsyncIterator[Database]:
    async with open_database(dsn, Bus(broker_url, "leads"), service="leads", pool_size=5) as opened:
        yield opened


async def rows(database: Database) -> Any:
    async with database.acquire() as connection:
        return await connection.fetchval("SELECT count(*) FROM seeds")


async def test_a_repetition_gets_the_first_answer_and_has_no_second_effect(database: Database) -> None:
    effect = Counting()
    first = await run_once(write(), database, effect)
    second = await run_once(write(), database, effect)
    assert (first.status, first.body) == (second.status, second.body) == (201, b'{"number":1}')
    assert second.headers == {"Location": "/api/things/1", "Idempotency-Replayed": "true"}
    assert await rows(database) == 1


async def test_twenty_at_once_with_one_key_have_one_effect_and_equal_answers(dsn: str, broker_url: str) -> None:
    """Ten requests each in two processes: the ones in a process wait for each other, the processes by the key's row."""
    effect = Counting()
    bus = Bus(broker_url, "leads")
    async with (
        open_database(dsn, bus, service="leads", pool_size=5) as one,
        open_database(dsn, bus, service="leads", pool_size=5) as two,
    ):
        answers = await asyncio.gather(*(run_once(write(), database, effect) for database in [one, two] * 10))
        assert {(answer.status, answer.body) for answer in answers} == {(201, b'{"number":1}')}
        assert await rows(one) == 1


async def test_the_same_key_for_another_request_is_refused(database: Database) -> None:
    first = write()
    await run_once(first, database, Counting())
    for other in ({"method": "PUT"}, {"path": "/api/things/2"}, {"query": "a=1"}, {"body": b'{"other":1}'}):
        with pytest.raises(Unprocessable):
            await run_once(replace(first, **other), database, Counting())
    assert await rows(database) == 1


async def test_keys_of_two_users_and_two_workspaces_do_not_meet(database: Database) -> None:
    bob, elsewhere = replace(ALICE, subject="user_bob"), replace(ALICE, workspace_id="ws_2")
    for principal in (ALICE, bob, elsewhere):
        answer = await run_once(write(principal=principal), database, Counting())
        assert "Idempotency-Replayed" not in answer.headers
    assert await rows(database) == 3


async def test_a_problem_is_not_kept_so_that_a_repetition_tries_again(database: Database) -> None:
    async def refuse(_tx: Transaction) -> Answer:
        raise NotFound("not yet")

    with pytest.raises(NotFound):
        await run_once(write(), database, refuse)
    answer = await run_once(write(), database, Counting())
    assert answer.status == 201


async def test_an_expired_key_is_a_new_request(database: Database) -> None:
    await run_once(write(), database, Counting())
    async with database.acquire() as connection:
        await connection.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    answer = await run_once(write(body=b'{"other":1}'), database, Counting())
    assert answer.status == 201
    assert await rows(database) == 2


@pytest.mark.parametrize(("subject", "days"), [("user_alice", 1), ("service:workflows", 30)])
async def test_a_services_key_is_kept_for_a_month_and_anybody_elses_for_a_day(
    database: Database, subject: str, days: int
) -> None:
    """A run may wait for days between two tries of one step."""
    await run_once(write(principal=replace(ALICE, subject=subject)), database, Counting())
    async with database.acquire() as connection:
        kept = await connection.fetchval("SELECT expires_at - created_at FROM idempotency_keys")
    assert kept == timedelta(days=days)


async def test_an_answer_that_is_no_success_is_not_kept(database: Database) -> None:
    with pytest.raises(AssertionError):
        await run_once(write(), database, Counting(status=409))
    assert (await run_once(write(), database, Counting())).status == 201
    assert await rows(database) == 1


async def test_a_database_lost_twice_is_worth_another_try_with_the_same_key(database: Database) -> None:
    async def lose(_tx: Transaction) -> Answer:
        raise ConnectionResetError("gone")

    with pytest.raises(Unavailable):
        await run_once(write(), database, lose)
    assert (await run_once(write(), database, Counting())).status == 201


async def test_a_first_attempt_that_does_not_end_makes_its_repetition_retryable(dsn: str, broker_url: str) -> None:
    """Another process holds the key: a client's key is answered 409, the gateway's own 503, both with Retry-After."""
    hold = asyncio.Event()
    bus = Bus(broker_url, "leads")
    async with (
        open_database(dsn, bus, service="leads", pool_size=5) as one,
        open_database(dsn, bus, service="leads", pool_size=5) as two,
    ):

        async def keep_busy(tx: Transaction) -> Answer:
            while not hold.is_set():  # not idle in its transaction, so that nobody ends it
                await tx.connection.execute("SELECT 1")
                await asyncio.sleep(0.2)
            return Answer(200)

        keepers = [
            asyncio.create_task(run_once(write("a"), one, keep_busy)),
            asyncio.create_task(run_once(write("gw:b", client_key=False), one, keep_busy)),
        ]
        await asyncio.sleep(0.3)
        answers = await asyncio.gather(
            _run_elsewhere(two, write("a")),
            _run_elsewhere(two, write("gw:b", client_key=False)),
            return_exceptions=True,
        )
        hold.set()
        await asyncio.gather(*keepers)
    assert [type(answer) for answer in answers] == [Conflict, Unavailable]
    assert [answer.headers["Retry-After"] for answer in answers if isinstance(answer, Conflict | Unavailable)] == [
        "1",
        "1",
    ]


async def _run_elsewhere(database: Database, request: WriteRequest) -> Answer:
    """`run_once` as another process would: past this process's own queue of equal keys."""
    from chassis import idempotency

    return await idempotency._run_with_retry(request, database, Counting())


async def test_a_connection_lost_in_the_middle_is_tried_once_more_with_the_same_key(
    database: Database, dsn: str, servers: TestServers
) -> None:
    attempts = []

    async def lose_the_first(tx: Transaction) -> Answer:
        attempts.append(await tx.connection.fetchval("SELECT pg_backend_pid()"))
        await tx.connection.execute("INSERT INTO seeds (name) VALUES ('effect')")
        if len(attempts) == 1:
            owner = await asyncpg.connect(owner_dsn(servers, dsn))
            await owner.execute("SELECT pg_terminate_backend($1)", attempts[0])
            await owner.close()
        return Answer(204)

    answer = await run_once(write(), database, lose_the_first)
    assert answer.status == 204
    assert len(attempts) == 2
    assert await rows(database) == 1


async def test_a_cancelled_request_does_not_cancel_its_commit(database: Database) -> None:
    """The client went away while COMMIT was under way: the write stands, and its repetition gets the answer."""
    effect = Counting()
    inside = asyncio.Event()

    async def announce(tx: Transaction) -> Answer:
        answer = await effect(tx)
        inside.set()
        return answer

    task = asyncio.create_task(run_once(write(), database, announce))
    await inside.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answer = await run_once(write(), database, effect)
    assert answer.status == 201
    assert await rows(database) == 1


@pytest.mark.parametrize(("sent", "key"), [("abc", "abc"), ('"abc"', "abc"), (" a b ", "a b"), ("x" * 255, "x" * 255)])
def test_a_clients_key_is_taken_bare_or_quoted(sent: str, key: str) -> None:
    assert choose_key(sent, "0123") == (key, True)


@pytest.mark.parametrize("sent", ["", '""', "x" * 256, "schlüssel", "a\tb", "gw:0123"])
def test_a_key_that_cannot_be_one_is_refused(sent: str) -> None:
    with pytest.raises(BadRequest):
        choose_key(sent, "0123")


def test_without_a_key_the_gateways_own_id_counts() -> None:
    assert choose_key(None, "0123") == ("gw:0123", False)
    assert choose_key(None, None) != choose_key(None, None)
