"""The settings of the containers: complete, secret, made once, and known to docker-compose.yml."""

import re
from pathlib import Path

import pytest

from deploy.compose import settings
from deploy.local.errors import Refused
from deploy.local.settings import REPOSITORY

COMPOSE = (REPOSITORY / "docker-compose.yml").read_text()


def test_every_secret_is_new_and_the_file_its_owners_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert settings.make({}, one)
    assert settings.make({}, other)
    assert one.stat().st_mode & 0o777 == 0o600
    first, second = settings.read(one), settings.read(other)
    assert [name for name, value in first.items() if not value] == []
    secret = {name for name in first if re.search("PASSWORD|SECRET|KEYS$", name)}
    assert len(secret) == 16
    assert {name for name in first if first[name] != second[name]} == secret


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "env"
    assert settings.make({"PORT": "8081", "LOG_LEVEL": "debug"}, file)
    assert (settings.read(file)["PORT"], settings.read(file)["LOG_LEVEL"]) == ("8081", "info")
    before = file.read_text()
    assert not settings.make({"PORT": "8082"}, file)
    assert file.read_text() == before


def test_without_settings_it_is_said_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="make up"):
        settings.read(tmp_path / "none")


def test_the_example_explains_every_variable_that_the_containers_take() -> None:
    taken = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))
    explained = set(re.findall(r"^([A-Z_]+)=", settings.EXAMPLE.read_text(), re.MULTILINE))
    assert taken - explained == set()
    assert explained - taken == {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}  # Compose's own
