"""The OpenAPI document says what the routes do."""

from typing import Any

import httpx2
import pytest

from leads.service import ON_DUPLICATE


@pytest.fixture
async def document(api: httpx2.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get("/openapi.json")).json()
    return found


async def test_every_operation_has_an_id_a_summary_examples_and_error_answers(
    document: dict[str, Any], subtests: pytest.Subtests
) -> None:
    ids = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            with subtests.test(f"{method} {path}"):
                ids.add(operation["operationId"])
                assert operation["summary"]
                assert operation["description"]
                assert operation["security"]
                assert {"401", "403", "503"} <= set(operation["responses"])
                for status, answer in operation["responses"].items():
                    assert answer["description"]
                    for content in answer.get("content", {}).values():
                        assert content["example"], status
                if method in ("post", "put", "patch", "delete"):
                    names = [parameter["name"].lower() for parameter in operation["parameters"]]
                    assert "idempotency-key" in names
                if method in ("put", "patch"):
                    assert "application/json" in operation["requestBody"]["content"]
    assert ids == {
        "create_lead",
        "read_lead",
        "list_leads",
        "replace_lead",
        "change_lead",
        "delete_lead",
        "restore_lead",
        "read_lead_timeline",
        "read_lead_settings",
        "replace_lead_settings",
    }


async def test_routes_that_skip_the_machinery_declare_what_they_take(document: dict[str, Any]) -> None:
    create = document["paths"]["/api/leads"]["post"]
    [on_duplicate] = [each for each in create["parameters"] if each["name"] == "on_duplicate"]
    assert on_duplicate["schema"]["enum"] == list(ON_DUPLICATE)
    assert create["requestBody"]["content"]["application/json"]["schema"]["additionalProperties"] is False
    listed = {parameter["name"] for parameter in document["paths"]["/api/leads"]["get"]["parameters"]}
    assert {"q", "stage", "source", "owner_id", "tag", "email", "phone", "company", "sort", "limit", "cursor"} <= listed
    read = document["paths"]["/api/leads/{lead_id}"]["get"]["parameters"]
    assert {(parameter["name"], parameter["in"]) for parameter in read} == {
        ("lead_id", "path"),
        ("if-none-match", "header"),
    }
    patch = document["paths"]["/api/leads/{lead_id}"]["patch"]["requestBody"]["content"]
    assert set(patch) == {"application/json", "application/merge-patch+json"}


async def test_the_examples_are_answers_that_the_service_gives(
    api: httpx2.AsyncClient, document: dict[str, Any]
) -> None:
    create = document["paths"]["/api/leads"]["post"]
    sent = create["requestBody"]["content"]["application/json"]["example"]
    shown = create["responses"]["201"]["content"]["application/json"]["example"]
    answer = (await api.post("/api/leads", json=sent)).json()
    assert list(answer) == list(shown)
    others = {name: answer[name] for name in ("id", "owner_id", "external_ids", "created_at", "updated_at")}
    assert {**shown, **others} == answer
