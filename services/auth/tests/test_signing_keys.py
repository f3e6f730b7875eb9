"""Signing keys are shared by replicas, sealed at rest, and change without a token that a verifier cannot judge."""

import asyncio
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth.keys import KeyRing, ensure_key, published_seconds
from auth.rotate_keys import main, rotate
from auth.settings import Settings
from chassis import tokens as verifying
from chassis.errors import Unavailable
from chassis.tokens import RemoteIdentity, TokenVerifier
from chassis.vault import SealBroken, Vault


async def workspace(rows):
    await rows.execute("INSERT INTO workspaces (id, name) VALUES ('ws_keys', 'Keys') ON CONFLICT DO NOTHING")
    return "ws_keys"


async def service_token(client, settings, workspace_id):
    form = {"grant_type": "client_credentials", "client_id": "leads", "workspace_id": workspace_id}
    answer = await client.post("/api/auth/token", data=form | {"client_secret": settings.clients()["leads"]})
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def kid_of(token):
    return jwt.get_unverified_header(token)["kid"]


async def published(client):
    return [key["kid"] for key in (await client.get("/.well-known/jwks.json")).json()["keys"]]


def by_http(client, prefix):
    """Keys as another service gets them: the path the gateway makes of /internal/auth/…"""

    class Source(RemoteIdentity):
        async def keys(self):
            answer = await client.get(f"{prefix}/jwks.json")
            answer.raise_for_status()
            return answer.json()

        async def ended_sessions(self):
            return (await client.get(f"{prefix}/sessions/ended")).json()["ended"]

    return Source(client)


async def test_the_published_keys_are_public_and_verify_what_was_signed(api, agent):
    answer = await api.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=30"
    [key] = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert key["kid"] == kid_of(agent.access_token)
    public = jwt.PyJWK(key).key
    claims = jwt.decode(agent.access_token, public, algorithms=["EdDSA"], audience="automation-orchestrator")
    assert claims["iss"] == "automation-orchestrator"
    assert (await api.get("/internal/jwks.json")).json() == answer.json()


async def test_replicas_that_start_together_on_an_empty_database_share_one_key(own_settings, start, own_rows):
    replicas = await asyncio.gather(*(start(own_settings) for _ in range(3)))
    assert await own_rows.fetchval("SELECT count(*) FROM signing_keys") == 1
    kids = set()
    for replica in replicas:
        async with replica.client() as client:
            kids.add(kid_of(await service_token(client, own_settings, await workspace(own_rows))))
    assert len(kids) == 1


async def test_no_private_key_is_stored_in_clear_and_another_key_cannot_open_it(own_settings, start, own_rows):
    replica = await start(own_settings)
    stored = await own_rows.fetchrow("SELECT kid, sealed_private FROM signing_keys")
    vault = Vault(own_settings.key_encryption_keys.get_secret_value())
    assert len(vault.open(stored["sealed_private"], stored["kid"].encode())) == 32
    with pytest.raises(SealBroken):
        vault.open(stored["sealed_private"], b"another kid")
    wrong = Vault("k1:" + "B" * 43 + "=")
    ring = KeyRing(replica.state["resources"].database, wrong, reload_seconds=5, access_token_seconds=900)
    with pytest.raises(SealBroken):
        await ring.sign({"sub": "somebody"})


async def test_keys_rotate_under_two_replicas_without_a_token_that_a_verifier_refuses(
    own_settings, start, own_rows, monkeypatch
):
    # Verifiers learn of keys by their own period only: asking again for an unknown key must not be what saves them.
    monkeypatch.setattr(verifying, "REFETCH_SECONDS", 3600.0)
    fast = {"jwks_refresh_seconds": 0.5, "key_reload_seconds": 0.2, "key_activation_seconds": 3}
    replicas = [await start(own_settings, **fast) for _ in range(2)]
    clients = [replica.client() for replica in replicas]
    verifiers = [
        TokenVerifier(by_http(client, "/internal"), refresh_seconds=0.5, poll_seconds=0.5) for client in clients
    ]
    for verifier in verifiers:
        verifier.start()
        assert await verifier.wait_ready(5)
    ws = await workspace(own_rows)
    old = kid_of(await service_token(clients[0], own_settings, ws))
    new = await rotate(replicas[0].settings)
    issued: list[str] = []
    deadline = time.monotonic() + 20
    while [kid_of(token) for token in issued[-20:]] != [new] * 20:
        assert time.monotonic() < deadline
        for client in clients:
            token = await service_token(client, own_settings, ws)
            issued.append(token)
            for verifier in verifiers:
                assert (await verifier.verify(f"Bearer {token}")).subject == "service:leads"
        await asyncio.sleep(0.05)
    assert {kid_of(issued[0]), kid_of(issued[1])} == {old}
    assert {kid_of(issued[-1]), kid_of(issued[-2])} == {new}
    assert await published(clients[0]) == [old, new]
    fresh = TokenVerifier(by_http(clients[1], "/internal"), refresh_seconds=0.5, poll_seconds=0.5)
    fresh.start()
    assert await fresh.wait_ready(5)
    for token in issued:
        assert (await fresh.verify(f"Bearer {token}")).subject == "service:leads"
    for verifier in (*verifiers, fresh):
        await verifier.stop()
    for client in clients:
        await client.aclose()


