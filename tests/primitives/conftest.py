"""A real server for each test process, and a link of its own namespace for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus.link import Link
from cachebus.private_server import PrivateServer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """A server that all tests of one process share."""
    with PrivateServer.start("appendonly no") as private:
        yield private


@pytest.fixture
async def link(server: PrivateServer) -> AsyncIterator[Link]:
    """A connected link in a namespace that no other test has."""
    async with Link(server.url, namespace=f"t{next(_numbers)}") as connected:
        yield connected
