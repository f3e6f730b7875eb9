"""Connector: HubSpot contacts. Paths, bodies and limits as developers.hubspot.com describes them for 2026-03 and v3.

A contact is found by our own unique property until its record id is known, then by that id; never by its e-mail, which changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlencode

import orjson

from crm_sync.connectors import hubspot_account, hubspot_answers
from crm_sync.connectors.hubspot_answers import LEAD_ID
from crm_sync.connectors.protocol import (
    Access,
    Ask,
    Call,
    MappingProblem,
    Operation,
    Preparation,
    Record,
    Tokens,
    Trouble,
    VendorAnswer,
    VendorRequest,
    Verdict,
)
from crm_sync.credentials import OAuth, StaticToken
from crm_sync.mapping import MappedField

MAX_BATCH = 100

# HubSpot's contact properties of every account. The lead's stage goes to `hs_lead_status`: `lifecyclestage` cannot be moved
# back over the API, so a lead that returns to an earlier stage would stay where it was without an error.
_STAGES = {
    "new": "NEW",
    "contacted": "CONNECTED",
    "qualified": "IN_PROGRESS",
    "converted": "OPEN_DEAL",
    "lost": "UNQUALIFIED",
}
_DEFAULT_MAPPING = (
    MappedField("email", "email"),
    MappedField("firstname", "first_name"),
    MappedField("lastname", "last_name"),
    MappedField("phone", "phone"),
    MappedField("company", "company"),
    MappedField("jobtitle", "title"),
    MappedField("hs_lead_status", "stage", _STAGES),
)


class Paths:
    """HubSpot's addresses in one version of its API: a dated one (`2026-03`) or `v3`."""

    def __init__(self, base_url: str, version: str) -> None:
        base, dated = base_url.rstrip("/"), version[:1].isdigit()
        self.contacts = f"{base}/crm/objects/{version}/contacts" if dated else f"{base}/crm/{version}/objects/contacts"
        self.properties = (
            f"{base}/crm/properties/{version}/contacts" if dated else f"{base}/crm/{version}/properties/contacts"
        )
        self.account = f"{base}/account-info/{version}/details"
        self.token = f"{base}/oauth/{version}/token"


