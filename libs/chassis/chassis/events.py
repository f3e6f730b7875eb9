"""Events as CloudEvents 1.0 in structured JSON: making, encoding and decoding them."""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from chassis.clock import rfc3339, utcnow
from chassis.context import Context, current
from chassis.ids import new_id

MAX_EVENT_BYTES = 256 * 1024
MAX_CHAIN = 8

_Data = TypeVar("_Data")


class MalformedEvent(Exception):
    """The bytes are not an event, or its data does not fit its reader."""


class EventTooLarge(Exception):
    """An event above MAX_EVENT_BYTES: refused where it is written, not at the broker."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. Attribute names are CloudEvents' own; `chain` is comma-joined, oldest first."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    datacontenttype: str
    workspaceid: str
    origin: str
    chain: str
    data: dict[str, Any]
    subjectversion: int | None = None
    requestid: str | None = None
    traceparent: str | None = None

    @property
    def occurred_at(self) -> datetime:
        return datetime.fromisoformat(self.time)

    @property
    def chain_ids(self) -> tuple[str, ...]:
        return tuple(filter(None, self.chain.split(",")))

    def context(self) -> Context:
        """The context in which this event's consequences are worked on."""
        return Context(
            request_id=self.requestid, origin=self.origin, chain=self.chain_ids, traceparent=self.traceparent
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def new_event(
    event_type: str,
    *,
    source: str,
    workspace_id: str,
    subject: str,
    data: dict[str, Any],
    subject_version: int | None = None,
    context: Context | None = None,
) -> Event:
    """An event of now, caused by `context` (the running task's own, if none is given)."""
    cause = context or current()
    return Event(
        specversion="1.0",
        id=new_id("evt"),
        source=source,
        type=event_type,
        time=rfc3339(utcnow()),
        subject=subject,
        subjectversion=subject_version,
        datacontenttype="application/json",
        workspaceid=workspace_id,
        requestid=cause.request_id,
        traceparent=cause.traceparent,
        origin=cause.origin,
        chain=",".join(cause.chain[-MAX_CHAIN:]),
        data=data,
    )


def encode(event: Event) -> bytes:
    """The event as JSON; EventTooLarge above MAX_EVENT_BYTES."""
    body = _encoder.encode(event)
    if len(body) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"{event.type} of {event.subject} has {len(body)} bytes; {MAX_EVENT_BYTES} are allowed")
    return body


def decode(body: bytes) -> Event:
    """The event in `body`; MalformedEvent says what is wrong."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedEvent(str(error)) from error
    except RecursionError as error:
        raise MalformedEvent("nested too deep") from error


def decode_data(event: Event, model: type[_Data]) -> _Data:
    """The event's data as the reader's own slim model, unknown fields ignored; MalformedEvent if it does not fit."""
    try:
        return msgspec.convert(event.data, model)
    except msgspec.ValidationError as error:
        raise MalformedEvent(f"{event.type}: {error}") from error
