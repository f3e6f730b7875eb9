"""Finding a lead for a run that a person starts: in the view, or from the leads service if no event about it has come yet."""

from chassis.database import Database
from chassis.errors import Unavailable
from chassis.http import OutboundFailed, ServiceClient
from workflows import repository
from workflows.models import LeadSnapshot


class LeadFinder:
    """Knows leads that live, as newly as this service can."""

    def __init__(self, database: Database, services: ServiceClient) -> None:
        self._database = database
        self._services = services

    async def find(self, workspace_id: str, lead_id: str) -> LeadSnapshot | None:
        """The lead, None if there is no such live lead. Unavailable if that cannot be told now."""
        async with self._database.acquire() as connection:
            known = await repository.read_lead(connection, workspace_id, lead_id)
        if known is not None and not known.deleted:
            return known
        try:
            answer = await self._services.request("GET", f"/api/leads/{lead_id}", workspace_id=workspace_id, timeout=5)
        except OutboundFailed as error:
            raise Unavailable("The leads service cannot be reached; try again.") from error
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise Unavailable("The leads service does not answer; try again.")
        lead = answer.json()
        found = LeadSnapshot(workspace_id, lead_id, lead["version"], deleted=False, lead=lead)
        async with self._database.acquire() as connection:
            await repository.copy_leads(connection, [found])
        return found
