"""What follows from an outcome: the settlement of each lead. Pure; docs/crm-hubspot.md has it as a table."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from crm_sync.connectors.protocol import (
    Conflicting,
    Failed,
    Found,
    Gone,
    Missing,
    Outcome,
    Postponed,
    Refused,
    Trouble,
    TroubleKind,
    Unsure,
    VendorError,
    Written,
)
from crm_sync.models import Announcement, Attempt, Claim, DeadKind, Settlement, State, StoredError
from crm_sync.sync.planning import Work

UNKNOWNS_UNTIL_DEAD = 3
LOG_LIMIT = 20
_LOOK_UP_SECONDS = 1.0
_POSTPONE_SECONDS = 2.0
_RECORD_SPECIFIC = frozenset((TroubleKind.TRANSIENT, TroubleKind.UNANSWERED))

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


def settle_equal(claim: Claim) -> Settlement:
    """The record holds what this version gives: nothing is sent, the version counts as brought over."""
    return Settlement(
        claim,
        State.IDLE,
        claim.copy_version,
        is_synced=True,
        sent=claim.sent,
        announcement=Announcement("upsert", claim.record_id, created=False),
    )


def settle_release(claim: Claim) -> Settlement:
    """The lead is deleted and its record stays as it is, free for another lead."""
    return Settlement(
        claim,
        State.IDLE,
        claim.copy_version,
        is_synced=True,
        release=True,
        announcement=Announcement("release", None),
    )


def settle_outcome(
    rules: Rules, work: Work, outcome: Outcome, timing: Timing, *, archiving: bool = False
) -> Settlement:
    """For everything a write or an archiving can bring, but a conflict."""
    match outcome:
        case Written():
            return _written(work, outcome, timing, archiving=archiving)
        case Gone() | Missing():
            return _archived(work, timing) if archiving else _gone(work, outcome, timing)
        case Refused(error):
            return _dead(work, "permanent", stored(error), timing.attempt("permanent", error))
        case Failed(error):
            return _failed(rules, work, error, timing.attempt("transient", error))
        case Unsure(error):
            return _unsure(work, error, timing)
        case Postponed(error):
            return _unchanged(work, State.DUE, timing.attempt("transient", error), stored(error), _POSTPONE_SECONDS)
        case Conflicting() | Found():
            raise AssertionError(f"{type(outcome).__name__} is settled elsewhere")


def settle_trouble(rules: Rules, work: Work, trouble: Trouble, timing: Timing, *, alone: bool) -> Settlement:
    """The call failed as a whole. It costs the lead an attempt only if everything speaks for the lead being the cause.

    `alone`: nothing else was in the call, and either it was kept apart for that reason or others got through meanwhile.
    """
    unanswered = trouble.kind is TroubleKind.UNANSWERED
    state = State.UNKNOWN if unanswered and rules.looks_up else State.DUE
    attempt = timing.attempt(_attempt_word(trouble.kind), trouble.error)
    if trouble.kind in _RECORD_SPECIFIC and alone and rules.was_healthy:
        least = rules.vendor_timeout_seconds if unanswered else 0.0
        return _failed(
            rules, work, trouble.error, attempt, state=state, least=least, kind="unknown" if unanswered else "permanent"
        )
    specific = trouble.kind in _RECORD_SPECIFIC
    delay = rules.vendor_timeout_seconds if unanswered else (random.uniform(0, 1) if specific else 0.0)  # noqa: S311
    suspect = work.claim.suspect or (specific and rules.was_healthy)
    return _unchanged(work, state, attempt, stored(trouble.error), delay, suspect=suspect)


def settle_look_up(work: Work, outcome: Outcome, timing: Timing) -> Settlement:
    """What became of a call whose outcome was unknown: `Found` or `Missing`."""
    claim = work.claim
    if isinstance(outcome, Found):
        if not claim.deleted and claim.in_flight_version == claim.copy_version and holds(outcome, work):
            return _written(work, Written(outcome.record_id), timing)
        error = VendorError("The CRM holds other values than were sent.")
        return _resend(work, timing, error, link=outcome.record_id)
    if claim.deleted:
        return _archived(work, timing)
    error = VendorError("The CRM does not hold the record.")
    return _resend(work, timing, error, release=claim.addressed_record is not None)


def settle_conflict(
    rules: Rules, work: Work, conflict: Conflicting, existing: Outcome, timing: Timing, *, holder: str | None
) -> Settlement:
    """Another record holds the e-mail. `holder` is the living lead that record belongs to, None if it belongs to none."""
    error = conflict.error
    if not isinstance(existing, Found):
        return _failed(rules, work, error, timing.attempt("conflict", error))
    if work.claim.record_id is None and holder in (None, work.lead_id):
        return _unchanged(work, State.DUE, timing.attempt("conflict", error), None, 0.0, link=existing.record_id)
    found = StoredError(
        error.message, error.category, error.correlation_id, error.status, existing.record_id, holder_lead_id=holder
    )
    return _dead(work, "duplicate_external", found, timing.attempt("duplicate_external", error))


def settle_taken(settlement: Settlement, external_id: str, holder: str) -> Settlement:
    """In place of `settlement`, whose record turned out to be another lead's: say, two records merged in the CRM."""
    error = StoredError(
        f"The record {external_id} is held by the lead {holder}.", external_id=external_id, holder_lead_id=holder
    )
    claim = settlement.claim
    attempt = settlement.attempt
    if attempt is not None:
        attempt = Attempt(
            attempt.started_at,
            attempt.finished_at,
            "duplicate_external",
            attempt.status,
            attempt.request_id,
            error.message,
        )
    announcement = Announcement(
        "upsert", None, request_id=attempt.request_id if attempt else None, kind="duplicate_external", error=error
    )
    return Settlement(
        claim,
        State.DEAD,
        claim.copy_version,
        attempts=claim.attempts + 1,
        release=True,
        error=error,
        attempt=attempt,
        dead_kind="duplicate_external",
        announcement=announcement,
    )


