"""HTTP to others: services of this house, and the world outside. The one place that knows which client library it is.

httpx2 is the maintained continuation of httpx.
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpcore2
import httpx2

from chassis.context import current
from chassis.errors import Unavailable
from chassis.metrics import OUTBOUND_CALLS
from chassis.settings import ServiceSettings

ANSWER_LIMIT_BYTES = 1_048_576
DEFAULT_TIMEOUT_SECONDS = 10.0


class OutboundRefused(Exception):
    """The call was not made: its address is not one we may reach, or it cannot be resolved."""


class OutboundFailed(Exception):
    """The call got no whole answer. `sent` is False if the request cannot have reached the other side, else True."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """A whole answer: header names in lower case, at most ANSWER_LIMIT_BYTES of body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@cache
def _public_authorities() -> ssl.SSLContext:
    """The machine's certificate authorities, read once for all clients: a process's start waits for it, and it is large."""
    return httpx2.create_ssl_context(trust_env=False)


def make_internal_client(settings: ServiceSettings) -> httpx2.AsyncClient:
    """A client for the gateway's internal listener; no proxies from the environment."""
    return httpx2.AsyncClient(
        base_url=settings.internal_url,
        timeout=httpx2.Timeout(10, connect=1, pool=2),
        limits=httpx2.Limits(max_connections=50, max_keepalive_connections=20, keepalive_expiry=30),
        trust_env=False,
        verify=_public_authorities(),
    )


class ServiceClient:
    """Calls other services' public API as this service, in a workspace, with the running task's chain and origin."""

    def __init__(self, settings: ServiceSettings, client: httpx2.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._tokens: dict[str, tuple[str, float]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def request(
        self,
        method: str,
        path: str,
        *,
        workspace_id: str,
        json: Any = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> httpx2.Response:
        """Any answer, whatever its status. OutboundFailed if there was none, Unavailable if auth gives no token."""
        context = current()
        sent = {
            "authorization": f"Bearer {await self._token(workspace_id)}",
            "x-origin": context.origin,
            "x-chain": ",".join(context.chain),
            **(headers or {}),
        }
        if context.request_id:
            sent["x-request-id"] = context.request_id
        if context.traceparent:
            sent["traceparent"] = context.traceparent
        if idempotency_key:
            sent["idempotency-key"] = idempotency_key
        try:
            answer = await self._client.request(method, path, json=json, headers=sent, timeout=timeout)
        except httpx2.ConnectError as error:
            raise OutboundFailed(f"{method} {path}: {error}", sent=False) from error
        except httpx2.HTTPError as error:
            raise OutboundFailed(f"{method} {path}: {error or type(error).__name__}", sent=True) from error
        if answer.status_code == 401:
            self._tokens.pop(workspace_id, None)
        return answer

    async def _token(self, workspace_id: str) -> str:
        async with self._locks.setdefault(workspace_id, asyncio.Lock()):
            held = self._tokens.get(workspace_id)
            if held is not None and held[1] > time.monotonic():
                return held[0]
            form = {
                "grant_type": "client_credentials",
                "client_id": self._settings.service,
                "client_secret": self._settings.service_client_secret.get_secret_value(),
                "workspace_id": workspace_id,
            }
            try:
                answer = await self._client.post("/api/auth/token", data=form)
                answer.raise_for_status()
            except httpx2.HTTPError as error:
                raise Unavailable("No token from auth; try again.") from error
            document = answer.json()
            token = str(document["access_token"])
            self._tokens[workspace_id] = token, time.monotonic() + float(document["expires_in"]) * 0.8
            return token


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only: a name is resolved once, all its addresses are checked, and one of them is connected to.

    The client above knows hosts by their names: it keeps connections apart by name, and verifies each name's own certificate.
    """

    def __init__(self, allowed: Set[str]) -> None:
        self._allowed = allowed
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        *others, last = await self._resolve(host, port)
        for address in others:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._network.connect_tcp(last, port, timeout, local_address, socket_options)

    async def _resolve(self, host: str, port: int) -> list[str]:
        """The host's addresses. OutboundRefused unless each is public; ConnectError if no name server answers."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise httpcore2.ConnectError(f"{host} cannot be resolved now: {error}") from error
            raise OutboundRefused(f"{host} cannot be resolved: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        if f"{host.lower()}:{port}" not in self._allowed and not all(map(is_public, addresses)):
            raise OutboundRefused(f"{host} is not a public address")
        return addresses


class _CheckedTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, allowed: Set[str]) -> None:
        super().__init__(verify=_public_authorities(), trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_public_authorities(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=30,
            network_backend=_CheckedNetwork(allowed),
        )


class OutboundClient:
    """Calls to the outside world: HTTPS on port 443 to public addresses, resolved once and connected to as resolved.

    No redirects, no proxies from the environment, answers of at most 1 MiB, 10 seconds unless told less. `allowed_hosts`
    (`host:port`) are exempt from the scheme, port and address rules. Guards against server-side request forgery as the
    Standard Webhooks specification asks ("Server side request forgery").
    """

    def __init__(self, allowed_hosts: str) -> None:
        self._allowed = {entry.strip().lower() for entry in allowed_hosts.split(",") if entry.strip()}
        self._client = httpx2.AsyncClient(
            transport=_CheckedTransport(self._allowed), follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    def check_url(self, url: str) -> None:
        """OutboundRefused for a URL that could never be called, whatever it resolves to."""
        self._target(url)

    def _target(self, url: str) -> httpx2.URL:
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError) as error:
            raise OutboundRefused(f"not a URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise OutboundRefused("only https URLs can be called")
        if parsed.userinfo:
            raise OutboundRefused("a URL must not carry credentials")
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        exempt = f"{parsed.host.lower()}:{port}" in self._allowed
        if not exempt and (parsed.scheme != "https" or port != 443):
            raise OutboundRefused("only https on port 443 can be called")
        return parsed

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> OutboundResponse:
        """The whole answer. OutboundRefused: never sent. OutboundFailed: `sent` says whether it may have arrived."""
        target = self._target(url)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._send(method, target, headers=headers or {}, content=content, timeout=timeout)
        except UnicodeError as error:  # a host's name or a header that cannot be written in ASCII
            raise OutboundRefused(f"the request cannot be written: {error}") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            OUTBOUND_CALLS.labels("unreachable").inc()
            raise OutboundFailed(f"no connection: {error or type(error).__name__}", sent=False) from error
        except (httpx2.HTTPError, TimeoutError) as error:
            OUTBOUND_CALLS.labels("no_answer").inc()
            raise OutboundFailed(f"no answer: {error or type(error).__name__}", sent=True) from error
        OUTBOUND_CALLS.labels("answered").inc()
        return answer

    async def _send(
        self, method: str, target: httpx2.URL, *, headers: Mapping[str, str], content: bytes | None, timeout: float
    ) -> OutboundResponse:
        request = self._client.build_request(method, target, headers=headers, content=content, timeout=timeout)
        response = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise OutboundFailed(f"the answer has more than {ANSWER_LIMIT_BYTES} bytes", sent=True)
        finally:
            await response.aclose()
        return OutboundResponse(
            response.status_code, {name.lower(): value for name, value in response.headers.items()}, bytes(body)
        )


_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """False for private, loopback, link-local, shared (100.64/10), multicast and reserved addresses, also where an IPv4 address is
    carried in an IPv6 one (mapped, 6to4, Teredo, NAT64)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)))
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if embedded is not None:
            return is_public(str(embedded))
        if parsed not in _GLOBAL_UNICAST:
            return False
    return parsed.is_global and not parsed.is_multicast
