"""Writes of the HTTP side: entity tags on every route that takes them, and equal keys that ask no CRM twice."""

import asyncio

import pytest

CONNECTIONS = "/api/crm/connections"
MAPPING = {"fields": [{"property": "email", "field": "email"}]}


@pytest.fixture
def crm(still_crm):
    return still_crm


def asked(crm):
    return [call["operation"] for call in crm.calls("")]


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [
        ("PATCH", "", {"name": "Other"}),
        ("DELETE", "", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("PUT", "/mapping", MAPPING),
    ],
)
async def test_a_write_against_an_older_entity_tag_changes_nothing(crm, method, suffix, body):
    connection = await crm.connect(mode="selected", paused=suffix == "/resume")
    path = f"{CONNECTIONS}/{connection['id']}"
    tagged = f"{path}/mapping" if suffix == "/mapping" else path
    read = await crm.client.get(tagged)
    before = asked(crm)
    for tag in (f"W/{read.headers['etag']}", '"99.0"'):
        answer = await crm.client.request(method, path + suffix, json=body, headers={"If-Match": tag})
        assert (answer.status_code, answer.json()["version"]) == (412, read.json()["version"]), answer.text
    assert asked(crm) == before
    assert (await crm.client.get(tagged)).json() == read.json()
    answer = await crm.client.request(method, path + suffix, json=body, headers={"If-Match": read.headers["etag"]})
    assert answer.status_code in (200, 204), answer.text


async def test_of_two_mappings_saved_against_the_same_entity_tag_one_is_stored(crm):
    """Both were right when their properties were looked at; only then does the first one change the mapping."""
    connection = await crm.connect(mode="selected")
    path = f"{CONNECTIONS}/{connection['id']}/mapping"
    headers = {"If-Match": (await crm.client.get(path)).headers["etag"]}
    crm.simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.5})
    try:
        bodies = [{"fields": [{"property": name, "field": "company"}]} for name in ("company", "jobtitle")]
        answers = await asyncio.gather(*(crm.client.put(path, json=body, headers=headers) for body in bodies))
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {})
    assert sorted(answer.status_code for answer in answers) == [200, 412]
    assert asked(crm) == ["properties.batch_read"] * 2


@pytest.mark.parametrize(
    ("token", "fields", "status", "pointer"),
    [
        (None, [{"property": "no_such_property", "field": "email"}], 422, "/mapping/1/property"),
        (None, [{"property": "email", "field": "phone"}], 422, "/mapping/1/property"),
        ("pat-nobody", [], 422, "/credentials"),
        ("away", [], 503, None),
    ],
)
async def test_a_new_connections_mapping_is_checked_before_anything_is_stored(crm, token, fields, status, pointer):
    if token == "away":
        crm.fault("properties.batch_read", {"do": "status", "status": 503}, times=1)
        token = None
    body = {
        "name": "HubSpot",
        "vendor": "hubspot",
        "credentials": {"access_token": token or f"pat-sim-{crm.portal}"},
        "mapping": [*MAPPING["fields"], *fields],
    }
    answer = await crm.client.post(CONNECTIONS, json=body)
    assert answer.status_code == status, answer.text
    assert [each["pointer"] for each in answer.json().get("errors", [])] == ([pointer] if pointer else [])
    assert (await crm.client.get(CONNECTIONS)).json()["items"] == []


async def replayed(crm, method, path, body=None):
    """Write twice under one key; the answer, and what HubSpot was asked by the first and by the second."""
    answers, counts = [], [len(asked(crm))]
    for _ in range(2):
        answers.append(
            await crm.client.request(method, path, json=body, headers={"Idempotency-Key": f"{method} {path}"})
        )
        counts.append(len(asked(crm)))
    first, second = answers
    assert first.status_code < 300, first.text
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    return first, counts[1] - counts[0], counts[2] - counts[1]


