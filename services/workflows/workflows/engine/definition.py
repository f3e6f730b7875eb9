"""A definition as data: what starts a workflow, and its steps. Parsing gives typed steps, or every wrong place by pointer.

Step types are given from outside (workflows.steps lists them), so that a new one is one new file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from workflows.engine.expression import Expression

MAX_STEPS = 50
MAX_NESTING = 6
MAX_DEFINITION_BYTES = 64 * 1024

LEAD_EVENTS = ("lead.created", "lead.updated", "lead.deleted", "lead.restored")
CRM_EVENTS = ("crm.lead.synced", "crm.lead.failed")

_STEP_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)
"""CEL's reserved words (cel-spec, "Syntax"): `steps.in` would not parse."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong place: an RFC 6901 pointer into the definition, and a sentence."""

    pointer: str
    detail: str


class DefinitionInvalid(Exception):
    """A definition cannot be saved; `problems` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.pointer}: {problem.detail}" for problem in problems))
        self.problems = tuple(problems)


def _step_id(text: str) -> str:
    if not _STEP_ID.fullmatch(text) or text in _RESERVED:
        raise ValueError("a step's id is lower case letters, digits and _, begins with a letter, and is no word of CEL")
    return text


class Strict(BaseModel):
    """A part of a definition: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False, arbitrary_types_allowed=True)


class Step(Strict):
    """What every step has. Subclasses add their fields, in steps/."""

    branches: ClassVar[tuple[str, ...]] = ()
    """JSON names of the fields that hold lists of steps."""
    outputs: ClassVar[frozenset[str] | None] = frozenset()
    """What later steps may read as `steps.<id>.<name>`; None where any name may be."""
    id: Annotated[str, AfterValidator(_step_id)] = Field(
        description="Names the step in expressions, templates and run views; unique within the workflow.",
        examples=["notify"],
    )
    type: str

    def branch(self, name: str) -> tuple["Step", ...]:
        """The steps of the branch with this JSON name."""
        raise KeyError(name)

    def extra_roots(self, _place: str) -> frozenset[str]:
        """Names known besides the usual ones at a place (a pointer within the step)."""
        return frozenset()

    def ways(self) -> frozenset[str | None]:
        """The ways on from this step: names of branches, None for the step that follows. Empty: the run ends here."""
        return frozenset({None})


class EventTrigger(Strict):
    """Starts a run for each such event about a lead whose `condition` holds."""

    type: Literal["event"]
    event: Literal["lead.created", "lead.updated", "lead.deleted", "lead.restored"]
    condition: Expression | None = Field(
        default=None, description="CEL over `lead`, `changed` and `previous`.", examples=["lead.score >= 50"]
    )


class ManualTrigger(Strict):
    """Starts a run when somebody asks for one, for a lead."""

    type: Literal["manual"]


Trigger = EventTrigger | ManualTrigger
TRIGGER_TYPES: dict[str, type[EventTrigger | ManualTrigger]] = {"event": EventTrigger, "manual": ManualTrigger}


@dataclass(frozen=True, slots=True)
class Definition:
    """A parsed definition. `pointers` says where each step stands in the JSON it came from."""

    trigger: Trigger
    steps: tuple[Step, ...]
    allow_reentry: bool
    pointers: Mapping[str, str]

    @property
    def trigger_event(self) -> str | None:
        return self.trigger.event if isinstance(self.trigger, EventTrigger) else None


StepTypes = Mapping[str, type[Step]]


def parse_definition(data: Mapping[str, Any], step_types: StepTypes) -> Definition:
    """Parse `{"trigger": …, "steps": […], "allow_reentry": …}`; DefinitionInvalid lists every wrong place."""
    problems: list[Problem] = []
    trigger = read_trigger(data.get("trigger"), problems)
    reader = _StepReader(step_types, problems)
    steps = reader.read_list(data.get("steps"), "/steps", MAX_NESTING)
    if data.get("steps") == []:
        problems.append(Problem("/steps", "a workflow has at least one step"))
    if reader.count > MAX_STEPS:
        problems.append(Problem("/steps", f"a workflow has at most {MAX_STEPS} steps, nested ones counted"))
    if problems or trigger is None:
        raise DefinitionInvalid(problems)
    return Definition(trigger, steps, bool(data.get("allow_reentry", False)), reader.pointers)


