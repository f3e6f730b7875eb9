"""The things auth knows, as values, and the rules that need nothing else."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from email_validator import EmailNotValidError, validate_email

Role = Literal["viewer", "agent", "admin"]
EndReason = Literal["logout", "ended", "refresh_token_reused", "user_disabled", "role_changed", "password_changed"]

PASSWORD_MIN_LENGTH = 12
PASSWORD_MAX_LENGTH = 256

_VIEWER = ("leads:read", "workflows:read", "crm:read")
_AGENT = (*_VIEWER, "leads:write", "workflows:write")
ROLE_SCOPES: dict[Role, tuple[str, ...]] = {
    "viewer": _VIEWER,
    "agent": _AGENT,
    "admin": (*_AGENT, "crm:write", "admin"),
}
SERVICE_SCOPES = ("leads:read", "leads:write", "crm:read", "crm:write", "workflows:read")


@dataclass(frozen=True, slots=True)
class User:
    """`version` grows by one with each announced change; `password_version` with each password."""

    workspace_id: str
    id: str
    email: str
    name: str
    role: Role
    active: bool
    version: int
    password_version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """A user as signing in needs it."""

    user: User
    password_hash: str


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in that is not over; `address` and `user_agent` are those of the sign-in."""

    workspace_id: str
    id: str
    user_id: str
    address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class EndedSession:
    """`until`: when the last access token of the session is over, leeway included, in unix seconds."""

    session_id: str
    until: float


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A signing key that verifiers may need. `active`: its time to sign has come; of several active ones the last signs."""

    kid: str
    public_key: bytes
    sealed_private: str
    active: bool


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, as the gateway saw it."""

    address: str
    user_agent: str


def normalise_email(text: str) -> str | None:
    """The address as it is stored and compared: NFC, lower case, the domain as IDNA 2008 reads it; None if it is none."""
    try:
        found = validate_email(text, check_deliverability=False)
    except EmailNotValidError:
        return None
    return unicodedata.normalize("NFC", found.normalized.lower())


def normalise_password(text: str) -> str:
    """NFC, so that the same password typed on another system is the same (RFC 8265, OpaqueString)."""
    return unicodedata.normalize("NFC", text)
