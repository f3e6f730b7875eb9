"""The three kinds of steps, and what the worker that runs them expects of each.

- an ImmediateStep decides on the spot, without an outside effect: several share one checkpoint;
- a PausingStep may let the run wait for a time or an event;
- a CallingStep makes one outside call, with an intent committed before it and a result after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from chassis.http import OutboundClient, ServiceClient
from workflows.engine.definition import Step
from workflows.engine.retry import RetryPolicy

Scope = Mapping[str, Any]
"""What a run knows: `lead`, `changed`, `previous`, `trigger`, `steps` (outputs by id), `run`, `workflow`."""

OnUnknown = Literal["retry", "verify", "stop"]


class StepFailed(Exception):
    """The step cannot do its work with this run's values; nothing was sent, and trying again would not help."""


@dataclass(frozen=True, slots=True)
class Done:
    """The step is finished; the run goes on by `way`: a branch's name, or None for the step that follows."""

    output: dict[str, Any] = field(default_factory=dict)
    way: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The run ends here, by the step's own wish."""

    outcome: Literal["completed", "failed"]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Pause:
    """The run waits: until a time, for so many seconds, for an event's type, or for whichever comes first."""

    until: datetime | None = None
    seconds: float | None = None
    event: str | None = None
    note: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeadNow:
    """The newest known state of the run's lead, and of that lead in each CRM (the newest event's type and data).

    `at` is the database's time: the one by which waits are counted.
    """

    lead: dict[str, Any]
    deleted: bool
    at: datetime
    crm: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Resumption:
    """Why a waiting step is looked at again: `wake` is the event that came, None if its time came. `due_at` is that time."""

    wake: dict[str, Any] | None
    due_at: datetime | None


class ImmediateStep(Step):
    """A step without an outside effect."""

    def decide(self, scope: Scope) -> Done | End:
        raise NotImplementedError


class PausingStep(Step):
    """A step at which a run may wait."""

    def begin(self, scope: Scope, now: LeadNow) -> Done | Pause:
        """Called under the lead's lock: nothing about the lead changes between this look and the wait it leads to."""
        raise NotImplementedError

    def resume(self, scope: Scope, why: Resumption) -> Done | Pause:
        """Called when the wait's event or time has come."""
        raise NotImplementedError


class Desk(Protocol):
    """What a calling step may ask for while its request is prepared, in the transaction that records the intent."""

    lead_id: str
    run_id: str

    async def next_owner(self, step_id: str, user_ids: Sequence[str]) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """What a calling step needs to make its call. `key` is the same for every attempt within a generation."""

    key: str
    workspace_id: str
    lead_id: str
    services: ServiceClient
    outbound: OutboundClient
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The call did its work. `lead` is the lead as the answer shows it, where it does."""

    output: dict[str, Any] = field(default_factory=dict)
    status: int | None = None
    lead: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The call is known not to have done its work. `retry_after` is in seconds, as the other side asked."""

    error: str
    retryable: bool
    status: int | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The call may or may not have done its work."""

    error: str
    status: int | None = None


Outcome = Succeeded | Failed | Unknown


class CallingStep(Step):
    """A step that makes one outside call."""

    retry: RetryPolicy

    @property
    def unknown_policy(self) -> OnUnknown:
        """What follows a call whose outcome is unknown."""
        return "retry"

    async def prepare(self, scope: Scope, desk: Desk) -> dict[str, Any]:
        """The request, as JSON that may be stored and shown: secrets by id. StepFailed or TemplateError: it cannot be made."""
        raise NotImplementedError

    def secret_ids(self, _request: Mapping[str, Any]) -> frozenset[str]:
        """The secrets that a prepared request names."""
        return frozenset()

    async def perform(self, request: Mapping[str, Any], call: Call) -> Outcome:
        """Make the call; every failure is an Outcome."""
        raise NotImplementedError

    def with_look_up(self, request: dict[str, Any], _scope: Scope) -> dict[str, Any]:
        """A request that was prepared before the step knew how to look it up, completed by that."""
        return request

    async def verify(self, _request: Mapping[str, Any], _call: Call) -> Outcome:
        """Look up whether an earlier call did its work. Failed with `retryable` means that it did not."""
        raise NotImplementedError
