"""SQL by name: a package's `queries.sql`, split at its `-- name: …` lines."""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

_HEADING = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


def load_queries(package: str, filename: str = "queries.sql") -> Mapping[str, str]:
    """`load_queries("leads")["insert_lead"]` is the text under `-- name: insert_lead`. A name used twice is a ValueError."""
    text = files(package).joinpath(filename).read_text(encoding="utf-8")
    parts = _HEADING.split(text)[1:]
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{package}/{filename} names a query twice")
    return MappingProxyType({name: body.strip().rstrip(";") for name, body in zip(names, bodies, strict=True)})
