"""What auth refuses, and how the client is told.

Unauthorized 401 ── WrongCredentials, SessionOver    Conflict 409 ── EmailTaken, LastAdministrator
                 ClientRefused                       PreconditionFailed 412 ── UserVersionPassed
NotFound 404 ── UserNotFound, SessionNotFound        TooManyRequests 429 ── TooManyAttempts
BadRequest 400 ── TokenRefused
"""

from chassis.errors import BadRequest, Conflict, NotFound, PreconditionFailed, TooManyRequests, Unauthorized


class WrongCredentials(Unauthorized):
    """Never says which part was wrong, nor whether the account exists or is disabled."""

    code, title = "wrong-credentials", "Sign-in failed"

    def __init__(self) -> None:
        super().__init__("The e-mail address or the password is wrong.", error=None)


class SessionOver(Unauthorized):
    code, title = "session-over", "Session over"

    def __init__(self, detail: str = "The refresh token is not valid or its session is over: sign in again.") -> None:
        super().__init__(detail, error=None)


class TooManyAttempts(TooManyRequests):
    code, title = "too-many-attempts", "Too many failed sign-ins"

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            f"Too many failed sign-ins: wait {retry_after} seconds before the next.", retry_after=retry_after
        )


class TokenRefused(BadRequest):
    """An error answer of the token endpoint (RFC 6749, section 5.2): `error` is its code, in a problem document."""

    code, title = "token-refused", "Token refused"

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(
            detail,
            headers={"Cache-Control": "no-store"},
            error=error,
            error_description=detail,
        )


class ClientRefused(Unauthorized):
    """Client authentication failed (RFC 6749, section 5.2: 401 with a challenge for the scheme a client may use)."""

    code, title = "client-refused", "Client refused"

    def __init__(self) -> None:
        super().__init__("The client is unknown or its secret is wrong.", error=None)
        self.headers["WWW-Authenticate"] = 'Basic realm="token"'
        self.members |= {"error": "invalid_client", "error_description": self.detail}


class UserNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such user in this workspace.")


class SessionNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such session.")


class EmailTaken(Conflict):
    """`existing_id` is given only if the user in the way belongs to the same workspace."""

    code, title = "email-taken", "E-mail address taken"

    def __init__(self, existing_id: str | None) -> None:
        super().__init__("A user with this e-mail address exists.")
        if existing_id is not None:
            self.members["existing_id"] = existing_id


class LastAdministrator(Conflict):
    code, title = "last-administrator", "Last administrator"

    def __init__(self) -> None:
        super().__init__("This is the workspace's last active administrator: make another one first.")


class UserVersionPassed(PreconditionFailed):
    def __init__(self, version: int) -> None:
        super().__init__(f"The user is at version {version} now.", headers={"ETag": f'"{version}"'}, version=version)
