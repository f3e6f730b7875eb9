"""A lead, and how it is shown to the world. Knows neither HTTP nor SQL."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal, get_args

import orjson

from chassis.clock import rfc3339

Stage = Literal["new", "contacted", "qualified", "converted", "lost"]
STAGES: Final = get_args(Stage)

CLIENT_FIELDS: Final = (
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
)
"""What a client sets, in the order in which it is shown."""

EMPTY_FIELDS: Final[Mapping[str, Any]] = dict.fromkeys(CLIENT_FIELDS) | {
    "stage": "new",
    "score": 0,
    "tags": [],
    "custom": {},
    "consent": {},
}
"""What a field holds that was never given, or was emptied with null."""

_FREE_OBJECTS: Final = ("custom", "consent", "external_ids")


_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_lead_id(text: str) -> bool:
    """True if a lead could have this id."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True)
class Lead:
    """One lead. `fields` maps each of CLIENT_FIELDS to its value; times are aware and whole milliseconds.

    `version` counts real changes; `revision` counts every change of what is shown, so it is never below `version`.
    `dedupe_key` is None for a lead that was created as an allowed duplicate.
    """

    workspace_id: str
    id: str
    fields: Mapping[str, Any]
    dedupe_key: str | None
    version: int
    revision: int
    created_at: datetime
    updated_at: datetime
    external_ids: Mapping[str, str]
    deleted_at: datetime | None = None

    @property
    def etag(self) -> str:
        """A strong tag of the representation: `"<version>.<revision>"`."""
        return f'"{self.version}.{self.revision}"'

    def document(self) -> dict[str, Any]:
        """The lead as the API and the events show it."""
        return {
            "id": self.id,
            **self.fields,
            "external_ids": self.external_ids,
            "version": self.version,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }

    @cached_property
    def body(self) -> bytes:
        """The document as JSON; free objects with their members sorted, so that equal leads give equal bytes everywhere."""
        document = self.document()
        for name in _FREE_OBJECTS:
            document[name] = orjson.Fragment(orjson.dumps(document[name], option=orjson.OPT_SORT_KEYS))
        return orjson.dumps(document)
