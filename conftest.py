"""Makes the fixtures of tests/support known to every test, marks what needs no server, and says which tests belong together."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.support.fixtures"]

REPOSITORY = Path(__file__).parent
STARTS_SERVERS = {"servers", "system"}
WHOLE_SYSTEMS = ("tests", "deploy")
"""Folders whose tests run whole systems: one after the other, or they starve each other."""
START_PROCESSES = ("deploy", "gateway", "simulators", "tests")
"""Folders whose tests start programs of their own."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`unit` is whatever needs neither a server's fixture nor programs of its own; it is marked here, so nobody can forget.

    Tests of one file run in one of pytest-xdist's processes, and so do all that run whole systems.
    """
    for item in items:
        folder = item.path.relative_to(REPOSITORY).parts[0]
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder not in START_PROCESSES and not fixtures & STARTS_SERVERS:
            item.add_marker("unit")
        item.add_marker(pytest.mark.xdist_group("system" if folder in WHOLE_SYSTEMS else str(item.path)))
