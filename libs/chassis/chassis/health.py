"""Whether this process works, and what it depends on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

Ping = Callable[[], Awaitable[dict[str, Any] | None]]

PING_SECONDS = 1.0


class Health:
    """Named pings. A ping returns details or None, and raises if its dependency does not answer.

    A dependency that is not `required` is reported but leaves the process healthy: it works on without it.
    """

    def __init__(self) -> None:
        self._pings: dict[str, tuple[Ping, bool]] = {}
        self.draining = False

    def add(self, name: str, ping: Ping, *, required: bool = True) -> None:
        self._pings[name] = ping, required

    async def check(self) -> dict[str, Any]:
        """`{"status": "ok"|"degraded"|"failing", "dependencies": {name: {"status", "latency_ms", …}}}`."""
        names = list(self._pings)
        results = await asyncio.gather(*(self._ask(name) for name in names))
        dependencies = dict(zip(names, results, strict=True))
        failing = [name for name in names if dependencies[name]["status"] == "failing"]
        status = "ok"
        if self.draining or any(self._pings[name][1] for name in failing):
            status = "failing"
        elif failing:
            status = "degraded"
        return {"status": status, "dependencies": dependencies}

    async def is_ready(self) -> bool:
        """True if the process should get work now."""
        return bool((await self.check())["status"] != "failing")

    async def _ask(self, name: str) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            details = await asyncio.wait_for(self._pings[name][0](), PING_SECONDS) or {}
            status = "ok"
        except Exception as error:  # noqa: BLE001 - whatever a ping raises is the finding
            details, status = {"error": type(error).__name__}, "failing"
        return {"status": status, "latency_ms": round((time.perf_counter() - started) * 1000, 1), **details}
