"""`update_lead`: changes fields of the run's lead, through the leads service like everybody else."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from workflows.engine.retry import RetryPolicy
from workflows.engine.template import JsonTemplate
from workflows.steps.kinds import Call, CallingStep, Desk, Outcome, Scope, StepFailed, Succeeded
from workflows.steps.service_call import SERVICE_RETRY, call_service

WRITABLE = frozenset(
    [
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
    ]
)
STAGES = ("new", "contacted", "qualified", "converted", "lost")


def _changes(template: JsonTemplate) -> JsonTemplate:
    source = template.source
    if not isinstance(source, dict) or not source:
        raise ValueError("set names at least one field of the lead")
    if unknown := sorted(set(source) - WRITABLE):
        raise ValueError(f"a workflow cannot set {', '.join(unknown)}; it can set {', '.join(sorted(WRITABLE))}")
    stage, score = source.get("stage", "new"), source.get("score", 0)
    if not (isinstance(stage, str) and (stage in STAGES or "{{" in stage)):
        raise ValueError(f"stage is one of {', '.join(STAGES)}")
    is_literal = isinstance(score, int) and not isinstance(score, bool)
    if not (is_literal and 0 <= score <= 100) and not (isinstance(score, str) and "{{" in score):
        raise ValueError("score is a whole number from 0 to 100")
    return template


class UpdateLead(CallingStep):
    """Merges `set` into the lead: null empties a field, `custom` merges, lists replace."""

    outputs: ClassVar[frozenset[str] | None] = frozenset({"version"})

    type: Literal["update_lead"]
    set: Annotated[JsonTemplate, AfterValidator(_changes)] = Field(
        examples=[{"stage": "contacted", "custom": {"campaign": "{{ trigger.lead.source }}"}}]
    )
    retry: RetryPolicy = SERVICE_RETRY

    async def prepare(self, scope: Scope, desk: Desk) -> dict[str, Any]:
        del desk
        changes = self.set.value(scope)
        if not isinstance(changes, dict):
            raise StepFailed("set gave no fields")
        return {"set": changes}

    async def perform(self, request: Mapping[str, Any], call: Call) -> Outcome:
        return await patch_lead(call, request["set"], {})


async def patch_lead(call: Call, changes: dict[str, Any], output: dict[str, Any]) -> Outcome:
    """PATCH the run's lead; the lead in the answer is what the run reads from then on."""
    outcome = await call_service(call, "PATCH", f"/api/leads/{call.lead_id}", changes)
    if isinstance(outcome, Succeeded):
        lead = outcome.output
        return Succeeded({"version": lead.get("version"), **output}, status=outcome.status, lead=lead)
    return outcome
