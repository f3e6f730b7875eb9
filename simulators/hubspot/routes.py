"""HubSpot's paths, and what happens to every request on its way: journal, latency, faults, token, limits, work, answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulators.faults import AnswerRateLimit, AnswerStatus, Behaviour, Drop, ExpireToken, Faults, Hang, Silent
from simulators.hubspot.accounts import Accounts
from simulators.hubspot.calls import Answer, Call
from simulators.hubspot.errors import HubSpotError, InvalidRequest, ResourceNotFound
from simulators.hubspot.faulty_answers import failed, nothing_done, refusal, silenced
from simulators.hubspot.handlers import Handlers, require_contacts
from simulators.hubspot.limits import Limits
from simulators.hubspot.oauth import OAuth
from simulators.journal import Entry, Journal
from simulators.server import Dropped, until_left
from simulators.storage import Storage

DATED_VERSIONS = ("2026-03", "2026-09")

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Call], Answer]
Work = Callable[[Request, bytes, Entry], Answer]


class HubSpot:
    """The whole simulated API. `behaviour` may be replaced at any time."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.journal = Journal(storage)
        self.faults = Faults()
        self.behaviour = Behaviour()
        self.accounts = Accounts(storage)
        self.limits = Limits(storage)
        self._handlers = Handlers(storage)
        self._oauth = OAuth(self.accounts)

    def routes(self) -> list[Route]:
        handlers, batches = self._handlers, self._handlers.batches
        contacts: list[tuple[str, str, str, Handler]] = [
            ("GET", "", "contacts.list", handlers.list),
            ("POST", "", "contacts.create", handlers.create),
            ("POST", "/merge", "contacts.merge", handlers.merge),
            ("POST", "/gdpr-delete", "contacts.gdpr_delete", handlers.gdpr_delete),
            ("POST", "/search", "contacts.search", handlers.search.search),
            ("POST", "/batch/create", "contacts.batch_create", batches.create),
            ("POST", "/batch/read", "contacts.batch_read", batches.read),
            ("POST", "/batch/update", "contacts.batch_update", batches.update),
            ("POST", "/batch/upsert", "contacts.batch_upsert", batches.upsert),
            ("POST", "/batch/archive", "contacts.batch_archive", batches.archive),
            ("GET", "/{id}", "contacts.read", handlers.read),
            ("PATCH", "/{id}", "contacts.update", handlers.update),
            ("DELETE", "/{id}", "contacts.archive", handlers.archive),
        ]
        properties: list[tuple[str, str, str, Handler]] = [
            ("GET", "", "properties.list", handlers.list_properties),
            ("POST", "", "properties.create", handlers.create_property),
            ("POST", "/batch/read", "properties.batch_read", handlers.read_properties),
            ("GET", "/{name}", "properties.read", handlers.read_property),
            ("DELETE", "/{name}", "properties.archive", handlers.archive_property),
        ]
        routes = [
            Route(prefix + suffix, self._api(operation, handler), methods=[method])
            for prefixes, operations in (
                (("/crm/v3/objects/{type}", "/crm/objects/{version}/{type}"), contacts),
                (("/crm/v3/properties/{type}", "/crm/properties/{version}/{type}"), properties),
            )
            for prefix in prefixes
            for method, suffix, operation, handler in operations
        ]
        account = self._api("account.details", handlers.account_details)
        routes.append(Route("/account-info/{version}/details", account))
        for method, path, operation, work in self._oauth.operations():
            routes.append(Route(path, self._endpoint(operation, work), methods=[method]))
        return routes

    def _api(self, operation: str, handler: Handler) -> Endpoint:
        """An operation that needs a token and counts against the account's limits."""

        def work(request: Request, body: bytes, entry: Entry) -> Answer:
            caller = self.accounts.authenticate(request.headers.get("authorization"))
            if operation == "contacts.search":
                self.limits.take_search(caller)
                headers: dict[str, str] = {}
            else:
                headers = self.limits.take(caller)
            try:
                call = Call(
                    account=caller.account,
                    request_seq=entry.seq,
                    version=_version(request),
                    path=request.path_params,
                    query=request.query_params,
                    body=_parsed(body),
                    multi_status=self.behaviour.multi_status,
                    index_delay_seconds=self.behaviour.index_delay_seconds,
                )
                with self.storage.transaction():
                    answer = handler(call)
            except HubSpotError as error:
                answer = failed(error, entry.correlation_id)
            return Answer(answer.status, answer.body, headers | dict(answer.headers))

        return self._endpoint(operation, work)

    def _endpoint(self, operation: str, work: Work) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            portal_id = self.accounts.portal_of(request.headers.get("authorization"))
            entry = self.journal.begin(
                portal_id=portal_id,
                operation=operation,
                method=request.method,
                path=str(request.url.path),
                request_id=request.headers.get("x-request-id"),
                body=body,
            )
            await asyncio.sleep(self.behaviour.latency())
            effect = self.faults.take(operation, portal_id, body)

            def do() -> Answer:
                try:
                    return work(request, body, entry)
                except HubSpotError as error:
                    return failed(error, entry.correlation_id)

            match effect:
                case AnswerStatus() | AnswerRateLimit() | ExpireToken():
                    answer = refusal(effect, entry.correlation_id)
                case Hang(work_first=False):
                    await asyncio.sleep(effect.seconds)  # the work comes late, whether or not the client still waits
                    answer = do()
                case Drop(work=False) | Silent(work=False):
                    answer = nothing_done(operation)
                case _:
                    answer = do()
            if isinstance(effect, Silent) and answer.status < 300:
                answer = silenced(effect, answer)
            outcome = {Drop: "dropped", Hang: "hung"}.get(type(effect), "answered") if effect else "answered"
            self.journal.finish(entry, answer.status, outcome)
            if isinstance(effect, Drop):
                return Dropped()
            if isinstance(effect, Hang) and effect.work_first:
                await until_left(request, effect.seconds)
            return _response(answer, entry)

        return endpoint


def _version(request: Request) -> str:
    """The version a path names. Raises ResourceNotFound for one that is not simulated, or for another object type."""
    version = str(request.path_params.get("version", "v3"))
    if version not in ("v3", *DATED_VERSIONS):
        raise ResourceNotFound
    if "type" in request.path_params:
        require_contacts(request.path_params["type"])
    return version


def _parsed(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"Invalid input JSON: {error}") from error


def _response(answer: Answer, entry: Entry) -> Response:
    headers = {"X-HubSpot-Correlation-Id": entry.correlation_id, "Content-Type": "application/json;charset=utf-8"}
    if answer.body is None:
        content = b""
        del headers["Content-Type"]
    elif isinstance(answer.body, str):
        content = answer.body.encode()
    else:
        content = json.dumps(answer.body, ensure_ascii=False).encode()
    return Response(content, answer.status, headers | dict(answer.headers))
