"""A request as the handlers see it, and their answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulators.hubspot.accounts import Account
from simulators.hubspot.errors import InvalidRequest
from simulators.hubspot.writes import Write

MAX_INPUTS = 100


@dataclass(frozen=True, slots=True)
class Call:
    account: Account
    request_seq: int
    version: str  # of the path: "v3", "2026-03", "2026-09"
    path: Mapping[str, str]  # {id}, {name}
    query: Mapping[str, str]
    body: Any  # the parsed JSON, None without a body
    multi_status: bool = True  # whether a batch may partly succeed
    index_delay_seconds: float = 0.0

    @property
    def with_url(self) -> bool:
        """Dated versions give each record the address of its page."""
        return self.version != "v3"

    @property
    def wants_archived(self) -> bool:
        return self.query.get("archived", "").lower() == "true"  # the Python SDK writes True

    def member(self, name: str) -> Any:
        return self.document().get(name)

    def document(self) -> Mapping[str, Any]:
        if not isinstance(self.body, dict):
            raise InvalidRequest("Invalid input JSON: the body must be an object.")
        return self.body

    def inputs(self) -> list[Mapping[str, Any]]:
        """The inputs of a batch, 1 to 100 of them."""
        inputs = self.member("inputs")
        if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
            raise InvalidRequest("Invalid input JSON: 'inputs' must be a list of objects.")
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise InvalidRequest(f"A batch takes 1 to {MAX_INPUTS} inputs, this one has {len(inputs)}.")
        return inputs

    def write(self, write_id: object = None) -> Write:
        return Write(self.request_seq, self.account.portal_id, str(write_id) if write_id is not None else None)

    def names(self, given: object) -> list[str] | None:
        """Property names, from a query's commas or a body's list; None when none are asked for."""
        if isinstance(given, str):
            return [name for name in given.split(",") if name] or None
        return [str(name) for name in given] if isinstance(given, list) and given else None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
