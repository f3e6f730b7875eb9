"""For every test of the repository: the fixtures of tests/support, the mark `unit`, and how several processes share the tests."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
import xdist
from xdist.scheduler import LoadScopeScheduling

from tests.support.servers import shared_test_servers

pytest_plugins = ["tests.support.fixtures"]

REPOSITORY = Path(__file__).parent
STARTS_SERVERS = {"servers", "system"}
START_PROCESSES = ("deploy", "gateway", "simulators", "tests")
"""Folders whose tests start programs of their own."""
ON_ONE_SYSTEM = "tests"
"""The folder whose tests share one running system."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`unit` is whatever needs neither a server's fixture nor programs of its own; it is marked here, so nobody can forget."""
    for item in items:
        folder = item.path.relative_to(REPOSITORY).parts[0]
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder not in START_PROCESSES and not fixtures & STARTS_SERVERS:
            item.add_marker("unit")


def pytest_configure() -> None:
    """Log lines as the services write them: structlog's default draws each exception with all its variables, for seconds."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=repr),
        ]
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Several processes that share the tests share the servers too."""
    if xdist.is_xdist_controller(session):
        whole_session = ExitStack()
        session.config.add_cleanup(whole_session.close)
        whole_session.enter_context(shared_test_servers())


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A file's tests run in one process, and so do all tests on the running system, so that there is one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ON_ONE_SYSTEM if file.startswith(f"{ON_ONE_SYSTEM}/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Scheduling(config, log)
