"""Faults on demand: what goes wrong, with which requests, how often."""

import fnmatch
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, le=3600)]


class Strict(BaseModel):
    """What the control endpoint takes: a name it does not know is an error, not a fault that never comes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerStatus(Strict):
    """Nothing is done; the answer has this status, with HubSpot's usual body for it or with `body`."""

    do: Literal["status"]
    status: Annotated[int, Field(ge=200, le=599)]
    body: Any = None
    headers: Mapping[str, str] = Field(default_factory=dict)


class AnswerRateLimit(Strict):
    """Nothing is done; 429 in one of the two shapes."""

    do: Literal["rate_limit"]
    policy: Literal["SECONDLY", "TEN_SECONDLY_ROLLING", "DAILY"] = "TEN_SECONDLY_ROLLING"
    older_shape: bool = False


class ExpireToken(Strict):
    """Nothing is done; 401 as for an access token whose time is up."""

    do: Literal["expire_token"]


class Drop(Strict):
    """The connection is reset instead of an answer: after the work was done, or without it."""

    do: Literal["drop"]
    work: bool


class Hang(Strict):
    """No answer for `seconds`, then the right one: the work is done before the wait, or after it."""

    do: Literal["hang"]
    work_first: bool
    seconds: Seconds = 60.0


class Silent(Strict):
    """2xx that does not say what happened: no results, results without their ids, or some results missing."""

    do: Literal["silent"]
    work: bool
    lose: Literal["results", "ids"] | list[int] = "results"


Effect = Annotated[AnswerStatus | AnswerRateLimit | ExpireToken | Drop | Hang | Silent, Field(discriminator="do")]


class FaultRule(Strict):
    """One fault. It hits requests of `operation` (a name or a pattern such as "contacts.*"), after skipping some."""

    operation: str = "*"
    portal_id: int | None = None
    containing: str | None = None  # only requests whose body has this text
    skip: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] | None = 1  # null: until it is taken away
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0  # the share of matching requests that are hit
    effect: Effect


class Faults:
    """The rules in force, oldest first. They end with the process."""

    def __init__(self) -> None:
        self._rules: dict[int, FaultRule] = {}
        self._matches: dict[int, int] = {}
        self._hits: dict[int, int] = {}
        self._next_id = 1

    def add(self, rule: FaultRule) -> int:
        fault_id, self._next_id = self._next_id, self._next_id + 1
        self._rules[fault_id] = rule
        self._matches[fault_id] = self._hits[fault_id] = 0
        return fault_id

    def remove(self, fault_id: int) -> bool:
        return self._rules.pop(fault_id, None) is not None

    def clear(self) -> None:
        self._rules.clear()

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"id": fault_id, "hits": self._hits[fault_id]} | rule.model_dump() for fault_id, rule in self._rules.items()
        ]

    def take(self, operation: str, portal_id: int | None, body: bytes) -> Effect | None:
        """The fault that hits this request, if any; one-shot rules are used up by it."""
        for fault_id, rule in list(self._rules.items()):
            if not _concerns(rule, operation, portal_id, body):
                continue
            self._matches[fault_id] += 1
            if self._matches[fault_id] <= rule.skip or random.random() >= rule.rate:
                continue
            self._hits[fault_id] += 1
            if rule.times is not None and self._hits[fault_id] >= rule.times:
                del self._rules[fault_id]
            return rule.effect
        return None


def _concerns(rule: FaultRule, operation: str, portal_id: int | None, body: bytes) -> bool:
    if not fnmatch.fnmatchcase(operation, rule.operation):
        return False
    if rule.portal_id is not None and rule.portal_id != portal_id:
        return False
    return rule.containing is None or rule.containing.encode() in body


class Behaviour(Strict):
    """How HubSpot is at the moment, for every request."""

    latency_min_seconds: Seconds = 0.0
    latency_max_seconds: Seconds = 0.0
    index_delay_seconds: Seconds = 0.0  # how far search lags behind
    multi_status: bool = True  # false: a batch fails as a whole although its inputs have write ids

    def latency(self) -> float:
        return random.uniform(self.latency_min_seconds, max(self.latency_min_seconds, self.latency_max_seconds))
