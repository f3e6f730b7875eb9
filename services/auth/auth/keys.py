"""Signing keys (Ed25519, RFC 8032): in PostgreSQL for all replicas, private halves sealed, published before they sign and after.

A new key is published at once and signs only when every verifier has fetched it. The old key stays published until the last token
it signed is over. So at no moment does a valid token meet a verifier that cannot know its key.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth import repository
from auth.models import PublishedKey
from chassis.database import Database, PooledConnection
from chassis.errors import Unavailable
from chassis.logs import get_logger
from chassis.tokens import LEEWAY_SECONDS
from chassis.trouble import is_database_trouble
from chassis.vault import Vault

log = get_logger()

STALE_SECONDS = 60.0
"""A replica that could not read its keys for this long signs no more."""


def published_seconds(access_token_seconds: float) -> float:
    """How long a key stays published after its successor became active: the life of the last token it can have signed."""
    return access_token_seconds + LEEWAY_SECONDS + 2 * STALE_SECONDS


async def add_key(connection: PooledConnection, vault: Vault, *, activates_in_seconds: float) -> str:
    """Insert a new key and return its id, the thumbprint of its public half (RFC 7638)."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    kid = _encode(hashlib.sha256(orjson.dumps(_jwk(public), option=orjson.OPT_SORT_KEYS)).digest())
    sealed = vault.seal(private.private_bytes_raw(), kid.encode())
    await repository.insert_signing_key(connection, kid, public, sealed, activates_in_seconds)
    return kid


async def ensure_key(database: Database, vault: Vault) -> None:
    """Make the system's first key unless there is one; of several replicas that start together one makes it."""
    async with database.transaction() as tx:
        await repository.lock_signing_keys(tx.connection)
        if not await repository.signing_key_exists(tx.connection):
            # A while ago: a reader's `now()` may be a moment older than what it sees.
            kid = await add_key(tx.connection, vault, activates_in_seconds=-STALE_SECONDS)
            log.info("make-signing-key", kid=kid)


class KeyRing:
    """One replica's view of the keys, read again when it is older than `reload_seconds`."""

    def __init__(self, database: Database, vault: Vault, *, reload_seconds: float, access_token_seconds: float) -> None:
        self._database = database
        self._vault = vault
        self._reload_seconds = reload_seconds
        self._published_seconds = published_seconds(access_token_seconds)
        self._keys: list[PublishedKey] = []
        self._loaded_at = float("-inf")
        self._opened: tuple[str, Ed25519PrivateKey] | None = None
        self._loading = asyncio.Lock()

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """The claims as a JWT; Unavailable (503) if the keys could not be read for too long."""
        await self._refresh()
        signing = [key for key in self._keys if key.active]
        if not signing or time.monotonic() - self._loaded_at > STALE_SECONDS:
            raise Unavailable("The signing keys cannot be read; try again.")
        kid, private = self._open(signing[-1])
        return jwt.encode(dict(claims), private, algorithm="EdDSA", headers={"kid": kid})

    async def document(self) -> dict[str, Any]:
        """The JSON Web Key Set: every key that signs, will sign, or has signed a token that may still live."""
        await self._refresh()
        if not self._keys:
            raise Unavailable("The signing keys cannot be read; try again.")
        return {"keys": [_document(key) for key in self._keys]}

    async def load(self) -> None:
        """Read the keys now."""
        self._keys = await self._database.read(
            lambda connection: repository.published_keys(connection, self._published_seconds)
        )
        self._loaded_at = time.monotonic()

    async def _refresh(self) -> None:
        """Read the keys if they are old; if that fails the last ones hold."""
        async with self._loading:
            if self._keys and time.monotonic() - self._loaded_at < self._reload_seconds:
                return
            try:
                await self.load()
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                if not is_database_trouble(error):
                    raise
                log.warning("fail-reading-keys", error=str(error) or type(error).__name__)

    def _open(self, key: PublishedKey) -> tuple[str, Ed25519PrivateKey]:
        if self._opened is None or self._opened[0] != key.kid:
            raw = self._vault.open(key.sealed_private, key.kid.encode())
            self._opened = key.kid, Ed25519PrivateKey.from_private_bytes(raw)
        return self._opened


def _document(key: PublishedKey) -> dict[str, str]:
    """As a JSON Web Key (RFC 8037, section 2)."""
    return _jwk(key.public_key) | {"kid": key.kid, "use": "sig", "alg": "EdDSA"}


def _jwk(public_key: bytes) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _encode(public_key)}


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
