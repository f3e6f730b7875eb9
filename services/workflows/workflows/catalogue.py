"""Definitions ready to run: parsed once per process, for versions never change."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.database import PooledConnection
from workflows.engine.definition import Definition, DefinitionInvalid, ManualTrigger, parse_definition, read_trigger
from workflows.engine.graph import Graph, draw
from workflows.errors import DefinitionUnreadable
from workflows.repository import read_definition
from workflows.steps import STEP_TYPES

MAX_PLANS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a workflow, ready to run."""

    workflow_id: str
    name: str
    version: int
    definition: Definition
    graph: Graph
    unreadable: str | None = None
    """Why this release cannot read the version, which another release saved; then there are no steps here."""


class Catalogue:
    """The plans used last."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str, int], Plan] = OrderedDict()

    async def plan(self, connection: PooledConnection, workspace_id: str, workflow_id: str, version: int) -> Plan:
        """The plan of a version that exists. DefinitionUnreadable."""
        plan = await self.find(connection, workspace_id, workflow_id, version)
        if plan.unreadable is not None:
            raise DefinitionUnreadable(f"The workflow's {plan.unreadable}")
        return plan

    async def find(self, connection: PooledConnection, workspace_id: str, workflow_id: str, version: int) -> Plan:
        """The same, for those who must go on where it is unreadable."""
        key = workspace_id, workflow_id, version
        if (known := self._plans.get(key)) is not None:
            self._plans.move_to_end(key)
            return known
        document = await read_definition(connection, workspace_id, workflow_id, version)
        plan = _read(workflow_id, version, document)
        self._plans[key] = plan
        if len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return plan


def _read(workflow_id: str, version: int, document: Mapping[str, Any]) -> Plan:
    name = str(document["name"])
    try:
        definition = parse_definition(document, STEP_TYPES)
    except DefinitionInvalid as error:
        trigger = read_trigger(document.get("trigger"), []) or ManualTrigger(type="manual")
        nothing = Graph(_first_step_id(document), {}, {}, {})
        reason = f"version {version} cannot be read by this release: {str(error)[:300]}"
        return Plan(workflow_id, name, version, Definition(trigger, (), False, {}), nothing, reason)
    return Plan(workflow_id, name, version, definition, draw(definition))


def _first_step_id(document: Mapping[str, Any]) -> str:
    match document:
        case {"steps": [{"id": str(step_id)}, *_]}:
            return step_id
    return ""
