"""What is to be done with each claimed lead. Pure: no calls, no SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crm_sync.connectors.protocol import Connector, Record
from crm_sync.mapping import MappedField, render, with_cleared
from crm_sync.models import Claim, Connection


@dataclass(frozen=True, slots=True)
class Work:
    """One lead on its way to one call. `held` is what its record holds as far as we know, `holds` what it does after success."""

    claim: Claim
    record: Record
    held: Mapping[str, Any] | None
    holds: Mapping[str, Any]

    @property
    def lead_id(self) -> str:
        return self.claim.lead_id


@dataclass(slots=True)
class Plan:
    """The claimed leads by what they need. `settled` need no call: they hold what they should, or are let go."""

    look_up: list[Work] = field(default_factory=list)
    archive: list[Work] = field(default_factory=list)
    write: list[Work] = field(default_factory=list)
    equal: list[Claim] = field(default_factory=list)
    release: list[Claim] = field(default_factory=list)


def plan(connection: Connection, connector: Connector, claims: Iterable[Claim]) -> Plan:
    """Sort claims. An unknown outcome is looked up before anything else is sent for that lead."""
    sorted_out = Plan()
    for claim in claims:
        if claim.resolving and connector.looks_up:
            sorted_out.look_up.append(_work(connection, connector, claim, claim.addressed_record))
        elif claim.deleted:
            if connection.on_delete == "archive" and was_brought_over(connector, claim):
                sorted_out.archive.append(_work(connection, connector, claim, claim.record_id))
            else:
                sorted_out.release.append(claim)
        else:
            work = _work(connection, connector, claim, claim.record_id)
            if work.held == work.holds and was_brought_over(connector, claim):
                sorted_out.equal.append(claim)
            else:
                sorted_out.write.append(work)
    return sorted_out


def was_brought_over(connector: Connector, claim: Claim) -> bool:
    """Whether the other side holds the lead, or may: by its record's id where there are ids, else by what was sent."""
    if connector.identity_property:
        return claim.record_id is not None
    return claim.sent is not None or claim.unsettled_lead is not None


def in_doubt(held: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a record is known to hold after a write of `given` that may or may not have taken.

    A property that may have changed keeps its name, so that it is cleared once the lead has lost it, and has the value None,
    which no version of the lead equals.
    """
    before = held or {}
    return {
        name: before.get(name) if before.get(name) == given.get(name) else None for name in {**before, **given}
    } or held


def mapped_names(mapping: Sequence[MappedField]) -> list[str]:
    """The properties a look-up has to ask for."""
    return sorted({mapped.property for mapped in mapping})


def _work(connection: Connection, connector: Connector, claim: Claim, record_id: str | None) -> Work:
    holds = {} if claim.deleted else render(connection.mapping, claim.lead, text_only=connector.text_only)
    held, empty = claim.sent, "" if connector.text_only else None
    if claim.unsettled_lead is not None:
        held = in_doubt(held, render(connection.mapping, claim.unsettled_lead, text_only=connector.text_only))
    if held is not None:
        # What is mapped no longer is ours no longer: it keeps its value, and may not even exist any more.
        mapped = mapped_names(connection.mapping)
        held = {name: value for name, value in held.items() if name in mapped}
    record = Record(
        lead_id=claim.lead_id,
        version=claim.copy_version,
        record_id=record_id,
        properties=holds if claim.deleted else with_cleared(holds, held, empty=empty),
        changed_at=str(claim.lead.get("updated_at", "")),
        mapping_version=connection.mapping_version,
    )
    return Work(claim, record, held, holds)
