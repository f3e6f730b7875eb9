"""What the services say to each other, as data. `events()` and `topology()` are all that code needs to know."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class EventContract:
    """One event type: who sends it, the JSON schema of its `data`, and example envelopes."""

    type: str
    version: int
    producer: str
    summary: str
    data: dict[str, Any]
    examples: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class QueueContract:
    """One consumer's quorum queue, its retry delay queues and its dead-letter queue."""

    service: str
    purpose: str
    binds: tuple[str, ...]
    why: str

    @property
    def name(self) -> str:
        return f"{self.service}.{self.purpose}"

    @property
    def dead(self) -> str:
        return f"{self.name}.dead"

    def retry(self, seconds: int) -> str:
        return f"{self.name}.retry.{seconds}s"

    def takes(self, event_type: str) -> bool:
        """True if one of the bindings matches: `*` stands for one word, as in a topic exchange."""
        return any(_matches(pattern.split("."), event_type.split(".")) for pattern in self.binds)


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that every process declares at the broker before it publishes."""

    exchange: str
    queues: tuple[QueueContract, ...]
    retry_seconds: tuple[int, ...]
    delivery_limit: int

    def queue(self, name: str) -> QueueContract:
        """The queue called `name`; KeyError if no contract names it."""
        return {queue.name: queue for queue in self.queues}[name]

    def is_consumed(self, event_type: str) -> bool:
        return any(queue.takes(event_type) for queue in self.queues)


def _matches(pattern: list[str], words: list[str]) -> bool:
    return len(pattern) == len(words) and all(p in ("*", w) for p, w in zip(pattern, words, strict=True))


def _read(path: str) -> Any:
    return json.loads(files(__name__).joinpath(path).read_text(encoding="utf-8"))


@cache
def events() -> dict[str, EventContract]:
    """Every event type by name."""
    contracts = {}
    for entry in sorted(files(__name__).joinpath("events").iterdir(), key=lambda path: path.name):
        document = _read(f"events/{entry.name}")
        document["examples"] = tuple(document["examples"])
        contracts[document["type"]] = EventContract(**document)
    return contracts


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """The shared JSON schemas by file name: the envelope and what several events hold."""
    return {entry.name: _read(f"schemas/{entry.name}") for entry in files(__name__).joinpath("schemas").iterdir()}


@cache
def topology() -> Topology:
    """The exchange, every queue, and the limits they share."""
    document = _read("queues.json")
    return Topology(
        exchange=document["exchange"],
        queues=tuple(QueueContract(**{**queue, "binds": tuple(queue["binds"])}) for queue in document["queues"]),
        retry_seconds=tuple(document["retry_seconds"]),
        delivery_limit=document["delivery_limit"],
    )
