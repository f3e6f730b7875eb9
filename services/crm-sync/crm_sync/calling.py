"""Requests to vendors: within the connection's budget, through the one guarded client, secrets taken out of what comes back."""

import asyncio
from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis

from chassis.http import OutboundClient, OutboundFailed, OutboundRefused
from chassis.ratelimit import RateBudget
from chassis.redaction import redact
from crm_sync.connectors.protocol import (
    Access,
    Ask,
    Connector,
    Trouble,
    TroubleKind,
    VendorAnswer,
    VendorError,
    VendorRequest,
    VendorTrouble,
)
from crm_sync.credentials import Credentials

PATIENCE_SECONDS = 2.0
_LONGEST_ERROR = 64 * 1024
"""Bytes of an error's body that are looked through for secrets; nobody says more of an error, and it takes time."""


class BudgetSpent(Exception):
    """The connection's limits grant no request within PATIENCE_SECONDS."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no request for {seconds:.1f} s")
        self.seconds = seconds


class VendorCaller:
    """Sends requests for connections. One budget per connection, shared by all processes through Redis."""

    def __init__(self, outbound: OutboundClient, redis: Redis, *, timeout_seconds: float) -> None:
        self._outbound = outbound
        self._redis = redis
        self._timeout = timeout_seconds
        self._budgets: dict[tuple[str, tuple[tuple[float, float], ...]], RateBudget] = {}

    async def grant(self, access: Access, connector: Connector) -> None:
        """Wait until the connection's limits allow one more request; BudgetSpent if that takes too long."""
        budget = self._budget(access, connector)
        while (wait := await budget.take()) > 0:
            if wait > PATIENCE_SECONDS:
                raise BudgetSpent(wait)
            await asyncio.sleep(wait)

    async def send(self, request: VendorRequest, credentials: Credentials) -> VendorAnswer:
        """The vendor's answer. VendorTrouble if there is none; its kind says whether the request may have arrived."""
        try:
            answer = await self._outbound.request(
                request.method, request.url, headers=request.headers, content=request.body, timeout=self._timeout
            )
        except OutboundRefused as error:
            raise VendorTrouble(Trouble(TroubleKind.TRANSIENT, VendorError(f"Not called: {error}."))) from error
        except OutboundFailed as error:
            kind = TroubleKind.UNANSWERED if error.sent else TroubleKind.TRANSIENT
            raise VendorTrouble(Trouble(kind, VendorError(f"No answer: {error}."))) from error
        body = answer.body if 200 <= answer.status < 300 else without_secrets(answer.body, credentials)
        return VendorAnswer(answer.status, answer.headers, body)

    def asking(self, access: Access, connector: Connector) -> Ask:
        """A function that sends requests for this connection, each within its budget."""

        async def ask(request: VendorRequest) -> VendorAnswer:
            try:
                await self.grant(access, connector)
            except BudgetSpent as error:
                words = VendorError("The connection's own limits allow no further request now.")
                raise VendorTrouble(Trouble(TroubleKind.RATE_LIMITED, words, error.seconds)) from error
            return await self.send(request, access.credentials)

        return ask

    def _budget(self, access: Access, connector: Connector) -> RateBudget:
        limits = tuple(connector.limits(access.settings))
        key = access.connection_id, limits
        if key not in self._budgets:
            self._budgets[key] = RateBudget(self._redis, f"crm:{access.workspace_id}:{access.connection_id}", limits)
        return self._budgets[key]


def without_secrets(body: bytes, credentials: Credentials) -> bytes:
    """An error's body as it may be stored and shown: an answer that quotes our credentials must not spread them."""
    if len(body) > _LONGEST_ERROR:
        return b""
    text = body.decode(errors="surrogateescape")
    return redact(text, _texts(msgspec.to_builtins(credentials))).encode(errors="surrogateescape")


def _texts(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name, each in value.items() if name != "kind" for text in _texts(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    return []
