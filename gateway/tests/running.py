"""A private nginx with the rendered configuration, and replicas behind it that can be killed."""

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from deploy.local.servers import free_ports
from gateway.reload import change_replicas
from gateway.render import GatewaySettings, nginx_command, render
from tests.support.processes import ServiceProcess

START_SECONDS = 20.0
FORGIVEN_SECONDS = 2.1
"""nginx leaves a failed replica out for fail_timeout, counted in whole seconds. If all are left out their spares answer, and hide it."""
STATIC = Path(__file__).parents[1] / "static"


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)
        else:
            return


class Replica:
    def __init__(self, name: str, journal: Path, port: int) -> None:
        self.name, self.port, self._journal = name, port, journal
        self.address = f"127.0.0.1:{port}"
        self._process: ServiceProcess | None = None

    def launch(self) -> None:
        words = (str(self.port), self.name, str(self._journal))
        self._process = ServiceProcess("gateway.tests.upstream", os.environ, *words)

    def start(self) -> bool:
        """Whether there was something to do: a replica that lives is left alone."""
        is_dead = self._process is None or self._process.poll() is not None
        if is_dead:
            self.launch()
        wait_for_port(self.port)
        return is_dead

    def signal(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)
        if what in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait(START_SECONDS)


class Gateway:
    """Two replicas of leads, one each of auth and workflows, none of crm_sync."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        ports = free_ports(6)
        self.folder = folder
        self.journal = folder / "journal"
        self.journal.touch()
        names = ("leads", "leads", "auth", "workflows")
        self.replicas = [Replica(name, self.journal, port) for name, port in zip(names, ports[2:], strict=True)]
        self.leads = self.replicas[:2]
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.internal_url = f"http://127.0.0.1:{ports[1]}"
        self.port = ports[0]
        self.settings = replace(
            GatewaySettings(
                public_listen=f"127.0.0.1:{ports[0]}",
                internal_listen=f"127.0.0.1:{ports[1]}",
                replicas=self.addresses(),
                static_dir=STATIC,
                log_dir=folder / "log",
                pid_path=folder / "nginx.pid",
                temp_dir=folder / "temp",
            ),
            **settings,
        )
        self.configuration = folder / "configuration"
        self._process: subprocess.Popen[bytes] | None = None

    def addresses(self, *, leads: int = 2) -> dict[str, list[str]]:
        addresses: dict[str, list[str]] = {}
        for one in [*self.leads[:leads], *self.replicas[2:]]:
            addresses.setdefault(one.name, []).append(one.address)
        return addresses

    def start(self) -> None:
        for one in self.replicas:
            one.launch()
        self.start_nginx()
        self.revive()

    def revive(self) -> None:
        """Start the replicas that have died, and wait until nginx uses them again."""
        revived = [one.port for one in self.replicas if one.start()]
        deadline = time.monotonic() + START_SECONDS
        waiting = {one.port for one in self.leads} & set(revived)
        if len(waiting) == len(self.leads):
            time.sleep(FORGIVEN_SECONDS)
        with httpx2.Client(base_url=self.url, trust_env=False) as client:
            while waiting:
                assert time.monotonic() < deadline, f"nginx does not use {waiting} again"
                waiting -= {client.get("/api/leads").json().get("port")}

    def start_nginx(self) -> None:
        render(self.configuration, self.settings)
        with (self.folder / "nginx.log").open("w") as log:
            self._process = subprocess.Popen(nginx_command(self.configuration), stderr=log)
        wait_for_port(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(START_SECONDS)
        for one in self.replicas:
            one.signal(signal.SIGKILL)

    def change_leads(self, count: int) -> bool:
        addresses = self.addresses(leads=count)
        return change_replicas(self.configuration, self.settings.pid_path, addresses)

    def received(self, marker: str) -> list[dict[str, Any]]:
        """The requests with `marker` in path or query that reached a replica."""
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if marker in f"{line['path']}?{line['query']}"]

    def logged(self, request_id: str, count: int = 1) -> list[dict[str, Any]]:
        """The access log's lines about the requests with this id, once there are `count` of them: it is written once a second."""
        deadline = time.monotonic() + START_SECONDS
        log = self.folder / "log" / "access.log"
        while True:
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            found = [line for line in lines if line["request_id"] == request_id]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} lines of {request_id}"
            time.sleep(0.05)

    def raw(self, request: bytes) -> bytes:
        """What comes back for bytes that no client library would send."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def client(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=100)
        return httpx2.AsyncClient(base_url=self.url, timeout=40, trust_env=False, limits=limits)
