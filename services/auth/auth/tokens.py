"""Tokens as auth makes them: access tokens (JWT, RFC 7519) for everyone, refresh tokens (opaque) for users."""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from auth.keys import KeyRing
from auth.models import ROLE_SCOPES, SERVICE_SCOPES, User
from chassis.tokens import AUDIENCE, ISSUER

_REFRESH_TOKEN = re.compile(r"(ws_[0-9a-z]{26})\.(sess_[0-9a-z]{26})\.[\w-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, the seconds it lives, and its scopes, space separated."""

    token: str
    expires_in: int
    scope: str


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a refresh token says of itself, and the digest under which it is stored. The secret part has 256 random bits."""

    workspace_id: str
    session_id: str
    token_hash: bytes


def new_refresh_token(workspace_id: str, session_id: str) -> tuple[str, RefreshToken]:
    """`<workspace id>.<session id>.<secret>`, and what is kept of it."""
    text = f"{workspace_id}.{session_id}.{secrets.token_urlsafe(32)}"
    return text, RefreshToken(workspace_id, session_id, _digest(text))


def read_refresh_token(text: str) -> RefreshToken | None:
    """None if the text cannot be one of ours."""
    match = _REFRESH_TOKEN.fullmatch(text)
    return RefreshToken(match[1], match[2], _digest(text)) if match else None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class AccessTokens:
    """Issues access tokens under the key that signs now."""

    def __init__(self, keys: KeyRing, *, seconds: int) -> None:
        self._keys = keys
        self._seconds = seconds

    async def for_user(self, user: User, session_id: str) -> AccessToken:
        """For one session of a user, with the scopes of the user's role."""
        claims = {"sub": user.id, "sid": session_id, "ws": user.workspace_id, "role": user.role}
        return await self._issue(claims, " ".join(ROLE_SCOPES[user.role]))

    async def for_service(self, name: str, workspace_id: str) -> AccessToken:
        """For a service that acts in a workspace: no session, no role."""
        return await self._issue({"sub": f"service:{name}", "ws": workspace_id}, " ".join(SERVICE_SCOPES))

    async def _issue(self, claims: dict[str, Any], scope: str) -> AccessToken:
        now = int(time.time())
        token = await self._keys.sign(
            {"iss": ISSUER, "aud": AUDIENCE, **claims, "scope": scope, "iat": now, "exp": now + self._seconds}
        )
        return AccessToken(token, self._seconds, scope)
