"""`sync_to_crm`: asks crm-sync to put the lead, in the version the run knows, into one CRM connection or all of them."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from workflows.engine.retry import RetryPolicy
from workflows.steps.kinds import Call, CallingStep, Desk, Outcome, Scope, StepFailed, Succeeded
from workflows.steps.service_call import SERVICE_RETRY, call_service


class SyncToCrm(CallingStep):
    """Done once crm-sync has taken the wish down; `wait_for_event` on crm.lead.synced waits for the CRM itself."""

    outputs: ClassVar[frozenset[str] | None] = frozenset({"version"})

    type: Literal["sync_to_crm"]
    connection_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Without it: every connection of the workspace.",
        examples=["conn_1"],
    )
    retry: RetryPolicy = SERVICE_RETRY

    async def prepare(self, scope: Scope, desk: Desk) -> dict[str, Any]:
        del desk
        if "version" not in scope["lead"]:
            raise StepFailed("nothing is known about the lead")
        connection = {"connection_id": self.connection_id} if self.connection_id else {}
        return {**connection, "version": scope["lead"]["version"]}

    async def perform(self, request: Mapping[str, Any], call: Call) -> Outcome:
        outcome = await call_service(call, "POST", f"/api/crm/leads/{call.lead_id}/sync", dict(request))
        if isinstance(outcome, Succeeded):
            return Succeeded({"version": request["version"]}, status=outcome.status)
        return outcome
