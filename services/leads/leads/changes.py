"""How a lead becomes, changes, goes and comes back. Pure: what is there and what is wanted in, the new lead out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from leads.contact import dedupe_key
from leads.models import CLIENT_FIELDS, EMPTY_FIELDS, Lead

_TICK: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did to a lead: the fields that differ, in the order in which they are shown, and their old values."""

    lead: Lead
    changed: tuple[str, ...]
    previous: Mapping[str, Any]


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: objects merge member by member, null removes, anything else replaces. Neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def created(workspace_id: str, lead_id: str, fields: Mapping[str, Any], now: datetime, *, unique: bool) -> Change:
    """A new lead. `unique=False` makes an allowed duplicate, which stands in no other lead's way."""
    lead = Lead(
        workspace_id=workspace_id,
        id=lead_id,
        fields=dict(fields),
        dedupe_key=dedupe_key(fields["email"], fields["phone"]) if unique else None,
        version=1,
        revision=1,
        created_at=now,
        updated_at=now,
        external_ids={},
    )
    given = tuple(name for name in CLIENT_FIELDS if fields[name] != EMPTY_FIELDS[name])
    return Change(lead, given, {})


def edited(lead: Lead, fields: Mapping[str, Any], now: datetime) -> Change | None:
    """The lead with these fields, or None if it has them already."""
    changed = tuple(name for name in CLIENT_FIELDS if not _equal(fields[name], lead.fields[name]))
    if not changed:
        return None
    before = dedupe_key(lead.fields["email"], lead.fields["phone"])
    after = dedupe_key(fields["email"], fields["phone"])
    # An allowed duplicate stays one until what it is compared by changes.
    key = lead.dedupe_key if after == before else after
    new = replace(_next(lead, now), fields=dict(fields), dedupe_key=key)
    return Change(new, changed, {name: lead.fields[name] for name in changed})


def deleted(lead: Lead, now: datetime) -> Change:
    """The lead, put away."""
    new = _next(lead, now)
    return Change(replace(new, deleted_at=new.updated_at), (), {})


def restored(lead: Lead, now: datetime) -> Change | None:
    """The lead, brought back; None if it never was away."""
    return Change(replace(_next(lead, now), deleted_at=None), (), {}) if lead.deleted_at else None


def _equal(one: Any, other: Any) -> bool:
    """Equality as JSON has it: unlike Python's, true is not 1; the order of an object's members does not count."""
    if isinstance(one, dict | list):
        return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    return bool(one == other)


def _next(lead: Lead, now: datetime) -> Lead:
    # Replicas' clocks differ a little: a later change is never shown as an earlier one, nor as of the same time.
    updated_at = max(now, lead.updated_at + _TICK)
    return replace(lead, version=lead.version + 1, revision=lead.revision + 1, updated_at=updated_at)
