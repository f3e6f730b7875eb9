"""Contacts one at a time: who holds which e-mail address, what a merge leaves, what stays after an erasure.

Sources: developers.hubspot.com/docs/api-reference/latest/crm/using-object-apis and …/crm/objects/contacts; the words of
conflicts as quoted in public issues (HubSpot/hubspot-api-nodejs #545).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simulators.hubspot.accounts import Account
from simulators.hubspot.errors import ContactExists, InvalidProperties, InvalidRequest, InvalidValue, ObjectNotFound
from simulators.hubspot.properties import Properties
from simulators.hubspot.times import iso
from simulators.hubspot.writes import Write, record
from simulators.storage import Row, Storage

FIRST_ID = 37_765_128_953  # ids have eleven digits and more: no client may put them into 32 bits
SHOWN_BY_DEFAULT = ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname")


@dataclass(frozen=True, slots=True)
class Contact:
    portal_id: int
    id: int
    properties: Mapping[str, str]
    created_at: float
    updated_at: float
    archived_at: float | None = None

    def values(self) -> dict[str, str]:
        """All properties, HubSpot's own among them."""
        return dict(self.properties) | {
            "hs_object_id": str(self.id),
            "createdate": iso(self.created_at),
            "lastmodifieddate": iso(self.updated_at),
        }

    def document(self, names: Sequence[str] | None, *, with_url: bool) -> dict[str, Any]:
        """The record as the object API shows it, with the properties asked for (None: all that have a value)."""
        values = self.values()
        shown = {name: values.get(name) for name in {*names, *SHOWN_BY_DEFAULT}} if names is not None else dict(values)
        document: dict[str, Any] = {
            "id": str(self.id),
            "properties": dict(sorted(shown.items())),
            "createdAt": iso(self.created_at),
            "updatedAt": iso(self.updated_at),
            "archived": self.archived_at is not None,
        }
        if self.archived_at is not None:
            document["archivedAt"] = iso(self.archived_at)
        if with_url:
            document["url"] = f"https://app.hubspot.com/contacts/{self.portal_id}/record/0-1/{self.id}"
        return document


