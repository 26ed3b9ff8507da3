"""Two processes' locks, on a server and in a process without one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cachebus import Cache
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client, Connector


@pytest.fixture(params=["server", "process"])
async def connector(request: pytest.FixtureRequest, client: Client) -> AsyncIterator[Connector]:
    """A server, and a process without one."""
    async with Cache.memory() as cache:
        yield client if request.param == "server" else cache


@pytest.fixture
def locks(connector: Connector) -> Locks:
    """The locks of one process, or of one module of it."""
    return Locks(connector, owner="me")


@pytest.fixture
def others(connector: Connector) -> Locks:
    """The locks of another process, or of another module."""
    return Locks(connector, owner="them")
