"""Five thousand cold entries, live traffic at the same time, a database that slows down under load."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from cachebus import Cache, CacheSettings
from cachebus.cache.upkeep.warming import Warm
from cachebus.cache.view import View
from cachebus.testing.server import PrivateServer

ROWS = 5_000
READERS = 10
READS = 150
CONCURRENCY = 4

warming: ContextVar[bool] = ContextVar("warming", default=False)


class SlowDatabase:
    """Each read takes longer the more of them are under way. Knows which of them warming began."""

    def __init__(self) -> None:
        self.loads: Counter[int] = Counter()
        self.live = 0
        self.under_way = self.warming = self.most_warming = 0

    async def read(self, number: int) -> int:
        """Return a row."""
        warm = warming.get()
        self.loads[number] += 1
        self.live += not warm
        self.under_way += 1
        self.warming += warm
        self.most_warming = max(self.most_warming, self.warming)
        try:
            await asyncio.sleep(0.0005 * self.under_way)
        finally:
            self.under_way -= 1
            self.warming -= warm
        return number


@pytest.fixture
async def cache(server: PrivateServer, namespace: str) -> AsyncIterator[Cache]:
    """A cache that keeps nothing in memory: what counts is what lies in Redis."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace, max_memory_entries=0)) as connected:
        yield connected


def view_of(cache: Cache, database: SlowDatabase, name: str) -> View[[int], int]:
    """Return a view of the database whose warming can be told from live reads."""

    @cache.view(f"{name}:{{number}}", ttl="1h")
    async def row(number: int) -> int:
        return await database.read(number)

    original = row.warm

    async def warm(number: int) -> Any:
        warming.set(True)
        return await original(number)

    row.warm = warm  # type: ignore[method-assign]
    return row


async def traffic(row: View[[int], int]) -> None:
    """Read as people do: some rows far more than others."""

    async def reader(seed: int) -> None:
        draw = random.Random(seed)  # noqa: S311 - traffic that can be had again
        for number in draw.choices(range(ROWS), [1 / (rank + 1) for rank in range(ROWS)], k=READS):
            assert await row(number) == number

    await asyncio.gather(*[reader(seed) for seed in range(READERS)])


async def test_warming_spares_the_database_and_whoever_reads(cache: Cache) -> None:
    """Nothing is loaded twice, warming keeps to its limit, all is warm in the end, and fewer live reads had to wait."""
    alone, helped = SlowDatabase(), SlowDatabase()
    await traffic(view_of(cache, alone, "alone"))
    row = view_of(cache, helped, "helped")
    done, _ = await asyncio.gather(
        Warm(cache.client)(row, range(ROWS), per_second=100_000, concurrency=CONCURRENCY), traffic(row)
    )
    assert set(helped.loads.values()) == {1}
    assert helped.most_warming <= CONCURRENCY
    assert (done.done, done.failed, done.stopped, len(helped.loads)) == (ROWS, 0, "", ROWS)
    assert helped.live < alone.live == len(alone.loads)
