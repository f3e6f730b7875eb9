"""Ports and secrets of a state folder: chosen once, kept, and nobody else's to read."""

import json
import socket
from pathlib import Path

import pytest

from deploy.local.errors import Refused
from deploy.local.servers.ports import HIGHEST, LOWEST, is_free
from deploy.local.stored import Ports, Secrets, write_json


def test_ports_are_free_below_the_ephemeral_range_and_different(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    chosen = [ports.of(f"process-{number}") for number in range(20)]
    assert len(set(chosen)) == 20
    assert all(LOWEST <= port <= HIGHEST < 32_768 and is_free(port) for port in chosen)


def test_a_port_once_chosen_is_kept_over_restarts(tmp_path: Path) -> None:
    first = Ports(tmp_path).of("leads-1")
    assert Ports(tmp_path).of("leads-1") == first


def test_a_port_that_somebody_else_took_meanwhile_is_chosen_anew(tmp_path: Path) -> None:
    kept, lost = Ports(tmp_path).of("kept"), Ports(tmp_path).of("lost")
    with socket.create_server(("127.0.0.1", lost)):
        ports = Ports(tmp_path)
        assert ports.renew_taken() == ["lost"]
        assert ports.of("kept") == kept
        assert ports.of("lost") != lost


def test_the_gateways_port_is_never_given_to_a_process(tmp_path: Path) -> None:
    port = Ports(tmp_path).of("leads-1")
    ports = Ports(tmp_path, avoid=frozenset({port}))
    ports.renew_taken()
    assert ports.of("leads-1") != port


def test_secrets_are_made_once_long_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    password = secrets.password("postgresql")
    assert len(password) == 32
    assert password != secrets.password("redis")
    assert Secrets(tmp_path).password("postgresql") == password
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_file_is_replaced_whole_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"a": 1})
    path.chmod(0o644)
    write_json(path, {"b": 2})
    assert json.loads(path.read_text()) == {"b": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["figures.json"]


def test_damaged_secrets_are_never_replaced_by_new_ones(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"postgresql": "x')
    with pytest.raises(Refused, match="damaged"):
        Secrets(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == '{"postgresql": "x'
