"""HubSpot's error bodies. Shapes: developers.hubspot.com/docs/api-reference/error-handling, and answers quoted in public issues.

HubSpotError
├── InvalidRequest 400      the whole request: unreadable, too long, wrong ids
├── InvalidProperties 400   one or more property values, in HubSpot's list-inside-a-message
├── Unauthorized 401        no, unknown or expired credentials
├── ObjectNotFound 404
├── ContactExists 409       the existing id is in the message (and, in a batch, in the context)
└── RateLimited 429         two shapes in use side by side
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class HubSpotError(Exception):
    """An answer that is not 2xx. `extra` are members besides status, message, correlationId and category."""

    status = 400
    category: str | None = "VALIDATION_ERROR"

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})
        self.extra = extra

    def body(self, correlation_id: str) -> dict[str, Any]:
        """The body of a request that failed as a whole."""
        document = {"status": "error", "message": self.message, "correlationId": correlation_id} | self.extra
        if self.category is not None:
            document["category"] = self.category
        return document

    def item(self, write_id: str | None) -> dict[str, Any]:
        """The same as one of the errors of a multi-status answer, naming the input by its write id."""
        context = dict(self.extra.get("context", {}))
        if write_id is not None:
            context["objectWriteTraceId"] = [write_id]
        document = {"status": "error", "message": self.message, "category": self.category, "context": context}
        return document | {"errors": self.extra.get("errors", []), "links": {}}


class InvalidRequest(HubSpotError):
    pass


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """One property value that HubSpot refuses; `code` as in PROPERTY_DOESNT_EXIST."""

    name: str
    code: str
    message: str


class InvalidProperties(HubSpotError):
    def __init__(self, portal_id: int, values: Sequence[InvalidValue]) -> None:
        details = [
            {
                "isValid": False,
                "message": value.message,
                "error": value.code,
                "name": value.name,
                "localizedErrorMessage": value.message,
                "portalId": portal_id,
            }
            for value in values
        ]
        errors = [
            {"message": value.message, "code": value.code, "context": {"propertyName": [value.name]}}
            for value in values
        ]
        words = json.dumps(details, separators=(",", ":"), ensure_ascii=False)
        super().__init__(f"Property values were not valid: {words}", errors=errors)


class Unauthorized(HubSpotError):
    status = 401
    category = "INVALID_AUTHENTICATION"

    def __init__(self, message: str | None = None, **extra: Any) -> None:
        super().__init__(
            message
            or "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
            "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
            **extra,
        )


class TokenExpired(Unauthorized):
    category = "EXPIRED_AUTHENTICATION"

    def __init__(self, seconds_ago: float, expired_at: str) -> None:
        super().__init__(
            f"The OAuth token used to make this call expired {int(seconds_ago)} second(s) ago.",
            context={"expire time": [expired_at]},
        )


class ObjectNotFound(HubSpotError):
    status = 404
    category = "OBJECT_NOT_FOUND"

    def __init__(self, object_id: str) -> None:
        super().__init__("Object not found.  objectId are usually numeric.", context={"id": [object_id]})


class ResourceNotFound(HubSpotError):
    status = 404
    category = "OBJECT_NOT_FOUND"

    def __init__(self, message: str = "resource not found") -> None:
        super().__init__(message)


class ContactExists(HubSpotError):
    status = 409
    category = "CONFLICT"

    def __init__(self, existing_id: int) -> None:
        super().__init__(f"Contact already exists. Existing ID: {existing_id}")
        self.existing_id = existing_id

    def item(self, write_id: str | None) -> dict[str, Any]:
        document = super().item(write_id)
        document["context"]["existingId"] = [str(self.existing_id)]
        return document


class PropertyExists(HubSpotError):
    status = 409
    category = "OBJECT_ALREADY_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"A property named '{name}' already exists.", context={"name": [name]})


class RateLimited(HubSpotError):
    """`policy` is SECONDLY, TEN_SECONDLY_ROLLING or DAILY. The older shape has a category, the newer one the policy's name."""

    status = 429
    category = None

    def __init__(self, policy: str, *, in_older_shape: bool = False) -> None:
        message = f"You have reached your {policy.lower()} limit."
        if in_older_shape:
            super().__init__(message, category="RATE_LIMITS")
        else:
            super().__init__(
                message,
                errorType="RATE_LIMIT",
                policyName=policy,
                groupName=f"publicapi:private-apps-{policy.lower()}:contacts",
            )

    def body(self, correlation_id: str) -> dict[str, Any]:
        document = super().body(correlation_id)
        return document | {"requestId": correlation_id} if "policyName" in document else document


class TokenRefused(HubSpotError):
    """The token endpoint's own errors. v1 has only HubSpot's words; later versions add OAuth's (RFC 6749, section 5.2)."""

    def __init__(self, status: str, message: str, *, oauth_error: str | None) -> None:
        super().__init__(message)
        self._status = status
        self._oauth_error = oauth_error

    def body(self, correlation_id: str) -> dict[str, Any]:
        document = {"status": self._status, "message": self.message, "correlationId": correlation_id}
        if self._oauth_error is not None:
            document |= {"error": self._oauth_error, "error_description": self.message}
        return document
