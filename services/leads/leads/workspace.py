"""What a workspace sets for its leads: the country whose phone numbers need no country's code."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from chassis.database import Database, Transaction
from chassis.errors import FieldError, PreconditionFailed, Unprocessable
from chassis.idempotency import Answer, WriteRequest, run_once
from chassis.parsing import parse_json
from leads import repository
from leads.contact import is_region
from leads.etags import strong_tags
from leads.shown import Shown

REGION_EXAMPLE: Final = {"default_region": "US"}


class SettingsDocument(BaseModel):
    """A workspace's settings for leads."""

    model_config = ConfigDict(extra="forbid", strict=True)

    default_region: str = Field(description="ISO 3166-1 alpha-2.", examples=["US"])


class WorkspaceSettings:
    """Reads and sets them. Numbers that are stored already stay as they are."""

    def __init__(self, database: Database, default_region: str) -> None:
        self._database = database
        self._default_region = default_region

    async def region(self, workspace_id: str) -> str:
        """The default region; the service's own unless the workspace has set one."""
        own = await self._database.read(lambda connection: repository.read_region(connection, workspace_id))
        return own or self._default_region

    async def read(self, workspace_id: str) -> Shown:
        """The settings as they are shown."""
        return _shown(await self.region(workspace_id))

    async def replace(self, write: WriteRequest, if_match: str | None) -> Answer:
        """Set them; PreconditionFailed if `If-Match` names others than there are."""
        workspace_id = write.principal.workspace_id

        async def effect(tx: Transaction) -> Answer:
            wanted = parse_json(write.body, SettingsDocument, write.content_type).default_region
            if not is_region(wanted):
                wrong = FieldError("/default_region", "is not a country's two-letter code in capitals, such as US")
                raise Unprocessable("The request has invalid fields.", errors=[wrong])
            current = _shown(await repository.lock_region(tx.connection, workspace_id, self._default_region))
            if if_match is not None and if_match.strip() != "*" and current.etag not in strong_tags(if_match):
                raise PreconditionFailed("The settings are others now.", headers={"ETag": current.etag})
            await repository.set_region(tx.connection, workspace_id, wanted)
            shown = _shown(wanted)
            return Answer(200, shown.body, {"ETag": shown.etag})

        return await run_once(write, self._database, effect)


def _shown(region: str) -> Shown:
    return Shown(f'"{region}"', SettingsDocument(default_region=region).model_dump_json().encode())
