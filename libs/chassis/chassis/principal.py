"""Who asks: a user in a session, or a service acting in a workspace."""

from dataclasses import dataclass

from chassis.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Principal:
    """`subject` is a user's id, or `service:<name>`."""

    workspace_id: str
    subject: str
    scopes: frozenset[str]
    session_id: str | None = None
    role: str | None = None

    @property
    def is_service(self) -> bool:
        return self.subject.startswith("service:")

    @property
    def origin(self) -> str:
        """How events and timelines name this principal."""
        return self.subject if self.is_service else f"user:{self.subject}"

    def require(self, scope: str) -> None:
        """Forbidden (403) without `scope`."""
        if scope not in self.scopes:
            raise Forbidden(f"This needs the scope {scope}.", required_scope=scope)
