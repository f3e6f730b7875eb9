"""Passwords are hashed with argon2id beside the event loop, in bounded number, and take the same time for everybody."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type

from auth.passwords import MEMORY_KIB, PASSES, Passwords
from chassis.errors import Unavailable
from services.auth.tests.conftest import start_replica


@pytest.fixture(scope="module", autouse=True)
def real_hashes():
    """As in operation: the other tests' hashes are cheap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auth.passwords.MEMORY_KIB", MEMORY_KIB)
        patch.setattr("auth.passwords.PASSES", PASSES)
        yield


@pytest.fixture(scope="module")
async def auth(settings, real_hashes):
    """A replica that was started with them."""
    async with AsyncExitStack() as stack:
        yield await start_replica(stack, settings)


@pytest.fixture
def passwords():
    with Passwords(threads=2, waiting_limit=4) as made:
        yield made


async def test_hashes_are_argon2id_with_the_stated_parameters(passwords):
    stored = await passwords.hash("a long password")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(stored, "a long password")
    assert not await passwords.verify(stored, "a long passwore")
    assert not passwords.needs_rehash(stored)


async def test_no_stored_hash_and_a_broken_one_match_nothing(passwords):
    assert not await passwords.verify(None, "a long password")
    assert not await passwords.verify("no hash", "a long password")


async def test_the_event_loop_goes_on_while_passwords_are_hashed(passwords):
    hashing = asyncio.gather(*(passwords.hash("a long password") for _ in range(6)))
    longest = 0.0
    while not hashing.done():
        started = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - started)
    await hashing
    one = time.perf_counter()
    await passwords.hash("a long password")
    assert longest < max(0.1, 3 * (time.perf_counter() - one))


async def test_more_than_may_wait_are_refused_at_once(passwords):
    results = await asyncio.gather(*(passwords.hash("a long password") for _ in range(10)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Unavailable)]
    assert len(refused) == 10 - 2 - 4
    assert refused[0].headers["Retry-After"] == "1"
    assert await passwords.hash("a long password")


async def test_a_sign_in_replaces_a_hash_made_with_other_parameters(api, agent, rows, sign_in):
    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1, type=Type.ID).hash(agent.password)
    await rows.execute("UPDATE users SET password_hash = $2 WHERE id = $1", agent.id, old)
    await sign_in(agent.email)
    stored = await rows.fetchval("SELECT password_hash FROM users WHERE id = $1", agent.id)
    assert "m=19456,t=2,p=1" in stored
    assert (await sign_in(agent.email)).id == agent.id
    assert await rows.fetchval("SELECT password_hash FROM users WHERE id = $1", agent.id) == stored
    assert (await api.post("/api/auth/refresh", json={"refresh_token": agent.refresh_token})).status_code == 200


async def test_an_unknown_address_and_a_disabled_user_do_the_same_work_as_a_known_one(api, admin, agent, monkeypatch):
    hashed = []
    matches = Passwords._matches

    def counted(self, stored, candidate):
        hashed.append(stored.rpartition("$")[0].rpartition("$")[0])
        return matches(self, stored, candidate)

    monkeypatch.setattr(Passwords, "_matches", counted)
    await api.patch(f"/api/auth/users/{agent.id}", json={"active": False}, headers=admin.headers)
    for email in (admin.email, "nobody@example.com", "no address", agent.email):
        answer = await api.post("/api/auth/login", json={"email": email, "password": "not the password"})
        assert answer.status_code == 401
    assert hashed == ["$argon2id$v=19$m=19456,t=2,p=1"] * 4


async def test_an_unknown_address_is_answered_as_fast_as_a_known_one(api, admin, rows):
    async def seconds(email):
        await rows.execute("DELETE FROM login_failures")
        started = time.perf_counter()
        answer = await api.post("/api/auth/login", json={"email": email, "password": "not the password"})
        assert answer.status_code == 401
        return time.perf_counter() - started

    times = [(await seconds(admin.email), await seconds("nobody@example.com")) for _ in range(15)]
    known, unknown = zip(*times, strict=True)
    # Without the hash an unknown address would be answered ten times as fast.
    assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2