async def test_a_new_key_is_published_at_once_and_signs_after_ninety_seconds(own_settings, start, own_rows):
    replica = await start(own_settings, key_reload_seconds=0.01)
    async with replica.client() as client:
        [old] = await published(client)
        new = await rotate(replica.settings)
        await asyncio.sleep(0.02)
        assert await published(client) == [old, new]
        waits = await own_rows.fetchval("SELECT activates_at - now() FROM signing_keys WHERE kid = $1", new)
        assert 85 < waits.total_seconds() <= 90
        ws = await workspace(own_rows)
        assert kid_of(await service_token(client, own_settings, ws)) == old
        await own_rows.execute("UPDATE signing_keys SET activates_at = now() WHERE kid = $1", new)
        await asyncio.sleep(0.02)
        assert kid_of(await service_token(client, own_settings, ws)) == new
        assert await published(client) == [old, new]


async def test_an_old_key_stays_published_for_its_tokens_life_and_is_then_dropped(own_settings, start, own_rows):
    replica = await start(own_settings, key_reload_seconds=0.01)
    async with replica.client() as client:
        [old] = await published(client)
        new = await rotate(own_settings)
        kept = published_seconds(own_settings.access_token_seconds)
        assert kept > 900 + 30
        for ago, keys in ((kept - 5, [old, new]), (kept + 5, [new])):
            await own_rows.execute(
                "UPDATE signing_keys SET activates_at = now() - make_interval(secs => $2) WHERE kid = $1", new, ago
            )
            await own_rows.execute(
                "UPDATE signing_keys SET activates_at = now() - interval '1 day' WHERE kid = $1", old
            )
            await asyncio.sleep(0.02)
            assert await published(client) == keys
        third = await rotate(own_settings)
        await asyncio.sleep(0.02)
        assert await published(client) == [new, third]
        assert await own_rows.fetchval("SELECT count(*) FROM signing_keys") == 2


async def test_a_replica_that_cannot_read_its_keys_signs_on_for_a_minute_and_then_answers_503(
    own_settings, start, monkeypatch
):
    replica = await start(own_settings)
    database = replica.state["resources"].database
    vault = Vault(own_settings.key_encryption_keys.get_secret_value())
    ring = KeyRing(database, vault, reload_seconds=0, access_token_seconds=900)
    await ring.load()

    async def away(_work):
        raise Unavailable("The database cannot be reached; try again.")

    monkeypatch.setattr(database, "read", away)
    assert await ring.sign({"sub": "somebody"})
    assert len((await ring.document())["keys"]) == 1
    ring._loaded_at -= 61
    with pytest.raises(Unavailable):
        await ring.sign({"sub": "somebody"})
    assert len((await ring.document())["keys"]) == 1


async def test_a_second_start_makes_no_second_key(own_settings, start, own_rows):
    replica = await start(own_settings)
    vault = Vault(own_settings.key_encryption_keys.get_secret_value())
    await ensure_key(replica.state["resources"].database, vault)
    assert await own_rows.fetchval("SELECT count(*) FROM signing_keys") == 1


async def test_the_sealing_key_is_replaced_by_putting_a_new_one_first_and_rotating(own_settings, start, own_rows):
    await start(own_settings)
    both = f"k2:{'B' * 43}=,{own_settings.key_encryption_keys.get_secret_value()}"
    changed = Settings(**{**own_settings.model_dump(), "key_encryption_keys": both})
    new = await rotate(changed)
    await own_rows.execute("UPDATE signing_keys SET activates_at = now() WHERE kid = $1", new)
    alone = await start(own_settings, key_encryption_keys=f"k2:{'B' * 43}=")
    async with alone.client() as client:
        token = await service_token(client, own_settings, await workspace(own_rows))
        assert kid_of(token) == new


async def test_the_command_rotates_and_says_when_the_new_key_signs(own_settings, own_rows, as_environment, capsys):
    as_environment(own_settings)
    assert await asyncio.to_thread(main) == 0
    said = capsys.readouterr().out
    assert await own_rows.fetchval("SELECT kid FROM signing_keys") in said
    assert "signs in 90 s" in said


async def test_the_command_that_cannot_rotate_says_why_in_one_line(own_settings, as_environment, capsys):
    as_environment(Settings(**{**own_settings.model_dump(), "database_url": "postgresql://auth@127.0.0.1:9/auth"}))
    assert await asyncio.to_thread(main) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)


async def test_an_unfit_activation_time_is_refused_at_start(own_settings):
    with pytest.raises(ValueError, match="KEY_ACTIVATION_SECONDS"):
        Settings(**{**own_settings.model_dump(), "key_activation_seconds": 35})


async def test_a_token_signed_by_anybody_else_is_refused(api, admin):
    private = Ed25519PrivateKey.generate()
    claims = jwt.decode(admin.access_token, options={"verify_signature": False})
    for kid in ("unknown", kid_of(admin.access_token)):
        forged = jwt.encode(claims, private, algorithm="EdDSA", headers={"kid": kid})
        assert (await api.get("/api/auth/me", headers={"Authorization": f"Bearer {forged}"})).status_code == 401
