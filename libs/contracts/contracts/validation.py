"""Events against their contracts. Tests and `python -m contracts.check` use this; the services' hot paths do not."""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

from contracts import events, schemas


@cache
def _registry() -> Registry[Any]:
    return Registry().with_resources([(name, Resource.from_contents(schema)) for name, schema in schemas().items()])


@cache
def _validator(event_type: str) -> Draft202012Validator:
    data = {"$schema": "https://json-schema.org/draft/2020-12/schema", **events()[event_type].data}
    return Draft202012Validator(data, registry=_registry(), format_checker=FormatChecker())


@cache
def _envelope() -> Draft202012Validator:
    return Draft202012Validator(schemas()["envelope.json"], format_checker=FormatChecker())


def problems(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event, each with the place; empty if it keeps its contract. An unknown type is one problem."""
    contract = events().get(event.get("type", ""))
    if contract is None:
        return [f"unknown event type {event.get('type')!r}"]
    found = [f"{error.json_path}: {error.message}" for error in _envelope().iter_errors(event)]
    found += [
        f"$.data{error.json_path[1:]}: {error.message}"
        for error in _validator(contract.type).iter_errors(event.get("data"))
    ]
    if event.get("source") != f"/services/{contract.producer}":
        found.append(f"$.source: {contract.type} comes from {contract.producer}")
    return found