async def test_equal_keys_connect_verify_and_map_once_and_ask_the_crm_once(crm):
    body = {
        "name": "HubSpot",
        "vendor": "hubspot",
        "mode": "selected",
        "credentials": {"access_token": f"pat-sim-{crm.portal}"},
        "mapping": MAPPING["fields"],
    }
    made, *calls = await replayed(crm, "POST", CONNECTIONS, body)
    assert calls == [1, 0]
    path = f"{CONNECTIONS}/{made.json()['id']}"
    _, first, second = await replayed(crm, "POST", f"{path}/verify")
    assert (first > 0, second) == (True, 0)
    fields = {"fields": [*MAPPING["fields"], {"property": "company", "field": "company"}]}
    mapped, *calls = await replayed(crm, "PUT", f"{path}/mapping", fields)
    assert (calls, mapped.json()["version"]) == ([1, 0], 2)


async def test_equal_keys_change_pause_resume_want_replay_and_delete_once(crm):
    made = await crm.connect(mode="selected")
    path = f"{CONNECTIONS}/{made['id']}"
    crm.service.neighbours.leads[crm.workspace, "lead_1"] = {"id": "lead_1", "version": 3}
    for method, target, body in (
        ("PATCH", path, {"name": "Other"}),
        ("POST", f"{path}/pause", None),
        ("POST", f"{path}/resume", None),
        ("POST", "/api/crm/leads/lead_1/sync", {"version": 3}),
    ):
        await replayed(crm, method, target, body)
    assert (await crm.shown(made))["version"] == 4
    letters = await kill(crm, "lead_1", kind="permanent")
    await replayed(crm, "POST", f"/api/crm/dead-letters/{letters['lead_1']}/replay")
    await kill(crm, "lead_1", kind="permanent")
    answer, *_ = await replayed(crm, "POST", "/api/crm/dead-letters/replay")
    assert answer.json() == {"replayed": 1}
    await replayed(crm, "DELETE", path)


async def kill(crm, *lead_ids, kind, connection=None):
    """Make dead letters of leads; returns their ids."""
    rows = await crm.database.fetch(
        """UPDATE sync_states SET state = 'dead', dead_letter_id = 'dl_' || gen_random_uuid(), dead_kind = $3, dead_at = now()
        WHERE workspace_id = $1 AND lead_id = ANY($2::text[]) AND ($4::text IS NULL OR connection_id = $4)
        RETURNING lead_id, dead_letter_id""",
        crm.workspace,
        list(lead_ids),
        kind,
        connection and connection["id"],
    )
    return {row["lead_id"]: row["dead_letter_id"] for row in rows}


@pytest.mark.parametrize(
    ("request_body", "left"),
    [
        ({"connection_id": "first"}, {("second", "lead_1"), ("second", "lead_2")}),
        ({"class": "permanent"}, {("first", "lead_2"), ("second", "lead_2")}),
        (
            {"connection_id": "first", "class": "unknown"},
            {("first", "lead_1"), ("second", "lead_1"), ("second", "lead_2")},
        ),
        ({}, set()),
    ],
)
async def test_replay_takes_those_of_a_connection_of_a_class_of_both_or_all(crm, request_body, left):
    made = {name: await crm.connect(name=name, mode="selected") for name in ("first", "second")}
    for lead_id, kind in (("lead_1", "permanent"), ("lead_2", "unknown")):
        for connection in made.values():
            wish = {"version": 1, "connection_id": connection["id"]}
            (await crm.as_service().post(f"/api/crm/leads/{lead_id}/sync", json=wish)).raise_for_status()
        await kill(crm, lead_id, kind=kind)
    body = {**request_body}
    if "connection_id" in body:
        body["connection_id"] = made[body["connection_id"]]["id"]
    answer = await crm.client.post("/api/crm/dead-letters/replay", json=body)
    assert answer.json() == {"replayed": 4 - len(left)}
    letters = await crm.dead_letters()
    assert {(letter["connection_name"], letter["lead_id"]) for letter in letters} == left
