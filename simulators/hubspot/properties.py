"""A portal's contact properties, and what may be written into them.

Sources: developers.hubspot.com/docs/api-reference/latest/crm/properties/guide; the codes of refused values as they are
quoted in public issues.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from simulators.hubspot.definitions import DEFAULT_PROPERTIES, FIELD_TYPES, GROUPS, TYPES, Property
from simulators.hubspot.errors import (
    InvalidProperties,
    InvalidRequest,
    InvalidValue,
    PropertyExists,
    ResourceNotFound,
)
from simulators.hubspot.times import iso
from simulators.storage import Storage

MAX_UNIQUE_PROPERTIES = 10

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_EMAIL = re.compile(r"[^@\s\"(),:;<>\[\\\]]+@[^@\s.]+(\.[^@\s.]+)*\.[^@\s.]{2,}")


class Properties:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def all(self, portal_id: int) -> dict[str, Property]:
        """By name: HubSpot's own, then the portal's."""
        rows = self._storage.all("SELECT definition FROM properties WHERE portal_id = ? ORDER BY name", portal_id)
        own = [_stored(row["definition"]) for row in rows]
        return {definition.name: definition for definition in (*DEFAULT_PROPERTIES, *own)}

    def get(self, portal_id: int, name: str) -> Property:
        definition = self.all(portal_id).get(name)
        if definition is None:
            raise ResourceNotFound(f"Could not find property {name}")
        return definition

    def create(self, portal_id: int, body: Mapping[str, Any]) -> Property:
        """Raises PropertyExists, or InvalidRequest for a missing or unknown member."""
        existing = self.all(portal_id)
        definition = _definition(body)
        if definition.name in existing:
            raise PropertyExists(definition.name)
        if definition.is_unique and sum(held.is_unique for held in existing.values()) >= MAX_UNIQUE_PROPERTIES:
            raise InvalidRequest(f"At most {MAX_UNIQUE_PROPERTIES} properties of an object may have unique values.")
        self._storage.execute(
            "INSERT INTO properties VALUES (?, ?, ?)", portal_id, definition.name, json.dumps(asdict(definition))
        )
        return definition

    def archive(self, portal_id: int, name: str) -> None:
        if self.get(portal_id, name).is_hubspots:
            raise InvalidRequest(f"Property {name} is defined by HubSpot and can't be archived.")
        self._storage.execute("DELETE FROM properties WHERE portal_id = ? AND name = ?", portal_id, name)

    def is_identifier(self, portal_id: int, name: str) -> bool:
        """Whether a contact can be found by this property: `email`, or one with unique values."""
        definition = self.all(portal_id).get(name)
        return name == "email" or (definition is not None and definition.is_unique)

    def unique_names(self, portal_id: int) -> list[str]:
        return ["email", *(name for name, definition in self.all(portal_id).items() if definition.is_unique)]

    def check(self, portal_id: int, values: object) -> dict[str, str]:
        """The values as HubSpot stores them: strings, the e-mail in lower case, "" for what is cleared.

        Raises InvalidProperties with all that is wrong, InvalidRequest when `values` is no object of plain values.
        """
        if not isinstance(values, Mapping):
            raise InvalidRequest("Invalid input JSON: 'properties' must be an object.")
        definitions = self.all(portal_id)
        stored: dict[str, str] = {}
        refused: list[InvalidValue] = []
        for name, value in values.items():
            text = _text(name, value)
            problem = _problem(definitions.get(name), name, text)
            if problem is not None:
                refused.append(problem)
            stored[name] = text.lower() if name == "email" else text
        if refused:
            raise InvalidProperties(portal_id, refused)
        return stored


def _stored(text: str) -> Property:
    members = json.loads(text)
    return Property(**(members | {"options": tuple(members["options"])}))


def _definition(body: Mapping[str, Any]) -> Property:
    missing = [name for name in ("name", "label", "type", "fieldType", "groupName") if not body.get(name)]
    if missing:
        raise InvalidRequest(f"Some required fields were not set: [{', '.join(missing)}]")
    if not _NAME.fullmatch(str(body["name"])):
        raise InvalidRequest(f"Property name {body['name']} may have only lower case letters, digits and underscores.")
    for member, known in (("type", TYPES), ("fieldType", FIELD_TYPES), ("groupName", GROUPS)):
        if body[member] not in known:
            raise InvalidRequest(f"{body[member]} is not a known {member}.")
    return Property(
        name=str(body["name"]),
        label=str(body["label"]),
        type=body["type"],
        field_type=body["fieldType"],
        group=body["groupName"],
        description=str(body.get("description", "")),
        options=tuple(str(option["value"]) for option in body.get("options") or ()),
        is_unique=bool(body.get("hasUniqueValue", False)),
        is_hubspots=False,
        created_at=iso(time.time()),
    )


def _text(name: str, value: object) -> str:
    """Everything is a string; JSON's numbers and booleans are taken as such."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise InvalidRequest(f"Invalid input JSON: the value of property {name} must be a string.")


def _problem(definition: Property | None, name: str, text: str) -> InvalidValue | None:
    if definition is None:
        return InvalidValue(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
    if definition.is_read_only:
        return InvalidValue(name, "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
    wrong = _wrong(definition, text) if text else None
    return InvalidValue(name, *wrong) if wrong else None


def _wrong(definition: Property, text: str) -> tuple[str, str] | None:
    """The code and the words for a value that is not of the property's type."""
    allowed = ("true", "false") if definition.type == "bool" else definition.options
    if definition.name == "email" and not _EMAIL.fullmatch(text):
        return "INVALID_EMAIL", f"Email address {text} is invalid"
    if definition.type == "number" and not _NUMBER.fullmatch(text):
        return "INVALID_FLOAT", f"{text} was not a valid number."
    if definition.type in ("date", "datetime") and not _is_time(text):
        return "INVALID_DATE", f"{text} was not a valid date."
    if allowed and text not in allowed:
        return "INVALID_OPTION", f"{text} was not one of the allowed options: [{', '.join(allowed)}]"
    return None


def _is_time(text: str) -> bool:
    """Milliseconds since 1970, or ISO 8601."""
    if re.fullmatch(r"-?[0-9]+", text):
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
