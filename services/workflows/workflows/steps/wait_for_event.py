"""`wait_for_event`: until something is true of the lead, or of the lead in a CRM, as an event tells; or until a time-out."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from workflows.engine.definition import CRM_EVENTS, Step
from workflows.engine.durations import parse_duration
from workflows.engine.expression import Expression, bounded
from workflows.steps.kinds import Done, LeadNow, Pause, PausingStep, Resumption, Scope


def _duration(text: str) -> str:
    parse_duration(text)
    return text


class WaitForEvent(PausingStep):
    """Goes on at once if the condition holds already, otherwise with the first event of that type for which it holds.

    After `timeout` the run takes the steps of `on_timeout`, then goes on with the step that follows.
    """

    branches: ClassVar[tuple[str, ...]] = ("on_timeout",)
    outputs: ClassVar[frozenset[str] | None] = frozenset({"timed_out", "event"})

    type: Literal["wait_for_event"]
    event: Literal[
        "lead.created", "lead.updated", "lead.deleted", "lead.restored", "crm.lead.synced", "crm.lead.failed"
    ]
    condition: Expression = Field(
        description="CEL. `lead`, `changed` and `previous` are the event's; `event` is what a crm.lead event says.",
        examples=['lead.stage == "qualified"'],
    )
    timeout: Annotated[str, AfterValidator(_duration)] = Field(examples=["3d"])
    on_timeout: tuple[Step, ...] = Field(default=(), description="Steps to take if nothing came in time.")

    def branch(self, name: str) -> tuple[Step, ...]:
        return {"on_timeout": self.on_timeout}[name]

    def ways(self) -> frozenset[str | None]:
        return frozenset({None, "on_timeout"})

    def extra_roots(self, place: str) -> frozenset[str]:
        return frozenset({"event"}) if place == "/condition" and self.event in CRM_EVENTS else frozenset()

    def begin(self, scope: Scope, now: LeadNow) -> Done | Pause:
        if self.event in CRM_EVENTS:
            for outcome in now.crm:
                if outcome["type"] == self.event and self._holds(scope, now.lead, event=outcome):
                    return Done({"timed_out": False, "event": dict(outcome)})
        elif now.deleted == (self.event == "lead.deleted") and self._holds(scope, now.lead):
            return Done({"timed_out": False, "event": None})
        return Pause(seconds=parse_duration(self.timeout).total_seconds(), event=self.event)

    def accept(self, scope: Scope, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to wake the run with if an event of the right type meets the condition, else None.

        `event`: `type`, `id`, `time` and `data` as the broker delivered them.
        """
        data = event["data"]
        if self.event in CRM_EVENTS:
            said = {"type": event["type"], **{key: value for key, value in data.items() if key != "attempts"}}
            return said if self._holds(scope, scope["lead"], event=said) else None
        met = self._holds(scope, data["lead"], changed=data["changed"], previous=data["previous"])
        return {"type": event["type"], "id": event["id"], "time": event["time"]} if met else None

    def resume(self, scope: Scope, why: Resumption) -> Done:
        del scope
        if why.wake is not None:
            return Done({"timed_out": False, "event": why.wake})
        return Done({"timed_out": True, "event": None}, way="on_timeout")

    def _holds(self, scope: Scope, lead: Mapping[str, Any], **names: Any) -> bool:
        known = {**scope, "lead": lead, "changed": [], "previous": {}, **names}
        return self.condition.judge(bounded(known)).met
