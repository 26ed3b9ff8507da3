"""The cache and the bus on servers of other makes and shapes: Redis 7, and a failover under Sentinel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from cachebus import Cache, is_queued
from cachebus.bus.effects import Effects, Invalidate
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.freshness.present import newest_clock
from cachebus.redis.embedded.process import valkey_binary
from cachebus.testing.server import PrivateCluster
from tests.support.lacking import program
from tests.support.other_servers import Watched, processes, watched
from tests.support.waiting import caught_up, until


class Changed(msgspec.Struct):
    n: int


@on("changed", Changed)
def changed(event: Changed) -> Effects:
    """What was written is read anew."""
    yield Invalidate(tags=[f"n:{event.n}"])


class Source:
    """A database of one version number, and views of it in two processes' caches."""

    def __init__(self, *caches: Cache) -> None:
        self.version = 1
        self.loads = 0
        self.views = [cache.view("version:{n}", ttl="10m", tags=["n:{n}"])(self._load) for cache in caches]

    async def _load(self, n: int) -> int:
        self.loads += 1
        seen = self.version
        await asyncio.sleep(0.002)
        return seen


@asynccontextmanager
async def handling(cache: Cache) -> AsyncIterator[Consumer]:
    """Run a worker's consumer."""
    consumer = Consumer(cache.client, [changed])
    running = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def core_holds(here: Cache, there: Cache) -> None:
    """Read, share a load, invalidate, publish, handle."""
    source = Source(here, there)
    mine, theirs = source.views
    assert await asyncio.gather(*[mine(7) for _ in range(20)], *[theirs(7) for _ in range(20)]) == [1] * 40
    assert source.loads == 1
    source.version = 2
    clock = await here.invalidate(tags=["n:7"])
    assert await mine(7) == 2
    assert await theirs(7, fresh_after=clock) == 2
    assert source.loads == 2
    async with handling(here) as consumer:
        source.version = 3
        await Bus(there.client).publish("changed", Changed(7))
        await until(lambda: consumer.stats.events == 1, "handled")
        committed = await newest_clock(here.client)
        for cache in (here, there):
            await caught_up(cache, committed)
        assert [await mine(7), await theirs(7)] == [3, 3]


@pytest.fixture(scope="module")
def redis7() -> Iterator[str]:
    """A Redis of the distribution."""
    with processes(program("redis-server"), ("--appendonly no", "--save  ")) as (server,):
        yield f"redis://127.0.0.1:{server.port}/0"


async def test_redis_7_serves_cache_and_bus(redis7: str) -> None:
    """Every script of the main path runs there."""
    async with Cache(redis7) as here, Cache(redis7) as there:
        assert b"redis_version:7." in await here.client.store.call("INFO", "server")
        await core_holds(here, there)


async def test_one_endpoint_before_many_shards_serves_cache_and_bus() -> None:
    """Keys of two slots are refused there in one command; nothing that is sent names any."""
    with PrivateCluster.start(size=1) as cluster:
        url = cluster.nodes[0].url
        async with Cache(url) as here, Cache(url) as there:
            assert here.client.store.slots
            await core_holds(here, there)


@pytest.fixture
def sentinel(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A watched primary of the make that the test asks for."""
    binary = program("redis-server") if request.param == "redis" else str(valkey_binary())
    with watched(binary) as three:
        yield three


@pytest.mark.parametrize(
    ("sentinel", "cause"), [("valkey", "kill"), ("valkey", "pause"), ("redis", "kill")], indirect=["sentinel"]
)
async def test_nothing_stale_is_read_through_a_failover(sentinel: Watched, cause: str) -> None:
    """A writer goes on while Sentinel replaces the primary, and nobody reads what it has invalidated."""
    async with Cache(sentinel.url) as here, Cache(sentinel.url) as there:
        await core_holds(here, there)
        source = Source()
        source.version = 10
        views = [cache.view("moving:{n}", ttl="10m", tags=["n:{n}"])(source._load) for cache in (here, there)]
        stale: list[tuple[int, int]] = []
        rounds = 0
        over = False

        async def write() -> None:
            nonlocal rounds
            while not over:
                source.version += 1
                least, clock = source.version, await here.invalidate(tags=["n:1"])
                mine = await views[0](1)
                theirs = await views[1](1, fresh_after=clock) if not is_queued(clock) else least
                stale.extend((value, least) for value in (mine, theirs) if value < least)
                rounds += 1
                await asyncio.sleep(0.005)

        writing = asyncio.create_task(write())
        await until(lambda: rounds > 20 and sentinel.replica_has(here.names.ledger), "replication")
        getattr(sentinel.primary, cause)()
        await until(sentinel.failed_over, "a failover")
        await until(lambda: here.client.store.up and there.client.store.up, "both are connected to the new primary")
        at = rounds
        await until(lambda: rounds > at + 20, "writes on the new primary")
        over = True
        await writing
        if cause == "pause":
            sentinel.primary.resume()
        assert stale == []
        clock = await here.invalidate(tags=["n:1"])
        assert not is_queued(clock)
        await caught_up(there, clock)
        assert [await view(1) for view in views] == [source.version] * 2
