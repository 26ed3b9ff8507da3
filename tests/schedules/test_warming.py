"""Warming: what is popular first, gradually, and nothing that is fresh."""

from __future__ import annotations

import asyncio
import random

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError
from cachebus.popularity import Popularity, popular
from cachebus.private_server import PrivateServer
from cachebus.warming import Pace, Warm


async def test_the_hundred_most_wanted_are_found_in_a_skewed_trace(server: PrivateServer, namespace: str) -> None:
    """Three processes sample a Zipf trace; of its true top hundred, 95 are found."""
    draw = random.Random(7)  # noqa: S311 - a trace that can be had again
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:
        weights = [1 / (rank + 1) for rank in range(20_000)]
        trace = draw.choices(range(20_000), weights, k=1_000_000)
        counts: dict[int, int] = {}
        tables = [Popularity(cache.link) for _ in range(3)]
        for number, key in enumerate(trace):
            counts[key] = counts.get(key, 0) + 1
            if number % 4 == 0:
                tables[number % 3].note("view", lambda key=key: f"[{key}]".encode(), 4)
        for table in tables:
            await table.flush()
        true = sorted(counts, key=lambda key: counts[key], reverse=True)[:100]
        found = {int(encoded[1:-1]) for encoded in await popular(cache.link, "view", 100)}
    assert len(found & set(true)) >= 95


async def test_reads_make_a_view_popular_and_warming_begins_with_the_most_wanted(
    server: PrivateServer, namespace: str
) -> None:
    """Nothing is configured: what was read is what is warmed."""
    loads: list[int] = []
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace, max_memory_entries=0)) as cache:

        @cache.view("warm:{n}", ttl="1h")
        async def value(n: int) -> int:
            loads.append(n)
            return n

        for n, times in ((1, 4), (2, 12), (3, 40)):
            for _ in range(times):
                await value(n)
        assert cache._running is not None
        assert cache._running.popularity is not None
        await cache._running.popularity.flush()
        warm = Warm(cache.link)
        wanted = await warm.popular(value, 3)
        assert wanted[:2] == [(3,), (2,)]
        await cache.clear()
        loads.clear()
        done = await warm(value, wanted, per_second=1000, concurrency=1)
        assert loads[:2] == [3, 2]
        assert (done.loaded, done.fresh, done.failed) == (3, 0, 0)
        again = await warm(value, wanted, per_second=1000)
        assert (again.loaded, again.fresh) == (0, 3)


async def test_a_load_that_fails_leaves_the_others_warm(server: PrivateServer, namespace: str) -> None:
    """It is counted and passed over."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:

        @cache.view("partly:{n}", ttl="1h")
        async def value(n: int) -> int:
            if n == 2:
                raise LookupError(n)
            return n

        done = await Warm(cache.link)(value, [1, 2, 3], per_second=1000)
    assert (done.loaded, done.failed, done.total) == (2, 1, 3)


async def test_warming_never_has_more_under_way_than_it_may(server: PrivateServer, namespace: str) -> None:
    """Bounded concurrency, whatever the rate."""
    under_way = most = 0
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:

        @cache.view("bounded:{n}", ttl="1h")
        async def value(n: int) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return n

        await Warm(cache.link)(value, range(40), per_second=10_000, concurrency=3)
    assert most == 3


async def test_without_redis_there_is_nothing_to_warm(own_proxyless: Cache) -> None:
    """What would be loaded could not be kept: warming stops and says why."""

    @own_proxyless.view("away:{n}", ttl="1h")
    async def value(n: int) -> int:
        return n

    done = await Warm(own_proxyless.link)(value, [1, 2, 3])
    assert done.stopped == "Redis is away"
    assert done.loaded == 0


@pytest.fixture
async def own_proxyless():  # type: ignore[no-untyped-def]
    """A cache whose server is not there."""
    async with Cache("redis://127.0.0.1:1") as cache:
        yield cache


def test_the_pace_halves_when_the_database_slows_down_and_recovers_one_by_one() -> None:
    """Twice as slow: half as many. Back to normal: one more at a time."""
    pace = Pace(8)
    for _ in range(10):
        pace.took(0.01)
    assert pace.now == 8
    for _ in range(6):
        pace.took(0.1)
    slowed = pace.now
    assert slowed <= 4
    for _ in range(20):
        pace.took(0.01)
    assert pace.now == slowed + 1


async def test_a_pace_that_cannot_be_kept_is_refused(server: PrivateServer, namespace: str) -> None:
    """The view is named."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:

        @cache.view("refused:{n}", ttl="1h")
        async def value(n: int) -> int:
            return n

        with pytest.raises(ConfigurationError, match="refused"):
            await Warm(cache.link)(value, [1], per_second=0)
