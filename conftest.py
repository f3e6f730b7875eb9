"""Makes the fixtures of tests/support known to every test of the repository, and marks what needs no server."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.support.fixtures"]

REPOSITORY = Path(__file__).parent
STARTS_SERVERS = {"servers", "system"}
START_PROCESSES = ("deploy", "gateway", "simulators", "tests")
"""Folders whose tests start programs of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`unit` is whatever needs neither a server's fixture nor programs of its own; it is marked here, so nobody can forget."""
    for item in items:
        folder = item.path.relative_to(REPOSITORY).parts[0]
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder not in START_PROCESSES and not fixtures & STARTS_SERVERS:
            item.add_marker("unit")
