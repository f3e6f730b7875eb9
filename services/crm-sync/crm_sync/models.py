"""What the service works on, as the repository gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from crm_sync.mapping import MappedField

Vendor = Literal["hubspot", "webhook"]
Mode = Literal["all", "selected"]
OnDelete = Literal["keep", "archive"]
Status = Literal["active", "paused", "needs_reauth", "needs_mapping", "disabled"]
DeadKind = Literal["permanent", "unknown", "duplicate_external"]


class State(StrEnum):
    """Where a lead stands at a connection; drawn in migrations/0002_leads.sql."""

    IDLE = "idle"
    DUE = "due"
    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    workspace_id: str
    id: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as it is stored. `sealed` is for `credentials.unseal` only."""

    workspace_id: str
    id: str
    name: str
    vendor: Vendor
    mode: Mode
    on_delete: OnDelete
    settings: Mapping[str, Any]
    time_zone: str | None
    status: Status
    status_reason: str | None
    trouble_kind: Literal["transient", "rate_limited"] | None
    trouble_reason: str | None
    trouble_count: int
    paused_until: datetime | None
    is_resting: bool
    """By the database's clock: `paused_until` is still to come."""
    sealed: str = field(repr=False)
    credentials_set_at: datetime
    token_expires_at: datetime | None
    token_seconds_left: float | None
    """By the database's clock; None if the token does not end or there is none yet."""
    mapping: tuple[MappedField, ...]
    mapping_version: int
    prepared_at: datetime | None
    account_id: str | None
    is_backfilling: bool
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> ConnectionKey:
        return ConnectionKey(self.workspace_id, self.id)

    @property
    def is_half_open(self) -> bool:
        """True after trouble of its own, until something succeeds: one lead is risked, not a hundred."""
        return self.trouble_kind == "transient"


@dataclass(frozen=True, slots=True)
class Claim:
    """A lead a worker has taken, with its newest copy and what is known about the call before."""

    lead_id: str
    resolving: bool
    """True if an earlier call's outcome is unknown and has to be looked up first."""
    in_flight_version: int
    addressed_record: str | None
    """The record that call was addressed to; None: our own property."""
    unsettled_lead: Mapping[str, Any] | None
    """The lead as that call took it along; None if no call's outcome is open."""
    copy_version: int
    deleted: bool
    lead: Mapping[str, Any]
    record_id: str | None
    """The record the lead is linked to."""
    sent: Mapping[str, Any] | None
    """The properties the record was last given, None for a value that nobody knows. None as a whole: it was given nothing."""
    attempts: int
    unknowns: int
    suspect: bool
    attempt_log: Sequence[Mapping[str, Any]]
    chain: str
    request_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call, as far as one lead is concerned. `outcome` is one of the event contract's words."""

    started_at: datetime
    finished_at: datetime
    outcome: str
    status: int | None
    request_id: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredError:
    """Why a lead is not in step, in the CRM's own words."""

    message: str
    category: str | None = None
    correlation_id: str | None = None
    status: int | None = None
    external_id: str | None = None
    """The record in the way, or the one concerned."""
    holder_lead_id: str | None = None
    """The lead that holds that record."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """The event a settlement is announced by. `kind` None: `crm.lead.synced`."""

    operation: Literal["upsert", "archive", "release"]
    created: bool | None = None
    request_id: str | None = None
    kind: Literal["permanent", "unknown", "duplicate_external", "retrying"] | None = None
    error: StoredError | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be stored about a claimed lead after its call.

    `state` IDLE becomes DUE if a newer version is wanted by then; so does DEAD.
    """

    claim: Claim
    state: State
    version: int
    """The version this is about."""
    delay_seconds: float = 0.0
    is_synced: bool = False
    attempts: int = 0
    unknowns: int = 0
    suspect: bool = False
    sent: Mapping[str, Any] | None = None
    link: str | None = None
    """The record the lead is at from now on, if that is news."""
    release: bool = False
    """The lead is at no record any more."""
    error: StoredError | None = None
    attempt: Attempt | None = None
    dead_kind: DeadKind | None = None
    announcement: Announcement | None = None

    @property
    def record_id(self) -> str | None:
        """The record the lead is at after it."""
        return None if self.release else self.link or self.claim.record_id


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a lead stands at one connection, as the API shows it."""

    connection_id: str
    connection_name: str
    vendor: str
    connection_status: str
    paused_until: datetime | None
    lead_id: str
    desired_version: int
    synced_version: int
    state: State
    copy_version: int | None
    external_id: str | None
    attempts: int
    next_try_at: datetime | None
    last_error: StoredError | None
    dead_letter_id: str | None
    dead_kind: DeadKind | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A lead that a connection will not take until something changes."""

    id: str
    connection_id: str
    connection_name: str
    vendor: str
    lead_id: str
    version: int
    kind: DeadKind
    error: StoredError | None
    attempts: int
    dead_at: datetime
