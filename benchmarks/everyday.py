"""What everyday use costs, in CPU time of this process and of the server: one round, as JSON.

    python benchmarks/everyday.py redis://127.0.0.1:6379

`benchmarks.against` runs this file on two trees in turn, so it uses what both have: a name that has moved is looked for
in both places.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import msgspec

CALLERS = 50
TAGS = tuple(f"{word}:{{user_id}}" for word in "abcde")


def found(name: str, *places: str) -> Any:
    """Return *name* from the first of *places* that has it."""
    for place in places:
        try:
            return getattr(import_module(place), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"{name} is in none of {', '.join(places)}")


Cache = found("Cache", "cachebus")
CacheSettings = found("CacheSettings", "cachebus", "cachebus.cache.settings")
Client = (
    found("Client", "cachebus") if not hasattr(import_module("cachebus"), "Link") else import_module("cachebus").Link
)
Bus = found("Bus", "cachebus.bus.publisher", "cachebus.bus")
Consumer = found("Consumer", "cachebus.bus.engine.consumer", "cachebus.consumer")
on = found("on", "cachebus.bus.handlers", "cachebus.handlers")
Invalidate, Broadcast = (
    found(name, "cachebus.bus.effects", "cachebus.effects") for name in ("Invalidate", "Broadcast")
)


class Summary(msgspec.Struct, frozen=True):
    """A value of everyday size, about 160 bytes of JSON."""

    user_id: int
    total: float
    positions: tuple[tuple[str, int, float], ...]


def summary(user_id: int) -> Summary:
    """Return a value for a user."""
    return Summary(user_id, 1234.5, tuple((symbol, 100, 12.25) for symbol in ("AAPL", "IBM", "MSFT", "GOOG")))


class Trade(msgspec.Struct):
    """An event."""

    user_id: int


@on("trade:updates", Trade)
def trade_changed(event: Trade) -> Any:
    """Invalidate a tag and broadcast."""
    yield Invalidate(tags=[f"user:{event.user_id}"])
    yield Broadcast(f"user:{event.user_id}", "trade.new_trade", {"user_id": event.user_id})


class Round:
    """The rows of one round: microseconds of CPU an operation, ours and the server's."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.rows: dict[str, tuple[float, float]] = {}

    async def measure(self, row: str, operations: int, work: Callable[[], Awaitable[object]]) -> None:
        """Run *work* once and keep what one of its *operations* cost."""
        server, ours = await self._server_s(), time.process_time()
        await work()
        ours = time.process_time() - ours
        server = await self._server_s() - server
        self.rows[row] = (ours / operations * 1e6, max(0.0, server) / operations * 1e6)

    async def _server_s(self) -> float:
        info = (await self._client.store.call("INFO", "cpu", timeout_s=5)).decode()
        words = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        return float(words["used_cpu_user"]) + float(words["used_cpu_sys"])


async def times(count: int, call: Callable[[], Awaitable[object]]) -> None:
    """Call it *count* times, one after the other."""
    for _ in range(count):
        await call()


async def together(count: int, call: Callable[[int], Awaitable[object]]) -> None:
    """Call it *count* times altogether, from CALLERS callers at once."""

    async def caller(number: int) -> None:
        for turn in range(count // CALLERS):
            await call(number * 1000 + turn)

    await asyncio.gather(*[caller(number) for number in range(CALLERS)])


async def memory(url: str, rows: Round) -> None:
    """Hits in memory."""
    n = 20_000
    async with Cache(url) as cache:

        @cache.view("plain:{user_id}", ttl="2m")
        async def plain(user_id: int) -> Summary:
            return summary(user_id)

        @cache.view("tagged:{user_id}", ttl="2m", tags=list(TAGS))
        async def tagged(user_id: int) -> Summary:
            return summary(user_id)

        async def after_invalidation() -> None:
            for turn in range(n // 10):
                if not turn % 20:
                    await cache.invalidate(keys=[f"other:{turn}"])
                await tagged(7)

        await plain(7)
        await tagged(7)
        await rows.measure("memory hit", n, lambda: times(n, lambda: plain(7)))
        await rows.measure("memory hit, 5 tags", n, lambda: times(n, lambda: tagged(7)))
        await rows.measure("memory hit, by keyword", n // 2, lambda: times(n // 2, lambda: plain(user_id=7)))
        await rows.measure("memory hit, an invalidation each 20th", n // 10, after_invalidation)
    async with Cache.memory() as alone:

        @alone.view("alone:{user_id}", ttl="2m")
        async def without(user_id: int) -> Summary:
            return summary(user_id)

        await without(7)
        await rows.measure("memory hit, without Redis", n // 2, lambda: times(n // 2, lambda: without(7)))


async def redis(url: str, rows: Round) -> None:
    """Hits in Redis."""
    n = 5_000
    async with Cache(settings=CacheSettings(url=url, max_memory_entries=0)) as cache:

        @cache.view("redis:{user_id}", ttl="30m")
        async def ours(user_id: int) -> Summary:
            return summary(user_id)

        keys = [caller * 1000 + turn for caller in range(CALLERS) for turn in range(n // CALLERS)]
        for first in range(0, n, 500):
            await asyncio.gather(*[ours(key) for key in keys[first : first + 500]])
        await rows.measure("Redis hit, 50 callers", n, lambda: together(n, ours))
        await rows.measure("Redis hit, 1 caller", 1_000, lambda: times(1_000, lambda: ours(1000)))
        names = [f"many:{number}" for number in range(100)]
        for name in names:
            await cache.set(name, 1.5, ttl="30m")
        await rows.measure("get_many(100) from Redis", 20, lambda: times(20, lambda: cache.get_many(names)))
        await rows.measure("miss and fill", 500, lambda: times(500, lambda: ours(next(fresh))))


fresh = iter(range(10_000_000, 20_000_000))


async def bus(url: str, rows: Round) -> None:
    """Publishing, and what a worker does with it."""
    n = 5_000
    async with Client(url, namespace="everyday") as client:
        publisher = Bus(client)

        async def publish() -> None:
            for first in range(0, n, 500):
                await asyncio.gather(
                    *[publisher.publish("trade:updates", Trade(number)) for number in range(first, first + 500)]
                )

        async def handle() -> None:
            consumer = Consumer(client, [trade_changed])
            running = asyncio.create_task(consumer.run())
            feed = client.names.feed
            while await client.store.call("XLEN", feed) < n:  # noqa: ASYNC110 - another program of the server counts it
                await asyncio.sleep(0.005)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        await rows.measure("publish, 500 at once", n, publish)
        await rows.measure("handle and commit an event", n, handle)


async def main(url: str) -> None:
    """Measure every row once."""
    async with Client(url) as client:
        await client.store.call("FLUSHALL", timeout_s=30)
        rows = Round(client)
        for part in (memory, redis, bus):
            await part(url, rows)
    print(json.dumps(rows.rows))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
