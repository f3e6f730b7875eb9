"""What can be wrong with a request about workflows and runs.

ProblemError
├── WorkflowNotFound 404    ├── NameTaken 409 (existing_id)    ├── DefinitionRefused 422 (errors by pointer)
├── RunNotFound 404         ├── WorkflowArchived 409           ├── LeadUnknown 422
└── VersionStale 412        ├── RunNotReady 409 (state)        └── StepGone 422
                            └── DefinitionUnreadable 409
"""

from collections.abc import Iterable

from chassis.errors import Conflict, FieldError, NotFound, PreconditionFailed, Unprocessable
from workflows.engine.definition import Problem


class WorkflowNotFound(NotFound):
    code, title = "workflow-not-found", "No such workflow"


class RunNotFound(NotFound):
    code, title = "run-not-found", "No such run"


class VersionStale(PreconditionFailed):
    code = "version-stale"


class NameTaken(Conflict):
    code, title = "workflow-name-taken", "Name taken"


class WorkflowArchived(Conflict):
    code, title = "workflow-archived", "Archived"


class RunNotReady(Conflict):
    code, title = "run-not-ready", "Not possible in this state"


class DefinitionUnreadable(Conflict):
    code, title = "definition-unreadable", "Saved by another release"


class DefinitionRefused(Unprocessable):
    code, title = "definition-invalid", "The definition cannot be saved"

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "DefinitionRefused":
        errors = [FieldError(problem.pointer, problem.detail) for problem in problems]
        places = "One place" if len(errors) == 1 else f"{len(errors)} places"
        return cls(f"{places} in the definition must be put right.", errors=errors)


class LeadUnknown(Unprocessable):
    code, title = "lead-unknown", "No such lead"


class StepGone(Unprocessable):
    code, title = "step-gone", "The step is not in that version"
