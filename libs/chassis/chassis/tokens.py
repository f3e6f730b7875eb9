"""Access tokens (JWT, EdDSA; RFC 7519, RFC 8037), verified in this process: auth is asked for its keys and for ended sessions only."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import httpx2
import jwt

from chassis.errors import Unauthorized, Unavailable
from chassis.logs import get_logger
from chassis.principal import Principal

log = get_logger()

ISSUER = AUDIENCE = "automation-orchestrator"
LEEWAY_SECONDS = 30
CACHED_TOKENS = 10_000
REFETCH_SECONDS = 5
TOKEN_LENGTH = 4096


class IdentitySource(Protocol):
    """Where keys and ended sessions come from."""

    async def keys(self) -> Mapping[str, Any]:
        """A JSON Web Key Set (RFC 7517)."""

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        """`[{"session_id": …, "until": unix seconds}]`: sessions ended while a token of theirs may still live."""


class RemoteIdentity:
    """Auth, asked over HTTP through the gateway's internal listener."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def keys(self) -> Mapping[str, Any]:
        answer = await self._client.get("/internal/auth/jwks.json")
        answer.raise_for_status()
        found: Mapping[str, Any] = answer.json()
        return found

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        answer = await self._client.get("/internal/auth/sessions/ended")
        answer.raise_for_status()
        found: Sequence[Mapping[str, Any]] = answer.json()["ended"]
        return found


_UNREACHABLE = (httpx2.HTTPError, OSError, ValueError, KeyError)


class TokenVerifier:
    """Verifies, remembers what it verified, and refuses what has ended since.

    While auth cannot be reached the last keys and the last list hold; a token it cannot judge for lack of a key is answered 503.
    """

    def __init__(self, source: IdentitySource, *, refresh_seconds: float, poll_seconds: float) -> None:
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._poll_seconds = poll_seconds
        self._keys: dict[str, Any] = {}
        self._keys_asked_at = float("-inf")
        self._keys_missed = True
        self._asking = asyncio.Lock()
        self._ended: dict[str, float] = {}
        self._verified: dict[str, tuple[Principal, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = asyncio.Event()
        """Set once keys and ended sessions have been loaded."""

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_keys(), name="jwks-refresh"),
            asyncio.create_task(self._keep_ended(), name="revocation-poll"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def verify(self, authorization: str | None) -> Principal:
        """The principal of an `Authorization` header; Unauthorized (401) with the reason, Unavailable (503) if it cannot be judged."""
        if authorization is None:
            raise Unauthorized("Send Authorization: Bearer <access token>.", error=None)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("Send Authorization: Bearer <access token>.", error="invalid_request")
        if not self.ready.is_set():
            raise Unavailable("The service is starting; try again.")
        known = self._verified.get(token)
        if known is None:
            known = await self._verify_signature(token)
        principal, expires_at = known
        if expires_at + LEEWAY_SECONDS <= time.time():
            self._verified.pop(token, None)
            raise Unauthorized("The access token has expired.")
        if principal.session_id is not None and principal.session_id in self._ended:
            self._verified.pop(token, None)
            raise Unauthorized("The session has ended.")
        return principal

    async def _verify_signature(self, token: str) -> tuple[Principal, float]:
        if len(token) > TOKEN_LENGTH:
            raise Unauthorized("The access token is not valid.")
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid")))
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "sub", "aud", "iss"]},
            )
            principal = Principal(
                workspace_id=claims["ws"],
                subject=claims["sub"],
                scopes=frozenset(claims["scope"].split()),
                session_id=claims.get("sid"),
                role=claims.get("role"),
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("The access token has expired.") from error
        except (jwt.InvalidTokenError, KeyError, AttributeError) as error:
            raise Unauthorized("The access token is not valid.") from error
        if len(self._verified) >= CACHED_TOKENS:
            self._verified.pop(next(iter(self._verified)))
        self._verified[token] = principal, float(claims["exp"])
        return self._verified[token]

    async def _key(self, key_id: str) -> Any:
        """The key; Unauthorized if auth does not know it, Unavailable if auth could not be asked. One asks for all who wait."""
        if key_id not in self._keys:
            async with self._asking:
                if key_id not in self._keys and time.monotonic() - self._keys_asked_at > REFETCH_SECONDS:
                    with suppress(*_UNREACHABLE, jwt.PyJWTError):
                        await self._load_keys()
        if key_id in self._keys:
            return self._keys[key_id]
        if self._keys_missed:
            raise Unavailable("The token's key is unknown here and auth cannot be asked; try again.")
        raise Unauthorized("The access token is not valid.")

    async def _load_keys(self) -> None:
        self._keys_asked_at = time.monotonic()
        missed = True
        try:
            found = await self._source.keys()
            self._keys = {str(key.key_id): key.key for key in jwt.PyJWKSet.from_dict(dict(found)).keys}
            missed = False
        finally:
            self._keys_missed = missed

    async def _keep_keys(self) -> None:
        while True:
            try:
                async with self._asking:
                    await self._load_keys()
                delay = self._refresh_seconds
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round must come
                log.warning("fail-loading-keys", error=repr(error))
                delay = self._poll_seconds if self._keys else 0.3
            await asyncio.sleep(delay)

    async def _keep_ended(self) -> None:
        while True:
            try:
                ended = await self._source.ended_sessions()
                self._ended = {entry["session_id"]: float(entry["until"]) for entry in ended}
                if self._keys:
                    self.ready.set()
                delay = self._poll_seconds if self._keys else 0.1
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round must come
                log.warning("fail-loading-ended-sessions", error=repr(error))
                delay = self._poll_seconds if self.ready.is_set() else 0.3
            await asyncio.sleep(delay)

    async def wait_ready(self, seconds: float) -> bool:
        """True if keys and ended sessions are there within `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ready.wait(), seconds)
        return self.ready.is_set()
