"""The problems a client may be told, as RFC 9457 describes them.

ProblemError
├── BadRequest 400            ├── Conflict 409              ├── UnsupportedMediaType 415
├── Unauthorized 401          ├── Gone 410                  ├── Unprocessable 422
├── Forbidden 403             ├── PreconditionFailed 412    ├── TooManyRequests 429
├── NotFound 404              ├── PayloadTooLarge 413       └── Unavailable 503
└── MethodNotAllowed 405
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from starlette.responses import Response

from chassis.context import current


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong place in a request: an RFC 6901 pointer into the body (or `?name` for a query parameter) and what is wrong."""

    pointer: str
    detail: str


class ProblemError(Exception):
    """Root of everything that is answered as `application/problem+json`. `members` become extension members."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = members

    def body(self, instance: str) -> dict[str, Any]:
        """The problem document: type, title, status, detail, instance, request_id, and what this problem adds."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": current().request_id,
        }
        if self.errors:
            document["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in self.errors]
        return document | self.members

    def response(self, instance: str) -> Response:
        """This problem as an answer to a request for the path `instance`."""
        return Response(
            orjson.dumps(self.body(instance)),
            status_code=self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


class BadRequest(ProblemError):
    status, code, title = 400, "bad-request", "Bad request"


class Unauthorized(ProblemError):
    status, code, title = 401, "unauthorized", "Not signed in"

    def __init__(self, detail: str, *, error: str | None = "invalid_token") -> None:
        # RFC 6750, section 3: no error code when the request carried no credentials at all.
        challenge = f'Bearer error="{error}"' if error else "Bearer"
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class Forbidden(ProblemError):
    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(ProblemError):
    status, code, title = 404, "not-found", "Not found"


class MethodNotAllowed(ProblemError):
    status, code, title = 405, "method-not-allowed", "Method not allowed"


class Conflict(ProblemError):
    status, code, title = 409, "conflict", "Conflict"


class Gone(ProblemError):
    status, code, title = 410, "gone", "Gone"


class PreconditionFailed(ProblemError):
    status, code, title = 412, "precondition-failed", "Changed meanwhile"


class PayloadTooLarge(ProblemError):
    status, code, title = 413, "payload-too-large", "Body too large"


class UnsupportedMediaType(ProblemError):
    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class Unprocessable(ProblemError):
    status, code, title = 422, "unprocessable", "Invalid input"


class TooManyRequests(ProblemError):
    status, code, title = 429, "too-many-requests", "Too many requests"

    def __init__(self, detail: str, *, retry_after: int = 1, **members: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **members)


class Unavailable(ProblemError):
    status, code, title = 503, "unavailable", "Try again"

    def __init__(self, detail: str, *, retry_after: int = 1, **members: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **members)
