"""One deployment for all tests that look at it in a browser; each test begins with what it finds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cachebus.testing.server import PrivateServer
from tests.support.tradesense_site import Deployment, deployed


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """Everything, on a server to be killed and restarted."""
    with PrivateServer.start() as server:
        async with deployed(server, tmp_path_factory.mktemp("deployment")) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="session")
async def made(deployment: Deployment) -> Deployment:
    """The deployment, recovered from what the test before did to it."""
    await deployment.worker_listens()
    return deployment
