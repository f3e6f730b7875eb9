"""What a definition must keep beyond its form: every step can be reached, every name it reads exists at that place."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from workflows.engine.definition import (
    Definition,
    DefinitionInvalid,
    EventTrigger,
    Problem,
    Step,
    StepTypes,
    parse_definition,
)
from workflows.engine.expression import Expression
from workflows.engine.graph import Graph, draw
from workflows.engine.paths import STEP_ROOTS, TRIGGER_ROOTS, Path, unknown_name
from workflows.engine.template import JsonTemplate, Template


def check_definition(data: Mapping[str, Any], step_types: StepTypes) -> tuple[Definition, Graph]:
    """Parse and check a definition; DefinitionInvalid lists every wrong place."""
    definition = parse_definition(data, step_types)
    graph = draw(definition)
    problems = [*_unreachable(definition.steps, definition.pointers), *_missing_names(definition, graph)]
    if problems:
        raise DefinitionInvalid(problems)
    return definition, graph


def _unreachable(steps: Sequence[Step], pointers: Mapping[str, str]) -> Iterator[Problem]:
    reached = True
    for step in steps:
        if not reached:
            yield Problem(pointers[step.id], f"step {step.id!r} can never be reached: every way before it ends the run")
            return
        ways = step.ways()
        for name in step.branches:
            nested = step.branch(name)
            if nested and name not in ways:
                yield Problem(
                    pointers[nested[0].id], f"step {nested[0].id!r} can never be reached: its condition is constant"
                )
            yield from _unreachable(nested, pointers)
        reached = any(_goes_on(step, way) for way in ways)


def _goes_on(step: Step, way: str | None) -> bool:
    """True if a run that leaves `step` this way can come out behind it."""
    if way is None:
        return True
    nested = step.branch(way)
    return all(any(_goes_on(inner, inner_way) for inner_way in inner.ways()) for inner in nested)


def _missing_names(definition: Definition, graph: Graph) -> Iterator[Problem]:
    if isinstance(definition.trigger, EventTrigger) and definition.trigger.condition is not None:
        for path in definition.trigger.condition.paths:
            if complaint := unknown_name(path, TRIGGER_ROOTS, {}):
                yield Problem("/trigger/condition", complaint)
    for step in graph.steps.values():
        known = {earlier.id: earlier.outputs for earlier in graph.earlier[step.id]}
        for pointer, path in places(step):
            if complaint := unknown_name(path, STEP_ROOTS | step.extra_roots(pointer), known):
                yield Problem(definition.pointers[step.id] + pointer, complaint)


def places(step: Step) -> Iterator[tuple[str, Path]]:
    """Every path that a step's own fields read, with the pointer of its place within the step."""
    for name, field in type(step).model_fields.items():
        json_name = field.alias or name
        if json_name not in step.branches:
            yield from _places_in(getattr(step, name), f"/{json_name}")


def _places_in(value: Any, pointer: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield pointer, value
    elif isinstance(value, Expression | Template | JsonTemplate):
        for path in value.paths:
            yield pointer, path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _places_in(item, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _places_in(getattr(value, name), f"{pointer}/{field.alias or name}")
