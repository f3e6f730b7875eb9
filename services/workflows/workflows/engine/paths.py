"""Paths into what a run knows: `lead.email`, `steps.enrich.body.id`, `trigger.lead.custom["plan"]`.

Expressions and templates name values by such paths; the roots and what may follow them are listed here, once.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LEAD_FIELDS = frozenset(
    [
        "id",
        "email",
        "phone",
        "first_name",
        "last_name",
        "company",
        "title",
        "source",
        "stage",
        "score",
        "owner_id",
        "tags",
        "custom",
        "consent",
        "external_ids",
        "version",
        "created_at",
        "updated_at",
    ]
)
"""The fields of a lead, as libs/contracts' lead.json has them (a test compares the two)."""

TRIGGER_FIELDS = frozenset({"type", "event", "event_id", "time", "lead", "changed", "previous"})
RUN_FIELDS = frozenset({"id"})
WORKFLOW_FIELDS = frozenset({"id", "name", "version"})
CRM_EVENT_FIELDS = frozenset(
    [
        "type",
        "connection_id",
        "connection_name",
        "vendor",
        "lead_id",
        "external_id",
        "version",
        "operation",
        "created",
        "request_id",
        "kind",
        "error",
    ]
)

TRIGGER_ROOTS = frozenset({"lead", "changed", "previous"})
STEP_ROOTS = TRIGGER_ROOTS | {"trigger", "steps", "run", "workflow"}

_MISSING = object()
_TOKEN = re.compile(
    r"""\s*(?: (?P<name>[A-Za-z_][A-Za-z0-9_]*) | \[\s*(?P<index>\d{1,6})\s*\] | \[\s*"(?P<key>[^"\\]{1,200})"\s*\] | (?P<dot>\.) )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Path:
    """A root and the names and indexes that follow it."""

    parts: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> "Path":
        """The path written in `text`; ValueError says what is wrong with it."""
        parts: list[str | int] = []
        position, expects_name = 0, True
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise ValueError(f"{text.strip()!r} is not a path such as lead.email or steps.call.body.id")
            position = match.end()
            if match["dot"]:
                if expects_name:
                    raise ValueError(f"{text.strip()!r} has a dot in the wrong place")
                expects_name = True
            elif match["name"]:
                if not expects_name:
                    raise ValueError(f"{text.strip()!r} lacks a dot before {match['name']!r}")
                parts.append(match["name"])
                expects_name = False
            else:
                if expects_name:
                    raise ValueError(f"{text.strip()!r} has an index in the wrong place")
                parts.append(int(match["index"]) if match["index"] else match["key"])
        if expects_name:
            raise ValueError("a path such as lead.email is missing" if not parts else f"{text.strip()!r} ends in a dot")
        return cls(tuple(parts))

    def __str__(self) -> str:
        first, *rest = self.parts
        return str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)

    @property
    def root(self) -> str:
        return str(self.parts[0])

    def find(self, scope: Mapping[str, Any]) -> Any:
        """The value at this path, or None where the way to it ends."""
        value: Any = scope
        for part in self.parts:
            value = _step_into(value, part)
            if value is _MISSING:
                return None
        return value


def _step_into(value: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return value[part] if isinstance(value, list) and part < len(value) else _MISSING
    return value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING


def unknown_name(path: Path, roots: frozenset[str], steps: Mapping[str, frozenset[str] | None]) -> str | None:
    """What is wrong with a path at a place where `roots` may be used and `steps` may have run, or None.

    `steps` maps each such step's id to the names of its outputs, None where they are open.
    """
    return next(_complaints(path, roots, steps), None)


def _complaints(path: Path, roots: frozenset[str], steps: Mapping[str, frozenset[str] | None]) -> Iterator[str]:
    if path.root not in roots:
        yield f"{path.root!r} is not known here; use one of {', '.join(sorted(roots))}"
        return
    rest = path.parts[1:]
    fields: Mapping[str, frozenset[str]] = {
        "lead": LEAD_FIELDS,
        "previous": LEAD_FIELDS,
        "trigger": TRIGGER_FIELDS,
        "run": RUN_FIELDS,
        "workflow": WORKFLOW_FIELDS,
        "event": CRM_EVENT_FIELDS,
    }
    if path.root == "trigger" and rest[:1] in (("lead",), ("previous",)):
        yield from _complaints(Path(("lead", *rest[1:])), frozenset({"lead"}), steps)
    elif path.root in fields and rest and rest[0] not in fields[path.root]:
        yield f"{path.root} has no field {rest[0]!r}"
    elif path.root == "steps" and rest:
        yield from _step_complaints(rest, steps)


def _step_complaints(rest: tuple[str | int, ...], steps: Mapping[str, frozenset[str] | None]) -> Iterator[str]:
    step_id = str(rest[0])
    if step_id not in steps:
        yield f"no step {step_id!r} runs before this one"
        return
    outputs = steps[step_id]
    if outputs is not None and len(rest) > 1 and rest[1] not in outputs:
        yield f"step {step_id!r} has no output {rest[1]!r}; it has {', '.join(sorted(outputs)) or 'none'}"
