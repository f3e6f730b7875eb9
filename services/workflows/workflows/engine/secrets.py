"""Secrets in definitions: written once as text, from then on named by id.

`{"secret": "Bearer …"}` is accepted when a definition is saved, sealed, and shown ever after as `{"secret_id": "sec_…"}`;
sending that back keeps the secret.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, model_validator

from workflows.engine.definition import Definition, Strict


class SecretRef(Strict):
    """Exactly one of the secret itself (only when saving) and its id."""

    secret: str | None = Field(
        default=None, min_length=1, max_length=4096, description="The secret; stored sealed, never shown again."
    )
    secret_id: str | None = Field(default=None, max_length=64, description="A secret saved earlier with this workflow.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretRef":
        if (self.secret is None) == (self.secret_id is None):
            raise ValueError('write {"secret": "…"} once, afterwards {"secret_id": "sec_…"}')
        return self


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """A reference in a definition, and the pointer to where it stands."""

    pointer: str
    reference: SecretRef


def secret_places(definition: Definition, steps: Mapping[str, Any]) -> Iterator[SecretPlace]:
    """Every secret a definition names. `steps` are its steps by id."""
    for step_id, pointer in definition.pointers.items():
        for place, reference in _references(steps[step_id], ""):
            yield SecretPlace(pointer + place, reference)


def _references(value: Any, pointer: str) -> Iterator[tuple[str, SecretRef]]:
    if isinstance(value, SecretRef):
        yield pointer, value
    elif isinstance(value, BaseModel):
        branches = getattr(type(value), "branches", ())
        for name, field in type(value).model_fields.items():
            json_name = field.alias or name
            if json_name not in branches:
                yield from _references(getattr(value, name), f"{pointer}/{json_name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _references(item, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")


def take_secrets(
    document: Mapping[str, Any], places: Iterable[SecretPlace], make_id: Callable[[], str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """A copy of a definition's JSON with each secret replaced by a new id, and the secrets by id."""
    cleaned = copy.deepcopy(dict(document))
    taken: dict[str, str] = {}
    for place in places:
        if place.reference.secret is not None:
            secret_id = make_id()
            taken[secret_id] = place.reference.secret
            _replace(cleaned, place.pointer, {"secret_id": secret_id})
    return cleaned, taken


def _replace(document: Any, pointer: str, value: Any) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in way:
        document = document[int(part)] if isinstance(document, list) else document[part]
    document[last] = value
