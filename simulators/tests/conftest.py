import itertools
from collections.abc import Iterator

import pytest

from simulators.testing import RunningSimulators

_portals = itertools.count(1001)


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulators]:
    with RunningSimulators(tmp_path_factory.mktemp("simulators")) as running:
        yield running


@pytest.fixture
def portal() -> int:
    """A HubSpot account of the test's own."""
    return next(_portals)
