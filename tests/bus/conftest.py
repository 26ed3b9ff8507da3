"""A real server for the bus's tests: one for all of them that leave it alone, one of its own for who breaks it."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """Return a server that this test process shares."""
    with PrivateServer.start() as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """Return a server of this test's own, to be killed, paused and emptied."""
    with PrivateServer.start() as running:
        yield running


@pytest.fixture
async def client(server: PrivateServer) -> AsyncIterator[Client]:
    """Return a connected client in a namespace nobody has used."""
    async with Client(server.url, namespace=f"t{os.getpid()}-{next(_numbers)}") as connected:
        yield connected
