"""`stop`: ends the run, as completed or as failed."""

from typing import Literal

from pydantic import Field

from workflows.engine.template import Template
from workflows.steps.kinds import End, ImmediateStep, Scope


class Stop(ImmediateStep):
    """Ends the run where it stands; no later step is taken."""

    type: Literal["stop"]
    outcome: Literal["completed", "failed"] = Field(default="completed", description="The state the run ends in.")
    reason: Template | None = Field(
        default=None, description="Shown with the run.", examples=["No budget: {{ lead.company }}"]
    )

    def ways(self) -> frozenset[str | None]:
        return frozenset()

    def decide(self, scope: Scope) -> End:
        reason = self.reason.render(scope)[:500] if self.reason else None
        if self.outcome == "failed":
            reason = reason or f"stopped by step {self.id}"
        return End(self.outcome, reason)
