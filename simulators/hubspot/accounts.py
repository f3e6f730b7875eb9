"""Portals (HubSpot's accounts), the tokens that open them, and the OAuth token endpoint.

A portal comes to life when it is first named: by a static token `pat-sim-<portal id>`, by the refresh token
`refresh-sim-<portal id>` or authorization code `code-sim-<portal id>` of the app below, or over the control endpoint.
"""

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from simulators.hubspot.errors import TokenExpired, TokenRefused, Unauthorized
from simulators.hubspot.times import iso
from simulators.storage import Storage

CLIENT_ID = "sim-client-id"
CLIENT_SECRET = "sim-client-secret"  # noqa: S105 - the simulated app's, the same for everyone
SCOPES = ("oauth", "crm.objects.contacts.read", "crm.objects.contacts.write", "crm.schemas.contacts.write")

_STATIC_TOKEN = re.compile(r"pat-sim-([0-9]{1,9})")
_REFRESH_TOKEN = re.compile(r"refresh-sim-([0-9]{1,9})")
_CODE = re.compile(r"code-sim-([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Account:
    """One portal. Limits as HubSpot's usage guidelines give them for a Professional account."""

    portal_id: int
    time_zone: str = "America/New_York"
    burst: int = 190  # requests in `burst_seconds` with a static token
    oauth_burst: int = 110  # and with an app's token
    burst_seconds: float = 10.0
    daily: int = 650_000
    search_per_second: int = 5
    token_seconds: int = 1800  # an OAuth access token's life
    accepts_tokens: bool = True  # false: every token is answered 401, as after a revoked key
    accepts_refresh: bool = True  # false: the refresh token is refused, as after an uninstall
    keeps_primary_id: bool = False  # true: a merge keeps the primary record's id (HubSpot's public beta)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    account: Account
    is_app: bool  # an OAuth app's token, not a static one


class Accounts:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def get(self, portal_id: int) -> Account:
        row = self._storage.one("SELECT settings FROM accounts WHERE portal_id = ?", portal_id)
        return Account(**json.loads(row["settings"])) if row else self._save(Account(portal_id))

    def change(self, portal_id: int, changes: Mapping[str, Any]) -> Account:
        """Change some settings of a portal; `changes` are named as the fields of Account."""
        return self._save(replace(self.get(portal_id), **changes))

    def all(self) -> list[Account]:
        rows = self._storage.all("SELECT settings FROM accounts ORDER BY portal_id")
        return [Account(**json.loads(row["settings"])) for row in rows]

    def add_token(self, portal_id: int, token: str) -> None:
        """Let another static token open a portal."""
        self.get(portal_id)
        self._storage.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, 'static', NULL)", token, portal_id)

    def expire_tokens(self, portal_id: int | None) -> int:
        """End the life of every OAuth access token now (of one portal, or of all); how many there were."""
        now = time.time()
        return self._storage.execute(
            "UPDATE tokens SET expires_at = ? WHERE kind = 'oauth' AND expires_at > ? AND (? IS NULL OR portal_id = ?)",
            now,
            now,
            portal_id,
            portal_id,
        ).rowcount

    def authenticate(self, authorization: str | None) -> Caller:
        """Raises Unauthorized for a missing, unknown, revoked or expired token."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized
        row = self._storage.one("SELECT portal_id, kind, expires_at FROM tokens WHERE token = ?", token)
        static = _STATIC_TOKEN.fullmatch(token)
        if row is None and static is None:
            raise Unauthorized
        account = self.get(row["portal_id"] if row else int(static[1]) if static else 0)
        if not account.accepts_tokens:
            raise Unauthorized
        if row and row["expires_at"] is not None and row["expires_at"] <= time.time():
            raise TokenExpired(time.time() - row["expires_at"], iso(row["expires_at"]))
        return Caller(account, is_app=bool(row and row["kind"] == "oauth"))

    def portal_of(self, authorization: str | None) -> int | None:
        """The portal a request names, whether or not its token is still good."""
        token = (authorization or "").partition(" ")[2]
        if static := _STATIC_TOKEN.fullmatch(token):
            return int(static[1])
        row = self._storage.one("SELECT portal_id FROM tokens WHERE token = ?", token)
        return int(row["portal_id"]) if row else None

    def grant(self, form: Mapping[str, str], *, version: str) -> dict[str, Any]:
        """The token endpoint's answer to a refresh token or an authorization code. Raises TokenRefused."""

        def refused(status: str, message: str, oauth_error: str) -> TokenRefused:
            return TokenRefused(status, message, oauth_error=None if version == "v1" else oauth_error)

        if form.get("client_id") != CLIENT_ID:
            raise refused("BAD_CLIENT_ID", "missing or unknown client id", "invalid_client")
        if form.get("client_secret") != CLIENT_SECRET:
            raise refused("BAD_CLIENT_SECRET", "missing or invalid client secret", "invalid_client")
        if form.get("grant_type") == "refresh_token":
            portal = _REFRESH_TOKEN.fullmatch(form.get("refresh_token", ""))
            problem = refused("BAD_REFRESH_TOKEN", "missing or invalid refresh token", "invalid_grant")
        elif form.get("grant_type") == "authorization_code":
            portal = _CODE.fullmatch(form.get("code", ""))
            problem = refused("BAD_AUTH_CODE", "missing or unknown auth code", "invalid_grant")
        else:
            raise refused("BAD_GRANT_TYPE", "missing or unknown grant type", "unsupported_grant_type")
        if portal is None or not self.get(int(portal[1])).accepts_refresh:
            raise problem
        return self._issue(self.get(int(portal[1])), version)

    def describe(self, token: str) -> dict[str, Any] | None:
        """What the introspection endpoints say of a live access token; None for any other."""
        row = self._storage.one("SELECT * FROM tokens WHERE token = ? AND expires_at > ?", token, time.time())
        if row is None:
            return None
        return {
            "token": token,
            "user": "admin@example.com",
            "hub_domain": f"portal-{row['portal_id']}.example.com",
            "scopes": list(SCOPES),
            "hub_id": row["portal_id"],
            "app_id": 1,
            "user_id": 1,
            "expires_in": int(row["expires_at"] - time.time()),
            "token_type": "access",
        }

    def revoke(self, token: str) -> None:
        self._storage.execute("DELETE FROM tokens WHERE token = ? AND kind = 'oauth'", token)

    def _issue(self, account: Account, version: str) -> dict[str, Any]:
        token = "sim-access-" + secrets.token_urlsafe(150)  # HubSpot's have up to about 300 characters
        self._storage.execute(
            "INSERT INTO tokens VALUES (?, ?, 'oauth', ?)",
            token,
            account.portal_id,
            time.time() + account.token_seconds,
        )
        answer: dict[str, Any] = {
            "access_token": token,
            "refresh_token": f"refresh-sim-{account.portal_id}",  # HubSpot does not rotate it
            "expires_in": account.token_seconds,
            "token_type": "bearer",
        }
        if version != "v1":
            answer |= {"token_use": "access_token", "hub_id": account.portal_id, "scopes": list(SCOPES), "user_id": 1}
        return answer

    def _save(self, account: Account) -> Account:
        self._storage.execute(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?)", account.portal_id, json.dumps(asdict(account))
        )
        return account
