"""What can be wrong with a request about leads, beyond what chassis.errors names."""

from chassis.errors import Conflict, FieldError, NotFound, Unprocessable


class LeadNotFound(NotFound):
    """No such lead in this workspace, or it is deleted."""

    def __init__(self) -> None:
        super().__init__("There is no such lead.")


class DuplicateLead(Conflict):
    """Another live lead of the workspace has this e-mail or phone."""

    code, title = "duplicate-lead", "Lead exists"

    def __init__(self, existing_id: str) -> None:
        super().__init__("Another lead has this e-mail, or this phone and no e-mail.", existing_id=existing_id)


class OwnerUnknown(Unprocessable):
    """The owner is not an active user of the workspace."""

    def __init__(self) -> None:
        super().__init__(
            "The request has invalid fields.",
            errors=[FieldError("/owner_id", "is not an active user of this workspace")],
        )
