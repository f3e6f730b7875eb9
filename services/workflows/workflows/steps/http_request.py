"""`http_request`: one call to any HTTPS address, signed as a Standard Webhook if asked to; later steps can read its answer."""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from standardwebhooks import Webhook

from chassis.clock import utcnow
from chassis.http import OutboundFailed, OutboundRefused
from workflows.engine.definition import Strict
from workflows.engine.durations import parse_duration
from workflows.engine.expression import Expression, bounded
from workflows.engine.retry import RetryPolicy
from workflows.engine.secrets import SecretRef
from workflows.engine.template import JsonTemplate, Template
from workflows.steps.answers import read_answer, to_outcome
from workflows.steps.kinds import (
    Call,
    CallingStep,
    Desk,
    Failed,
    OnUnknown,
    Outcome,
    Scope,
    StepFailed,
    Succeeded,
    Unknown,
)

MAX_TIMEOUT_SECONDS = 10
MAX_URL_CHARACTERS = 2000
SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Idempotent by their definition (RFC 9110, 9.2.2): repeated unless the step says otherwise."""
WITHOUT_EFFECT = frozenset({"GET", "HEAD"})
SAYS_ABSENT = frozenset({404, 410})
"""Besides 2xx, the answers to a look-up from which follows that a call did not arrive: a 403, say, tells nothing about that."""

_HOST = re.compile(r"https?://[^/?#{}\s]+(?:[/?#]|$)")
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})
_SENSITIVE = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"})


def _url(template: Template) -> Template:
    if len(template.text) > MAX_URL_CHARACTERS:
        raise ValueError(f"a URL has at most {MAX_URL_CHARACTERS} characters")
    if not _HOST.match(template.text) or re.search(r"\s", _PLACEHOLDER.sub("x", template.text)):
        raise ValueError("a URL begins with https:// and a host; placeholders may stand behind the host only")
    return template


def _timeout(text: str) -> str:
    if parse_duration(text).total_seconds() > MAX_TIMEOUT_SECONDS:
        raise ValueError(f"a call may take at most {MAX_TIMEOUT_SECONDS}s")
    return text


def _signing_secret(reference: SecretRef) -> SecretRef:
    if reference.secret is not None:
        encoded = reference.secret.removeprefix("whsec_")
        try:
            length = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
        except ValueError:
            length = 0
        if reference.secret == encoded or not 24 <= length <= 64:
            # Standard Webhooks 1.0, "Signature scheme": 24 to 64 bytes.
            raise ValueError("a signing secret is whsec_ and 24 to 64 bytes in base64")
    return reference


Url = Annotated[Template, AfterValidator(_url)]
HeaderValue = Annotated[
    Annotated[Template, Tag("#text")] | Annotated[SecretRef, Tag("#secret")],
    Discriminator(lambda value: "#secret" if isinstance(value, dict | SecretRef) else "#text"),
]


def _headers(headers: dict[str, Template | SecretRef]) -> dict[str, Template | SecretRef]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header's name")
        if name.lower() in _OURS or name.lower().startswith("webhook-"):
            raise ValueError(f"{name} is set by the system")
        if name.lower() in _SENSITIVE and not isinstance(value, SecretRef):
            raise ValueError(f'{name} is a secret: write {{"secret": "…"}}')
        if isinstance(value, SecretRef) and not _is_header_text(value.secret or ""):
            raise ValueError(f"{name} holds characters that a header cannot have")
    return headers


def _is_header_text(text: str) -> bool:
    return text.isascii() and not any(ord(character) < 32 or ord(character) == 127 for character in text)


Headers = Annotated[dict[str, HeaderValue], Field(max_length=30), AfterValidator(_headers)]


class Verification(Strict):
    """How to look up whether a call of unknown outcome arrived."""

    url: Url = Field(examples=["https://api.example.com/orders?reference={{ run.id }}"])
    headers: Headers = Field(default_factory=dict)
    found: Expression = Field(
        default=Expression("response.status == 200"),
        validate_default=False,
        description="CEL over `response` (status, headers, body): true if the call did arrive.",
    )


class HttpRequest(CallingStep):
    """Sends `body` as JSON. 2xx is success; 408, 425, 429 and 5xx are tried again; anything else fails the step."""

    outputs: ClassVar[frozenset[str] | None] = frozenset({"status", "headers", "body", "truncated"})

    type: Literal["http_request"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    url: Url = Field(examples=["https://hooks.example.com/leads/{{ lead.id }}"])
    headers: Headers = Field(
        default_factory=dict, examples=[{"X-Team": "sales", "Authorization": {"secret": "Bearer …"}}]
    )
    body: JsonTemplate | None = Field(
        default=None, examples=[{"email": "{{ lead.email }}", "score": "{{ lead.score }}"}]
    )
    sign_with: Annotated[SecretRef, AfterValidator(_signing_secret)] | None = Field(
        default=None,
        description="Signs the call as a Standard Webhook.",
        examples=[{"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}],
    )
    timeout: Annotated[str, AfterValidator(_timeout)] = "10s"
    retry: RetryPolicy = RetryPolicy(attempts=5, backoff="1s")
    on_unknown: OnUnknown | None = Field(
        default=None,
        description="If nobody knows whether the call arrived: `retry` it with the same key, `verify` first, or `stop` and ask. "
        "Without it: `retry` for GET, HEAD, PUT and DELETE, `stop` for POST and PATCH.",
    )
    verify_with: Verification | None = Field(default=None, alias="verify")

    @model_validator(mode="after")
    def _fits_together(self) -> "HttpRequest":
        if (self.on_unknown == "verify") != (self.verify_with is not None):
            raise ValueError('on_unknown "verify" and a verify request belong together')
        if self.method in ("GET", "HEAD") and self.body is not None:
            raise ValueError(f"a {self.method} has no body")
        return self

    def extra_roots(self, place: str) -> frozenset[str]:
        return frozenset({"response"}) if place == "/verify/found" else frozenset()

    @property
    def unknown_policy(self) -> OnUnknown:
        return self.on_unknown or ("retry" if self.method in SAFE_TO_REPEAT else "stop")

    def urls(self) -> tuple[tuple[str, str], ...]:
        """The step's URLs as written, each with the pointer of its place."""
        verify = (("/verify/url", self.verify_with.url.text),) if self.verify_with is not None else ()
        return (("/url", self.url.text), *verify)

    async def prepare(self, scope: Scope, desk: Desk) -> dict[str, Any]:
        del desk
        request: dict[str, Any] = {"method": self.method, "url": self.url.render_url(scope)}
        request["headers"] = {name: _rendered(name, value, scope) for name, value in self.headers.items()}
        if self.body is not None:
            request["body"] = self.body.value(scope)
        if self.sign_with is not None:
            request["sign_with"] = {"secret_id": self.sign_with.secret_id}
        return self.with_look_up(request, scope)

    def with_look_up(self, request: dict[str, Any], scope: Scope) -> dict[str, Any]:
        if self.verify_with is None or "verify" in request:
            return request
        headers = {name: _rendered(name, value, scope) for name, value in self.verify_with.headers.items()}
        return {**request, "verify": {"url": self.verify_with.url.render_url(scope), "headers": headers}}

    def secret_ids(self, request: Mapping[str, Any]) -> frozenset[str]:
        values = [*request["headers"].values(), *request.get("verify", {}).get("headers", {}).values()]
        named = {value["secret_id"] for value in values if isinstance(value, dict)}
        return frozenset(named | ({request["sign_with"]["secret_id"]} if "sign_with" in request else set()))

    async def perform(self, request: Mapping[str, Any], call: Call) -> Outcome:
        content = orjson.dumps(request["body"]) if "body" in request else b""
        headers = {"idempotency-key": call.key, **_sent_headers(request["headers"], call)}
        if content:
            headers = {"content-type": "application/json", **headers}
        if "sign_with" in request:
            headers |= _signature(call.secrets[request["sign_with"]["secret_id"]], call.key, content)
        return await self._send(request["method"], request["url"], headers, content, call)

    async def verify(self, request: Mapping[str, Any], call: Call) -> Outcome:
        """Found: succeeded, with the look-up's answer as output. Not found: failed, and may be tried again. Else unknown: what cannot
        be told must not be repeated."""
        wanted = request["verify"]
        outcome = await self._look_up(wanted["url"], _sent_headers(wanted["headers"], call), call)
        if self.verify_with is None or not isinstance(outcome, Succeeded):
            return outcome
        status, verdict = outcome.output["status"], self.verify_with.found.judge(bounded({"response": outcome.output}))
        if verdict.met:
            return outcome
        if status not in SAYS_ABSENT and (verdict.note or not 200 <= status < 300):
            reason = verdict.note if 200 <= status < 300 else f"answered {status}"
            return Unknown(f"could not be looked up: {reason}", status=status)
        return Failed("looked up: it did not arrive", retryable=True, status=outcome.status)

    async def _look_up(self, url: str, headers: dict[str, str], call: Call) -> Outcome:
        try:
            answer = await call.outbound.request("GET", url, headers=headers, timeout=self._timeout_seconds())
        except (OutboundRefused, OutboundFailed) as error:
            return Unknown(f"could not be looked up: {error}")
        if answer.status >= 500 or answer.status in (408, 425, 429):
            return Unknown(f"could not be looked up: answered {answer.status}", status=answer.status)
        return Succeeded(read_answer(answer, call.secrets), status=answer.status)

    async def _send(self, method: str, url: str, headers: dict[str, str], content: bytes, call: Call) -> Outcome:
        try:
            answer = await call.outbound.request(
                method, url, headers=headers, content=content or None, timeout=self._timeout_seconds()
            )
        except OutboundRefused as error:
            return Failed(str(error), retryable=False)
        except OutboundFailed as error:
            has_effect = error.sent and method not in WITHOUT_EFFECT
            return Unknown(str(error)) if has_effect else Failed(str(error), retryable=True)
        repeating_matters = method not in SAFE_TO_REPEAT or self.unknown_policy != "retry"
        return to_outcome(answer, call.secrets, may_have_worked=method not in WITHOUT_EFFECT and repeating_matters)

    def _timeout_seconds(self) -> float:
        return parse_duration(self.timeout).total_seconds()


def _rendered(name: str, value: Template | SecretRef, scope: Scope) -> Any:
    if isinstance(value, SecretRef):
        return {"secret_id": value.secret_id}
    text = value.render(scope).strip()  # RFC 9110, 5.5: a field value has no white space at its ends
    if not _is_header_text(text):
        raise StepFailed(f"the header {name} would hold characters that a header cannot have")
    return text


def _sent_headers(headers: Mapping[str, Any], call: Call) -> dict[str, str]:
    return {
        name.lower(): call.secrets[value["secret_id"]] if isinstance(value, dict) else value
        for name, value in headers.items()
    }


def _signature(secret: str, key: str, content: bytes) -> dict[str, str]:
    """Standard Webhooks 1.0: the id stays the same over repetitions, the timestamp is each attempt's own."""
    now = utcnow()
    return {
        "webhook-id": key,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(key, now, content.decode()),
    }
