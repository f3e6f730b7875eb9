"""How rows become what models.py describes."""

from typing import Any, Protocol, TypeVar, cast

import msgspec
import orjson

from crm_sync.mapping import decode_mapping
from crm_sync.models import Connection, StoredError


class Row(Protocol):
    """A record of the driver, read by column name."""

    def __getitem__(self, name: str, /) -> Any: ...


_Struct = TypeVar("_Struct")

_CONNECTION_TEXTS = frozenset(("settings", "mapping"))


def connection_from(row: Row) -> Connection:
    """A row of `live_connections`."""
    values = {name: row[name] for name in Connection.__dataclass_fields__ if name not in _CONNECTION_TEXTS}
    return Connection(settings=orjson.loads(row["settings"]), mapping=decode_mapping(row["mapping"]), **values)


def error_from(text: str | None) -> StoredError | None:
    """A stored error, or None."""
    return msgspec.json.decode(text, type=StoredError) if text is not None else None


def error_text(error: StoredError | None) -> str | None:
    """An error as it is stored."""
    return msgspec.json.encode(error).decode() if error is not None else None


def json_text(value: Any) -> str | None:
    """A value for a jsonb column; None stays NULL."""
    return orjson.dumps(value).decode() if value is not None else None


def json_value(text: str | None) -> Any:
    """The value of a jsonb column."""
    return orjson.loads(text) if text is not None else None


def build(kind: type[_Struct], row: Row, **replaced: Any) -> _Struct:
    """A dataclass from the columns that carry its fields' names."""
    fields = cast(Any, kind).__dataclass_fields__
    return kind(**{name: row[name] for name in fields if name not in replaced}, **replaced)
