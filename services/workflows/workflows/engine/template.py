"""Templates: text and JSON with `{{ path }}` in them, and nothing else: no filters, no logic, no way to call anything.

A string that is one placeholder keeps the value's type (`"{{ lead.score }}"` gives a number); within longer text a value is
written as text, null as nothing. In a URL a value is percent-encoded, and an empty one is an error.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from workflows.engine.paths import Path

MAX_RENDERED_CHARACTERS = 256 * 1024
MAX_DEPTH = 16

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")


class TemplateError(Exception):
    """A template could not be rendered with this run's values."""


class Template:
    """Text with placeholders. Built from text; ValueError says what is wrong with it."""

    __slots__ = ("paths", "pieces", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces: tuple[str | Path, ...] = tuple(_pieces(text))
        self.paths: tuple[Path, ...] = tuple(piece for piece in self.pieces if isinstance(piece, Path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def value(self, scope: Mapping[str, Any]) -> Any:
        """The value of a single placeholder as it is, anything else as text."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Path):
            return self.pieces[0].find(scope)
        return self.render(scope)

    def render(self, scope: Mapping[str, Any]) -> str:
        """The text with every placeholder filled in."""
        return _joined(piece if isinstance(piece, str) else as_text(piece.find(scope)) for piece in self.pieces)

    def render_url(self, scope: Mapping[str, Any]) -> str:
        """The text with every value percent-encoded; TemplateError if one is empty or only dots."""
        return _joined(piece if isinstance(piece, str) else self._url_part(piece, scope) for piece in self.pieces)

    @staticmethod
    def _url_part(path: Path, scope: Mapping[str, Any]) -> str:
        text = as_text(path.find(scope))
        if not text:
            raise TemplateError(f"{path} is empty, and a URL needs it")
        if not text.strip("."):  # RFC 3986, 5.2.4: such a segment would lead to another path
            raise TemplateError(f"{path} is only dots, which a URL cannot hold")
        return quote(text, safe="")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda template: template.text),
        )


class JsonTemplate:
    """JSON whose strings are templates. Built from JSON; ValueError says what is wrong with it."""

    __slots__ = ("_tree", "paths", "source")

    def __init__(self, source: Any) -> None:
        self.source = source
        self._tree = _compiled(source, MAX_DEPTH, "")
        self.paths: tuple[Path, ...] = tuple(_tree_paths(self._tree))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonTemplate) and other.source == self.source

    __hash__ = None  # type: ignore[assignment]

    def value(self, scope: Mapping[str, Any]) -> Any:
        """The JSON with every placeholder filled in; TemplateError when more than MAX_RENDERED_CHARACTERS are filled in."""
        return _rendered(self._tree, scope, _Allowance())

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.any_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda template: template.source),
        )


def as_text(value: Any) -> str:
    """A value within text: strings as they are, null as nothing, everything else as JSON writes it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _pieces(text: str) -> Iterator[str | Path]:
    position = 0
    for match in _PLACEHOLDER.finditer(text):
        yield from _literal(text[position : match.start()])
        yield Path.parse(match[1])
        position = match.end()
    yield from _literal(text[position:])


def _literal(text: str) -> Iterator[str]:
    if "{{" in text or "}}" in text:
        raise ValueError("a placeholder is written {{ lead.email }}: two braces on each side around one path")
    if text:
        yield text


class _Allowance:
    """What may still be filled in: a short template can name one large value many times."""

    def __init__(self) -> None:
        self._left = MAX_RENDERED_CHARACTERS

    def spend(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise TemplateError(f"more than {MAX_RENDERED_CHARACTERS} characters came out of the template")
        return text


def _joined(parts: Iterator[str]) -> str:
    allowance = _Allowance()
    return "".join(allowance.spend(part) for part in parts)


def _compiled(source: Any, depth: int, place: str) -> Any:
    if isinstance(source, str):
        try:
            return Template(source)
        except ValueError as error:
            raise ValueError(f"at {place}: {error}" if place else str(error)) from error
    if isinstance(source, dict | list) and depth == 0:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(source, dict):
        if any("{{" in key for key in source):
            raise ValueError("placeholders stand in values, not in names")
        return {key: _compiled(item, depth - 1, f"{place}/{key}") for key, item in source.items()}
    if isinstance(source, list):
        return [_compiled(item, depth - 1, f"{place}/{index}") for index, item in enumerate(source)]
    return source


def _tree_paths(tree: Any) -> Iterator[Path]:
    if isinstance(tree, Template):
        yield from tree.paths
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tree_paths(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from _tree_paths(item)


def _rendered(tree: Any, scope: Mapping[str, Any], allowance: _Allowance) -> Any:
    if isinstance(tree, Template):
        value = tree.value(scope)
        allowance.spend(as_text(value))
        return value
    if isinstance(tree, dict):
        return {key: _rendered(item, scope, allowance) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_rendered(item, scope, allowance) for item in tree]
    return tree
