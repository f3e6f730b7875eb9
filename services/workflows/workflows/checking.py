"""Checks of a definition against what this installation knows: users, secrets, reachable addresses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from chassis.database import PooledConnection
from chassis.http import OutboundClient, OutboundRefused
from chassis.ids import new_id
from chassis.vault import Vault
from workflows import repository
from workflows.engine.definition import MAX_DEFINITION_BYTES, Definition, DefinitionInvalid, Problem
from workflows.engine.graph import Graph
from workflows.engine.secrets import SecretPlace, secret_places, take_secrets
from workflows.engine.validation import check_definition
from workflows.errors import DefinitionRefused
from workflows.steps import STEP_TYPES
from workflows.steps.assign_owner import AssignOwner
from workflows.steps.http_request import HttpRequest

_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


@dataclass(frozen=True, slots=True)
class Checked:
    """A definition fit to be stored: `document` names secrets by id, `sealed` holds the new ones."""

    document: dict[str, Any]
    sealed: dict[str, str]
    definition: Definition
    graph: Graph


class DefinitionChecker:
    """Says whether a definition can be saved, and with what."""

    def __init__(self, vault: Vault, outbound: OutboundClient) -> None:
        self._vault = vault
        self._outbound = outbound

    async def check(
        self, connection: PooledConnection, workspace_id: str, workflow_id: str, document: Mapping[str, Any]
    ) -> Checked:
        """DefinitionRefused lists every place that must be put right."""
        if problem := _too_large(document):  # before anything is made of it
            raise DefinitionRefused.of([problem])
        try:
            definition, graph = check_definition(document, STEP_TYPES)
        except DefinitionInvalid as error:
            raise DefinitionRefused.of(error.problems) from error
        places = list(secret_places(definition, graph.steps))
        problems = [
            *self._addresses(definition, graph),
            *await _unknown_users(connection, workspace_id, definition, graph),
            *await _unknown_secrets(connection, workspace_id, workflow_id, places),
        ]
        if problems:
            raise DefinitionRefused.of(problems)
        cleaned, taken = take_secrets(document, places, lambda: new_id("sec"))
        sealed = {
            secret_id: self._vault.seal(secret.encode(), f"{workspace_id}/{secret_id}".encode())
            for secret_id, secret in taken.items()
        }
        return Checked(cleaned, sealed, definition, graph)

    def _addresses(self, definition: Definition, graph: Graph) -> Iterator[Problem]:
        for step in graph.steps.values():
            for place, url in step.urls() if isinstance(step, HttpRequest) else ():
                try:
                    self._outbound.check_url(_PLACEHOLDER.sub("x", url))
                except OutboundRefused as error:
                    yield Problem(definition.pointers[step.id] + place, str(error))


def _too_large(document: Mapping[str, Any]) -> Problem | None:
    size = len(orjson.dumps(document))
    if size <= MAX_DEFINITION_BYTES:
        return None
    return Problem("", f"a definition has at most {MAX_DEFINITION_BYTES} bytes, this one has {size}")


async def _unknown_users(
    connection: PooledConnection, workspace_id: str, definition: Definition, graph: Graph
) -> list[Problem]:
    steps = [step for step in graph.steps.values() if isinstance(step, AssignOwner)]
    named = sorted({user for step in steps for user in step.users})
    known = await repository.known_users(connection, workspace_id, named) if named else {}
    problems = []
    for step in steps:
        pointer = f"{definition.pointers[step.id]}/users"
        unknown = [index for index, user in enumerate(step.users) if user not in known]
        problems += [Problem(f"{pointer}/{index}", "there is no such user") for index in unknown]
        if not unknown and not any(known[user] for user in step.users):
            problems.append(Problem(pointer, "none of these users is active"))
    return problems


async def _unknown_secrets(
    connection: PooledConnection, workspace_id: str, workflow_id: str, places: Sequence[SecretPlace]
) -> list[Problem]:
    named = [(place.pointer, place.reference.secret_id) for place in places if place.reference.secret_id is not None]
    if not named:
        return []
    wanted = [secret_id for _, secret_id in named]
    known = await repository.known_secrets(connection, workspace_id, workflow_id, wanted)
    return [
        Problem(f"{pointer}/secret_id", "this workflow has no such secret")
        for pointer, secret_id in named
        if secret_id not in known
    ]
