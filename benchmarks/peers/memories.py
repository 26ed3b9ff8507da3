"""Contestants that hold values in the process: decorated functions, asked for one key that is there."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from harness import Works, serve
from values import Summary, summary


def hits(get: Callable[[int], Awaitable[object]], n: int) -> Works:
    """Return the work of a coroutine function."""

    async def work() -> None:
        for _ in range(n):
            await get(7)

    return {"hit": work}


def plain_hits(get: Callable[[int], object], n: int) -> Works:
    """Return the work of a plain function."""

    def work() -> None:
        for _ in range(n):
            get(7)

    return {"hit": work}


@asynccontextmanager
async def cachebus(url: str, n: int, tags: int = 1, how: str = "positional", held: int = 50) -> AsyncIterator[Works]:
    """Ours: positional, by keyword, after an invalidation of something else, without a server, with everything on."""
    from cachebus import Cache, CacheSettings, Policy

    everything = how == "everything on"
    settings = CacheSettings(url=url, predict="live" if everything else "off")
    async with Cache.memory() if how == "without Redis" else Cache(settings=settings) as cache:
        if everything:
            observed(cache)

        @cache.view(
            "ours:{user_id}",
            ttl="30m",
            tags=[f"t{number}:{{user_id}}" for number in range(tags)],
            policy=Policy(predict=everything),
        )
        async def get(user_id: int) -> Summary:
            return summary(user_id)

        for number in range(held):
            await get(number)
        if how == "in turn":
            yield {"hit": lambda: in_turn(get, held, n)}
        elif how == "after":
            reader = await cache.connected()

            def heard(turn: int) -> None:  # as of another process, by the journal; waiting for it would cool the CPU
                reader.freshness.invalidated((f"k:elsewhere:{turn}",), reader.freshness.seen)

            yield {"hit": lambda: in_turn(get, held, n, heard)}
        elif how == "keyword":
            yield {"hit": lambda: by_keyword(get, n)}
        else:
            yield hits(get, n)


def observed(cache: Any) -> None:
    """Have OpenTelemetry's SDK take its traces and metrics."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from cachebus.integrations.opentelemetry import instrument, observe

    instrument(cache, tracer=TracerProvider().get_tracer("bench"))
    observe(cache, MeterProvider([InMemoryMetricReader()]).get_meter("bench"))


async def by_keyword(get: Callable[..., Awaitable[object]], n: int) -> None:
    """Hit by keyword."""
    for _ in range(n):
        await get(user_id=7)


async def in_turn(
    get: Callable[[int], Awaitable[object]],
    held: int,
    n: int,
    before: Callable[[int], object] | None = None,
) -> float:
    """Hit all keys in turn, each once after *before*; return the CPU time of the hits alone, seconds."""
    spent = 0.0
    for turn in range(n // held):
        if before is not None:
            before(turn)
        began = time.process_time()
        for number in range(held):
            await get(number)
        spent += time.process_time() - began
    return spent


@asynccontextmanager
async def cachebus_sync(url: str, n: int) -> AsyncIterator[Works]:
    """Ours, for programs without an event loop."""
    from cachebus import Cache
    from cachebus.sync import Cache as SyncCache

    cache = SyncCache(Cache(url))

    @cache.view("sync:{user_id}", ttl="30m")
    def get(user_id: int) -> Summary:
        return summary(user_id)

    await asyncio.to_thread(get, 7)
    yield {"hit": lambda: asyncio.to_thread(plain_hits(get, n)["hit"])}
    await asyncio.to_thread(cache.close)


@asynccontextmanager
async def cashews(url: str, n: int) -> AsyncIterator[Works]:
    """cashews in memory."""
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")

    @cache(ttl="30m", key="cashews:{user_id}")
    async def get(user_id: int) -> Summary:
        return summary(user_id)

    await get(7)
    yield hits(get, n)


@asynccontextmanager
async def aiocache(url: str, n: int) -> AsyncIterator[Works]:
    """aiocache in memory."""
    import aiocache as library

    @library.cached(ttl=1800)
    async def get(user_id: int) -> Summary:
        return summary(user_id)

    await get(7)
    yield hits(get, n)


@asynccontextmanager
async def fastapi_cache2(url: str, n: int) -> AsyncIterator[Works]:
    """fastapi-cache2 in memory; it returns plain data."""
    import msgspec
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend())

    @cache(expire=1800)
    async def get(user_id: int) -> Any:
        return msgspec.to_builtins(summary(user_id))

    await get(7)
    yield hits(get, n)


@asynccontextmanager
async def async_lru(url: str, n: int) -> AsyncIterator[Works]:
    """async-lru."""
    from async_lru import alru_cache

    @alru_cache(maxsize=1000, ttl=1800)
    async def get(user_id: int) -> Summary:
        return summary(user_id)

    await get(7)
    yield hits(get, n)


@asynccontextmanager
async def cachebox(url: str, n: int) -> AsyncIterator[Works]:
    """cachebox around a coroutine function."""
    import cachebox as library

    @library.cached(library.TTLCache(1000, global_ttl=1800))
    async def get(user_id: int) -> Summary:
        return summary(user_id)

    await get(7)
    yield hits(get, n)


@asynccontextmanager
async def theine(url: str, n: int) -> AsyncIterator[Works]:
    """theine around a coroutine function."""
    from theine import Memoize

    @Memoize(1000, datetime.timedelta(minutes=30))
    async def get(user_id: int) -> Summary:
        return summary(user_id)

    await get(7)
    yield hits(get, n)


@asynccontextmanager
async def cachetools(url: str, n: int) -> AsyncIterator[Works]:
    """cachetools around a plain function."""
    from cachetools import TTLCache, cached

    @cached(TTLCache(1000, 1800))
    def get(user_id: int) -> Summary:
        return summary(user_id)

    get(7)
    yield plain_hits(get, n)


@asynccontextmanager
async def dogpile(url: str, n: int) -> AsyncIterator[Works]:
    """dogpile.cache in memory, around a plain function."""
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=1800)

    @region.cache_on_arguments()
    def get(user_id: int) -> Summary:
        return summary(user_id)

    get(7)
    yield plain_hits(get, n)


if __name__ == "__main__":
    serve(
        {
            contestant.__name__: contestant
            for contestant in (
                cachebus,
                cachebus_sync,
                cashews,
                aiocache,
                fastapi_cache2,
                async_lru,
                cachebox,
                theine,
                cachetools,
                dogpile,
            )
        }
    )