class Contacts:
    """All methods that write expect to be called in a transaction."""

    def __init__(self, storage: Storage, properties: Properties) -> None:
        self._storage = storage
        self._properties = properties

    def find(self, account: Account, key: str, id_property: str | None = None) -> Contact | None:
        """The live contact with this id (or an id merged into it), or with this unique value. None: there is none.

        Raises InvalidRequest for a property that does not identify.
        """
        portal = account.portal_id
        if id_property in (None, "hs_object_id"):
            contact_id = int(key) if key.isascii() and key.isdigit() and len(key) <= 18 else None
            contact = self._load(portal, self._survivor(portal, contact_id)) if contact_id is not None else None
            return contact if contact and contact.archived_at is None else None
        assert id_property is not None  # noqa: S101 - the line above has dealt with None
        self.require_identifier(account, id_property)
        holder = self._holder(portal, id_property, key)
        return self._load(portal, holder) if holder is not None else None

    def find_archived(self, account: Account, key: str) -> Contact | None:
        contact = self._load(account.portal_id, int(key)) if key.isdigit() else None
        return contact if contact and contact.archived_at is not None else None

    def require_identifier(self, account: Account, name: str) -> None:
        if not self._properties.is_identifier(account.portal_id, name):
            raise InvalidRequest(
                f"Unable to perform update/upsert by non-unique 0-1 property {name} in portal ID {account.portal_id}"
            )

    def page(self, account: Account, after: int, limit: int, *, archived: bool) -> list[Contact]:
        rows = self._storage.all(
            "SELECT * FROM contacts WHERE portal_id = ? AND id >= ? AND (archived_at IS NOT NULL) = ? ORDER BY id LIMIT ?",
            account.portal_id,
            after,
            archived,
            limit,
        )
        return [_contact(row) for row in rows]

    def create(self, account: Account, values: object, write: Write) -> Contact:
        """Raises ContactExists for a taken e-mail address, InvalidProperties for a taken unique value."""
        checked = {name: text for name, text in self._properties.check(account.portal_id, values).items() if text}
        if not checked:
            raise InvalidRequest("No properties found to create, please provide at least one.")
        now = time.time()
        contact = Contact(account.portal_id, self._next_id(), checked, now, now)
        self._identify(contact)
        self._save(contact)
        record(self._storage, write, "create", contact.id, checked, is_change=True)
        return contact

    def update(self, account: Account, contact: Contact, values: object, write: Write) -> Contact:
        """A value of "" clears the property. What changes nothing leaves the record's time of change."""
        checked = self._properties.check(account.portal_id, values)
        if not checked:
            raise InvalidRequest("No properties found to update, please provide at least one.")
        after = {name: text for name, text in (dict(contact.properties) | checked).items() if text}
        is_change = after != contact.properties
        if is_change:
            contact = replace(contact, properties=after, updated_at=time.time())
            self._identify(contact)
            self._save(contact)
        record(self._storage, write, "update", contact.id, after, is_change=is_change)
        return contact

    def archive(self, contact: Contact, write: Write) -> None:
        """Into the recycling bin: it holds no e-mail address any more, the next one with it is a new contact."""
        self._retire(contact)
        record(self._storage, write, "archive", contact.id, contact.properties, is_change=True, is_archived=True)

    def erase(self, contact: Contact, write: Write) -> None:
        """For good (GDPR): the record is gone and its e-mail addresses are never taken again."""
        for email in self._held(contact, "email"):
            self._storage.execute("INSERT OR IGNORE INTO erased_emails VALUES (?, ?)", contact.portal_id, email)
        self._retire(contact)
        self._storage.execute("DELETE FROM contacts WHERE portal_id = ? AND id = ?", contact.portal_id, contact.id)
        record(self._storage, write, "erase", contact.id, {}, is_change=True, is_archived=True)

    def merge(self, account: Account, primary_id: str, other_id: str, write: Write) -> Contact:
        """A new record with the primary's values, filled up with the other's. Both old ids lead to it from now on."""
        primary, other = self.find(account, primary_id), self.find(account, other_id)
        if primary is None or other is None:
            raise ObjectNotFound(primary_id if primary is None else other_id)
        if primary.id == other.id:
            raise InvalidRequest("Can't merge a record with itself.")
        emails = self._held(primary, "email") + self._held(other, "email")
        self._retire(primary)
        self._retire(other)
        values = dict(other.properties) | dict(primary.properties)
        survivor_id = primary.id if account.keeps_primary_id else self._next_id()
        earlier = [one.properties.get("hs_merged_object_ids") for one in (primary, other)]
        values["hs_merged_object_ids"] = ";".join(filter(None, [*earlier, str(primary.id), str(other.id)]))
        if further := [email for email in emails if email != values.get("email")]:
            values["hs_additional_emails"] = ";".join(further)
        merged = Contact(account.portal_id, survivor_id, values, primary.created_at, time.time())
        self._identify(merged, more_emails=emails)
        self._save(merged)
        for gone in (primary, other):
            if gone.id != survivor_id:
                self._storage.execute("INSERT INTO merges VALUES (?, ?, ?)", account.portal_id, gone.id, survivor_id)
                record(self._storage, write, "merge", gone.id, gone.properties, is_change=True, is_archived=True)
        record(self._storage, write, "merge", survivor_id, values, is_change=True)
        return merged

    def _identify(self, contact: Contact, more_emails: Sequence[str] = ()) -> None:
        """Take the unique values of a contact for it alone, and let go of those it had."""
        portal = contact.portal_id
        email = contact.properties.get("email")
        if email and self._storage.one("SELECT 1 FROM erased_emails WHERE portal_id = ? AND email = ?", portal, email):
            refusal = InvalidValue("email", "INVALID_EMAIL", f"Email address {email} has been GDPR blocklisted")
            raise InvalidProperties(portal, [refusal])
        additional = contact.properties.get("hs_additional_emails", "").split(";")
        taken = [("email", address) for address in dict.fromkeys([*more_emails, *additional, email or ""]) if address]
        for name in self._properties.unique_names(portal):
            if name != "email" and contact.properties.get(name):
                taken.append((name, contact.properties[name]))
        self._storage.execute("DELETE FROM identities WHERE portal_id = ? AND contact_id = ?", portal, contact.id)
        for name, value in taken:
            holder = self._holder(portal, name, value)
            if holder is not None and name == "email":
                raise ContactExists(holder)
            if holder is not None:
                raise InvalidProperties(portal, [_taken(portal, contact.id, name, value, holder)])
            self._storage.execute("INSERT INTO identities VALUES (?, ?, ?, ?)", portal, name, value, contact.id)

    def _retire(self, contact: Contact) -> None:
        self._storage.execute(
            "DELETE FROM identities WHERE portal_id = ? AND contact_id = ?", contact.portal_id, contact.id
        )
        self._save(replace(contact, archived_at=time.time()))

    def _held(self, contact: Contact, name: str) -> list[str]:
        rows = self._storage.all(
            "SELECT value FROM identities WHERE portal_id = ? AND contact_id = ? AND property = ? ORDER BY rowid",
            contact.portal_id,
            contact.id,
            name,
        )
        return [row["value"] for row in rows]

    def _holder(self, portal_id: int, name: str, value: str) -> int | None:
        row = self._storage.one(
            "SELECT contact_id FROM identities WHERE portal_id = ? AND property = ? AND value = ?",
            portal_id,
            name,
            value.lower() if name == "email" else value,
        )
        return int(row["contact_id"]) if row else None

    def _survivor(self, portal_id: int, contact_id: int) -> int:
        row = self._storage.one("SELECT into_id FROM merges WHERE portal_id = ? AND id = ?", portal_id, contact_id)
        return self._survivor(portal_id, row["into_id"]) if row else contact_id

    def _load(self, portal_id: int, contact_id: int) -> Contact | None:
        row = self._storage.one("SELECT * FROM contacts WHERE portal_id = ? AND id = ?", portal_id, contact_id)
        return _contact(row) if row else None

    def _save(self, contact: Contact) -> None:
        self._storage.execute(
            "INSERT OR REPLACE INTO contacts VALUES (?, ?, ?, ?, ?, ?)",
            contact.portal_id,
            contact.id,
            json.dumps(dict(contact.properties)),
            contact.created_at,
            contact.updated_at,
            contact.archived_at,
        )

    def _next_id(self) -> int:
        number = self._storage.execute("INSERT INTO contact_ids DEFAULT VALUES").lastrowid
        return FIRST_ID + (number or 0)


def _contact(row: Row) -> Contact:
    return Contact(
        portal_id=row["portal_id"],
        id=row["id"],
        properties=json.loads(row["properties"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        archived_at=row["archived_at"],
    )


def _taken(portal_id: int, contact_id: int, name: str, value: str, holder: int) -> InvalidValue:
    coordinates = f"portalId={portal_id}, objectTypeId=0-1, propertyName={name}, value={value}"
    return InvalidValue(
        name,
        "CONFLICTING_UNIQUE_VALUE",
        f"Cannot set PropertyValueCoordinates{{{coordinates}}} on {contact_id}. {holder} already has that value.",
    )
