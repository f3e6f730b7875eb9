"""What the API takes and shows. Credentials are only ever taken."""

from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from crm_sync.credentials import (
    Credentials,
    OAuth,
    SigningSecret,
    SigningSecrets,
    StaticToken,
    is_signing_secret,
    new_signing_secret,
)
from crm_sync.mapping import MAX_FIELDS, MappedField, is_lead_field

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Secret = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("must be a time zone of the IANA database, such as Europe/Berlin")
    return name


def _printable_ascii(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("must be printable ASCII characters (RFC 6749, appendix A)")
    return text


def _signing_secret(text: str) -> str:
    if not is_signing_secret(text):
        raise ValueError("must be whsec_ followed by 24 to 64 bytes in base64")
    return text


VendorSecret = Annotated[Secret, AfterValidator(_printable_ascii)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSpotCredentials(_Strict):
    """A static token, or an OAuth app's grant."""

    access_token: VendorSecret | None = None
    client_id: VendorSecret | None = None
    client_secret: VendorSecret | None = None
    refresh_token: VendorSecret | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        grant = (self.client_id, self.client_secret, self.refresh_token)
        if (self.access_token is not None and any(grant)) or (self.access_token is None and None in grant):
            raise ValueError("give access_token, or client_id, client_secret and refresh_token")
        return self

    def to_credentials(self) -> Credentials:
        if self.access_token is not None:
            return StaticToken(self.access_token)
        return OAuth(str(self.client_id), str(self.client_secret), str(self.refresh_token))


class WebhookCredentials(_Strict):
    """The secret messages are signed with. Without one a secret is made; POST …/signing-secret shows a new one."""

    secret: Annotated[Secret, AfterValidator(_signing_secret)] | None = None

    def to_credentials(self) -> Credentials:
        return SigningSecrets((SigningSecret(self.secret or new_signing_secret()),))


class HubSpotSettings(_Strict):
    """The limits are the account's own; the defaults are those of its smallest plans."""

    base_url: Annotated[str, StringConstraints(max_length=500)] | None = None
    requests_per_10_seconds: Annotated[int, Field(ge=1, le=10_000)] = 100
    requests_per_day: Annotated[int, Field(ge=1, le=100_000_000)] = 250_000


class WebhookSettings(_Strict):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    requests_per_second: Annotated[int, Field(ge=1, le=1000)] = 20


class MappedFieldBody(_Strict):
    """`property` of the CRM takes `field` of the lead; `values` translates what the field can hold."""

    property: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    field: Annotated[str, StringConstraints(max_length=200)]
    values: dict[str, Annotated[str, StringConstraints(max_length=500)]] | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _known_field(self) -> Self:
        if not is_lead_field(self.field):
            raise ValueError(f"a lead has no field {self.field!r} that can be mapped")
        return self


MappingFields = Annotated[list[MappedFieldBody], Field(min_length=1, max_length=MAX_FIELDS)]


def to_mapping(fields: list[MappedFieldBody]) -> tuple[MappedField, ...]:
    return tuple(MappedField(each.property, each.field, each.values) for each in fields)


class MappingInput(_Strict):
    fields: MappingFields


class _NewConnection(_Strict):
    name: Name
    mode: Literal["all", "selected"] = "all"
    on_delete: Literal["keep", "archive"] = "keep"
    time_zone: TimeZone | None = None
    mapping: MappingFields | None = None


class NewHubSpotConnection(_NewConnection):
    vendor: Literal["hubspot"]
    credentials: HubSpotCredentials
    settings: HubSpotSettings = HubSpotSettings()


class NewWebhookConnection(_NewConnection):
    vendor: Literal["webhook"]
    credentials: WebhookCredentials = WebhookCredentials()
    settings: WebhookSettings


class VendorNamed(BaseModel):
    """Just enough of a new connection to know which of the two it is."""

    vendor: Literal["hubspot", "webhook"]


NEW_CONNECTION: dict[str, type[NewHubSpotConnection] | type[NewWebhookConnection]] = {
    "hubspot": NewHubSpotConnection,
    "webhook": NewWebhookConnection,
}


class _ConnectionChange(_Strict):
    name: Name = Field(default="")
    mode: Literal["all", "selected"] = "all"
    on_delete: Literal["keep", "archive"] = "keep"
    time_zone: TimeZone | None = None


class HubSpotChange(_ConnectionChange):
    credentials: HubSpotCredentials = HubSpotCredentials(access_token="-")  # noqa: S106 - never used: only set fields count
    settings: HubSpotSettings = HubSpotSettings()


class WebhookChange(_ConnectionChange):
    credentials: WebhookCredentials = WebhookCredentials()
    settings: WebhookSettings = WebhookSettings(url="-")


CONNECTION_CHANGE: dict[str, type[HubSpotChange] | type[WebhookChange]] = {
    "hubspot": HubSpotChange,
    "webhook": WebhookChange,
}


class SyncRequest(_Strict):
    """Without `connection_id`: every connection. Without `version`: the newest there is."""

    connection_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    version: Annotated[int, Field(ge=1, le=2**53)] | None = None


class ReplayRequest(_Strict):
    """Both narrow what is replayed; without either, every dead letter of the workspace is."""

    connection_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    kind: Literal["permanent", "unknown", "duplicate_external"] | None = Field(default=None, alias="class")


class CredentialsShown(BaseModel):
    """`unreadable`: no key of ours opens them any more; give them again."""

    kind: Literal["access_token", "oauth", "secret", "unreadable"]
    set_at: str


class TroubleShown(BaseModel):
    kind: Literal["transient", "rate_limited"]
    reason: str
    count: int


class ConnectionDocument(BaseModel):
    id: str
    name: str
    vendor: Literal["hubspot", "webhook"]
    mode: Literal["all", "selected"]
    on_delete: Literal["keep", "archive"]
    time_zone: str | None
    settings: dict[str, Any]
    credentials: CredentialsShown
    status: Literal["active", "paused", "needs_reauth", "needs_mapping", "disabled"]
    status_reason: str | None
    paused_until: str | None
    trouble: TroubleShown | None
    account_id: str | None
    verified_at: str | None
    backfilling: bool
    mapping_version: int
    version: int
    created_at: str
    updated_at: str


class ConnectionPage(BaseModel):
    items: list[ConnectionDocument]
    next_cursor: str | None


class MappingDocument(BaseModel):
    connection_id: str
    version: int
    fields: list[MappedFieldBody]


class Verification(BaseModel):
    ok: bool
    account_id: str | None
    time_zone: str | None
    made: list[str]
    problems: list[dict[str, Any]]
    connection: ConnectionDocument


class SigningSecretDocument(BaseModel):
    secret: str
    previous_valid_until: str


class ErrorShown(BaseModel):
    message: str
    category: str | None
    correlation_id: str | None
    status: int | None
    external_id: str | None
    holder_lead_id: str | None


class StandingDocument(BaseModel):
    connection_id: str
    connection_name: str
    vendor: Literal["hubspot", "webhook"]
    connection_status: str
    paused_until: str | None
    lead_id: str
    desired_version: int
    synced_version: int
    state: Literal["in_step", "waiting_for_lead", "due", "in_flight", "unknown", "dead"]
    external_id: str | None
    attempts: int
    next_try_at: str | None
    last_error: ErrorShown | None
    dead_letter_id: str | None
    dead_class: Literal["permanent", "unknown", "duplicate_external"] | None
    updated_at: str


class StandingList(BaseModel):
    items: list[StandingDocument]


class DeadLetterDocument(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str
    connection_id: str
    connection_name: str
    vendor: Literal["hubspot", "webhook"]
    lead_id: str
    version: int
    kind: Literal["permanent", "unknown", "duplicate_external"] = Field(alias="class")
    error: ErrorShown | None
    attempts: int
    dead_at: str


class DeadLetterPage(BaseModel):
    items: list[DeadLetterDocument]
    next_cursor: str | None


class Replayed(BaseModel):
    replayed: int
