"""Makes one OpenAPI document of the services' four: what a client sees through the gateway, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Document = dict[str, Any]

PUBLIC_PREFIXES = ("/api/", "/.well-known/")
RENAMED_PATHS = {"/health/system": "/health/detailed"}  # as conf.d/public.conf has it
BEARER = "BearerToken"
PROBLEM = "#/components/schemas/Problem"
FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")  # our services answer 422 with a problem instead

DESCRIPTION = """\
Takes leads in, runs automations on them and keeps CRMs in step.

- **Signing in:** `POST /api/auth/login`, then `Authorization: Bearer <access token>`. Or use *Authorize* here.
- **Errors** are `application/problem+json` (RFC 9457) with the request's id.
- **Writes** take `Idempotency-Key`: a repeat has its effect once and gets the first answer.
- **Versions:** `ETag` and `If-Match` on single resources; `If-None-Match` answers 304.
- **Lists** have `limit` (at most 200) and an opaque `cursor`; the answer is `{"items": [...], "next_cursor": null}`.
"""

_PROBLEM_SCHEMA: Document = {
    "title": "Problem",
    "description": "RFC 9457. `errors` is there for 422; single problems add members of their own.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["/problems/not-found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}

# Answers that the gateway itself gives on every path: status → component name, description, problem type.
_GATEWAY_ANSWERS = {
    "429": ("TooManyRequests", "Too many requests from this address; see `Retry-After`", "too-many-requests"),
    "502": ("ServiceNotReached", "The service is not running or broke off; repeat with the same key", "bad-gateway"),
    "504": ("ServiceTooSlow", "The service did not answer in time; repeat with the same key", "gateway-timeout"),
}


class MergeConflict(Exception):
    """Two services claim one path or one operation id, or one service has two schemas of one name."""


def merge(documents: Mapping[str, Document]) -> Document:
    """The documents, by service name, as one. Raises MergeConflict. The inputs stay as they are."""
    documents = {name: _with_schemas_in_one_place(document) for name, document in documents.items()}
    parts = {name: _prepared(name, document, documents) for name, document in documents.items()}
    paths: Document = {}
    schemas: Document = {"Problem": _PROBLEM_SCHEMA}
    schemes: Document = {BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    for name, part in parts.items():
        for path, item in part["paths"].items():
            if path in paths:
                raise MergeConflict(f"{name} claims {path}, which another service has")
            paths[path] = item
        schemas |= part["components"].get("schemas", {})
        schemes |= part["components"].get("securitySchemes", {})
    paths |= _health(paths)
    _require_different_operation_ids(paths)
    for _, operation in _operations(paths):
        _complete(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Automation Orchestrator", "version": "1", "description": DESCRIPTION},
        "servers": [{"url": "/", "description": "This gateway"}],
        "tags": [{"name": tag} for tag in _tags(paths)],
        "paths": paths,
        "components": {"schemas": schemas, "responses": _gateway_answers(), "securitySchemes": schemes},
    }


def _with_schemas_in_one_place(document: Document) -> Document:
    """A copy whose `$defs` are components: Pydantic writes them beside each model, but `#/$defs/…` means the whole document."""
    whole = copy.deepcopy(document)
    found: list[tuple[str, Document]] = []

    def lifted(node: Document) -> Document:
        reference = str(node.get("$ref", ""))
        if reference.startswith("#/$defs/"):
            node = node | {"$ref": reference.replace("#/$defs/", "#/components/schemas/")}
        definitions = node.get("$defs", {})
        _rewrite(definitions, lifted)
        found.extend(definitions.items())
        return {name: value for name, value in node.items() if name != "$defs"}

    _rewrite(whole, lifted)
    schemas = whole.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in found:
        if schemas.setdefault(name, schema) != schema:
            raise MergeConflict(f"two schemas of one service are called {name}")
    return whole


def _prepared(name: str, document: Document, documents: Mapping[str, Document]) -> Document:
    """One service's public paths, with the schemas whose names another uses differently renamed."""
    renamed = {
        f"#/components/schemas/{schema}": f"#/components/schemas/{_camel(name)}{schema}"
        for schema in _disputed(name, documents)
    }
    part = copy.deepcopy(document)
    _rewrite(part, lambda node: _common_problem(_with_references(node, renamed)))
    part["paths"] = {
        RENAMED_PATHS.get(path, path): item
        for path, item in part["paths"].items()
        if path.startswith(PUBLIC_PREFIXES) or path in RENAMED_PATHS
    }
    components = part.setdefault("components", {})
    components["schemas"] = {
        renamed.get(f"#/components/schemas/{schema}", schema).rpartition("/")[2]: definition
        for schema, definition in components.get("schemas", {}).items()
        if schema not in FASTAPIS_OWN and schema != "Problem"
    }
    return part


