"""What HubSpot's account must hold for us: our unique property, and the properties a mapping names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import orjson

from crm_sync.connectors.answers import document_of, error_of, object_of, objects_of, text_of
from crm_sync.connectors.hubspot_answers import LEAD_ID, trouble
from crm_sync.connectors.protocol import (
    Ask,
    MappingProblem,
    Preparation,
    Trouble,
    TroubleKind,
    VendorAnswer,
    VendorError,
    VendorRequest,
    VendorTrouble,
)
from crm_sync.mapping import STAGES, MappedField

_OUR_PROPERTY = {
    "name": LEAD_ID,
    "label": "Automation Orchestrator lead id",
    "description": "Ties the contact to its lead in Automation Orchestrator. Do not edit.",
    "groupName": "contactinformation",
    "type": "string",
    "fieldType": "text",
    "hasUniqueValue": True,
    "formField": False,
}


class AccountPaths(Protocol):
    properties: str
    account: str


async def prepare(
    ask: Ask,
    paths: AccountPaths,
    authorization: Mapping[str, str],
    mapping: Sequence[MappedField],
    account_id: str | None,
) -> Preparation:
    """The account's facts, with our property made if it was missing, and what is wrong with the mapping there.

    VendorTrouble FORBIDDEN, and nothing made, if it is another account than `account_id`: our record ids are not its.
    """
    account = document_of(await _expect(ask, VendorRequest("GET", paths.account, authorization)))
    zone, number = account.get("timeZone"), account.get("portalId")
    if number is None:
        words = "HubSpot did not say which account the credentials are for."
        raise VendorTrouble(Trouble(TroubleKind.TRANSIENT, VendorError(words)))
    if account_id is not None and str(number) != account_id:
        words = f"the credentials are for account {number}, this connection's records are in account {account_id}"
        raise VendorTrouble(Trouble(TroubleKind.FORBIDDEN, VendorError(words)))
    made = await _ensure_property(ask, paths, authorization)
    return Preparation(
        account_id=str(number),
        time_zone=zone if isinstance(zone, str) and zone else None,
        made=(LEAD_ID,) if made else (),
        mapping_problems=tuple(await check_mapping(ask, paths, authorization, mapping)),
    )


async def check_mapping(
    ask: Ask, paths: AccountPaths, authorization: Mapping[str, str], mapping: Sequence[MappedField]
) -> Sequence[MappingProblem]:
    """Each mapped property that the account lacks, that cannot be written, or that cannot hold the field's values."""
    names = sorted({mapped.property for mapped in mapping})
    if not names:
        return ()
    body = orjson.dumps({"archived": False, "inputs": [{"name": name} for name in names]})
    headers = {**authorization, "content-type": "application/json"}
    answer = await _expect(ask, VendorRequest("POST", f"{paths.properties}/batch/read", headers, body))
    found = {text_of(each.get("name")): each for each in objects_of(document_of(answer).get("results"))}
    return [
        problem
        for index, mapped in enumerate(mapping)
        for problem in _field_problems(index, mapped, found.get(mapped.property))
    ]


def _field_problems(index: int, mapped: MappedField, held: Mapping[str, Any] | None) -> Iterator[MappingProblem]:
    if mapped.property == LEAD_ID:
        yield MappingProblem(index, "property", f"{LEAD_ID!r} ties the contact to its lead and is filled by itself")
    elif held is None:
        yield MappingProblem(index, "property", f"HubSpot has no contact property {mapped.property!r}")
    elif object_of(held.get("modificationMetadata")).get("readOnlyValue") or held.get("calculated"):
        yield MappingProblem(index, "property", f"HubSpot does not let {mapped.property!r} be written")
    elif held.get("type") == "number" and mapped.values is None and not _may_be_number(mapped.field):
        yield MappingProblem(index, "field", f"{mapped.property!r} holds numbers")
    elif held.get("type") == "enumeration" and (options := _options(held)):
        for name, value in (mapped.values or {}).items():
            if value not in options:
                yield MappingProblem(index, f"values/{name}", f"{value!r} is not an option of {mapped.property!r}")
        if mapped.values is None and mapped.field == "stage" and not options.issuperset(STAGES):
            yield MappingProblem(index, "values", f"{mapped.property!r} has other options: translate the stages")


def _options(held: Mapping[str, Any]) -> set[str]:
    return {str(option.get("value")) for option in objects_of(held.get("options"))}


def _may_be_number(field: str) -> bool:
    return field == "score" or "." in field


async def _ensure_property(ask: Ask, paths: AccountPaths, authorization: Mapping[str, str]) -> bool:
    """See that our property is there and unique; True if it had to be made."""
    for _ in range(2):
        answer = await ask(VendorRequest("GET", f"{paths.properties}/{LEAD_ID}", authorization))
        if answer.status == 200:
            if not document_of(answer).get("hasUniqueValue"):
                message = f"The contact property {LEAD_ID} exists but is not unique: delete it and verify again."
                raise VendorTrouble(Trouble(TroubleKind.UNMAPPED, VendorError(message)))
            return False
        if answer.status != 404:
            raise VendorTrouble(_trouble(answer))
        headers = {**authorization, "content-type": "application/json"}
        answer = await ask(VendorRequest("POST", paths.properties, headers, orjson.dumps(_OUR_PROPERTY)))
        if 200 <= answer.status < 300:
            return True
        if answer.status != 409:  # another worker has just made it: look again
            raise VendorTrouble(_trouble(answer))
    raise VendorTrouble(_trouble(answer))


async def _expect(ask: Ask, request: VendorRequest) -> VendorAnswer:
    """A 2xx answer; VendorTrouble otherwise."""
    answer = await ask(request)
    if not 200 <= answer.status < 300:
        raise VendorTrouble(_trouble(answer))
    return answer


def _trouble(answer: VendorAnswer) -> Trouble:
    return trouble(answer) or Trouble(TroubleKind.TRANSIENT, error_of(answer, "HubSpot refused the request"))
