"""Which of a lead's fields go into which of a vendor's properties, and what a lead looks like through that."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

MAX_FIELDS = 100
STAGES = ("new", "contacted", "qualified", "converted", "lost")

# `version` and `updated_at` are left out on purpose: they differ with every version, so that no payload would ever equal
# the last one sent.
LEAD_FIELDS = (
    "id",
    "email",
    "phone",
    "first_name",
    "last_name",
    "company",
    "title",
    "source",
    "stage",
    "score",
    "owner_id",
    "tags",
    "created_at",
)
KEYED_FIELDS = ("custom", "consent")


class MappedField(msgspec.Struct, frozen=True, omit_defaults=True):
    """`property` takes the lead's `field` (`email`, `custom.plan`, …); `values` translates what the field can hold."""

    property: str
    field: str
    values: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(tuple[MappedField, ...])


def encode_mapping(mapping: Sequence[MappedField]) -> str:
    """The mapping as it is stored."""
    return msgspec.json.encode(mapping).decode()


def decode_mapping(text: str | bytes) -> tuple[MappedField, ...]:
    """A stored mapping."""
    return _decoder.decode(text)


def is_lead_field(name: str) -> bool:
    """True for a field of the lead that can be mapped: `email`, …, `custom.<key>` or `consent.<key>`."""
    head, dot, key = name.partition(".")
    if dot:
        return head in KEYED_FIELDS and bool(key)
    return head in LEAD_FIELDS


def lead_value(lead: Mapping[str, Any], field: str) -> Any:
    """The lead's value of a field; None where it has none."""
    head, dot, key = field.partition(".")
    value = lead.get(head)
    return (value or {}).get(key) if dot else value


def render(mapping: Sequence[MappedField], lead: Mapping[str, Any], *, text_only: bool) -> dict[str, Any]:
    """The properties a lead gives, empty fields left out. With `text_only` each value is a string."""
    properties = {}
    for mapped in mapping:
        value = lead_value(lead, mapped.field)
        if value is None or value in ("", [], {}):
            continue
        if mapped.values is not None:
            value = mapped.values.get(_as_text(value))
            if not value:
                continue
        properties[mapped.property] = _as_text(value) if text_only else value
    return properties


def _as_text(value: Any) -> str:
    """A value as HubSpot writes it: booleans in lower case, several choices joined by semicolons."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(_as_text(each) for each in value)
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return str(value)


def with_cleared(properties: Mapping[str, Any], sent: Mapping[str, Any] | None, *, empty: Any) -> dict[str, Any]:
    """What to write so that a record that was given `sent` holds `properties`.

    A property we filled once and the lead no longer has is set to `empty`; one we never filled is left alone, so that what
    people entered in the CRM survives.
    """
    return {**dict.fromkeys((name for name in sent or {} if name not in properties), empty), **properties}
