"""The API of workflows: define, read, replace, archive, and every way to ask for it wrongly."""

import asyncio
from itertools import product
from typing import Any

import asyncpg
import httpx2
import orjson

from services.workflows.tests.conftest import TABLES, Desk
from services.workflows.tests.neighbours import Neighbours, make_lead
from tests.support.identity import TestIdentity

STOP = {"id": "end", "type": "stop"}
BODY: dict[str, Any] = {"name": "Hot leads", "trigger": {"type": "manual"}, "steps": [STOP]}
SIGNED = {
    "id": "call",
    "type": "http_request",
    "url": "https://hooks.example.com/",
    "sign_with": {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
}


async def test_a_workflow_is_created_and_read(api: httpx2.AsyncClient) -> None:
    created = await api.post("/api/workflows", json=BODY)
    assert created.status_code == 201
    document = created.json()
    assert created.headers["location"] == f"/api/workflows/{document['id']}"
    assert created.headers["etag"] == '"1"'
    assert document["id"].startswith("wf_")
    assert document | {**BODY, "version": 1, "allow_reentry": False, "archived_at": None} == document
    read = await api.get(created.headers["location"])
    assert (read.status_code, read.json(), read.headers["etag"]) == (200, document, '"1"')
    again = await api.get(created.headers["location"], headers={"If-None-Match": '"1"'})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_name_is_unique_among_live_workflows_in_any_case(api: httpx2.AsyncClient) -> None:
    first = (await api.post("/api/workflows", json=BODY)).json()
    taken = await api.post("/api/workflows", json={**BODY, "name": " hot LEADS "})
    assert taken.status_code == 409
    assert taken.json()["existing_id"] == first["id"]
    other = (await api.post("/api/workflows", json={**BODY, "name": "Other"})).json()
    renamed = await api.put(f"/api/workflows/{other['id']}", json={**BODY, "name": "HOT leads"})
    assert (renamed.status_code, renamed.json()["existing_id"]) == (409, first["id"])
    assert (await api.delete(f"/api/workflows/{first['id']}")).status_code == 204
    assert (await api.put(f"/api/workflows/{other['id']}", json={**BODY, "name": "HOT leads"})).status_code == 200


async def test_names_raced_for_are_given_once(api: httpx2.AsyncClient) -> None:
    async def create() -> httpx2.Response:
        answer = await api.post("/api/workflows", json=BODY)
        while answer.status_code == 503:  # on a busy machine they are more than the pool serves in time
            answer = await api.post("/api/workflows", json=BODY)
        return answer

    answers = await asyncio.gather(*(create() for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    [winner] = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert {answer.json()["existing_id"] for answer in answers if answer.status_code == 409} == {winner}


async def test_put_makes_a_new_version_and_the_versions_are_listed(api: httpx2.AsyncClient) -> None:
    workflow_id = (await api.post("/api/workflows", json=BODY)).json()["id"]
    path = f"/api/workflows/{workflow_id}"
    for number in range(2, 5):
        changed = await api.put(path, json={**BODY, "steps": [{**STOP, "reason": f"{number}"}]})
        assert (changed.status_code, changed.json()["version"], changed.headers["etag"]) == (200, number, f'"{number}"')
    first = (await api.get(f"{path}/versions", params={"limit": 3})).json()
    assert [version["version"] for version in first["items"]] == [4, 3, 2]
    rest = (await api.get(f"{path}/versions", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [version["version"] for version in rest["items"]] == [1]
    assert rest["next_cursor"] is None
    assert rest["items"][0]["steps"] == [STOP]
    assert rest["items"][0]["created_by"] == "user:user_1"


async def test_a_put_that_changes_nothing_makes_no_version(api: httpx2.AsyncClient) -> None:
    document = (await api.post("/api/workflows", json=BODY)).json()
    same = await api.put(f"/api/workflows/{document['id']}", json=document)
    assert (same.status_code, same.json()) == (200, document)


async def test_read_only_fields_may_come_back_as_they_are_and_not_otherwise(api: httpx2.AsyncClient) -> None:
    document = (await api.post("/api/workflows", json=BODY)).json()
    wrong = await api.put(f"/api/workflows/{document['id']}", json={**document, "version": 9, "id": "wf_x"})
    assert wrong.status_code == 422
    assert {error["pointer"] for error in wrong.json()["errors"]} == {"/version", "/id"}


async def test_if_match_protects_from_overwriting(api: httpx2.AsyncClient) -> None:
    path = f"/api/workflows/{(await api.post('/api/workflows', json=BODY)).json()['id']}"
    changed = {**BODY, "steps": [{**STOP, "reason": "x"}]}
    assert (await api.put(path, json=changed, headers={"If-Match": '"1"'})).status_code == 200
    stale = await api.put(path, json=BODY, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.headers["etag"], stale.json()["version"]) == (412, '"2"', 2)
    assert (await api.put(path, json=BODY, headers={"If-Match": 'W/"2"'})).status_code == 412
    assert (await api.delete(path, headers={"If-Match": '"1"'})).status_code == 412
    assert (await api.put(path, json=BODY, headers={"If-Match": "*"})).status_code == 200
    assert (await api.delete(path, headers={"If-Match": '"3"'})).status_code == 204


async def test_an_archived_workflow_is_read_but_neither_changed_nor_started(desk: Desk) -> None:
    api = desk.api
    await desk.know_lead()
    workflow_id = await desk.define(STOP, trigger={"type": "event", "event": "lead.created"})
    path = f"/api/workflows/{workflow_id}"
    assert (await api.delete(path)).status_code == 204
    assert (await api.delete(path)).status_code == 204
    read = await api.get(path)
    assert read.json()["archived_at"] is not None
    assert read.headers["etag"] == '"1.archived"'
    assert (await api.put(path, json=BODY)).status_code == 409
    assert (await api.post(f"{path}/runs", json={"lead_id": "lead_1"})).status_code == 409
    assert (await api.get("/api/workflows")).json()["items"] == []
    [listed] = (await api.get("/api/workflows", params={"archived": True})).json()["items"]
    assert listed["id"] == workflow_id


async def test_workflows_are_listed_filtered_and_paged(api: httpx2.AsyncClient) -> None:
    for number in range(5):
        event = {"type": "event", "event": "lead.created" if number % 2 else "lead.updated"}
        await api.post("/api/workflows", json={**BODY, "name": f"W{number} 100%", "trigger": event})
    first = (await api.get("/api/workflows", params={"limit": 3})).json()
    rest = (await api.get("/api/workflows", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [item["name"][:2] for item in [*first["items"], *rest["items"]]] == ["W4", "W3", "W2", "W1", "W0"]
    assert rest["next_cursor"] is None
    by_event = (await api.get("/api/workflows", params={"event": "lead.created"})).json()["items"]
    assert [item["name"][:2] for item in by_event] == ["W3", "W1"]
    by_name = (await api.get("/api/workflows", params={"q": "w2 100%"})).json()["items"]
    assert [item["name"] for item in by_name] == ["W2 100%"]
    other = await api.get("/api/workflows", params={"q": "x", "cursor": first["next_cursor"]})
    assert other.status_code == 400


async def test_create_with_start_also_runs(desk: Desk) -> None:
    await desk.know_lead()
    answer = await desk.api.post("/api/workflows", json={**BODY, "start": {"lead_id": "lead_1"}})
    assert answer.status_code == 201
    run = answer.json()["run"]
    assert (run["state"], run["lead_id"], run["trigger"]["type"]) == ("queued", "lead_1", "manual")
    [listed] = await desk.runs(answer.json()["id"])
    assert listed["id"] == run["id"]
    status = (await desk.api.get(f"/api/workflows/{answer.json()['id']}/status")).json()
    assert status["latest_run"]["id"] == run["id"]
    assert status["runs"]["total"] == status["runs"]["by_state"]["queued"] == 1


async def test_a_lead_not_heard_of_yet_is_asked_for(desk: Desk, neighbours: Neighbours) -> None:
    neighbours.put_lead(make_lead("lead_9", version=4))
    answer = await desk.api.post("/api/workflows", json={**BODY, "start": {"lead_id": "lead_9"}})
    assert answer.status_code == 201
    view = await desk.database.fetchrow("SELECT version, deleted FROM lead_view WHERE lead_id = 'lead_9'")
    assert view is not None
    assert (view["version"], view["deleted"]) == (4, False)


async def test_a_lead_that_is_nowhere_is_refused_and_nothing_is_stored(desk: Desk) -> None:
    refused = await desk.api.post("/api/workflows", json={**BODY, "start": {"lead_id": "lead_404"}})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"pointer": "/start/lead_id", "detail": "there is no such lead"}]
    assert (await desk.api.get("/api/workflows")).json()["items"] == []


async def test_a_lead_of_another_workspace_is_no_lead(desk: Desk, neighbours: Neighbours) -> None:
    neighbours.put_lead(make_lead("lead_2"), workspace="ws_2")
    await desk.database.execute(
        "INSERT INTO lead_view (workspace_id, lead_id, version, deleted, lead) VALUES ('ws_2', 'lead_2', 1, false, '{}')"
    )
    workflow_id = await desk.define(STOP)
    refused = await desk.api.post(f"/api/workflows/{workflow_id}/runs", json={"lead_id": "lead_2"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/lead_id"


async def test_what_belongs_to_another_workspace_is_not_found(desk: Desk, identity: TestIdentity) -> None:
    await desk.know_lead()
    workflow_id = await desk.define(STOP)
    run_id = await desk.start(workflow_id)
    foreign = identity.headers(workspace="ws_2")
    body = {**BODY, "name": "mine"}
    attempts = [
        ("GET", f"/api/workflows/{workflow_id}", None),
        ("PUT", f"/api/workflows/{workflow_id}", body),
        ("DELETE", f"/api/workflows/{workflow_id}", None),
        ("GET", f"/api/workflows/{workflow_id}/versions", None),
        ("GET", f"/api/workflows/{workflow_id}/status", None),
        ("GET", f"/api/workflows/{workflow_id}/runs", None),
        ("POST", f"/api/workflows/{workflow_id}/runs", {"lead_id": "lead_1"}),
        ("GET", f"/api/runs/{run_id}", None),
        ("POST", f"/api/runs/{run_id}/cancel", None),
        ("POST", f"/api/runs/{run_id}/retry", {}),
    ]
    for method, path, document in attempts:
        answer = await desk.api.request(method, path, json=document, headers=foreign)
        assert answer.status_code == 404, (method, path)
    for path in ("/api/workflows", "/api/runs", f"/api/runs?workflow_id={workflow_id}"):
        assert (await desk.api.get(path, headers=foreign)).json()["items"] == []
    assert (await desk.run(run_id))["state"] == "queued"


async def test_a_viewer_reads_and_does_not_write(api: httpx2.AsyncClient, identity: TestIdentity) -> None:
    headers = identity.headers(role="viewer")
    assert (await api.get("/api/workflows", headers=headers)).status_code == 200
    refused = await api.post("/api/workflows", json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "workflows:write")
    anonymous = await api.get("/api/workflows", headers={"Authorization": ""})
    assert anonymous.status_code == 401
    assert "www-authenticate" in anonymous.headers


async def test_an_id_that_names_nothing_is_not_found(api: httpx2.AsyncClient) -> None:
    addresses = [
        ("GET", "/api/workflows/{}"),
        ("PUT", "/api/workflows/{}"),
        ("DELETE", "/api/workflows/{}"),
        ("GET", "/api/workflows/{}/status"),
        ("GET", "/api/workflows/{}/versions"),
        ("GET", "/api/workflows/{}/runs"),
        ("GET", "/api/runs/{}"),
        ("POST", "/api/runs/{}/cancel"),
        ("POST", "/api/runs/{}/retry"),
    ]
    for (method, address), name in product(addresses, ["wf_nothing", "%00", "a%2Fb", "x" * 300, "..."]):
        answer = await api.request(method, address.format(name), json=BODY if method == "PUT" else None)
        assert answer.status_code == 404, (method, address, name, answer.text)


WRONG_BODIES: list[tuple[bytes, str, int, str | None]] = [
    (b"{", "application/json", 400, None),
    (b"", "application/json", 400, None),
    (b"[]", "application/json", 422, ""),
    (b'"x"', "application/json", 422, ""),
    (orjson.dumps(BODY), "text/plain", 415, None),
    (b'{"name": "\xff"}', "application/json", 400, None),
    (b'{"name": "\\ud800"}', "application/json", 400, None),
    (b'{"name": 1e999}', "application/json", 400, None),
    (b'{"name": "a\\u0000b"}', "application/json", 422, "/name"),
    (orjson.dumps({**BODY, "name": ""}), "application/json", 422, "/name"),
    (orjson.dumps({**BODY, "name": "   "}), "application/json", 422, "/name"),
    (orjson.dumps({**BODY, "name": "x" * 201}), "application/json", 422, "/name"),
    (orjson.dumps({**BODY, "name": 5}), "application/json", 422, "/name"),
    (orjson.dumps({**BODY, "colour": 1}), "application/json", 422, "/colour"),
    (orjson.dumps({**BODY, "allow_reentry": "yes"}), "application/json", 422, "/allow_reentry"),
    (orjson.dumps({**BODY, "steps": "x"}), "application/json", 422, "/steps"),
    (orjson.dumps({**BODY, "steps": []}), "application/json", 422, "/steps"),
    (orjson.dumps({**BODY, "steps": [{"id": "a", "type": "nope"}]}), "application/json", 422, "/steps/0/type"),
    (orjson.dumps({"name": "x"}), "application/json", 422, "/trigger"),
    (orjson.dumps({**BODY, "start": {}}), "application/json", 422, "/start/lead_id"),
    (orjson.dumps({**BODY, "start": {"lead_id": "a b"}}), "application/json", 422, "/start/lead_id"),
    (orjson.dumps({**BODY, "start": {"lead_id": 5}}), "application/json", 422, "/start/lead_id"),
    (orjson.dumps({**BODY, "steps": [{**STOP, "reason": "x" * 70_000}]}), "application/json", 422, ""),
    (b'{"steps": ' + b"[" * 40 + b"]" * 40 + b"}", "application/json", 422, "/steps" + "/0" * 31),
    (b" " * (1_048_576 + 1), "application/json", 413, None),
]


async def test_a_wrong_body_is_refused_with_its_place(api: httpx2.AsyncClient, database: asyncpg.Connection) -> None:
    for raw, content_type, status, pointer in WRONG_BODIES:
        answer = await api.post("/api/workflows", content=raw, headers={"Content-Type": content_type})
        assert answer.status_code == status, (raw[:80], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        if pointer is not None:
            assert pointer in {error["pointer"] for error in answer.json()["errors"]}, answer.text
    assert await database.fetchval("SELECT count(*) FROM workflows") == 0
    assert await database.fetchval("SELECT count(*) FROM outbox") == 0
    assert await database.fetchval("SELECT count(*) FROM idempotency_keys") == 0


WRONG_QUERIES = (
    "limit=0", "limit=201", "limit=x", "cursor=%00", "cursor=!!", "cursor=e30", "colour=1", "event=lead.merged", "archived=maybe",
    "sort=name", "q=%00",
)  # fmt: skip
WRONG_RUN_QUERIES = ("state=done", "lead_id=%00", "cursor=abc", "limit=-1", "workflow_id=a%20b", "x=y")


async def test_a_wrong_query_is_refused(api: httpx2.AsyncClient) -> None:
    for path, queries in (("/api/workflows", WRONG_QUERIES), ("/api/runs", WRONG_RUN_QUERIES)):
        for query in queries:
            answer = await api.get(f"{path}?{query}")
            assert answer.status_code in (400, 422), (query, answer.text)


async def test_a_cursor_that_was_made_up_is_refused(api: httpx2.AsyncClient) -> None:
    from chassis.parsing import make_cursor
    from workflows.requests import PageQuery, RunQuery

    workflow_id = (await api.post("/api/workflows", json=BODY)).json()["id"]
    question = PageQuery().question("versions", workflow_id)
    for value in ("x", -1, 2**40, None, [1], True):
        answer = await api.get(
            f"/api/workflows/{workflow_id}/versions", params={"cursor": make_cursor((value,), question)}
        )
        assert answer.status_code == 400, value
    question = RunQuery().question("all runs")
    for values in (
        ("x", "y"),
        ("2026-01-01", "y"),
        ("2026-01-01T00:00:00Z", 5),
        (5, "y"),
        ("2026-01-01T00:00:00Z", "\0"),
    ):
        answer = await api.get("/api/runs", params={"cursor": make_cursor(values, question)})
        assert answer.status_code == 400, values


async def test_an_owner_who_is_not_there_is_refused(desk: Desk) -> None:
    await desk.know_users("user_a")
    await desk.know_users("user_gone", active=False)
    step = {"id": "owner", "type": "assign_owner"}
    unknown = await desk.api.post("/api/workflows", json={**BODY, "steps": [{**step, "users": ["user_a", "user_x"]}]})
    assert unknown.json()["errors"] == [{"pointer": "/steps/0/users/1", "detail": "there is no such user"}]
    gone = await desk.api.post("/api/workflows", json={**BODY, "steps": [{**step, "users": ["user_gone"]}]})
    assert gone.json()["errors"] == [{"pointer": "/steps/0/users", "detail": "none of these users is active"}]
    both = await desk.api.post("/api/workflows", json={**BODY, "steps": [{**step, "users": ["user_gone", "user_a"]}]})
    assert both.status_code == 201


async def test_an_address_that_can_never_be_called_is_refused(api: httpx2.AsyncClient) -> None:
    for url in ("http://hooks.example.com/", "https://hooks.example.com:8443/", "https://u:p@hooks.example.com/"):
        step = {"id": "call", "type": "http_request", "url": url}
        answer = await api.post("/api/workflows", json={**BODY, "steps": [step]})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/steps/0/url"


async def test_a_secret_is_stored_sealed_and_shown_by_id(api: httpx2.AsyncClient, database: asyncpg.Connection) -> None:
    created = await api.post("/api/workflows", json={**BODY, "steps": [SIGNED]})
    assert created.status_code == 201
    assert b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in created.content
    reference = created.json()["steps"][0]["sign_with"]
    assert reference["secret_id"].startswith("sec_")
    for table in TABLES:
        for row in await database.fetch(f"SELECT t::text AS line FROM {table} t"):
            assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in row["line"]
    path = f"/api/workflows/{created.json()['id']}"
    same = await api.put(path, json={**BODY, "steps": [{**SIGNED, "sign_with": reference}]})
    assert (same.status_code, same.json()["version"]) == (200, 1)
    renewed = await api.put(path, json={**BODY, "steps": [SIGNED]})
    assert renewed.json()["version"] == 2
    assert renewed.json()["steps"][0]["sign_with"] != reference


async def test_a_secret_of_another_workflow_cannot_be_named(api: httpx2.AsyncClient) -> None:
    created = await api.post("/api/workflows", json={**BODY, "steps": [SIGNED]})
    reference = created.json()["steps"][0]["sign_with"]
    stolen = await api.post("/api/workflows", json={**BODY, "name": "x", "steps": [{**SIGNED, "sign_with": reference}]})
    assert stolen.status_code == 422
    assert stolen.json()["errors"] == [
        {"pointer": "/steps/0/sign_with/secret_id", "detail": "this workflow has no such secret"}
    ]


async def test_a_repeated_create_makes_one_workflow(api: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(*(api.post("/api/workflows", json=BODY, headers=key) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    other = await api.post("/api/workflows", json={**BODY, "name": "x"}, headers=key)
    assert other.status_code == 422
    path = f"/api/workflows/{answers[0].json()['id']}"
    deletes = [await api.delete(path, headers={"Idempotency-Key": "k2", "If-Match": '"1"'}) for _ in range(2)]
    assert [answer.status_code for answer in deletes] == [204, 204]


async def test_the_status_counts_states_and_rates(desk: Desk) -> None:
    await desk.know_lead()
    workflow_id = await desk.define(STOP)
    runs = [await desk.start(workflow_id) for _ in range(3)]
    await desk.database.execute(
        "UPDATE runs SET state = 'running', lease_token = 't', started_at = now() WHERE id = ANY($1)", runs[:2]
    )
    await desk.database.execute(
        "UPDATE runs SET state = 'completed', lease_token = NULL, finished_at = now() WHERE id = $1", runs[0]
    )
    await desk.database.execute(
        "UPDATE runs SET state = 'failed', lease_token = NULL, error = 'x', finished_at = now() WHERE id = $1", runs[1]
    )
    old = await desk.start(workflow_id)
    others = await desk.start(await desk.define(STOP))
    await desk.database.execute(
        "UPDATE runs SET state = 'running', lease_token = 't', started_at = now() WHERE id = $1", others
    )
    ago = "now() - interval '3 hours'"
    await desk.database.execute(
        f"UPDATE runs SET state = 'running', lease_token = 't', started_at = {ago} WHERE id = $1", old
    )
    await desk.database.execute(
        f"UPDATE runs SET state = 'completed', lease_token = NULL, finished_at = {ago} WHERE id = $1", old
    )
    status = (await desk.api.get(f"/api/workflows/{workflow_id}/status")).json()
    assert status["runs"]["total"] == 4
    counts = {state: count for state, count in status["runs"]["by_state"].items() if count}
    assert counts == {"completed": 2, "failed": 1, "queued": 1}
    assert status["rates"]["last_hour"] == {"started": 2, "completed": 1, "failed": 1, "success_rate": 0.5}
    assert status["rates"]["last_24_hours"] == {"started": 3, "completed": 2, "failed": 1, "success_rate": 0.6667}
    assert status["latest_run"]["id"] == old


async def test_the_openapi_document_describes_every_operation(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    assert {operation["operationId"] for _, _, operation in operations} == {
        "create_workflow", "list_workflows", "read_workflow", "replace_workflow", "archive_workflow", "list_workflow_versions",
        "read_workflow_status", "list_workflow_runs", "start_run", "list_runs", "read_run", "cancel_run", "retry_run",
    }  # fmt: skip
    for path, method, operation in operations:
        assert operation["summary"], path
        answers = operation["responses"]
        assert {"401", "403", "503"} <= set(answers), path
        for status, answer in answers.items():
            if status not in ("204", "304"):
                [content] = answer["content"].values()
                assert "example" in content, (path, method, status)
    assert "$defs" not in orjson.dumps(document).decode()
