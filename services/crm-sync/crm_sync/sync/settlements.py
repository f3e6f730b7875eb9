"""Settlements by what they come to: brought over, to be sent again, failed once more, unknown, dead. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from crm_sync.connectors.protocol import Found, Gone, Outcome, VendorError, Written
from crm_sync.models import Announcement, Attempt, Claim, DeadKind, Settlement, State, StoredError
from crm_sync.sync.planning import Work, in_doubt

UNKNOWNS_UNTIL_DEAD = 3
LOG_LIMIT = 20
LOOK_UP_SECONDS = 1.0

Operation = Literal["upsert", "archive", "release"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs between connections and vendors."""

    retry_delays: Sequence[float]
    looks_up: bool
    vendor_timeout_seconds: float
    was_healthy: bool
    """No trouble was known before this call."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a call was made, and the vendor's id of it."""

    started_at: datetime
    finished_at: datetime
    status: int | None
    request_id: str | None

    def attempt(self, outcome: str, error: VendorError | None = None) -> Attempt:
        request_id = (error.correlation_id if error else None) or self.request_id
        return Attempt(
            self.started_at, self.finished_at, outcome, self.status, request_id, error.message if error else None
        )


def again(claim: Claim) -> State:
    """How a lead waits for its next try: what is to be looked up must not be sent before."""
    return State.UNKNOWN if claim.resolving else State.DUE


def stored(error: VendorError) -> StoredError:
    return StoredError(error.message, error.category, error.correlation_id, error.status)


def written(work: Work, outcome: Written, timing: Timing, *, archiving: bool = False) -> Settlement:
    if archiving:
        return archived(work, timing)
    claim = work.claim
    return Settlement(
        claim,
        State.IDLE,
        claim.copy_version,
        is_synced=True,
        sent=work.holds,
        link=outcome.record_id if outcome.record_id != claim.record_id else None,
        attempt=timing.attempt("ok"),
        announcement=Announcement("upsert", outcome.created, timing.request_id),
    )


def archived(work: Work, timing: Timing) -> Settlement:
    return Settlement(
        work.claim,
        State.IDLE,
        work.claim.copy_version,
        is_synced=True,
        release=True,
        attempt=timing.attempt("ok"),
        announcement=Announcement("archive", request_id=timing.request_id),
    )


def gone(work: Work, outcome: Outcome, timing: Timing) -> Settlement:
    """The record was deleted in the CRM while its lead lives: it is made again, by our own property."""
    error = outcome.error if isinstance(outcome, Gone) else VendorError("The CRM does not hold the record.")
    claim = work.claim
    if claim.record_id is None:  # an upsert cannot miss its record: whatever this is, it must not go on for ever
        return dead(work, "permanent", stored(error), timing.attempt("permanent", error))
    return Settlement(
        claim,
        State.DUE,
        claim.copy_version,
        attempts=claim.attempts,
        unknowns=claim.unknowns,
        release=True,
        error=stored(error),
        attempt=timing.attempt("transient", error),
        announcement=_full_log(claim, stored(error)),
    )


def unchanged(
    work: Work,
    state: State,
    attempt: Attempt,
    error: StoredError | None,
    delay: float,
    *,
    suspect: bool | None = None,
    link: str | None = None,
    may_have_taken: bool = False,
) -> Settlement:
    """To be sent again, with nothing counted. `may_have_taken`: the write may have been carried out all the same."""
    claim = work.claim
    return Settlement(
        claim,
        state,
        claim.in_flight_version,
        delay_seconds=delay,
        attempts=claim.attempts,
        unknowns=claim.unknowns,
        suspect=claim.suspect if suspect is None else suspect,
        sent=_held_after(work, may_have_taken),
        link=link,
        error=error,
        attempt=attempt,
        announcement=_full_log(claim, error),
    )