class HubSpotConnector:
    """Batches of contacts over HubSpot's CRM API."""

    vendor: ClassVar[str] = "hubspot"
    batch_size: ClassVar[int] = MAX_BATCH
    parallel_calls: ClassVar[int] = 1
    retry_delays: ClassVar[Sequence[float]] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    looks_up: ClassVar[bool] = True
    text_only: ClassVar[bool] = True
    identity_property: ClassVar[str | None] = LEAD_ID

    def __init__(self, base_url: str, version: str) -> None:
        """`base_url` is used where a connection's settings name no other."""
        self._base_url = base_url
        self._version = version

    def default_mapping(self) -> Sequence[MappedField]:
        return _DEFAULT_MAPPING

    def limits(self, settings: Mapping[str, Any]) -> Sequence[tuple[float, float]]:
        return (
            (float(settings["requests_per_10_seconds"]), 10.0),
            (float(settings["requests_per_day"]), 86_400.0),
        )

    def calls(self, records: Sequence[Record], *, archive: bool = False, look_up: bool = False) -> Sequence[Call]:
        linked = [record for record in records if record.record_id is not None]
        unlinked = [record for record in records if record.record_id is None]
        if archive:
            return [Call(Operation.ARCHIVE, batch) for batch in _batches(linked)]
        if look_up:
            return [Call(Operation.LOOK_UP, batch) for batch in (*_batches(linked), *_batches(unlinked))]
        return [
            *(Call(Operation.UPDATE, batch) for batch in _batches(linked)),
            *(Call(Operation.UPSERT, batch) for batch in _batches(unlinked)),
        ]

    def request(self, access: Access, call: Call, properties: Sequence[str]) -> VendorRequest:
        paths = self._paths(access)
        match call.operation:
            case Operation.UPSERT:
                inputs = [_input(record, record.lead_id) | {"idProperty": LEAD_ID} for record in call.records]
                return _post(access, f"{paths.contacts}/batch/upsert", {"inputs": inputs})
            case Operation.UPDATE:
                inputs = [_input(record, str(record.record_id)) for record in call.records]
                return _post(access, f"{paths.contacts}/batch/update", {"inputs": inputs})
            case Operation.ARCHIVE:
                ids = [{"id": str(record.record_id)} for record in call.records]
                return _post(access, f"{paths.contacts}/batch/archive", {"inputs": ids})
            case Operation.LOOK_UP:
                return _post(access, f"{paths.contacts}/batch/read", _look_up(call, properties))

    def judge(self, call: Call, answer: VendorAnswer) -> Verdict:
        return hubspot_answers.judge(call, answer)

    async def prepare(self, ask: Ask, access: Access, mapping: Sequence[MappedField]) -> Preparation:
        return await hubspot_account.prepare(
            ask, self._paths(access), authorization(access), mapping, access.account_id
        )

    async def check_mapping(self, ask: Ask, access: Access, mapping: Sequence[MappedField]) -> Sequence[MappingProblem]:
        return await hubspot_account.check_mapping(ask, self._paths(access), authorization(access), mapping)

    def refresh_request(self, access: Access, credentials: OAuth) -> VendorRequest:
        form = {
            "grant_type": "refresh_token",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
            "refresh_token": credentials.refresh_token,
        }
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        return VendorRequest("POST", self._paths(access).token, headers, urlencode(form).encode())

    def judge_refresh(self, answer: VendorAnswer) -> Tokens | Trouble:
        return hubspot_answers.judge_refresh(answer)

    def _paths(self, access: Access) -> Paths:
        return Paths(str(access.settings.get("base_url") or self._base_url), self._version)


def authorization(access: Access) -> dict[str, str]:
    """The headers that identify us. An OAuth connection must hold an access token by now."""
    credentials = access.credentials
    if not isinstance(credentials, StaticToken | OAuth) or not credentials.access_token:
        raise TypeError("a HubSpot connection needs an access token")
    return {"authorization": f"Bearer {credentials.access_token}", "accept": "application/json"}


def _post(access: Access, url: str, document: Mapping[str, Any]) -> VendorRequest:
    return VendorRequest(
        "POST", url, {**authorization(access), "content-type": "application/json"}, orjson.dumps(document)
    )


def _input(record: Record, identity: str) -> dict[str, Any]:
    return {
        "id": identity,
        "properties": {**record.properties, LEAD_ID: record.lead_id},
        "objectWriteTraceId": record.write_id,
    }


def _look_up(call: Call, properties: Sequence[str]) -> dict[str, Any]:
    """By record id or by our property: a call never mixes the two."""
    by_id = call.records[0].record_id is not None
    document: dict[str, Any] = {
        "properties": sorted({LEAD_ID, *properties}),
        "inputs": [{"id": record.record_id if by_id else record.lead_id} for record in call.records],
    }
    return document if by_id else {**document, "idProperty": LEAD_ID}


def _batches(records: Sequence[Record]) -> Iterable[tuple[Record, ...]]:
    """Batches in which no record id, lead or e-mail comes twice: HubSpot leaves the outcome of such a batch open."""
    waiting = list(records)
    while waiting:
        batch: list[Record] = []
        seen: set[tuple[str, str]] = set()
        later: list[Record] = []
        for record in waiting:
            identities = _identities(record)
            if len(batch) == MAX_BATCH or not seen.isdisjoint(identities):
                later.append(record)
            else:
                seen |= identities
                batch.append(record)
        yield tuple(batch)
        waiting = later


def _identities(record: Record) -> set[tuple[str, str]]:
    identities = {("lead", record.lead_id)}
    if record.record_id is not None:
        identities.add(("record", record.record_id))
    if email := record.properties.get("email"):
        identities.add(("email", str(email).casefold()))
    return identities
