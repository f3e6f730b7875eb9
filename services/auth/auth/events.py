"""What auth announces of its users (schemas: `libs/contracts`)."""

from typing import Literal

from auth.models import User
from chassis.events import Event, new_event

SOURCE = "/services/auth"


def user_event(kind: Literal["created", "updated", "disabled"], user: User) -> Event:
    """`user.created`, `user.updated` or `user.disabled`, with the user as it is after the change."""
    return new_event(
        f"user.{kind}",
        source=SOURCE,
        workspace_id=user.workspace_id,
        subject=user.id,
        subject_version=user.version,
        data={"user_id": user.id, "name": user.name, "active": user.active},
    )
