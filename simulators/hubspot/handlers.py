"""One method for each operation of the API: a Call in, an Answer out, HubSpotError for everything that is not 2xx."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from simulators.hubspot.batches import Batches
from simulators.hubspot.calls import Answer, Call
from simulators.hubspot.contacts import Contact, Contacts
from simulators.hubspot.errors import InvalidRequest, ObjectNotFound
from simulators.hubspot.properties import Properties
from simulators.hubspot.search import Search
from simulators.storage import Storage

OBJECT_TYPES = ("contacts", "contact", "0-1")


class Handlers:
    def __init__(self, storage: Storage) -> None:
        self.properties = Properties(storage)
        self.contacts = Contacts(storage, self.properties)
        self.batches = Batches(storage, self.contacts)
        self.search = Search(storage, self.properties)

    def create(self, call: Call) -> Answer:
        write = call.write(call.member("objectWriteTraceId"))
        contact = self.contacts.create(call.account, call.member("properties"), write)
        return Answer(201, contact.document(None, with_url=call.with_url))

    def read(self, call: Call) -> Answer:
        if call.wants_archived:
            contact = self.contacts.find_archived(call.account, call.path["id"])
            if contact is None:
                raise ObjectNotFound(call.path["id"])
        else:
            contact = self._named(call)
        return Answer(200, contact.document(_properties_of(call) or [], with_url=call.with_url))

    def list(self, call: Call) -> Answer:
        limit, after = _number(call.query, "limit", 10), _number(call.query, "after", 0)
        if not 1 <= limit <= 100:
            raise InvalidRequest("limit must be between 1 and 100.")
        page = self.contacts.page(call.account, after, limit + 1, archived=call.wants_archived)
        names = _properties_of(call) or []
        body: dict[str, Any] = {
            "results": [contact.document(names, with_url=call.with_url) for contact in page[:limit]]
        }
        if len(page) > limit:
            following = str(page[limit].id)
            link = f"https://api.hubapi.com/crm/v3/objects/contacts?limit={limit}&after={following}"
            body["paging"] = {"next": {"after": following, "link": link}}
        return Answer(200, body)

    def update(self, call: Call) -> Answer:
        write = call.write(call.member("objectWriteTraceId"))
        contact = self.contacts.update(call.account, self._named(call), call.member("properties"), write)
        return Answer(200, contact.document(None, with_url=call.with_url))

    def archive(self, call: Call) -> Answer:
        """204 for one that is not there as well."""
        contact = self.contacts.find(call.account, call.path["id"])
        if contact is not None:
            self.contacts.archive(contact, call.write())
        return Answer(204)

    def merge(self, call: Call) -> Answer:
        primary, other = call.member("primaryObjectId"), call.member("objectIdToMerge")
        if not primary or not other:
            raise InvalidRequest("Some required fields were not set: [primaryObjectId, objectIdToMerge]")
        merged = self.contacts.merge(call.account, str(primary), str(other), call.write())
        return Answer(200, merged.document(None, with_url=call.with_url))

    def gdpr_delete(self, call: Call) -> Answer:
        key = str(call.member("objectId") or "")
        contact = self.contacts.find(call.account, key, call.member("idProperty"))
        if contact is not None:
            self.contacts.erase(contact, call.write())
        return Answer(204)

    def list_properties(self, call: Call) -> Answer:
        definitions = self.properties.all(call.account.portal_id).values()
        return Answer(200, {"results": [definition.document() for definition in definitions]})

    def read_property(self, call: Call) -> Answer:
        return Answer(200, self.properties.get(call.account.portal_id, call.path["name"]).document())

    def read_properties(self, call: Call) -> Answer:
        """Source: the SDK's crm.properties.batch_api.read. Names that are not there are reported beside the others."""
        names = [str(item.get("name")) for item in call.inputs()]
        known = self.properties.all(call.account.portal_id)
        missing = [name for name in names if name not in known]
        body: dict[str, Any] = {
            "status": "COMPLETE",
            "results": [known[name].document() for name in names if name in known],
        }
        if missing:
            error = {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": f"Could not find properties: {', '.join(missing)}",
                "context": {"name": missing},
            }
            body |= {"numErrors": len(missing), "errors": [error]}
        return Answer(207 if missing else 200, body)

    def create_property(self, call: Call) -> Answer:
        return Answer(201, self.properties.create(call.account.portal_id, call.document()).document())

    def archive_property(self, call: Call) -> Answer:
        self.properties.archive(call.account.portal_id, call.path["name"])
        return Answer(204)

    def account_details(self, call: Call) -> Answer:
        """Source: developers.hubspot.com/docs/api-reference/latest/account/account-information/get-account-details."""
        offset = datetime.now(ZoneInfo(call.account.time_zone)).utcoffset()
        minutes = int(offset.total_seconds() // 60) if offset else 0
        sign = "-" if minutes < 0 else "+"
        return Answer(
            200,
            {
                "portalId": call.account.portal_id,
                "accountType": "STANDARD",
                "timeZone": call.account.time_zone,
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}",
                "utcOffsetMilliseconds": minutes * 60_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            },
        )

    def _named(self, call: Call) -> Contact:
        contact = self.contacts.find(call.account, call.path["id"], call.query.get("idProperty"))
        if contact is None:
            raise ObjectNotFound(call.path["id"])
        return contact


def require_contacts(object_type: str) -> None:
    if object_type not in OBJECT_TYPES:
        raise InvalidRequest(f"Unable to infer object type from: {object_type}")


def _properties_of(call: Call) -> list[str] | None:
    return call.names(call.query.get("properties"))


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    given = query.get(name, "")
    if given and not given.isdigit():
        raise InvalidRequest(f"{name} must be a number.")
    return int(given) if given else default
