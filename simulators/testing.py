"""A simulators process of a test's own, and its control endpoint as methods."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from deploy.local.servers import free_ports
from simulators.hubspot.accounts import CLIENT_ID, CLIENT_SECRET

START_SECONDS = 20.0
REPOSITORY = Path(__file__).resolve().parents[1]


def grant_of(portal_id: int) -> dict[str, str]:
    """An OAuth grant of the simulated HubSpot's portal, as a connection's credentials."""
    return {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": f"refresh-sim-{portal_id}"}


class RunningSimulators:
    """`with RunningSimulators(folder) as simulators:` The data stay in `folder`; `kill` and `start` prove it."""

    def __init__(self, folder: Path, *, webhook_secret: str = "") -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {
            "SIMULATORS_PORT": str(self.port),
            "SIMULATORS_DATA_DIR": str(folder),
            "SIMULATORS_WEBHOOK_SECRET": webhook_secret,
            "PYTHONPATH": str(REPOSITORY),
        }
        self._client = httpx2.Client(base_url=self.url, timeout=10, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._end(signal.SIGTERM)

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it ends instead, or takes too long."""
        self._process = subprocess.Popen([sys.executable, "-m", "simulators"], env=self._environment)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._client.get("/health/ready").raise_for_status()
            except httpx2.TransportError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"the simulators did not start (exit code {self._process.poll()})")

    def kill(self) -> None:
        """SIGKILL: what was in memory only is gone."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        return self._client.request(method, path, **arguments)

    def control(self, method: str, path: str, body: object = None) -> Any:
        """A call to /_control/`path`; the parsed answer, None without one. Raises httpx2.HTTPStatusError."""
        response = self._client.request(method, f"/_control/{path}", json=body)
        response.raise_for_status()
        return response.json() if response.content else None

    def add_fault(self, operation: str, effect: dict[str, Any], **rule: Any) -> int:
        """`effect` and `rule` as README.md lists them."""
        body = {"operation": operation, "effect": effect} | rule
        return int(self.control("POST", "hubspot/faults", body)["id"])

    def contacts(self, portal_id: int) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.control("GET", f"hubspot/contacts?portal_id={portal_id}")["contacts"]
        return listed

    def creates(self, portal_id: int, by: str = "email") -> dict[str, int]:
        """How many contacts were ever created for each value of `by`."""
        counts: dict[str, int] = self.control("GET", f"hubspot/creates?portal_id={portal_id}&by={by}")["creates"]
        return counts

    def requests(self, portal_id: int, operation: str = "") -> list[dict[str, Any]]:
        query = f"portal_id={portal_id}" + (f"&operation={operation}" if operation else "")
        listed: list[dict[str, Any]] = self.control("GET", f"hubspot/requests?{query}")["requests"]
        return listed

    def deliveries(self, name: str) -> list[dict[str, Any]]:
        """What the webhook receiver of that name got, one entry for each webhook-id."""
        listed: list[dict[str, Any]] = self.control("GET", f"webhooks?name={name}")["deliveries"]
        return listed
