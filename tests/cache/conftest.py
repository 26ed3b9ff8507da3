"""A real server, caches that are processes of one deployment, and a network that fails on command."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from cachebus import Cache, CacheSettings
from cachebus.private_server import PrivateServer
from cachebus.testing import FaultProxy

KEPT_FOREVER = ("ledger", "journal")
"""What may lie in Redis without a TTL: the names ARCHITECTURE.md lists."""


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """A Valkey that all tests of this process share."""
    with PrivateServer.start("appendonly no") as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """A Valkey of this test alone, to kill, pause and restart."""
    with PrivateServer.start() as running:
        yield running


@pytest.fixture
def namespace(server: PrivateServer) -> Iterator[str]:
    """A namespace nobody else uses; nothing in it may outlive its use without saying so."""
    name = f"t{secrets.token_hex(4)}"
    yield name
    for key in server.ask("KEYS", f"*{name}*"):
        if server.ask("PTTL", key) == -1:
            assert key.decode().rpartition(":")[2] in KEPT_FOREVER, f"{key.decode()} has no TTL"


Connect = Callable[..., Awaitable[Cache]]


@pytest.fixture
async def connect(server: PrivateServer, namespace: str) -> AsyncIterator[Connect]:
    """Call it for a connected cache: each is like another process of the same deployment."""
    async with AsyncExitStack() as stack:

        async def connected(**settings: object) -> Cache:
            given = {"url": server.url, "namespace": namespace, **settings}
            return await stack.enter_async_context(Cache(settings=CacheSettings(**given)))  # type: ignore[arg-type]

        yield connected


@pytest.fixture
async def cache(connect: Connect) -> Cache:
    """One connected cache."""
    return await connect()


@pytest.fixture
async def proxy(server: PrivateServer) -> AsyncIterator[FaultProxy]:
    """The same server, behind a network that can fail."""
    async with FaultProxy(server.port) as between:
        yield between


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something is so; fail after twenty seconds."""
    for _ in range(4000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"never happened: {what}")


async def caught_up(cache: Cache, clock: int) -> None:
    """Wait until *cache* has applied the journal up to *clock*."""
    assert cache.reader is not None
    freshness = cache.reader.freshness
    await until(lambda: freshness.position >= clock, f"the journal at {clock}")
