"""Four documents become one: what is public, under one name each."""

import copy
from typing import Any

import pytest

from gateway.merge import MergeConflict, merge

PROBLEM = {"title": "Problem", "type": "object", "properties": {"status": {"type": "integer"}}}


def service(path: str, operation_id: str, **schemas: dict[str, Any]) -> dict[str, Any]:
    answer = {"$ref": f"#/components/schemas/{next(iter(schemas), 'Problem')}"}
    operation = {
        "operationId": operation_id,
        "summary": "Does something",
        "tags": ["things"],
        "security": [{"OAuth2PasswordBearer": ["leads:read"]}],
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answer}}},
            "404": {"description": "Not found", "content": {"application/problem+json": {"schema": PROBLEM}}},
            "422": {
                "description": "Validation Error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}},
            },
        },
    }
    components = {"schemas": schemas | {"HTTPValidationError": {"type": "object"}}}
    return {"openapi": "3.1.0", "paths": {path: {"get": operation}}, "components": components}


def test_schemas_of_one_name_and_two_contents_are_told_apart():
    leads = service("/api/leads", "list_leads", Page={"type": "array"}, Shared={"type": "string"})
    crm = service("/api/crm", "list_connections", Page={"type": "object"}, Shared={"type": "string"})
    before = copy.deepcopy(leads)
    merged = merge({"leads": leads, "crm_sync": crm})
    schemas = merged["components"]["schemas"]
    assert {"LeadsPage", "CrmSyncPage", "Shared"} <= set(schemas)
    assert "Page" not in schemas
    for path, name in (("/api/leads", "LeadsPage"), ("/api/crm", "CrmSyncPage")):
        done = merged["paths"][path]["get"]["responses"]["200"]
        assert done["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}
    assert leads == before


def test_only_what_clients_reach_is_in_it():
    hidden = service("/internal/sessions/ended", "list_ended")
    hidden["paths"] |= service("/health/system", "read_system_health")["paths"]
    paths = merge({"auth": hidden})["paths"]
    assert list(paths) == ["/health", "/health/detailed"]
    assert paths["/health/detailed"]["get"]["tags"] == ["health"]


def test_errors_are_problems_and_the_gateways_own_are_added():
    merged = merge({"leads": service("/api/leads", "list_leads")})
    answers = merged["paths"]["/api/leads"]["get"]["responses"]
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    assert answers["404"]["content"] == {"application/problem+json": problem}
    assert answers["422"]["content"] == {"application/problem+json": problem}
    assert {"429", "502", "504"} <= set(answers)
    assert "HTTPValidationError" not in merged["components"]["schemas"]


def test_a_token_may_be_pasted_instead_of_signing_in():
    merged = merge({"leads": service("/api/leads", "list_leads")})
    security = merged["paths"]["/api/leads"]["get"]["security"]
    assert security == [{"OAuth2PasswordBearer": ["leads:read"]}, {"BearerToken": []}]
    assert merged["components"]["securitySchemes"]["BearerToken"]["scheme"] == "bearer"


def test_definitions_beside_a_model_become_components():
    leads = service("/api/leads", "list_leads")
    model = {
        "type": "object",
        "properties": {"field": {"$ref": "#/$defs/Field"}},
        "$defs": {"Field": {"properties": {"kind": {"$ref": "#/$defs/Kind"}}}, "Kind": {"type": "string"}},
    }
    leads["paths"]["/api/leads"]["get"]["requestBody"] = {"content": {"application/json": {"schema": model}}}
    merged = merge({"leads": leads})
    schema = merged["paths"]["/api/leads"]["get"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"type": "object", "properties": {"field": {"$ref": "#/components/schemas/Field"}}}
    assert merged["components"]["schemas"]["Field"] == {"properties": {"kind": {"$ref": "#/components/schemas/Kind"}}}


def test_two_services_can_not_claim_one_path_or_one_id():
    with pytest.raises(MergeConflict, match="/api/leads"):
        merge({"leads": service("/api/leads", "a"), "crm_sync": service("/api/leads", "b")})
    with pytest.raises(MergeConflict, match="list_things"):
        merge({"leads": service("/api/leads", "list_things"), "crm_sync": service("/api/crm", "list_things")})