def is_record_specific(trouble: Trouble) -> bool:
    """Whether it could be one record that makes the vendor fail like this."""
    return trouble.kind in _RECORD_SPECIFIC


def holds(found: Found, work: Work) -> bool:
    """Whether a record read back has every value that was sent; a missing one and an empty one are the same."""
    return all((found.properties.get(name) or "") == (value or "") for name, value in work.record.properties.items())


def stored(error: VendorError) -> StoredError:
    return StoredError(error.message, error.category, error.correlation_id, error.status)


def _attempt_word(kind: TroubleKind) -> str:
    if kind in (TroubleKind.RATE_LIMITED, TroubleKind.DAILY_LIMIT):
        return "rate_limited"
    return "unknown" if kind is TroubleKind.UNANSWERED else "transient"


def _written(work: Work, outcome: Written, timing: Timing, *, archiving: bool = False) -> Settlement:
    if archiving:
        return _archived(work, timing)
    claim = work.claim
    return Settlement(
        claim,
        State.IDLE,
        claim.copy_version,
        is_synced=True,
        sent=work.holds,
        link=outcome.record_id if outcome.record_id != claim.record_id else None,
        attempt=timing.attempt("ok"),
        announcement=Announcement("upsert", outcome.record_id, outcome.created, timing.request_id),
    )


def _archived(work: Work, timing: Timing) -> Settlement:
    return Settlement(
        work.claim,
        State.IDLE,
        work.claim.copy_version,
        is_synced=True,
        release=True,
        attempt=timing.attempt("ok"),
        announcement=Announcement("archive", None, request_id=timing.request_id),
    )


def _gone(work: Work, outcome: Outcome, timing: Timing) -> Settlement:
    """The record was deleted in the CRM while its lead lives: it is made again, by our own property."""
    error = outcome.error if isinstance(outcome, Gone) else VendorError("The CRM does not hold the record.")
    claim = work.claim
    if claim.record_id is None:  # an upsert cannot miss its record: whatever this is, it must not go on for ever
        return _dead(work, "permanent", stored(error), timing.attempt("permanent", error))
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


