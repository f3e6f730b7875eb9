"""The control endpoint of the simulated HubSpot: /_control/hubspot/…, JSON in and out, no token. README.md lists it."""

import json
from dataclasses import asdict
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.control import parsed, portal_in, refused
from simulators.faults import Behaviour, FaultRule, Strict
from simulators.hubspot.routes import HubSpot
from simulators.hubspot.writes import creates_by, listed
from simulators.storage import Row

_CONTACT_TABLES = ("contacts", "identities", "merges", "erased_emails", "writes", "requests", "daily_usage")
_PORTAL_TABLES = (*_CONTACT_TABLES, "properties", "tokens", "accounts")


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("no such time zone")
    return name


class AccountChange(Strict):
    """What to change in a portal; what is left out stays. Fields as in accounts.Account, and:"""

    time_zone: Annotated[str, AfterValidator(_known_zone)] | None = None
    burst: Annotated[int, Field(ge=0)] | None = None
    oauth_burst: Annotated[int, Field(ge=0)] | None = None
    burst_seconds: Annotated[float, Field(gt=0)] | None = None
    daily: Annotated[int, Field(ge=0)] | None = None
    search_per_second: Annotated[int, Field(ge=0)] | None = None
    token_seconds: Annotated[int, Field(ge=0)] | None = None
    accepts_tokens: bool | None = None
    accepts_refresh: bool | None = None
    keeps_primary_id: bool | None = None
    used_today: Annotated[int, Field(ge=0)] | None = None  # requests already counted against `daily`
    tokens: list[str] = Field(default_factory=list)  # further static tokens that open this portal


class Portal(Strict):
    portal_id: int | None = None


class Reset(Portal):
    keep_settings: bool = False  # true: only contacts and journal go


class HubSpotControl:
    def __init__(self, hubspot: HubSpot) -> None:
        self._hubspot = hubspot

    def routes(self) -> list[Route]:
        prefix = "/_control/hubspot"
        return [
            Route(prefix + "/behaviour", self.read_behaviour),
            Route(prefix + "/behaviour", self.change_behaviour, methods=["PUT"]),
            Route(prefix + "/faults", self.list_faults),
            Route(prefix + "/faults", self.add_fault, methods=["POST"]),
            Route(prefix + "/faults", self.clear_faults, methods=["DELETE"]),
            Route(prefix + "/faults/{fault_id:int}", self.remove_fault, methods=["DELETE"]),
            Route(prefix + "/accounts", self.list_accounts),
            Route(prefix + "/accounts/{portal_id:int}", self.change_account, methods=["PUT"]),
            Route(prefix + "/expire-tokens", self.expire_tokens, methods=["POST"]),
            Route(prefix + "/contacts", self.list_contacts),
            Route(prefix + "/creates", self.count_creates),
            Route(prefix + "/writes", self.list_writes),
            Route(prefix + "/requests", self.list_requests),
            Route(prefix + "/reset", self.reset, methods=["POST"]),
        ]

    async def read_behaviour(self, request: Request) -> Response:
        return JSONResponse(self._hubspot.behaviour.model_dump())

    async def change_behaviour(self, request: Request) -> Response:
        """The whole behaviour: what is left out is at its default again."""
        self._hubspot.behaviour = await parsed(request, Behaviour)
        return await self.read_behaviour(request)

    async def list_faults(self, request: Request) -> Response:
        return JSONResponse({"faults": self._hubspot.faults.listed()})

    async def add_fault(self, request: Request) -> Response:
        return JSONResponse({"id": self._hubspot.faults.add(await parsed(request, FaultRule))}, 201)

    async def clear_faults(self, request: Request) -> Response:
        self._hubspot.faults.clear()
        return Response(status_code=204)

    async def remove_fault(self, request: Request) -> Response:
        removed = self._hubspot.faults.remove(request.path_params["fault_id"])
        return Response(status_code=204) if removed else refused(404, "no such fault, or it is used up")

    async def list_accounts(self, request: Request) -> Response:
        return JSONResponse({"accounts": [asdict(account) for account in self._hubspot.accounts.all()]})

    async def change_account(self, request: Request) -> Response:
        portal_id = request.path_params["portal_id"]
        change = await parsed(request, AccountChange)
        settings = change.model_dump(exclude={"used_today", "tokens"}, exclude_none=True)
        account = self._hubspot.accounts.change(portal_id, settings)
        for token in change.tokens:
            self._hubspot.accounts.add_token(portal_id, token)
        if change.used_today is not None:
            self._hubspot.limits.set_used_today(account, change.used_today)
        return JSONResponse(asdict(account))

    async def expire_tokens(self, request: Request) -> Response:
        """Every OAuth access token (of one portal, or of all) is past its time from now on."""
        portal = await parsed(request, Portal)
        return JSONResponse({"expired": self._hubspot.accounts.expire_tokens(portal.portal_id)})

    async def list_contacts(self, request: Request) -> Response:
        rows = self._hubspot.storage.all(
            "SELECT * FROM contacts WHERE (? IS NULL OR portal_id = ?) AND (archived_at IS NOT NULL) = ? ORDER BY id",
            portal_in(request),
            portal_in(request),
            request.query_params.get("archived") == "true",
        )
        return JSONResponse({"contacts": [_contact(row) for row in rows]})

    async def count_creates(self, request: Request) -> Response:
        """How often a contact was created for each e-mail, write id or other property (`?by=`), and which more than once."""
        counts = creates_by(self._hubspot.storage, portal_in(request), request.query_params.get("by", "email"))
        doubles = {value: count for value, count in counts.items() if count > 1}
        return JSONResponse({"creates": counts, "doubles": doubles})

    async def list_writes(self, request: Request) -> Response:
        contact = request.query_params.get("contact_id")
        writes = listed(
            self._hubspot.storage,
            portal_in(request),
            request.query_params.get("kind"),
            int(contact) if contact and contact.isdigit() else None,
        )
        return JSONResponse({"writes": writes})

    async def list_requests(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        requests = self._hubspot.journal.listed(
            portal_in(request), request.query_params.get("operation"), int(since) if since.isdigit() else 0
        )
        return JSONResponse({"requests": requests})

    async def reset(self, request: Request) -> Response:
        """Forget contacts and journal of one portal or of all, and unless told otherwise their settings and all faults."""
        reset = await parsed(request, Reset)
        with self._hubspot.storage.transaction():
            for table in _CONTACT_TABLES if reset.keep_settings else _PORTAL_TABLES:
                self._hubspot.storage.execute(
                    f"DELETE FROM {table} WHERE (? IS NULL OR portal_id = ?)",  # noqa: S608 - names from above
                    reset.portal_id,
                    reset.portal_id,
                )
        self._hubspot.limits.forget()
        if reset.portal_id is None and not reset.keep_settings:
            self._hubspot.faults.clear()
            self._hubspot.behaviour = Behaviour()
        return Response(status_code=204)


def _contact(row: Row) -> dict[str, Any]:
    return {
        "portal_id": row["portal_id"],
        "id": str(row["id"]),
        "properties": json.loads(row["properties"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "archived": row["archived_at"] is not None,
    }
