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

    async def keys(self) -> Mapping[str, Any]:
        if not self.reachable:
            raise ConnectionError("auth is away")
        return await self._identity.keys()

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        if not self.reachable:
            raise ConnectionError("auth is away")
        return await self._identity.ended_sessions()


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


async def test_while_auth_is_away_known_keys_go_on_and_unknown_ones_are_503(
    verifier: TokenVerifier, identity: TestIdentity, source: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.reachable = False
    await asyncio.sleep(0.3)
    await verifier.verify(f"Bearer {identity.token(sid='sess_8')}")
    claims = jwt.decode(identity.token(), options={"verify_signature": False})
    unknown = jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "new-key"})
    monkeypatch.setattr("chassis.tokens.REFETCH_SECONDS", 0)
    with pytest.raises(Unavailable):
        await verifier.verify(f"Bearer {unknown}")


async def test_a_process_that_never_reached_auth_lets_nobody_in(source: Breakable, identity: TestIdentity) -> None:
    source.reachable = False
    verifier = TokenVerifier(source, refresh_seconds=0.1, poll_seconds=0.05)
    verifier.start()
    try:
        with pytest.raises(Unavailable):
            await verifier.verify(f"Bearer {identity.token()}")
        identity.end("sess_1")
        source.reachable = True
        assert await verifier.wait_ready(5)
        with pytest.raises(Unauthorized):
            await verifier.verify(f"Bearer {identity.token()}")
    finally:
        await verifier.stop()