def failed(
    rules: Rules,
    work: Work,
    error: VendorError,
    attempt: Attempt,
    *,
    state: State | None = None,
    least: float = 0.0,
    kind: DeadKind = "permanent",
    may_have_taken: bool = True,
) -> Settlement:
    """One attempt more that failed; a dead letter after the last. `may_have_taken` as in `unchanged`."""
    claim = work.claim
    if claim.attempts >= len(rules.retry_delays):
        return dead(work, kind, stored(error), attempt, may_have_taken=may_have_taken)
    delay = rules.retry_delays[claim.attempts] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    first = claim.attempts == 0
    return Settlement(
        claim,
        state or again(claim),
        claim.in_flight_version,
        delay_seconds=max(delay, least),
        attempts=claim.attempts + 1,
        unknowns=claim.unknowns,
        suspect=claim.suspect,
        sent=_held_after(work, may_have_taken),
        error=stored(error),
        attempt=attempt,
        announcement=_retrying(claim, stored(error)) if first else _full_log(claim, stored(error)),
    )


def unsure(work: Work, error: VendorError, timing: Timing) -> Settlement:
    claim = work.claim
    return Settlement(
        claim,
        State.UNKNOWN,
        claim.in_flight_version,
        delay_seconds=LOOK_UP_SECONDS,
        attempts=claim.attempts,
        unknowns=claim.unknowns + 1,
        sent=_held_after(work, may_have_taken=True),
        error=stored(error),
        attempt=timing.attempt("unknown", error),
        announcement=_retrying(claim, stored(error)) if claim.unknowns == 0 else _full_log(claim, stored(error)),
    )


def resend(work: Work, timing: Timing, error: VendorError, found: Found | None) -> Settlement:
    """A call that did not take: once more, unless its answers have said nothing too often. `found` is the record, if it is there."""
    claim = work.claim
    if claim.unknowns >= UNKNOWNS_UNTIL_DEAD:
        return dead(work, "unknown", stored(error), timing.attempt("unknown", error))
    return Settlement(
        claim,
        State.DUE,
        claim.in_flight_version,
        attempts=claim.attempts,
        unknowns=claim.unknowns,
        suspect=claim.suspect,
        sent=_held_as_found(work, found) if found is not None else None,
        link=found.record_id if found is not None and found.record_id != claim.record_id else None,
        release=found is None and claim.addressed_record is not None,
        error=stored(error),
        attempt=timing.attempt("unknown", error),
        announcement=_full_log(claim, stored(error)),
    )


def dead(
    work: Work, kind: DeadKind, error: StoredError, attempt: Attempt, *, may_have_taken: bool = False
) -> Settlement:
    claim = work.claim
    return Settlement(
        claim,
        State.DEAD,
        claim.in_flight_version,
        attempts=claim.attempts + 1,
        unknowns=claim.unknowns,
        sent=_held_after(work, may_have_taken),
        error=error,
        attempt=attempt,
        dead_kind=kind,
        announcement=Announcement(operation_of(claim), request_id=attempt.request_id, kind=kind, error=error),
    )


def _held_after(work: Work, may_have_taken: bool) -> Mapping[str, Any] | None:
    return in_doubt(work.held, work.holds) if may_have_taken else work.held


def _held_as_found(work: Work, found: Found) -> Mapping[str, Any]:
    """Of what the record may have been given: the values it has, None where it was not asked."""
    values = found.properties
    return {name: values.get(name) for name in work.held or {} if values.get(name) or name not in values}


def operation_of(claim: Claim) -> Operation:
    return "archive" if claim.deleted else "upsert"


def _retrying(claim: Claim, error: StoredError | None) -> Announcement:
    return Announcement(
        operation_of(claim),
        request_id=error.correlation_id if error else None,
        kind="retrying",
        error=error or StoredError("The CRM has not taken the lead yet."),
    )


def _full_log(claim: Claim, error: StoredError | None) -> Announcement | None:
    """Attempts are told with the next event; if too many wait for one, it is sent for their sake."""
    return _retrying(claim, error) if len(claim.attempt_log) + 1 >= LOG_LIMIT else None
