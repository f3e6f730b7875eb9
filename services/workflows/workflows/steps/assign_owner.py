"""`assign_owner`: gives the lead to the next user of a list, in turn, skipping who left."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from workflows.engine.retry import RetryPolicy
from workflows.steps.kinds import Call, CallingStep, Desk, Outcome, Scope, StepFailed
from workflows.steps.service_call import SERVICE_RETRY
from workflows.steps.update_lead import patch_lead


class AssignOwner(CallingStep):
    """Round robin over `users`. Who is next is decided with the intent, so a repeated call names the same user."""

    outputs: ClassVar[frozenset[str] | None] = frozenset({"owner_id", "version"})

    type: Literal["assign_owner"]
    users: tuple[str, ...] = Field(
        min_length=1, max_length=100, description="User ids, in turn.", examples=[["user_1", "user_2"]]
    )
    retry: RetryPolicy = SERVICE_RETRY

    @field_validator("users")
    @classmethod
    def _no_user_twice(cls, users: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(users)) < len(users):
            raise ValueError("names a user twice")
        return users

    async def prepare(self, scope: Scope, desk: Desk) -> dict[str, Any]:
        del scope
        owner_id = await desk.next_owner(self.id, self.users)
        if owner_id is None:
            raise StepFailed("none of the users is active")
        return {"owner_id": owner_id}

    async def perform(self, request: Mapping[str, Any], call: Call) -> Outcome:
        return await patch_lead(call, {"owner_id": request["owner_id"]}, {"owner_id": request["owner_id"]})
