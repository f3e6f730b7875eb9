"""What a connector is, and the words in which it tells what a vendor said.

A connector is pure: it turns leads into requests and answers into outcomes. Sending, budgets, leases and storing are the
engine's. One call carries one or more records; its answer is one of three verdicts:

- `Judged`: an outcome for each record;
- `Split`: the call was refused as a whole and nothing was written; each half is to be tried by itself;
- `Trouble`: it says nothing about the records, only about the connection.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from crm_sync.credentials import Credentials, OAuth
from crm_sync.mapping import MappedField


class Operation(StrEnum):
    UPSERT = "upsert"
    """Write a record found, or else made, by our own unique property."""
    UPDATE = "update"
    """Write a record by the vendor's id."""
    ARCHIVE = "archive"
    LOOK_UP = "look_up"
    """Read records back, to learn what became of an earlier call."""


@dataclass(frozen=True, slots=True)
class Record:
    """One lead as a call carries it. `record_id` is the vendor's id, None if we do not know one."""

    lead_id: str
    version: int
    record_id: str | None
    properties: Mapping[str, Any]
    changed_at: str = ""
    mapping_version: int = 1

    @property
    def write_id(self) -> str:
        """The same on every attempt to bring this version of this lead over."""
        return f"{self.lead_id}:{self.version}"


@dataclass(frozen=True, slots=True)
class Call:
    """Records that go to the vendor in one request."""

    operation: Operation
    records: tuple[Record, ...]

    def halves(self) -> tuple["Call", "Call"]:
        """Two calls with half of the records each. Needs at least two records."""
        middle = len(self.records) // 2
        return Call(self.operation, self.records[:middle]), Call(self.operation, self.records[middle:])


@dataclass(frozen=True, slots=True)
class VendorRequest:
    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: bytes | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class VendorAnswer:
    """Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class VendorError:
    """What went wrong, in the vendor's own words where it had some."""

    message: str
    category: str | None = None
    correlation_id: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The vendor holds the record as sent (or has archived it). `created` is None where it does not say."""

    record_id: str | None
    created: bool | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A look-up's finding."""

    record_id: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Missing:
    """A look-up found no such record."""


@dataclass(frozen=True, slots=True)
class Refused:
    """This record will not be taken as it is."""

    error: VendorError


@dataclass(frozen=True, slots=True)
class Failed:
    """This record could not be taken now."""

    error: VendorError


@dataclass(frozen=True, slots=True)
class Conflicting:
    """Another record holds what must be unique; `existing_id` is that record's id."""

    error: VendorError
    existing_id: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The record the call was addressed to is not there."""

    error: VendorError


@dataclass(frozen=True, slots=True)
class Unsure:
    """The answer does not say what became of this record."""

    error: VendorError


@dataclass(frozen=True, slots=True)
class Postponed:
    """Not the record's fault: it is to be sent again as if nothing had happened."""

    error: VendorError


Outcome = Written | Found | Missing | Refused | Failed | Conflicting | Gone | Unsure | Postponed


class TroubleKind(StrEnum):
    TRANSIENT = "transient"
    """Try again after a while; nothing was written."""
    UNANSWERED = "unanswered"
    """The request may have arrived, and may still be worked on."""
    RATE_LIMITED = "rate_limited"
    DAILY_LIMIT = "daily_limit"
    """Nothing more until the account's midnight."""
    UNAUTHORIZED = "unauthorized"
    """The access token was refused; a fresh one may help."""
    FORBIDDEN = "forbidden"
    """The credentials do not allow it: a person has to change them."""
    UNMAPPED = "unmapped"
    """The mapping names something the vendor does not have: a person has to change it."""
    UNPREPARED = "unprepared"
    """Our own property is missing at the vendor's: prepare it again."""
    DISABLED = "disabled"
    """The receiver wants no more."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The connection cannot be used as it is. `retry_after` are the vendor's seconds, if it named any."""

    kind: TroubleKind
    error: VendorError
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome per lead id. `trouble` is set if the answer also says that going on makes no sense."""

    outcomes: Mapping[str, Outcome]
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Split:
    error: VendorError


Verdict = Judged | Split | Trouble


class VendorTrouble(Exception):
    """Raised out of a conversation with a vendor that could not be held to its end."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.error.message)
        self.trouble = trouble


Ask = Callable[[VendorRequest], Awaitable[VendorAnswer]]
"""Sends one request within the connection's budget. VendorTrouble if there is no answer."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a connection leads and with what it identifies itself."""

    workspace_id: str
    connection_id: str
    settings: Mapping[str, Any]
    credentials: Credentials = field(repr=False)
    account_id: str | None = None
    """The vendor's account that the connection's records are in; None until it was seen."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A fresh OAuth grant."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: float


@dataclass(frozen=True, slots=True)
class MappingProblem:
    """What is wrong with one mapped field; `index` is its place in the mapping."""

    index: int
    member: str
    detail: str


@dataclass(frozen=True, slots=True)
class Preparation:
    """What preparing found: the account, and whether the mapping fits it."""

    account_id: str | None = None
    time_zone: str | None = None
    made: tuple[str, ...] = ()
    """What had to be made at the vendor's."""
    mapping_problems: tuple[MappingProblem, ...] = ()


class Connector(Protocol):
    """One vendor. Everything here is pure but `prepare`, which talks through the `ask` it is given."""

    vendor: ClassVar[str]
    batch_size: ClassVar[int]
    """How many leads are taken at once."""
    parallel_calls: ClassVar[int]
    retry_delays: ClassVar[Sequence[float]]
    """Seconds before each further attempt at a record that failed by itself; after the last it is a dead letter."""
    looks_up: ClassVar[bool]
    """Whether the vendor can be asked what it holds. If not, it drops repetitions by itself (a stable message id)."""
    text_only: ClassVar[bool]
    """Whether every property's value is a string."""
    identity_property: ClassVar[str | None]
    """The property that holds our lead's id."""

    def default_mapping(self) -> Sequence[MappedField]: ...

    def limits(self, settings: Mapping[str, Any]) -> Sequence[tuple[float, float]]:
        """The account's limits as (requests, seconds)."""

    def calls(self, records: Sequence[Record], *, archive: bool = False, look_up: bool = False) -> Sequence[Call]:
        """The records as calls the vendor takes: small enough, no identity twice."""

    def request(self, access: Access, call: Call, properties: Sequence[str]) -> VendorRequest:
        """`properties` are the names a look-up asks for."""

    def judge(self, call: Call, answer: VendorAnswer) -> Verdict: ...

    async def prepare(self, ask: Ask, access: Access, mapping: Sequence[MappedField]) -> Preparation:
        """See that the vendor's side has what we need and that the mapping fits. VendorTrouble if it cannot be seen."""

    async def check_mapping(
        self, ask: Ask, access: Access, mapping: Sequence[MappedField]
    ) -> Sequence[MappingProblem]: ...

    def refresh_request(self, access: Access, credentials: OAuth) -> VendorRequest: ...

    def judge_refresh(self, answer: VendorAnswer) -> Tokens | Trouble: ...
