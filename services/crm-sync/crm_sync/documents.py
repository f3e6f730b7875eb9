"""Stored things as the API shows them."""

import hashlib
from datetime import datetime
from typing import Any

import msgspec
import orjson

from chassis.clock import rfc3339
from chassis.errors import PreconditionFailed
from chassis.vault import SealBroken, Vault
from crm_sync.credentials import OAuth, StaticToken, unseal
from crm_sync.models import Connection, DeadLetter, Standing, State, StoredError


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None


def credentials_kind(vault: Vault, connection: Connection) -> str:
    """What kind of credentials a connection holds: all that is ever told of them."""
    try:
        credentials = unseal(vault, connection.workspace_id, connection.id, connection.sealed)
    except SealBroken:
        return "unreadable"
    if isinstance(credentials, StaticToken):
        return "access_token"
    return "oauth" if isinstance(credentials, OAuth) else "secret"


def connection_document(connection: Connection, kind: str) -> dict[str, Any]:
    """A connection; `kind` is the kind of its credentials."""
    trouble = None
    if connection.trouble_kind is not None:
        trouble = {
            "kind": connection.trouble_kind,
            "reason": connection.trouble_reason,
            "count": connection.trouble_count,
        }
    return {
        "id": connection.id,
        "name": connection.name,
        "vendor": connection.vendor,
        "mode": connection.mode,
        "on_delete": connection.on_delete,
        "time_zone": connection.time_zone,
        "settings": dict(connection.settings),
        "credentials": {"kind": kind, "set_at": rfc3339(connection.credentials_set_at)},
        "status": connection.status,
        "status_reason": connection.status_reason,
        "paused_until": _time(connection.paused_until) if connection.is_resting else None,
        "trouble": trouble,
        "account_id": connection.account_id,
        "verified_at": _time(connection.prepared_at),
        "backfilling": connection.is_backfilling,
        "mapping_version": connection.mapping_version,
        "version": connection.version,
        "created_at": rfc3339(connection.created_at),
        "updated_at": rfc3339(connection.updated_at),
    }


def mapping_document(connection: Connection) -> dict[str, Any]:
    """A connection's mapping."""
    return {
        "connection_id": connection.id,
        "version": connection.mapping_version,
        "fields": msgspec.to_builtins(connection.mapping),
    }


def entity_tag(version: int, document: dict[str, Any]) -> str:
    """`"<version>.<digest>"`: the version says what an editor may change, the digest all that is shown (say, a rest)."""
    return f'"{version}.{hashlib.blake2b(orjson.dumps(document), digest_size=6).hexdigest()}"'


def none_match(header: str | None, tag: str) -> bool:
    """True if `If-None-Match` names what would be shown, so that 304 is the answer (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    return header.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in header.split(","))


def check_match(header: str | None, version: int, what: str) -> None:
    """PreconditionFailed (412) if `If-Match` does not name the version; weak tags never match (RFC 9110, 13.1.1)."""
    if header is None or header.strip() == "*":
        return
    tags = [each.strip() for each in header.split(",")]
    wanted = {tag.strip('"').partition(".")[0] for tag in tags if tag.startswith('"')}
    if str(version) not in wanted:
        raise PreconditionFailed(f"The {what} is at version {version} now.", version=version)


def error_document(error: StoredError | None) -> dict[str, Any] | None:
    """An error in the CRM's words."""
    if error is None:
        return None
    return {name: getattr(error, name) for name in StoredError.__dataclass_fields__}


def standing_document(standing: Standing) -> dict[str, Any]:
    """Where a lead stands at one connection."""
    waits = standing.copy_version is None or standing.copy_version < standing.desired_version
    state = {State.IDLE: "in_step", State.DUE: "waiting_for_lead" if waits else "due"}.get(
        standing.state, standing.state.value
    )
    return {
        "connection_id": standing.connection_id,
        "connection_name": standing.connection_name,
        "vendor": standing.vendor,
        "connection_status": standing.connection_status,
        "paused_until": _time(standing.paused_until),
        "lead_id": standing.lead_id,
        "desired_version": standing.desired_version,
        "synced_version": standing.synced_version,
        "state": state,
        "external_id": standing.external_id,
        "attempts": standing.attempts,
        "next_try_at": _time(standing.next_try_at) if state != "waiting_for_lead" else None,
        "last_error": error_document(standing.last_error),
        "dead_letter_id": standing.dead_letter_id,
        "dead_class": standing.dead_kind,
        "updated_at": rfc3339(standing.updated_at),
    }


def dead_letter_document(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter."""
    return {
        "id": letter.id,
        "connection_id": letter.connection_id,
        "connection_name": letter.connection_name,
        "vendor": letter.vendor,
        "lead_id": letter.lead_id,
        "version": letter.version,
        "class": letter.kind,
        "error": error_document(letter.error),
        "attempts": letter.attempts,
        "dead_at": rfc3339(letter.dead_at),
    }
