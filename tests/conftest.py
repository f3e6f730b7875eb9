"""One running system for all tests of the whole: a test that breaks something puts it right again, the next one what a failure left."""

from collections.abc import AsyncIterator

import pytest

from tests.support.system import Client, RunningSystem, running_system


@pytest.fixture(scope="session")
async def system() -> AsyncIterator[RunningSystem]:
    with running_system() as started:
        yield started
        await started.close()


@pytest.fixture
async def client(system: RunningSystem) -> AsyncIterator[Client]:
    """The administrator's client of the gateway, to a system that is all there."""
    system.put_right()
    made = await system.sign_in()
    yield made
    await made.close()
