"""Definitions ready to run: parsed once per process, for versions never change."""

from collections import OrderedDict
from dataclasses import dataclass

from chassis.database import PooledConnection
from workflows.engine.definition import Definition, parse_definition
from workflows.engine.graph import Graph, draw
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


class Catalogue:
    """The plans used last."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str, int], Plan] = OrderedDict()

    async def plan(self, connection: PooledConnection, workspace_id: str, workflow_id: str, version: int) -> Plan:
        """The plan of a version that exists."""
        key = workspace_id, workflow_id, version
        if (known := self._plans.get(key)) is not None:
            self._plans.move_to_end(key)
            return known
        document = await read_definition(connection, workspace_id, workflow_id, version)
        definition = parse_definition(document, STEP_TYPES)
        plan = Plan(workflow_id, str(document["name"]), version, definition, draw(definition))
        self._plans[key] = plan
        if len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return plan
