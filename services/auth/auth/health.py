"""The whole system's health: every process is asked for its own, all at once."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2

from chassis.clock import rfc3339, utcnow
from chassis.logs import get_logger

log = get_logger()

# A process bounds each of its own checks to one second, and needs a moment around them.
ASK_SECONDS = 1.5
KEEP_SECONDS = 1.0
_WORDS = ("status", "error")


async def resolve(host: str) -> list[str]:
    """The IPv4 addresses of a name; none of an address itself, nor of a name that nobody has now."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
        except OSError:
            return []
        return [str(address[0]) for *_, address in found]
    return []


class SystemHealth:
    """Asks the targets at most once a second, whoever asks here: the answer is public, the work behind it is not cheap.

    A target whose host is a name stands for a process at each address of it: `leads` becomes `leads-1`, `leads-2`, in the order of
    the addresses. So containers are found by the name of their service.
    """

    def __init__(
        self,
        targets: Callable[[], Mapping[str, str]],
        client: httpx2.AsyncClient,
        addresses_of: Callable[[str], Awaitable[Sequence[str]]] = resolve,
    ) -> None:
        self._targets = targets
        self._client = client
        self._addresses_of = addresses_of
        self._asking = asyncio.Lock()
        self._found: dict[str, Any] = {}
        self._found_at = float("-inf")

    async def check(self) -> dict[str, Any]:
        """`{"status": "ok"|"degraded"|"failing", "checked_at", "services": {name: {"status", "latency_ms", "dependencies"}}}`."""
        async with self._asking:
            if time.monotonic() - self._found_at > KEEP_SECONDS:
                self._found = await self._ask_all()
                self._found_at = time.monotonic()
            return self._found

    async def _ask_all(self) -> dict[str, Any]:
        try:
            targets = self._targets()
        except (OSError, ValueError) as error:
            log.warning("fail-reading-health-targets", error=str(error))
            return {"status": "failing", "checked_at": rfc3339(utcnow()), "services": {}}
        found = await asyncio.gather(*(self._replicas(name, url) for name, url in targets.items()))
        asked = {name: url for replicas in found for name, url in replicas.items()}
        answers = await asyncio.gather(*(self._ask(name, url) for name, url in asked.items()))
        services = dict(zip(asked, answers, strict=True))
        statuses = {service["status"] for service in services.values()}
        status = next((each for each in ("failing", "degraded") if each in statuses), "ok")
        return {"status": status, "checked_at": rfc3339(utcnow()), "services": services}

    async def _replicas(self, name: str, url: str) -> dict[str, str]:
        """The target's processes by name; itself when its host is an address or has none."""
        parts = urlsplit(url)
        addresses = await self._addresses_of(parts.hostname or "")
        return {
            f"{name}-{number}": parts._replace(netloc=f"{address}:{parts.port or 80}").geturl()
            for number, address in enumerate(sorted(addresses), start=1)
        } or {name: url}

    async def _ask(self, name: str, url: str) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            answer = await self._client.get(f"{url.rstrip('/')}/health/detailed", timeout=ASK_SECONDS)
            found = public_part(answer.json())
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            log.warning("miss-health", target=name, error=type(error).__name__)
            found = {}
        status = found.get("status")
        found["status"] = status if status in ("ok", "degraded") and answer_is_whole(found) else "failing"
        return found | {"latency_ms": round((time.perf_counter() - started) * 1000, 1)}


def answer_is_whole(found: Mapping[str, Any]) -> bool:
    """True if a process also said what it depends on: anything else that answers at its address is not ours."""
    return isinstance(found.get("dependencies"), dict)


def public_part(found: Any) -> dict[str, Any]:
    """Numbers, and words only under `status` and `error`: whatever else a process reports may name hosts."""
    if not isinstance(found, dict):
        return {}
    kept: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            kept[name] = public_part(value)
        elif isinstance(value, int | float) or (name in _WORDS and isinstance(value, str)):
            kept[name] = value
    return kept
