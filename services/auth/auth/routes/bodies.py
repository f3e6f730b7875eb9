"""What requests hold, and how answers are written."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from auth.models import (
    PASSWORD_MAX_LENGTH,
    PASSWORD_MIN_LENGTH,
    Role,
    Session,
    User,
    normalise_email,
    normalise_password,
)
from auth.service import SignedIn
from chassis.clock import rfc3339


def _email(text: str) -> str:
    normalised = normalise_email(text)
    if normalised is None:
        raise ValueError("must be an e-mail address")
    return normalised


def _password(text: str) -> str:
    normalised = normalise_password(text)
    if not PASSWORD_MIN_LENGTH <= len(normalised) <= PASSWORD_MAX_LENGTH:
        raise ValueError(f"must have {PASSWORD_MIN_LENGTH} to {PASSWORD_MAX_LENGTH} characters")
    return normalised


Email = Annotated[str, Field(max_length=320), AfterValidator(_email)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
NewPassword = Annotated[
    str,
    AfterValidator(_password),
    Field(json_schema_extra={"minLength": PASSWORD_MIN_LENGTH, "maxLength": PASSWORD_MAX_LENGTH, "format": "password"}),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Credentials(Body):
    """Any text is taken as address or password: a wrong one is wrong, not malformed."""

    email: Annotated[str, Field(min_length=1, max_length=320)]
    password: Annotated[str, Field(min_length=1, max_length=1024)]


class RefreshRequest(Body):
    refresh_token: Annotated[str, Field(min_length=1, max_length=512)]


class NewUser(Body):
    email: Email
    name: Name
    role: Role
    password: NewPassword


class UserChange(Body):
    """A merge patch: what is left out stays. Nothing here may be null, because nothing here may be empty."""

    name: Name = ""
    role: Role = "viewer"
    active: bool = True


class NewPasswordRequest(Body):
    password: NewPassword


class UserDocument(BaseModel):
    id: str
    email: str
    name: str
    role: Role
    active: bool
    version: int
    created_at: str
    updated_at: str


class UserPage(BaseModel):
    items: list[UserDocument]
    next_cursor: str | None


class Me(UserDocument):
    workspace_id: str
    session_id: str
    scopes: list[str]


class SessionDocument(BaseModel):
    id: str
    user_id: str
    current: bool
    address: str
    user_agent: str
    created_at: str
    last_used_at: str
    expires_at: str


class SessionPage(BaseModel):
    items: list[SessionDocument]
    next_cursor: str | None


class TokenDocument(BaseModel):
    """RFC 6749, section 5.1. A service gets no refresh token and no user: it asks again."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    refresh_token: str | None = None
    user: UserDocument | None = None


def user_document(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "active": user.active,
        "version": user.version,
        "created_at": rfc3339(user.created_at),
        "updated_at": rfc3339(user.updated_at),
    }


def session_document(session: Session, *, current: bool) -> dict[str, Any]:
    return {
        "id": session.id,
        "user_id": session.user_id,
        "current": current,
        "address": session.address,
        "user_agent": session.user_agent,
        "created_at": rfc3339(session.created_at),
        "last_used_at": rfc3339(session.last_used_at),
        "expires_at": rfc3339(session.expires_at),
    }


def token_document(signed_in: SignedIn) -> dict[str, Any]:
    return {
        "access_token": signed_in.access.token,
        "token_type": "bearer",
        "expires_in": signed_in.access.expires_in,
        "scope": signed_in.access.scope,
        "refresh_token": signed_in.refresh_token,
        "user": user_document(signed_in.user),
    }
