"""Tokens are verified here; ended sessions are refused, and auth's absence turns nobody away who was let in."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.errors import Unauthorized, Unavailable
from chassis.tokens import TokenVerifier
from tests.support.fixtures import eventually
from tests.support.identity import TestIdentity


class Breakable:
    """An identity source that can be made unreachable."""

    def __init__(self, identity: TestIdentity) -> None:
        self._identity = identity
        self.reachable = True
        self._missed: set[str] = set()

    async def was_missed(self, *what: str) -> bool:
        """True once these (keys, if nothing is named) were asked for in vain."""
        return self._missed >= set(what or ("keys",))

    async def keys(self) -> Mapping[str, Any]:
        if not self.reachable:
            self._missed.add("keys")
            raise ConnectionError("auth is away")
        return await self._identity.keys()

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        if not self.reachable:
            self._missed.add("ended")
            raise ConnectionError("auth is away")
        return await self._identity.ended_sessions()


class Rotating:
    """An identity source whose answers take a moment, and whose key changes."""

    def __init__(self, identity: TestIdentity) -> None:
        self._old, self._new = identity, TestIdentity()
        self.rotated, self.asked = False, 0

    async def keys(self) -> Mapping[str, Any]:
        self.asked += 1
        await asyncio.sleep(0.05)
        [key] = (await (self._new if self.rotated else self._old).keys())["keys"]
        return {"keys": [{**key, "kid": "new-key" if self.rotated else "test-key"}]}

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        return []

    def token(self, **claims: Any) -> str:
        """One signed by the new key."""
        held = jwt.decode(self._new.token(**claims), options={"verify_signature": False})
        return jwt.encode(held, self._new._key, algorithm="EdDSA", headers={"kid": "new-key"})


@pytest.fixture
def source(identity: TestIdentity) -> Breakable:
    return Breakable(identity)


@pytest.fixture
async def verifier(source: Breakable) -> AsyncIterator[TokenVerifier]:
    made = TokenVerifier(source, refresh_seconds=0.1, poll_seconds=0.05)
    made.start()
    assert await made.wait_ready(5)
    yield made
    await made.stop()


async def test_a_good_token_gives_its_principal(verifier: TokenVerifier, identity: TestIdentity) -> None:
    principal = await verifier.verify(f"Bearer {identity.token()}")
    assert (principal.workspace_id, principal.subject, principal.session_id) == ("ws_1", "user_1", "sess_1")
    assert "leads:write" in principal.scopes


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - 3600},
        {"aud": "somebody-else"},
        {"iss": "somebody-else"},
        {"nbf": int(time.time()) + 3600},
        {"exp": None},
        {"ws": None},
        {"sub": None},
        {"scope": None},
        {"iat": int(time.time()) + 3600},
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(
    verifier: TokenVerifier, identity: TestIdentity, claims: dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized):
        await verifier.verify(f"Bearer {identity.token(**claims)}")


async def test_clocks_may_differ_by_half_a_minute(verifier: TokenVerifier, identity: TestIdentity) -> None:
    now = int(time.time())
    await verifier.verify(f"Bearer {identity.token(exp=now - 20)}")
    await verifier.verify(f"Bearer {identity.token(iat=now + 20)}")
    with pytest.raises(Unauthorized):
        await verifier.verify(f"Bearer {identity.token(exp=now - 40)}")


async def test_a_token_that_was_verified_before_expires_all_the_same(
    verifier: TokenVerifier, identity: TestIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, now = f"Bearer {identity.token(exp=int(time.time()) + 60)}", time.time()
    await verifier.verify(token)
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now + 100)
        with pytest.raises(Unauthorized, match="expired"):
            await verifier.verify(token)


async def test_as_many_verified_tokens_are_remembered_as_there_is_room_for(
    verifier: TokenVerifier, identity: TestIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.tokens.CACHED_TOKENS", 3)
    for number in range(5):
        await verifier.verify(f"Bearer {identity.token(jti=str(number))}")
    assert len(verifier._verified) == 3


async def test_forged_tokens_are_refused(verifier: TokenVerifier, identity: TestIdentity) -> None:
    claims = jwt.decode(identity.token(), options={"verify_signature": False})
    other = jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "test-key"})
    public = identity._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    confused = jwt.encode(claims, public, algorithm="HS256", headers={"kid": "test-key"})
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": "test-key"})
    stripped = identity.token().rpartition(".")[0] + "."
    for token in (other, confused, unsigned, stripped, "x", "a.b.c", "", "é", "x" * 5000):
        with pytest.raises(Unauthorized):
            await verifier.verify(f"Bearer {token}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic dXNlcjpwdw==", "bearer "])
async def test_a_missing_or_other_authorization_is_refused_with_a_challenge(
    verifier: TokenVerifier, header: str | None
) -> None:
    with pytest.raises(Unauthorized) as refused:
        await verifier.verify(header)
    assert refused.value.headers["WWW-Authenticate"].startswith("Bearer")


async def test_an_ended_session_is_refused_although_its_token_was_verified_before(
    verifier: TokenVerifier, identity: TestIdentity
) -> None:
    token = f"Bearer {identity.token(sid='sess_9')}"
    await verifier.verify(token)
    identity.end("sess_9")

    async def refused() -> bool:
        try:
            await verifier.verify(token)
        except Unauthorized:
            return True
        return False

    await eventually(refused, seconds=5)


def signed_by_another(identity: TestIdentity, kid: str) -> str:
    """A token under a key that the verifier has not seen."""
    claims = jwt.decode(identity.token(), options={"verify_signature": False})
    return "Bearer " + jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": kid})


async def test_while_auth_is_away_known_keys_go_on_and_unknown_ones_are_503(
    verifier: TokenVerifier, identity: TestIdentity, source: Breakable
) -> None:
    source.reachable = False
    await eventually(lambda: source.was_missed())
    await verifier.verify(f"Bearer {identity.token(sid='sess_8')}")
    for number in range(3):
        with pytest.raises(Unavailable):
            await verifier.verify(signed_by_another(identity, f"new-key-{number}"))
    source.reachable = True
    async with asyncio.timeout(5):
        while not await is_refused(verifier, signed_by_another(identity, "nobody's")):
            await asyncio.sleep(0.02)


async def is_refused(verifier: TokenVerifier, authorization: str) -> bool:
    """True: 401. False: 503."""
    try:
        await verifier.verify(authorization)
    except Unavailable:
        return False
    except Unauthorized:
        return True
    raise AssertionError("a token under an unknown key was accepted")


async def test_requests_with_a_new_key_wait_for_one_answer_and_are_all_let_in(identity: TestIdentity) -> None:
    source = Rotating(identity)
    verifier = TokenVerifier(source, refresh_seconds=3600, poll_seconds=3600)
    verifier.start()
    try:
        assert await verifier.wait_ready(5)
        source.rotated = True
        verifier._keys_asked_at -= 10
        asked = source.asked
        tokens = [f"Bearer {source.token(jti=str(number))}" for number in range(10)]
        principals = await asyncio.gather(*(verifier.verify(token) for token in tokens))
        assert {principal.subject for principal in principals} == {"user_1"}
        assert source.asked == asked + 1
    finally:
        await verifier.stop()


async def test_tokens_under_made_up_keys_do_not_make_every_request_ask_auth(identity: TestIdentity) -> None:
    source = Rotating(identity)
    verifier = TokenVerifier(source, refresh_seconds=3600, poll_seconds=3600)
    verifier.start()
    try:
        assert await verifier.wait_ready(5)
        for number in range(5):
            with pytest.raises(Unauthorized):
                await verifier.verify(signed_by_another(identity, f"made-up-{number}"))
        assert source.asked == 1
    finally:
        await verifier.stop()


async def test_nobody_is_let_in_before_the_ended_sessions_are_known(
    source: Breakable, identity: TestIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that was down while a session was ended has heard nothing of it."""

    async def not_yet() -> Sequence[Mapping[str, Any]]:
        raise ConnectionError("auth is away")

    monkeypatch.setattr(source, "ended_sessions", not_yet)
    verifier = TokenVerifier(source, refresh_seconds=3600, poll_seconds=0.05)
    verifier.start()
    try:

        async def has_keys() -> bool:
            return bool(verifier._keys)

        await eventually(has_keys, seconds=5)
        with pytest.raises(Unavailable):
            await verifier.verify(f"Bearer {identity.token()}")
        assert not verifier.ready.is_set()
    finally:
        await verifier.stop()


async def test_a_process_that_never_reached_auth_lets_nobody_in(source: Breakable, identity: TestIdentity) -> None:
    source.reachable = False
    verifier = TokenVerifier(source, refresh_seconds=0.1, poll_seconds=0.05)
    verifier.start()
    try:
        await eventually(lambda: source.was_missed("keys", "ended"))
        with pytest.raises(Unavailable):
            await verifier.verify(f"Bearer {identity.token()}")
        identity.end("sess_1")
        source.reachable = True
        assert await verifier.wait_ready(5)
        with pytest.raises(Unauthorized):
            await verifier.verify(f"Bearer {identity.token()}")
    finally:
        await verifier.stop()
