"""The contracts keep their own word: examples fit schemas, queues take known events, the AsyncAPI document is theirs."""

import json
from pathlib import Path

from contracts import asyncapi, events, topology
from contracts.check import findings
from contracts.validation import problems

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "asyncapi.json"


def test_nothing_is_wrong_with_the_contracts() -> None:
    assert findings() == []


def test_every_queue_takes_what_its_bindings_say() -> None:
    taken = {queue.name: sorted(event for event in events() if queue.takes(event)) for queue in topology().queues}
    assert taken["leads.users"] == ["user.created", "user.disabled", "user.updated"]
    assert len(taken["leads.timeline"]) == 12
    assert taken["crm-sync.leads"] == ["lead.created", "lead.deleted", "lead.restored", "lead.updated"]


def test_an_event_that_breaks_its_contract_is_found_with_the_place() -> None:
    example = json.loads(json.dumps(events()["lead.updated"].examples[0]))
    example["data"]["lead"]["score"] = 101
    example["source"] = "/services/auth"
    del example["workspaceid"]
    found = " ".join(problems(example))
    assert "$.data.lead.score" in found
    assert "'workspaceid' is a required property" in found
    assert "lead.updated comes from leads" in found


def test_the_asyncapi_document_is_up_to_date() -> None:
    assert json.loads(DOCUMENT.read_text()) == asyncapi.document()
