"""The search endpoint, which reads an index that lags behind the records.

Source: developers.hubspot.com/docs/api-reference/latest/crm/search-the-crm.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from simulators.hubspot.calls import Answer, Call
from simulators.hubspot.contacts import Contact
from simulators.hubspot.errors import InvalidRequest
from simulators.hubspot.properties import Properties
from simulators.storage import Storage

MAX_PAGE = 200
MAX_RESULTS = 10_000
MAX_GROUPS, MAX_FILTERS_IN_GROUP, MAX_FILTERS = 5, 6, 18
SEARCHED_BY_QUERY = ("firstname", "lastname", "email", "phone", "company")


class Search:
    def __init__(self, storage: Storage, properties: Properties) -> None:
        self._storage = storage
        self._properties = properties

    def search(self, call: Call) -> Answer:
        groups = self._filter_groups(call)
        limit, after = _whole_number(call, "limit", 10), _whole_number(call, "after", 0)
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"A page has 1 to {MAX_PAGE} results.")
        if after + limit > MAX_RESULTS:
            raise InvalidRequest(f"A search gives at most {MAX_RESULTS} results.")
        words = str(call.member("query") or "").lower().split()
        found = [contact for contact in self._indexed(call) if _matches(contact, groups, words)]
        names = call.names(call.member("properties"))
        page = _sorted(found, call)[after : after + limit]
        results = [contact.document(names or [], with_url=call.with_url) for contact in page]
        body: dict[str, Any] = {"total": len(found), "results": results}
        if after + limit < len(found):
            body["paging"] = {"next": {"after": str(after + limit)}}
        return Answer(200, body)

    def _indexed(self, call: Call) -> list[Contact]:
        """The contacts as they were when the index last took them in."""
        rows = self._storage.all(
            "SELECT w.contact_id, w.properties, w.is_archived, w.at, c.created_at FROM writes AS w"
            " JOIN (SELECT contact_id, max(seq) AS seq FROM writes WHERE portal_id = ? AND at <= ? GROUP BY contact_id)"
            " AS last ON last.seq = w.seq LEFT JOIN contacts AS c ON c.portal_id = w.portal_id AND c.id = w.contact_id"
            " ORDER BY w.contact_id",
            call.account.portal_id,
            time.time() - call.index_delay_seconds,
        )
        return [
            Contact(
                call.account.portal_id,
                row["contact_id"],
                json.loads(row["properties"]),
                row["created_at"] or row["at"],
                row["at"],
            )
            for row in rows
            if not row["is_archived"]
        ]

    def _filter_groups(self, call: Call) -> list[list[Mapping[str, Any]]]:
        groups = [list(group.get("filters") or ()) for group in call.member("filterGroups") or ()]
        too_many = len(groups) > MAX_GROUPS or any(len(group) > MAX_FILTERS_IN_GROUP for group in groups)
        if too_many or sum(len(group) for group in groups) > MAX_FILTERS:
            raise InvalidRequest(f"At most {MAX_GROUPS} filterGroups of {MAX_FILTERS_IN_GROUP} filters each.")
        known = self._properties.all(call.account.portal_id)
        for condition in (condition for group in groups for condition in group):
            if condition.get("propertyName") not in known:
                name = condition.get("propertyName")
                raise InvalidRequest(f"There was a problem with the request: property {name} does not exist.")
            if condition.get("operator") not in _OPERATORS:
                raise InvalidRequest(f"Unknown operator {condition.get('operator')}.")
        return groups


def _matches(contact: Contact, groups: list[list[Mapping[str, Any]]], words: list[str]) -> bool:
    values = contact.values()
    text = " ".join(values.get(name, "") for name in SEARCHED_BY_QUERY).lower()
    if not all(word in text for word in words):
        return False
    return not groups or any(all(_holds(values, condition) for condition in group) for group in groups)


def _holds(values: Mapping[str, str], condition: Mapping[str, Any]) -> bool:
    actual = values.get(condition["propertyName"], "").lower()
    value = str(condition.get("value", "")).lower()
    high = str(condition.get("highValue", "")).lower()
    listed = [str(item).lower() for item in condition.get("values") or ()]
    return bool(_OPERATORS[condition["operator"]](actual, value, high, listed))


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by size, everything else by its letters."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


_OPERATORS: Mapping[str, Any] = {
    "EQ": lambda actual, value, high, listed: actual == value != "",
    "NEQ": lambda actual, value, high, listed: actual != value,
    "IN": lambda actual, value, high, listed: actual in listed,
    "NOT_IN": lambda actual, value, high, listed: actual not in listed,
    "HAS_PROPERTY": lambda actual, value, high, listed: actual != "",
    "NOT_HAS_PROPERTY": lambda actual, value, high, listed: actual == "",
    "LT": lambda actual, value, high, listed: actual != "" and _order(actual) < _order(value),
    "LTE": lambda actual, value, high, listed: actual != "" and _order(actual) <= _order(value),
    "GT": lambda actual, value, high, listed: actual != "" and _order(actual) > _order(value),
    "GTE": lambda actual, value, high, listed: actual != "" and _order(actual) >= _order(value),
    "BETWEEN": lambda actual, value, high, listed: actual != "" and _order(value) <= _order(actual) <= _order(high),
    "CONTAINS_TOKEN": lambda actual, value, high, listed: value.strip("*") in actual != "",
    "NOT_CONTAINS_TOKEN": lambda actual, value, high, listed: value.strip("*") not in actual,
}


def _sorted(contacts: list[Contact], call: Call) -> list[Contact]:
    sorts = call.member("sorts") or []
    if not sorts:
        return contacts
    first = sorts[0] if isinstance(sorts[0], dict) else {"propertyName": str(sorts[0])}
    name = first.get("propertyName", "hs_object_id")
    return sorted(
        contacts,
        key=lambda contact: _order(contact.values().get(name, "").lower()),
        reverse=first.get("direction") == "DESCENDING",
    )


def _whole_number(call: Call, name: str, default: int) -> int:
    given = call.member(name)
    if given in (None, ""):
        return default
    if not str(given).isdigit():
        raise InvalidRequest(f"{name} must be a number.")
    return int(given)
