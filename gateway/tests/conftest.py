from collections.abc import Iterator

import pytest

from gateway.tests.running import Gateway


@pytest.fixture(scope="session")
def running_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def gateway(running_gateway: Gateway) -> Gateway:
    """The session's gateway with every replica alive."""
    running_gateway.revive()
    return running_gateway
