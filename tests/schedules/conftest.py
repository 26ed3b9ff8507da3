"""A real server for the schedules, a namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus import Client
from cachebus.testing.server import PrivateServer
from tests.support.scheduled_workers import begin_long_ago


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """A Valkey that all tests of this process share."""
    with PrivateServer.start("appendonly no") as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """A Valkey of this test alone, to kill and restart; it keeps what it was told to save, and nothing else."""
    with PrivateServer.start("appendonly no") as running:
        yield running


@pytest.fixture
def namespace() -> str:
    """A namespace nobody else uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def client(server: PrivateServer, namespace: str) -> AsyncIterator[Client]:
    """A connection in a namespace of its own, with a ledger that began long ago."""
    async with Client(server.url, namespace=namespace) as connected:
        await begin_long_ago(connected)
        yield connected
