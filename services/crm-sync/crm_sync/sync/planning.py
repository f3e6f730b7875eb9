"""What is to be done with each claimed lead. Pure: no calls, no SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crm_sync.connectors.protocol import Connector, Record
from crm_sync.mapping import MappedField, render, with_cleared
from crm_sync.models import Claim, Connection


@dataclass(frozen=True, slots=True)
class Work:
    """One lead on its way to one call. `holds` is what its record holds once the call has succeeded."""

    claim: Claim
    record: Record
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
            if claim.sent is not None and dict(claim.sent) == work.holds and was_brought_over(connector, claim):
                sorted_out.equal.append(claim)
            else:
                sorted_out.write.append(work)
    return sorted_out


def was_brought_over(connector: Connector, claim: Claim) -> bool:
    """Whether the other side holds the lead: by its record's id where there are ids, else by what was sent."""
    return claim.record_id is not None if connector.identity_property else claim.sent is not None


def mapped_names(mapping: Sequence[MappedField]) -> list[str]:
    """The properties a look-up has to ask for."""
    return sorted({mapped.property for mapped in mapping})


def _work(connection: Connection, connector: Connector, claim: Claim, record_id: str | None) -> Work:
    holds = {} if claim.deleted else render(connection.mapping, claim.lead, text_only=connector.text_only)
    empty = "" if connector.text_only else None
    record = Record(
        lead_id=claim.lead_id,
        version=claim.copy_version,
        record_id=record_id,
        properties=holds if claim.deleted else with_cleared(holds, claim.sent, empty=empty),
        changed_at=str(claim.lead.get("updated_at", "")),
        mapping_version=connection.mapping_version,
    )
    return Work(claim, record, holds)