def read_trigger(raw: Any, problems: list[Problem]) -> Trigger | None:
    """The trigger, None if it is wrong: then `problems` grow."""
    kind = raw.get("type") if isinstance(raw, dict) else None
    model = TRIGGER_TYPES.get(kind) if isinstance(kind, str) else None
    if model is None:
        place = "/trigger/type" if isinstance(raw, dict) else "/trigger"
        problems.append(
            Problem(place, 'a trigger is {"type": "event", "event": …, "condition": …} or {"type": "manual"}')
        )
        return None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems += _problems(error, "/trigger", raw)
        return None


class _StepReader:
    """Reads lists of steps, nested ones too, noting every wrong place."""

    def __init__(self, step_types: StepTypes, problems: list[Problem]) -> None:
        self._types = step_types
        self._problems = problems
        self.pointers: dict[str, str] = {}
        self.count = 0

    def read_list(self, raw: Any, pointer: str, depth: int) -> tuple[Step, ...]:
        if not isinstance(raw, list):
            self._problems.append(Problem(pointer, "must be a list of steps"))
            return ()
        if depth == 0:
            self._problems.append(Problem(pointer, f"steps are nested more than {MAX_NESTING} deep"))
            return ()
        found = [self._read_step(item, f"{pointer}/{index}", depth) for index, item in enumerate(raw)]
        return tuple(step for step in found if step is not None)

    def _read_step(self, raw: Any, pointer: str, depth: int) -> Step | None:
        self.count += 1
        if self.count > MAX_STEPS:
            return None
        model = self._model(raw, pointer)
        if model is None:
            return None
        nested = {
            name: self.read_list(raw[name], f"{pointer}/{name}", depth - 1) for name in model.branches if name in raw
        }
        try:
            step = model.model_validate({**raw, **nested})
        except ValidationError as error:
            self._problems += _problems(error, pointer, raw)
            return None
        if step.id in self.pointers:
            self._problems.append(Problem(f"{pointer}/id", f"{step.id!r} is also the id of {self.pointers[step.id]}"))
        self.pointers.setdefault(step.id, pointer)
        return step

    def _model(self, raw: Any, pointer: str) -> type[Step] | None:
        if not isinstance(raw, dict):
            self._problems.append(Problem(pointer, "a step must be an object"))
            return None
        if "type" not in raw:
            self._problems.append(Problem(f"{pointer}/type", "field required"))
            return None
        model = self._types.get(raw["type"]) if isinstance(raw["type"], str) else None
        if model is None:
            known = ", ".join(sorted(self._types))
            self._problems.append(Problem(f"{pointer}/type", f"unknown step type; the types are {known}"))
        return model


def _problems(error: ValidationError, pointer: str, data: Any) -> Iterator[Problem]:
    for complaint in error.errors(include_url=False, include_context=False, include_input=False):
        detail = complaint["msg"].removeprefix("Value error, ")
        if complaint["type"] == "extra_forbidden":
            detail = "unknown field"
        yield Problem(pointer + _pointer(complaint["loc"], data), detail[0].lower() + detail[1:])


def _pointer(location: Sequence[str | int], data: Any) -> str:
    """pydantic's location as a pointer: parts that name a union's member (`#…`) are no places in the data."""
    pointer = ""
    for index, part in enumerate(location):
        is_place = (isinstance(data, Mapping) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        is_missing = index == len(location) - 1 and isinstance(data, Mapping) and not str(part).startswith("#")
        if is_place or is_missing:
            pointer += "/" + str(part).replace("~", "~0").replace("/", "~1")
            data = data[part] if is_place else None
    return pointer
