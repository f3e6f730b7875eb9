"""HubSpot's answers by class. The table with every class and what follows from it: docs/crm-hubspot.md."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from crm_sync.connectors.answers import (
    MAX_MESSAGE,
    correlation_id,
    document_of,
    error_of,
    object_of,
    objects_of,
    retry_after,
    text_of,
    texts_of,
)
from crm_sync.connectors.protocol import (
    Call,
    Conflicting,
    Failed,
    Found,
    Gone,
    Judged,
    Missing,
    Operation,
    Outcome,
    Postponed,
    Record,
    Refused,
    Split,
    Tokens,
    Trouble,
    TroubleKind,
    Unsure,
    VendorAnswer,
    VendorError,
    Verdict,
    Written,
)

LEAD_ID = "ao_lead_id"
_EXISTING_ID = re.compile(r"Existing ID:\s*(\d+)")
_TRANSIENT_CATEGORIES = frozenset(
    ("RATE_LIMITS", "RATE_LIMIT", "INTERNAL_ERROR", "LOCKED", "TIMEOUT", "SERVICE_UNAVAILABLE")
)
_KINDS = {
    401: TroubleKind.UNAUTHORIZED,
    403: TroubleKind.FORBIDDEN,
    423: TroubleKind.TRANSIENT,  # locked
    477: TroubleKind.TRANSIENT,  # the account is being moved
    # A gateway in front of HubSpot gave up waiting; HubSpot itself may still be at work.
    **dict.fromkeys((408, 502, 504, 524), TroubleKind.UNANSWERED),
}
_LEAST_WAITS = {423: 2.0}


def judge(call: Call, answer: VendorAnswer) -> Verdict:
    """What an answer to `call` says of each record, or of the connection."""
    if 200 <= answer.status < 300:
        return _judge_success(call, answer)
    return trouble(answer) or _judge_refusal(call, answer)


def judge_refresh(answer: VendorAnswer) -> Tokens | Trouble:
    """A token answer (OAuth 2.0, RFC 6749, section 5). A refused refresh token needs a person; all else may pass."""
    document = document_of(answer)
    error = error_of(answer, "HubSpot did not refresh the access token")
    if answer.status == 200:
        access, refresh, seconds = (document.get(name) for name in ("access_token", "refresh_token", "expires_in"))
        if isinstance(access, str) and isinstance(refresh, str) and isinstance(seconds, int | float):
            return Tokens(access, refresh, float(seconds))
        return Trouble(TroubleKind.TRANSIENT, error)
    if answer.status in (400, 401, 403):
        return Trouble(TroubleKind.FORBIDDEN, error)
    return trouble(answer) or Trouble(TroubleKind.TRANSIENT, error)


def trouble(answer: VendorAnswer) -> Trouble | None:
    """What an answer says of the connection as a whole, if anything."""
    error, wait = error_of(answer, "HubSpot could not take the request"), retry_after(answer)
    status = answer.status
    if status == 429:
        return _rate_limited(answer, error, wait)
    if status == 400 and _names_unknown_property(error):
        return _unknown_property(error)
    if status in _KINDS:
        return Trouble(_KINDS[status], error, max(wait or 0.0, _LEAST_WAITS.get(status, 0.0)) or None)
    if status in (404, 405, 410) and not _names_a_record(answer):
        words = f"HubSpot does not have this address (check the API version and base_url): {error.message}"
        return Trouble(TroubleKind.TRANSIENT, replace(error, message=words[:MAX_MESSAGE]), wait)
    if status >= 500 or status < 400:
        return Trouble(TroubleKind.TRANSIENT, error, wait)
    return None


def _names_a_record(answer: VendorAnswer) -> bool:
    """Whether a 404 is about a record. One that names none says that the address is not there: every lead would be refused alike."""
    document = document_of(answer)
    return document.get("category") == "OBJECT_NOT_FOUND" and bool(document.get("context"))


def _rate_limited(answer: VendorAnswer, error: VendorError, wait: float | None) -> Trouble:
    """Both shapes HubSpot has: `policyName`, or only the word in the message. Its own SDK waits 10 s and 1 s."""
    document = document_of(answer)
    policy = f"{document.get('policyName', '')} {error.message}".upper()
    if "DAILY" in policy:
        return Trouble(TroubleKind.DAILY_LIMIT, error)
    usual = 1.0 if "SECONDLY" in policy and "TEN_SECONDLY" not in policy else 10.0
    return Trouble(TroubleKind.RATE_LIMITED, error, usual if wait is None else wait)


def _names_unknown_property(error: VendorError) -> bool:
    """A property the account lacks, or our own if it is not unique there: no record's fault."""
    message = error.message
    return (
        "PROPERTY_DOESNT_EXIST" in message
        or (LEAD_ID in message and "non-unique" in message)
        or (error.category == "VALIDATION_ERROR" and "ropert" in message and "does not exist" in message)
    )


