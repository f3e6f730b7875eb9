"""A run's life, drawn once. The database refuses every other change of state (migrations), and a test compares the two.

                     ┌───────────────► waiting ──────────┐ a time came, or an event
                     │                                   ▼
(start) ──► queued ──► running ──► completed          queued
   │          ▲         │  │ ▲ │
   │          │         │  │ │ └──► failed ───────────┐
   ▼          │         │  ▼ │                        │ retry by an operator
suspended ────┤         │ retrying                    ▼
              │         └───► needs_attention ──►  queued
              └── retry

queued, running, waiting, retrying, needs_attention, suspended ──cancel──► cancelling ──► cancelled ──retry──► queued
"""

from enum import StrEnum


class State(StrEnum):
    """Where a run is. `running` and `cancelling` may be held by a worker; a lease says until when."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    CANCELLING = "cancelling"
    NEEDS_ATTENTION = "needs_attention"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLING}),
    State.RUNNING: frozenset(
        {
            State.QUEUED,
            State.WAITING,
            State.RETRYING,
            State.CANCELLING,
            State.NEEDS_ATTENTION,
            State.COMPLETED,
            State.FAILED,
        }
    ),
    State.WAITING: frozenset({State.QUEUED, State.CANCELLING}),
    State.RETRYING: frozenset({State.RUNNING, State.CANCELLING}),
    State.CANCELLING: frozenset({State.CANCELLED}),
    State.NEEDS_ATTENTION: frozenset({State.QUEUED, State.CANCELLING}),
    State.SUSPENDED: frozenset({State.QUEUED, State.CANCELLING}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}

FIRST = frozenset({State.QUEUED, State.SUSPENDED})
"""The states a run may be born in."""

ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
"""No worker and no event moves a run out of these."""

RETRYABLE = frozenset({State.FAILED, State.NEEDS_ATTENTION, State.SUSPENDED, State.CANCELLED})
CANCELLABLE = frozenset(state for state, following in TRANSITIONS.items() if State.CANCELLING in following)


class StepState(StrEnum):
    """How a step of a run stands. `unknown`: a call went out and nobody knows what it did."""

    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """How one outside call stands. `calling` is written before it, the rest after it."""

    CALLING = "calling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
