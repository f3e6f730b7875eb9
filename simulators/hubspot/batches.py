"""The batch endpoints: up to 100 inputs, and either one answer for all or, with a write id on every input, one for each.

Source: developers.hubspot.com/docs/api-reference/latest/crm/using-object-apis, "Multi-status errors" and "Upsert records"
(which says that a batch upserted by `email` never succeeds in part).
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simulators.hubspot.calls import Answer, Call
from simulators.hubspot.contacts import Contact, Contacts
from simulators.hubspot.errors import HubSpotError, InvalidRequest
from simulators.hubspot.times import iso
from simulators.storage import Storage

Input = Mapping[str, Any]
WriteOne = Callable[[Input], dict[str, Any]]


class Batches:
    def __init__(self, storage: Storage, contacts: Contacts) -> None:
        self._storage = storage
        self._contacts = contacts

    def create(self, call: Call) -> Answer:
        def create(item: Input) -> dict[str, Any]:
            contact = self._contacts.create(call.account, item.get("properties"), _write(call, item))
            return self._result(call, contact, item)

        return self._each(call, create, status=201, may_be_partial=True)

    def update(self, call: Call) -> Answer:
        """Ids that are not there are reported beside the others, with or without write ids."""
        _require_different_ids(call.inputs())
        found = [(item, self._find(call, item)) for item in call.inputs()]
        missing = [_id_of(item) for item, contact in found if contact is None]
        present = [(item, contact) for item, contact in found if contact is not None]
        contacts = {id(item): contact for item, contact in present}

        def update(item: Input) -> dict[str, Any]:
            contact = contacts[id(item)]
            updated = self._contacts.update(call.account, contact, item.get("properties"), _write(call, item))
            return self._result(call, updated, item)

        errors = [_not_found("Could not get some CONTACT objects", missing)] if missing else []
        return self._each(call, update, inputs=[item for item, _ in present], errors=errors, may_be_partial=True)

    def upsert(self, call: Call) -> Answer:
        inputs = call.inputs()
        _require_different_ids(inputs)

        def upsert(item: Input) -> dict[str, Any]:
            if not isinstance(item.get("properties"), dict):
                raise InvalidRequest("Some required fields were not set: [properties]")
            contact, is_new = self._upsert_one(call, item)
            return self._result(call, contact, item) | {"new": is_new}

        by_email = any(item.get("idProperty") == "email" for item in inputs)
        return self._each(call, upsert, may_be_partial=not by_email)

    def read(self, call: Call) -> Answer:
        names = call.names(call.member("properties"))
        id_property = call.member("idProperty")
        results, missing = [], []
        for item in call.inputs():
            contact = self._contacts.find(call.account, _id_of(item), id_property)
            if contact is None:
                missing.append(_id_of(item))
            else:
                results.append(contact.document(names or [], with_url=call.with_url))
        words = "Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid."
        return _batch_answer(200, results, [_not_found(words, missing)] if missing else [], time.time())

    def archive(self, call: Call) -> Answer:
        for item in call.inputs():
            contact = self._find(call, item)
            if contact is not None:
                self._contacts.archive(contact, _write(call, item))
        return Answer(204)

    def _upsert_one(self, call: Call, item: Input) -> tuple[Contact, bool]:
        """By a unique property: the holder of the value is updated, without one the contact is made with it."""
        properties, id_property, key = item["properties"], item.get("idProperty"), _id_of(item)
        existing = self._find(call, item)
        if existing is not None:
            return self._contacts.update(call.account, existing, properties, _write(call, item)), False
        if id_property in (None, "hs_object_id"):
            raise InvalidRequest(f"No contact has the id {key}; name a unique property in idProperty to create one.")
        values = {id_property: key} | properties
        return self._contacts.create(call.account, values, _write(call, item)), True

    def _each(
        self,
        call: Call,
        write_one: WriteOne,
        *,
        may_be_partial: bool,
        status: int = 200,
        inputs: Sequence[Input] | None = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> Answer:
        """Write the inputs one by one. When parts may fail alone their errors are collected; otherwise the first fails all."""
        started = time.time()
        inputs = call.inputs() if inputs is None else inputs
        is_partial = may_be_partial and call.multi_status and _has_write_ids(inputs)
        results, failed = [], list(errors)
        for item in inputs:
            try:
                with self._storage.savepoint():
                    results.append(write_one(item))
            except HubSpotError as error:
                if not is_partial:
                    raise
                failed.append(error.item(_write_id(item)))
        return _batch_answer(status, results, failed, started)

    def _find(self, call: Call, item: Input) -> Contact | None:
        return self._contacts.find(call.account, _id_of(item), item.get("idProperty"))

    def _result(self, call: Call, contact: Contact, item: Input) -> dict[str, Any]:
        document = contact.document(None, with_url=call.with_url)
        write_id = _write_id(item)
        return document if write_id is None else document | {"objectWriteTraceId": write_id}


def _batch_answer(status: int, results: list[Any], errors: list[dict[str, Any]], started: float) -> Answer:
    body: dict[str, Any] = {"status": "COMPLETE", "results": results}
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    body |= {"startedAt": iso(started), "completedAt": iso(time.time())}
    return Answer(207 if errors else status, body)


def _not_found(message: str, ids: list[str]) -> dict[str, Any]:
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "message": message,
        "context": {"ids": ids},
        "errors": [],
        "links": {},
    }


def _id_of(item: Input) -> str:
    if item.get("id") is None:
        raise InvalidRequest("Some required fields were not set: [id]")
    return str(item["id"])


def _write_id(item: Input) -> str | None:
    write_id = item.get("objectWriteTraceId")
    return None if write_id is None else str(write_id)


def _write(call: Call, item: Input) -> Any:
    return call.write(_write_id(item))


def _has_write_ids(inputs: Sequence[Input]) -> bool:
    """A write id on every input, each another: the condition for an answer in parts."""
    write_ids = [_write_id(item) for item in inputs]
    return None not in write_ids and len(set(write_ids)) == len(write_ids)


def _require_different_ids(inputs: Sequence[Input]) -> None:
    counts = Counter(_id_of(item).lower() for item in inputs)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise InvalidRequest(
            f"Duplicate IDs found in batch input: [{', '.join(twice)}]. IDs must be unique", context={"ids": twice}
        )
