"""Conditions in CEL (Common Expression Language, https://cel.dev), kept small enough to be evaluated on the event loop.

The interpreter has no cost limit and holds the interpreter lock while it runs, so what can be expensive is refused when a
definition is saved: comprehensions (they show themselves by functions outside the allowed ones), regular expressions
that are not short literals, and long texts. What a condition reads is bounded by `bounded`.
"""

import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from workflows.engine.paths import Path

# The package imports its own command line, and with it a terminal toolkit: half a second and 27 MB a process, for nothing.
sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
import cel  # noqa: E402

MAX_CHARACTERS = 1000
MAX_PATTERN_CHARACTERS = 200
MAX_STRING = 10_000
MAX_ITEMS = 1_000
MAX_DEPTH = 12

ALLOWED_FUNCTIONS = frozenset(
    [
        "_&&_",
        "_||_",
        "!_",
        "_>_",
        "_<_",
        "_>=_",
        "_<=_",
        "_==_",
        "_!=_",
        "@in",
        "_[_]",
        "size",
        "startsWith",
        "endsWith",
        "contains",
        "matches",
    ]
)
"""Every comprehension macro needs a function outside this list, so the list refuses them all."""

EVALUATION_ERRORS = (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError)

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|//[^\n]*)
    | (?P<string>(?:[bB]?[rR][bB]?)(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"]*"|'[^']*')
        | [bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))
    | (?P<number>(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)u?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS = frozenset({"true", "false", "null", "in"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition is met, and why not if it could not be evaluated."""

    met: bool
    note: str | None = None


class Expression:
    """A compiled condition. Built from text; ValueError says what is wrong with it."""

    __slots__ = ("paths", "text")

    def __init__(self, text: str) -> None:
        _program(text)
        self.text = text
        self.paths: tuple[Path, ...] = tuple(_paths(text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def judge(self, scope: Mapping[str, Any]) -> Verdict:
        """Evaluate over `scope` (see `bounded`). Only `true` meets a condition; one that cannot be evaluated is not met.

        A field that is empty or absent makes a comparison like `>` impossible, which is no reason to stop a run.
        """
        try:
            result = _program(self.text).execute(dict(scope))
        except EVALUATION_ERRORS as error:
            return Verdict(False, f"could not be evaluated: {str(error)[:200]}")
        if isinstance(result, bool):
            return Verdict(result)
        return Verdict(False, f"gave {type(result).__name__} instead of true or false")

    def constant(self) -> bool | None:
        """The answer of a condition that reads nothing, else None."""
        return None if self.paths else self.judge({}).met

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(min_length=1, max_length=MAX_CHARACTERS),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda expression: expression.text),
        )


@lru_cache(maxsize=2048)
def _program(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"an expression has at most {MAX_CHARACTERS} characters")
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise ValueError(_first_complaint(str(error))) from error
    if refused := sorted(set(program.functions()) - ALLOWED_FUNCTIONS):
        raise ValueError(
            f"this function, operator or comprehension is not allowed: {', '.join(map(_readable, refused))}"
        )
    if unknown := sorted(set(program.variables()) - {path.root for path in _paths(text)}):
        raise ValueError(f"not understood: {', '.join(unknown)}")
    return program


def _readable(function: str) -> str:
    return {"@not_strictly_false": "all/exists", "_?_:_": "?:"}.get(function, function.strip("_@"))


def _first_complaint(message: str) -> str:
    """The parser's first complaint without the text it repeats."""
    complaint = message.partition("ERROR: ")[2].split("\n")[0]
    return f"not valid CEL: {complaint[:200] or 'it could not be parsed'}"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str

    def is_mark(self, mark: str) -> bool:
        return self.kind == "mark" and self.text == mark


_END = _Token("end", "")


def _tokens(text: str) -> list[_Token]:
    return [
        _Token(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(text) if match.lastgroup != "space"
    ]


def _paths(text: str) -> Iterator[Path]:
    """The paths an expression reads; ValueError for forms that hide what they read or cost."""
    tokens = _tokens(text)
    _check_patterns(tokens)
    position = 0
    while position < len(tokens):
        token = tokens[position]
        after = tokens[position + 1] if position + 1 < len(tokens) else _END
        before = tokens[position - 1] if position else _END
        if token.is_mark(".") and (before is _END or (before.kind == "mark" and before.text not in ")]}")):
            raise ValueError("a name cannot begin with a dot")
        if token.kind != "name" or token.text in _WORDS or after.is_mark("(") or before.is_mark("."):
            position += 1
            continue
        path, position = _read_path(tokens, position)
        if position < len(tokens) and tokens[position].is_mark("{"):
            raise ValueError("messages cannot be built here")
        yield path


def _read_path(tokens: list[_Token], position: int) -> tuple[Path, int]:
    """The path that begins at `position`, and where it ends: before a method call or a computed index."""
    parts: list[str | int] = [tokens[position].text]
    position += 1
    while position < len(tokens):
        ahead = [*tokens[position : position + 3], _END, _END, _END]
        if ahead[0].is_mark(".") and ahead[1].kind == "name" and not ahead[2].is_mark("("):
            parts.append(ahead[1].text)
            position += 2
        elif ahead[0].is_mark("[") and ahead[1].kind == "string" and ahead[2].is_mark("]"):
            parts.append(ahead[1].text.strip("\"'"))
            position += 3
        else:
            break
    return Path(tuple(parts)), position


def _check_patterns(tokens: list[_Token]) -> None:
    """A pattern costs what its text says, at every evaluation: patterns are short literals without counted repetition."""
    total = 0
    for position, (token, after) in enumerate(pairwise(tokens)):
        if token.kind == "name" and token.text == "matches" and after.is_mark("("):
            following = tokens[position + 2 : position + 4]
            if len(following) != 2 or following[0].kind != "string" or not following[1].is_mark(")"):
                raise ValueError("matches() takes a pattern written out in quotes")
            pattern = _pattern(following[0].text)
            total += len(pattern)
            if total > MAX_PATTERN_CHARACTERS or "{" in pattern:
                raise ValueError(
                    f"patterns have at most {MAX_PATTERN_CHARACTERS} characters and no counted repetition such as a{{3}}"
                )


def _pattern(literal: str) -> str:
    """The pattern that a CEL string literal stands for, its escapes read (`\\x7b` is a brace too)."""
    try:
        pattern = cel.compile(literal).execute({})
        cel.compile(f'"".matches({literal})').execute({})
    except EVALUATION_ERRORS as error:
        raise ValueError("the pattern of matches() is not a regular expression") from error
    if not isinstance(pattern, str):
        raise ValueError("the pattern of matches() is not a text")  # noqa: TRY004 - what pydantic reports
    return pattern


def bounded(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A copy of JSON data small enough for a condition: long strings and lists cut, deep and odd values made null."""
    if isinstance(value, str):
        return value[:MAX_STRING]
    if isinstance(value, Mapping) and depth:
        return {str(key): bounded(item, depth - 1) for key, item in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list | tuple) and depth:
        return [bounded(item, depth - 1) for item in value[:MAX_ITEMS]]
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_number else None
