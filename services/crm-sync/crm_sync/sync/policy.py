"""What follows from an outcome: the settlement of each lead. Pure; docs/crm-hubspot.md has it as a table."""

import random
from dataclasses import replace

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
from crm_sync.models import Announcement, Attempt, Claim, Settlement, State, StoredError
from crm_sync.sync.planning import Work
from crm_sync.sync.settlements import (
    Rules,
    Timing,
    again,
    archived,
    dead,
    failed,
    gone,
    resend,
    stored,
    unchanged,
    unsure,
    written,
)

_POSTPONE_SECONDS = 2.0
_RECORD_SPECIFIC = frozenset((TroubleKind.TRANSIENT, TroubleKind.UNANSWERED))


def settle_equal(claim: Claim) -> Settlement:
    """The record holds what this version gives: nothing is sent, the version counts as brought over."""
    return Settlement(
        claim,
        State.IDLE,
        claim.copy_version,
        is_synced=True,
        sent=claim.sent,
        announcement=Announcement("upsert", created=False),
    )


def settle_release(claim: Claim) -> Settlement:
    """The lead is deleted and its record stays as it is, free for another lead."""
    return Settlement(
        claim,
        State.IDLE,
        claim.copy_version,
        is_synced=True,
        release=True,
        announcement=Announcement("release"),
    )


def settle_outcome(
    rules: Rules, work: Work, outcome: Outcome, timing: Timing, *, archiving: bool = False
) -> Settlement:
    """For everything a write or an archiving can bring, but a conflict."""
    match outcome:
        case Written():
            return written(work, outcome, timing, archiving=archiving)
        case Gone() | Missing():
            return archived(work, timing) if archiving else gone(work, outcome, timing)
        case Refused(error):
            return dead(work, "permanent", stored(error), timing.attempt("permanent", error))
        case Failed(error):
            return failed(rules, work, error, timing.attempt("transient", error))
        case Unsure(error):
            return unsure(work, error, timing)
        case Postponed(error):
            return unchanged(
                work, again(work.claim), timing.attempt("transient", error), stored(error), _POSTPONE_SECONDS
            )
        case Conflicting() | Found():
            raise AssertionError(f"{type(outcome).__name__} is settled elsewhere")


def settle_trouble(rules: Rules, work: Work, trouble: Trouble, timing: Timing, *, alone: bool) -> Settlement:
    """The call failed as a whole. It costs the lead an attempt only if everything speaks for the lead being the cause.

    `alone`: nothing else was in the call, and either it was kept apart for that reason or others got through meanwhile.
    """
    unanswered = trouble.kind is TroubleKind.UNANSWERED
    state = State.UNKNOWN if unanswered and rules.looks_up else again(work.claim)
    attempt = timing.attempt(_attempt_word(trouble.kind), trouble.error)
    may_have_taken = unanswered or (trouble.error.status or 0) >= 500
    if trouble.kind in _RECORD_SPECIFIC and alone and rules.was_healthy:
        return failed(
            rules,
            work,
            trouble.error,
            attempt,
            state=state,
            least=rules.vendor_timeout_seconds if unanswered else 0.0,
            kind="unknown" if unanswered else "permanent",
            may_have_taken=may_have_taken,
        )
    specific = trouble.kind in _RECORD_SPECIFIC
    delay = rules.vendor_timeout_seconds if unanswered else (random.uniform(0, 1) if specific else 0.0)  # noqa: S311
    suspect = work.claim.suspect or (specific and rules.was_healthy)
    return unchanged(work, state, attempt, stored(trouble.error), delay, suspect=suspect, may_have_taken=may_have_taken)


def settle_look_up(work: Work, outcome: Outcome, timing: Timing) -> Settlement:
    """What became of a call whose outcome was unknown: `Found` or `Missing`."""
    claim = work.claim
    if isinstance(outcome, Found):
        if not claim.deleted and claim.in_flight_version == claim.copy_version and holds(outcome, work):
            return written(work, Written(outcome.record_id), timing)
        error = VendorError("The CRM holds other values than were sent.")
        return resend(work, timing, error, outcome)
    if claim.deleted:
        return archived(work, timing)
    error = VendorError("The CRM does not hold the record.")
    return resend(work, timing, error, None)


def settle_conflict(
    rules: Rules, work: Work, conflict: Conflicting, existing: Outcome, timing: Timing, *, holder: str | None
) -> Settlement:
    """Another record holds the e-mail. `holder` is the living lead that record belongs to, None if it belongs to none."""
    error = conflict.error
    if not isinstance(existing, Found):
        return failed(rules, work, error, timing.attempt("conflict", error), may_have_taken=False)
    if work.claim.record_id is None and holder in (None, work.lead_id):
        return unchanged(work, State.DUE, timing.attempt("conflict", error), None, 0.0, link=existing.record_id)
    found = StoredError(
        error.message, error.category, error.correlation_id, error.status, existing.record_id, holder_lead_id=holder
    )
    return dead(work, "duplicate_external", found, timing.attempt("duplicate_external", error))


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
        "upsert", request_id=attempt.request_id if attempt else None, kind="duplicate_external", error=error
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


def settle_overwritten(settlement: Settlement) -> Settlement:
    """In place of `settlement`, whose record another lead's data went over in the same call: brought over once more."""
    if settlement.state is not State.IDLE:
        return replace(settlement, sent=None)
    return replace(settlement, state=State.DUE, is_synced=False, sent=None, announcement=None)


def is_record_specific(trouble: Trouble) -> bool:
    """Whether it could be one record that makes the vendor fail like this."""
    return trouble.kind in _RECORD_SPECIFIC


def holds(found: Found, work: Work) -> bool:
    """Whether a record read back has every value that was sent; a missing one and an empty one are the same."""
    return all((found.properties.get(name) or "") == (value or "") for name, value in work.record.properties.items())


def _attempt_word(kind: TroubleKind) -> str:
    if kind in (TroubleKind.RATE_LIMITED, TroubleKind.DAILY_LIMIT):
        return "rate_limited"
    return "unknown" if kind is TroubleKind.UNANSWERED else "transient"
