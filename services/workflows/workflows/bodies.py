"""What requests bring, before the definition itself is looked at."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

IDENTIFIER = r"[A-Za-z0-9_.-]{1,64}"
Identifier = Annotated[str, StringConstraints(pattern=f"^{IDENTIFIER}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StartBody(_Body):
    """Which lead a run is for."""

    lead_id: Identifier = Field(examples=["lead-1"])


class DefinitionBody(_Body):
    """A definition. docs/workflow-definitions.md describes triggers and steps."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = Field(
        description="Unique among the workspace's live workflows, in any case.", examples=["Hot leads"]
    )
    trigger: dict[str, Any] = Field(
        description="What starts a run: an event about a lead, or somebody.",
        examples=[{"type": "event", "event": "lead.created", "condition": "lead.score >= 50"}],
    )
    steps: list[Any] = Field(description="At least one step, at most 50, nested ones counted.")
    allow_reentry: bool = Field(
        default=False, description="Lets the workflow start from events that it caused itself, up to 8 hops."
    )

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trigger": self.trigger,
            "steps": self.steps,
            "allow_reentry": self.allow_reentry,
        }


class NewWorkflowBody(DefinitionBody):
    """A definition to create, and whether to run it at once."""

    start: StartBody | None = Field(default=None, description="Also starts a run, for this lead.")


class WorkflowBody(DefinitionBody):
    """A definition to put in the place of the current one. Read-only fields may be sent back as they are."""

    id: str | None = None
    version: int | None = None
    created_at: str | None = None
    updated_at: str | None = None
    archived_at: str | None = None


class RetryBody(_Body):
    """Where a stopped run goes on, and on which version."""

    from_: Literal["step", "start"] = Field(default="step", alias="from")
    version: Literal["same", "latest"] = "same"