def _disputed(name: str, documents: Mapping[str, Document]) -> set[str]:
    """The schemas of `name` that another service has under the same name with another content."""
    own = documents[name].get("components", {}).get("schemas", {})
    others = [
        document.get("components", {}).get("schemas", {}) for other, document in documents.items() if other != name
    ]
    return {schema for schema, content in own.items() if any(content != other.get(schema, content) for other in others)}


def _rewrite(node: Any, change: Callable[[Document], Document]) -> None:
    """Replace each object below `node` by what `change` makes of it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        if isinstance(value, dict):
            node[key] = change(value)
        _rewrite(node[key], change)


def _with_references(node: Document, renamed: Mapping[str, str]) -> Document:
    target = renamed.get(str(node.get("$ref")))
    return node | {"$ref": target} if target else node


def _common_problem(node: Document) -> Document:
    """The schema of problems is the same everywhere; FastAPI's own 422 is never sent."""
    if node.get("title") == "Problem" and "properties" in node:
        return {"$ref": PROBLEM}
    if node.get("description") == "Validation Error" and "content" in node:
        content = {"application/problem+json": {"schema": {"$ref": PROBLEM}}}
        return {"description": "Invalid input; `errors` says where", "content": content}
    return node


def _complete(operation: Document) -> None:
    """Add the answers that the gateway gives, and the other way to show a token."""
    for status, (component, _, _) in _GATEWAY_ANSWERS.items():
        operation["responses"].setdefault(status, {"$ref": f"#/components/responses/{component}"})
    if operation.get("security"):
        operation["security"] = [*operation["security"], {BEARER: []}]


def _gateway_answers() -> Document:
    return {
        component: {
            "description": description,
            "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}},
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": PROBLEM},
                    "example": {
                        "type": f"/problems/{kind}",
                        "title": description.partition(";")[0],
                        "status": int(status),
                        "detail": description,
                        "instance": "/api/leads",
                        "request_id": "req_0d6cba21a5c3d8c2f0b7e4a913d5f678",
                    },
                }
            },
        }
        for status, (component, description, kind) in _GATEWAY_ANSWERS.items()
    }


def _health(paths: Document) -> Document:
    """nginx's own answer, and with it, last in the document, the services' that auth collects."""
    answer = {"schema": {"type": "object"}, "example": {"status": "ok"}}
    own = {
        "tags": ["health"],
        "summary": "Is the gateway answering",
        "operationId": "read_gateway_health",
        "responses": {"200": {"description": "It is", "content": {"application/json": answer}}},
    }
    detailed = {path: paths.pop(path) for path in RENAMED_PATHS.values() if path in paths}
    for _, operation in _operations(detailed):
        operation["tags"] = ["health"]
    return {"/health": {"get": own}, **detailed}


def _operations(paths: Document) -> Iterator[tuple[str, Document]]:
    for path, item in paths.items():
        for method, operation in item.items():
            if isinstance(operation, dict) and "responses" in operation:
                yield f"{method.upper()} {path}", operation


def _require_different_operation_ids(paths: Document) -> None:
    seen: dict[str, str] = {}
    for name, operation in _operations(paths):
        other = seen.setdefault(operation["operationId"], name)
        if other != name:
            raise MergeConflict(f"{other} and {name} have one operation id: {operation['operationId']}")


def _tags(paths: Document) -> list[str]:
    return list(dict.fromkeys(tag for _, operation in _operations(paths) for tag in operation.get("tags", ())))


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