def _unknown_property(error: VendorError) -> Trouble:
    kind = TroubleKind.UNPREPARED if LEAD_ID in error.message else TroubleKind.UNMAPPED
    return Trouble(kind, error)


def _judge_refusal(call: Call, answer: VendorAnswer) -> Verdict:
    """A 4xx for the whole call. It names one culprit at most, so that several records are tried in halves."""
    error = error_of(answer, "HubSpot refused the request")
    if len(call.records) > 1:
        return Split(error)
    return Judged({call.records[0].lead_id: _refusal(call.operation, error)})


def _refusal(operation: Operation, error: VendorError) -> Outcome:
    """What an error about one record means for it."""
    if (existing := _EXISTING_ID.search(error.message)) is not None:
        return Conflicting(error, existing[1])
    if error.category == "OBJECT_NOT_FOUND":
        return Missing() if operation is Operation.LOOK_UP else Gone(error)
    if _names_unknown_property(error):
        return Postponed(error)
    if error.category in _TRANSIENT_CATEGORIES or (error.status is not None and error.status in (423, 429)):
        return Failed(error)
    if error.status is not None and error.status >= 500:
        return Failed(error)
    return Refused(error)


def _judge_success(call: Call, answer: VendorAnswer) -> Verdict:
    """200, 201, 204 or 207. A record counts as written only if its id comes back; archiving names no ids, but its errors do."""
    document = document_of(answer)
    errors = list(_errors(call, document, answer))
    silent = Unsure(
        VendorError(
            "HubSpot reported success without naming the record.",
            correlation_id=correlation_id(answer, document),
            status=answer.status,
        )
    )
    if call.operation is Operation.ARCHIVE:
        anonymous = any(not _named(call, object_of(each.get("context"))) for each in objects_of(document.get("errors")))
        unnamed = {record.lead_id: silent if anonymous else Written(record.record_id) for record in call.records}
        return Judged(unnamed | dict(errors))
    outcomes: dict[str, Outcome] = dict(_results(call, document))
    for lead_id, outcome in errors:
        outcomes.setdefault(lead_id, outcome)
    for record in call.records:
        outcomes.setdefault(record.lead_id, Missing() if call.operation is Operation.LOOK_UP else silent)
    unknown = next((outcome.error for _, outcome in errors if isinstance(outcome, Postponed)), None)
    return Judged(outcomes, _unknown_property(unknown) if unknown else None)


def _results(call: Call, document: Mapping[str, Any]) -> Iterator[tuple[str, Outcome]]:
    """Each returned contact, told apart by write id, else by our property, else by its record id."""
    results = [each for each in objects_of(document.get("results")) if each.get("id")]
    by_write_id = {record.write_id: record for record in call.records}
    by_lead_id = {record.lead_id: record for record in call.records}
    by_record_id = {record.record_id: record for record in call.records if record.record_id is not None}
    for result in results:
        properties = object_of(result.get("properties"))
        record = (
            by_write_id.get(str(result.get("objectWriteTraceId")))
            or by_record_id.get(str(result["id"]))
            or by_lead_id.get(str(properties.get(LEAD_ID)))
        )
        if record is None:
            continue
        if call.operation is Operation.LOOK_UP:
            yield record.lead_id, Found(str(result["id"]), properties)
        else:
            new = result.get("new")
            created = new if isinstance(new, bool) else (False if call.operation is Operation.UPDATE else None)
            yield record.lead_id, Written(str(result["id"]), created)


def _errors(call: Call, document: Mapping[str, Any], answer: VendorAnswer) -> Iterator[tuple[str, Outcome]]:
    """Each error of a 207 with the records it names, by write id or by the ids they were addressed with."""
    for entry in objects_of(document.get("errors")):
        status = str(entry.get("status"))
        error = VendorError(
            message=str(entry.get("message") or "HubSpot refused the record.")[:MAX_MESSAGE],
            category=text_of(entry.get("category")) or text_of(entry.get("subCategory")),
            correlation_id=text_of(entry.get("correlationId"))
            or text_of(entry.get("id"))
            or correlation_id(answer, dict(document)),
            status=int(status) if status.isascii() and status.isdigit() else answer.status,
        )
        for record in _named(call, object_of(entry.get("context"))):
            yield record.lead_id, _refusal(call.operation, error)


def _named(call: Call, context: Mapping[str, Any]) -> list[Record]:
    traces = texts_of(context.get("objectWriteTraceId"))
    ids = texts_of(context.get("ids")) | texts_of(context.get("id"))
    return [
        record
        for record in call.records
        if record.write_id in traces or (not traces and (record.record_id or record.lead_id) in ids)
    ]
