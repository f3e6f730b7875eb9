"""Connector: any HTTPS endpoint, by Standard Webhooks 1.0 (signature, headers, meaning of the answers, retry schedule)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import orjson
from standardwebhooks import Webhook

from chassis.clock import rfc3339, utcnow
from crm_sync.connectors.answers import error_of, retry_after
from crm_sync.connectors.protocol import (
    Access,
    Ask,
    Call,
    Failed,
    Judged,
    MappingProblem,
    Operation,
    Preparation,
    Record,
    Tokens,
    Trouble,
    TroubleKind,
    VendorAnswer,
    VendorRequest,
    VendorTrouble,
    Verdict,
    Written,
)
from crm_sync.credentials import OAuth, SigningSecrets
from crm_sync.mapping import LEAD_FIELDS, MappedField

MINUTE, HOUR = 60.0, 3600.0


class WebhookConnector:
    """One signed POST per version of a lead. The receiver drops repetitions by `webhook-id`."""

    vendor: ClassVar[str] = "webhook"
    batch_size: ClassVar[int] = 16
    parallel_calls: ClassVar[int] = 8
    # Standard Webhooks, "Retries": 10 attempts over about 75 hours.
    retry_delays: ClassVar[Sequence[float]] = (
        5.0,
        5 * MINUTE,
        30 * MINUTE,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
    )
    looks_up: ClassVar[bool] = False
    text_only: ClassVar[bool] = False
    identity_property: ClassVar[str | None] = None

    def __init__(self, clock: Callable[[], datetime] = utcnow) -> None:
        self._clock = clock

    def default_mapping(self) -> Sequence[MappedField]:
        return tuple(MappedField(name, name) for name in LEAD_FIELDS if name != "id")

    def limits(self, settings: Mapping[str, Any]) -> Sequence[tuple[float, float]]:
        return ((float(settings["requests_per_second"]), 1.0),)

    def calls(self, records: Sequence[Record], *, archive: bool = False, look_up: bool = False) -> Sequence[Call]:
        if look_up:
            raise AssertionError("a webhook receiver cannot be asked what it holds")
        operation = Operation.ARCHIVE if archive else Operation.UPSERT
        return [Call(operation, (record,)) for record in records]

    def request(self, access: Access, call: Call, properties: Sequence[str]) -> VendorRequest:
        (record,) = call.records
        archived = call.operation is Operation.ARCHIVE
        body = orjson.dumps(
            {
                "type": "lead.deleted" if archived else "lead.upserted",
                "timestamp": record.changed_at,
                "data": {"lead_id": record.lead_id, "version": record.version, "properties": dict(record.properties)},
            }
        )
        return self._signed(access, message_id(access.connection_id, record), body)

    def judge(self, call: Call, answer: VendorAnswer) -> Verdict:
        (record,) = call.records
        if 200 <= answer.status < 300:
            return Judged({record.lead_id: Written(None)})
        if (trouble := _trouble(answer)) is not None:
            return trouble
        return Judged({record.lead_id: Failed(error_of(answer, "The receiver refused the message"))})

    async def prepare(self, ask: Ask, access: Access, mapping: Sequence[MappedField]) -> Preparation:
        """Sends a signed `connection.verified` message, which the receiver has to take."""
        body = orjson.dumps(
            {
                "type": "connection.verified",
                "timestamp": rfc3339(self._clock()),
                "data": {"connection_id": access.connection_id},
            }
        )
        stamp = f"{access.connection_id}/{self._clock().timestamp()}"
        answer = await ask(self._signed(access, f"msg_{hashlib.sha256(stamp.encode()).hexdigest()[:26]}", body))
        if 200 <= answer.status < 300:
            return Preparation()
        error = error_of(answer, "The receiver refused the message")
        raise VendorTrouble(_trouble(answer) or Trouble(TroubleKind.TRANSIENT, error))

    async def check_mapping(self, ask: Ask, access: Access, mapping: Sequence[MappedField]) -> Sequence[MappingProblem]:
        """A receiver takes whatever names it is sent."""
        return ()

    def refresh_request(self, access: Access, credentials: OAuth) -> VendorRequest:
        raise AssertionError("webhooks have no tokens to refresh")

    def judge_refresh(self, answer: VendorAnswer) -> Tokens | Trouble:
        raise AssertionError("webhooks have no tokens to refresh")

    def _signed(self, access: Access, identifier: str, body: bytes) -> VendorRequest:
        credentials = access.credentials
        if not isinstance(credentials, SigningSecrets):
            raise TypeError("a webhook connection holds signing secrets")
        now = self._clock()
        signatures = [Webhook(secret).sign(identifier, now, body.decode()) for secret in credentials.current(now)]
        return VendorRequest(
            "POST",
            str(access.settings["url"]),
            {
                "content-type": "application/json",
                "user-agent": "automation-orchestrator",
                "webhook-id": identifier,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": " ".join(signatures),
            },
            body,
        )


def message_id(connection_id: str, record: Record) -> str:
    """The same for every attempt at one version of one lead. Another mapping makes another message of it."""
    named = f"{connection_id}/{record.lead_id}/{record.version}/{record.mapping_version}"
    return f"msg_{hashlib.sha256(named.encode()).hexdigest()[:26]}"


def _trouble(answer: VendorAnswer) -> Trouble | None:
    """What an answer says of the endpoint as a whole, if anything (Standard Webhooks, "Response codes")."""
    wait = retry_after(answer)
    match answer.status:
        case 410:
            return Trouble(TroubleKind.DISABLED, error_of(answer, "The receiver wants no more messages"))
        case 401 | 403:
            return Trouble(TroubleKind.FORBIDDEN, error_of(answer, "The receiver refuses our signature"))
        case 429:
            return Trouble(TroubleKind.RATE_LIMITED, error_of(answer, "The receiver asks for fewer messages"), wait)
        case 502 | 503 | 504:
            return Trouble(TroubleKind.TRANSIENT, error_of(answer, "The receiver is overloaded or away"), wait)
        case _:
            return None
