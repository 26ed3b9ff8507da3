"""A private Valkey and a connection to it, in a namespace of each test's own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus import Cache, CacheSettings
from cachebus.testing.server import PrivateServer


@pytest.fixture(scope="session")
def redis() -> Iterator[PrivateServer]:
    """One server for all tests of this worker process."""
    with PrivateServer.start("appendonly no") as server:
        yield server


@pytest.fixture
def settings(redis: PrivateServer) -> CacheSettings:
    """Settings of a deployment that nobody else uses."""
    return CacheSettings(url=redis.url, namespace=f"test-{secrets.token_hex(4)}")


@pytest.fixture
async def cache(settings: CacheSettings) -> AsyncIterator[Cache]:
    """A connected cache."""
    async with Cache(settings=settings) as cache:
        yield cache
