"""Contestants that load what was not there, and invalidate what was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from caches import TTL_S, Get
from harness import Works, one_caller, serve
from values import Summary, decode, encode, summary


def changes(miss: Get, drop: Get, n: int) -> Works:
    """Return the works: a miss that is filled, one after the other, and an invalidation."""
    numbers = iter(range(10_000_000, 1_000_000_000))

    async def missed() -> None:
        for _ in range(n):
            await miss(next(numbers))

    return {"miss and fill": missed, "50 callers miss": _missing(miss, numbers, n), "invalidate": one_caller(drop, n)}


def _missing(miss: Get, numbers: Any, n: int) -> Callable[[], Any]:
    async def work() -> None:
        for _ in range(n // 50):
            await asyncio.gather(*[miss(next(numbers)) for _ in range(50)])

    return work


@asynccontextmanager
async def cachebus_changes(url: str, n: int) -> AsyncIterator[Works]:
    """Ours: a view with one tag."""
    from cachebus import Cache
    from cachebus.cache.settings import CacheSettings

    async with Cache(settings=CacheSettings(url=url, max_memory_entries=0)) as cache:

        @cache.view("ours:{user_id}", ttl="30m", tags=["user:{user_id}"])
        async def get(user_id: int) -> Summary:
            return summary(user_id)

        await get(1)
        yield changes(get, lambda key: cache.invalidate(tags=[f"user:{key}"]), n)


@asynccontextmanager
async def cashews_changes(url: str, n: int) -> AsyncIterator[Works]:
    """cashews: a function with one tag."""
    from cashews import Cache

    cache = Cache()
    cache.setup(url, client_side=False)

    @cache(ttl="30m", key="cashews:{user_id}", tags=["user:{user_id}"])
    async def get(user_id: int) -> Summary:
        return summary(user_id)

    yield changes(get, lambda key: cache.delete_tags(f"user:{key}"), n)
    await cache.close()


@asynccontextmanager
async def redis_py_changes(url: str, n: int) -> AsyncIterator[Works]:
    """redis-py: GET, then SET; DEL."""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url)

    async def get(key: int) -> Summary:
        found = await client.get(f"raw:{key}")
        if found is not None:
            return decode(found)
        loaded = summary(key)
        await client.set(f"raw:{key}", encode(loaded), ex=TTL_S)
        return loaded

    yield changes(get, lambda key: client.delete(f"raw:{key}"), n)
    await client.aclose()


if __name__ == "__main__":
    serve({contestant.__name__: contestant for contestant in (cachebus_changes, cashews_changes, redis_py_changes)})