def _unchanged(
    work: Work,
    state: State,
    attempt: Attempt,
    error: StoredError | None,
    delay: float,
    *,
    suspect: bool | None = None,
    link: str | None = None,
) -> Settlement:
    """To be sent again, with nothing counted."""
    claim = work.claim
    return Settlement(
        claim,
        state,
        claim.in_flight_version,
        delay_seconds=delay,
        attempts=claim.attempts,
        unknowns=claim.unknowns,
        suspect=claim.suspect if suspect is None else suspect,
        sent=claim.sent,
        link=link,
        error=error,
        attempt=attempt,
        announcement=_full_log(claim, error),
    )


def _failed(
    rules: Rules,
    work: Work,
    error: VendorError,
    attempt: Attempt,
    *,
    state: State = State.DUE,
    least: float = 0.0,
    kind: DeadKind = "permanent",
) -> Settlement:
    """One attempt more that failed; a dead letter after the last."""
    claim = work.claim
    if claim.attempts >= len(rules.retry_delays):
        return _dead(work, kind, stored(error), attempt)
    delay = rules.retry_delays[claim.attempts] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    first = claim.attempts == 0
    return Settlement(
        claim,
        state,
        claim.in_flight_version,
        delay_seconds=max(delay, least),
        attempts=claim.attempts + 1,
        unknowns=claim.unknowns,
        suspect=claim.suspect,
        sent=claim.sent,
        error=stored(error),
        attempt=attempt,
        announcement=_retrying(claim, stored(error)) if first else _full_log(claim, stored(error)),
    )


def _unsure(work: Work, error: VendorError, timing: Timing) -> Settlement:
    claim = work.claim
    return Settlement(
        claim,
        State.UNKNOWN,
        claim.in_flight_version,
        delay_seconds=_LOOK_UP_SECONDS,
        attempts=claim.attempts,
        unknowns=claim.unknowns + 1,
        sent=claim.sent,
        error=stored(error),
        attempt=timing.attempt("unknown", error),
        announcement=_retrying(claim, stored(error)) if claim.unknowns == 0 else _full_log(claim, stored(error)),
    )


def _resend(
    work: Work, timing: Timing, error: VendorError, *, link: str | None = None, release: bool = False
) -> Settlement:
    """A call that did not take: once more, unless its answers have said nothing too often."""
    claim = work.claim
    if claim.unknowns >= UNKNOWNS_UNTIL_DEAD:
        return _dead(work, "unknown", stored(error), timing.attempt("unknown", error))
    return Settlement(
        claim,
        State.DUE,
        claim.in_flight_version,
        attempts=claim.attempts,
        unknowns=claim.unknowns,
        suspect=claim.suspect,
        sent=None if release else claim.sent,
        link=link if link != claim.record_id else None,
        release=release,
        error=stored(error),
        attempt=timing.attempt("unknown", error),
        announcement=_full_log(claim, stored(error)),
    )


def _dead(work: Work, kind: DeadKind, error: StoredError, attempt: Attempt) -> Settlement:
    claim = work.claim
    return Settlement(
        claim,
        State.DEAD,
        claim.in_flight_version,
        attempts=claim.attempts + 1,
        unknowns=claim.unknowns,
        sent=claim.sent,
        error=error,
        attempt=attempt,
        dead_kind=kind,
        announcement=Announcement(
            operation_of(claim), claim.record_id, request_id=attempt.request_id, kind=kind, error=error
        ),
    )


def operation_of(claim: Claim) -> Operation:
    return "archive" if claim.deleted else "upsert"


def _retrying(claim: Claim, error: StoredError | None) -> Announcement:
    return Announcement(
        operation_of(claim),
        claim.record_id,
        request_id=error.correlation_id if error else None,
        kind="retrying",
        error=error or StoredError("The CRM has not taken the lead yet."),
    )


def _full_log(claim: Claim, error: StoredError | None) -> Announcement | None:
    """Attempts are told with the next event; if too many wait for one, it is sent for their sake."""
    return _retrying(claim, error) if len(claim.attempt_log) + 1 >= LOG_LIMIT else None
