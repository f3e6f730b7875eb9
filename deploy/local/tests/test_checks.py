"""What a start refuses before it does anything: one line that says what to do."""

import os
import socket
from pathlib import Path

import pytest

from deploy.local import checks
from deploy.local.errors import Refused
from deploy.local.settings import REPOSITORY, Settings


def test_the_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "deep" / "state")
    checks.make_state_folder(settings)
    for folder in (settings.state, settings.logs, settings.run):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_full_of_other_things_is_neither_used_nor_removed(tmp_path: Path) -> None:
    from deploy.local.stop import clean

    (tmp_path / "thesis.odt").write_text("years of work")
    settings = Settings(state=tmp_path)
    with pytest.raises(Refused, match="in use for something else"):
        checks.make_state_folder(settings)
    with pytest.raises(Refused, match="not made by this program"):
        clean(settings)
    assert (tmp_path / "thesis.odt").exists()


def test_a_state_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="not a folder"):
        checks.make_state_folder(Settings(state=tmp_path / "file" / "state"))


def test_a_taken_port_is_refused_with_another_to_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Refused, match=rf"port {port} is taken: .*PORT=\d+"):
            checks.check_port(port)


def test_a_port_just_left_is_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    checks.check_port(port)


def test_a_disk_without_room_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"disk is full: .* of 1000000000 needed"):
        checks.check_space(tmp_path, 1_000_000_000)
    checks.check_space(tmp_path, 0)


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "8080.5", ""])
def test_a_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(Refused, match="is no port"):
        Settings.from_environment()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "18080")
    monkeypatch.setenv("STATE_DIR", os.path.relpath(tmp_path, REPOSITORY))
    monkeypatch.setenv("ADMIN_EMAIL", "chief@example.com")
    monkeypatch.setenv("ADMIN_PASSWORD", "")
    settings = Settings.from_environment()
    assert settings.address == "http://127.0.0.1:18080"
    assert settings.state == tmp_path
    assert settings.admin_email == "chief@example.com"
    assert settings.admin_password is None
