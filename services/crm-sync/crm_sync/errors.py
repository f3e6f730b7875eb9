"""The service's problems.

NotFound 404              Conflict 409             Unavailable 503
├── ConnectionNotFound    ├── NameTaken            └── VendorUnavailable
├── LeadNotFound          └── CredentialsRefused
└── DeadLetterNotFound
"""

from chassis.errors import Conflict, NotFound, Unavailable


class ConnectionNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such connection in this workspace.")


class LeadNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such lead in this workspace, or crm-sync has not heard of it yet.")


class DeadLetterNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__(
            "There is no such dead letter in this workspace; it may have been replayed or become outdated."
        )


class NameTaken(Conflict):
    def __init__(self, existing_id: str) -> None:
        super().__init__("Another connection of this workspace has that name.", existing_id=existing_id)


class CredentialsRefused(Conflict):
    code, title = "credentials-refused", "The CRM refuses the credentials"


class VendorUnavailable(Unavailable):
    code, title = "vendor-unavailable", "The CRM cannot be asked now"
