"""A program as the supervisor keeps it: what to run, how to stop it, and when in the order of things."""

import dataclasses
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.servers import Server

PORT_MAPPER, SERVERS, SERVICES, GATEWAY, WORKERS = range(5)
"""Stages, stopped from the last to the first: workers finish through the gateway, services on live servers."""


@dataclass(frozen=True)
class Program:
    """One process to keep running. `name` names its log and its pid file; `service` groups replicas."""

    name: str
    service: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    log: str
    stage: int
    port: int | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 30

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Program":
        return cls(**{**content, "argv": tuple(content["argv"])})


def of_server(server: Server, logs: Path, port: int, stage: int) -> Program:
    """A prepared server as a program."""
    command = server.command()
    return Program(
        name=server.name,
        service=server.name,
        argv=command.argv,
        cwd=str(command.cwd),
        env=command.env,
        log=str(logs / f"{server.name}.log"),
        stage=stage,
        port=port,
        stop_signal=server.stop_signal,
    )
