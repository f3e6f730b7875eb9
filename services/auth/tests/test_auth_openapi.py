"""The OpenAPI document says of every operation what it is called, what it takes, and how it refuses."""

import pytest

PUBLIC = {"login", "token", "refresh", "read_keys", "read_system_health"}


@pytest.fixture
async def operations(api):
    document = (await api.get("/openapi.json")).json()
    return {
        operation["operationId"]: (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_has_id_summary_example_and_error_answers(operations):
    assert set(operations) == PUBLIC | {
        "logout", "read_me", "list_sessions", "end_session", "end_sessions",
        "list_users", "create_user", "read_user", "change_user", "set_password",
    }  # fmt: skip
    for name, (_, path, operation) in operations.items():
        assert operation["summary"], name
        good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        if "content" in good:
            assert "example" in good["content"]["application/json"], name
        assert "503" in operation["responses"], name
        for status, answer in operation["responses"].items():
            if status.startswith("4"):
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
                assert answer["content"]["application/problem+json"]["example"]["status"] == int(status)
        assert not path.startswith("/internal"), name


def test_every_operation_but_signing_in_needs_a_token(operations):
    for name, (_, _, operation) in operations.items():
        assert bool(operation.get("security")) == (name not in PUBLIC), name
        assert ("401" in operation["responses"]) == (name not in {"read_keys", "read_system_health"}), name


def test_bodies_are_described_with_examples(operations):
    for name in ("login", "refresh", "create_user", "change_user", "set_password"):
        content = operations[name][2]["requestBody"]["content"]["application/json"]
        assert content["schema"]["additionalProperties"] is False
        assert set(content["example"]) <= set(content["schema"]["properties"])
    assert "application/merge-patch+json" in operations["change_user"][2]["requestBody"]["content"]
    assert "application/x-www-form-urlencoded" in operations["token"][2]["requestBody"]["content"]


def test_write_methods_take_an_idempotency_key(operations):
    for name in ("create_user", "change_user", "set_password", "end_session", "end_sessions"):
        parameters = {parameter["name"].lower() for parameter in operations[name][2]["parameters"]}
        assert "idempotency-key" in parameters, name
