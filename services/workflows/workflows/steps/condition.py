"""`condition`: goes by `then` if its expression holds, otherwise by `else`."""

from typing import ClassVar, Literal

from pydantic import Field

from workflows.engine.definition import Step
from workflows.engine.expression import Expression
from workflows.steps.kinds import Done, ImmediateStep, Scope


class Condition(ImmediateStep):
    """Evaluates `if` over what the run knows. Afterwards the run goes on with the step that follows."""

    branches: ClassVar[tuple[str, ...]] = ("then", "else")
    outputs: ClassVar[frozenset[str] | None] = frozenset({"result", "note"})

    type: Literal["condition"]
    test: Expression = Field(alias="if", description="CEL.", examples=['lead.score >= 80 && "vip" in lead.tags'])
    then: tuple[Step, ...] = Field(default=(), description="Steps to take if it holds.")
    otherwise: tuple[Step, ...] = Field(default=(), alias="else", description="Steps to take if it does not.")

    def branch(self, name: str) -> tuple[Step, ...]:
        return {"then": self.then, "else": self.otherwise}[name]

    def ways(self) -> frozenset[str | None]:
        constant = self.test.constant()
        if constant is None:
            return frozenset({"then", "else"})
        return frozenset({"then" if constant else "else"})

    def decide(self, scope: Scope) -> Done:
        verdict = self.test.judge(scope)
        note = {"note": verdict.note} if verdict.note else {}
        return Done({"result": verdict.met, **note}, way="then" if verdict.met else "else")
