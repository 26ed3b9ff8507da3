"""Contestants that limit rates and lock, each as its own documentation has it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from harness import Works, callers, one_caller, serve

MANY = 10**6
"""A limit that nobody reaches."""


def works(name: str, call: Callable[[int], Awaitable[object]], n: int) -> Works:
    """Return the works of what is called with a key."""
    return {f"{name}, 1 caller": one_caller(call, n), f"{name}, 50 callers": callers(call, 50, n)}


@asynccontextmanager
async def cachebus(url: str, n: int) -> AsyncIterator[Works]:
    """Ours."""
    from cachebus import Client
    from cachebus.limits.limiter import RateLimiter
    from cachebus.locks.locks import Locks

    async with Client(url) as client:
        limiter, locks = RateLimiter(client), Locks(client)

        async def check(key: int) -> None:
            assert await limiter.check(f"k{key}", limit=MANY, window="1m")

        async def refused(_: int) -> None:
            await limiter.check("attacker", limit=1, window="1m")

        async def lock(key: int) -> None:
            async with locks.lock(f"ours:{key}", "30s"):
                pass

        await refused(0)
        yield {
            **works("rate limit", check, n),
            "rate limit, refused": one_caller(refused, n),
            **works("lock", lock, n),
        }
        await locks.close()


@asynccontextmanager
async def cachebus_sync(url: str, n: int) -> AsyncIterator[Works]:
    """Ours, for programs without an event loop."""
    from cachebus import Cache, sync

    cache = sync.Cache(Cache(url))
    locks = sync.Locks(cache)

    def lock() -> None:
        for _ in range(n):
            with locks.lock("sync:ours", "30s"):
                pass

    yield {"lock without an event loop": lambda: asyncio.to_thread(lock)}
    await asyncio.to_thread(locks.close)
    await asyncio.to_thread(cache.close)


@asynccontextmanager
async def limits(url: str, n: int) -> AsyncIterator[Works]:
    """limits: a moving window."""
    from limits import RateLimitItemPerMinute
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(RedisStorage(f"async+{url}", implementation="redispy"))
    item, never = RateLimitItemPerMinute(MANY), RateLimitItemPerMinute(1)

    async def check(key: int) -> None:
        assert await limiter.hit(item, f"k{key}")

    async def refused(_: int) -> None:
        await limiter.hit(never, "attacker")

    await refused(0)
    yield {**works("rate limit", check, n), "rate limit, refused": one_caller(refused, n)}


@asynccontextmanager
async def throttled(url: str, n: int) -> AsyncIterator[Works]:
    """throttled-py: a sliding window."""
    from throttled.asyncio import RedisStore, Throttled, rate_limiter

    store = RedisStore(server=url)
    limiter = Throttled(using="sliding_window", quota=rate_limiter.per_min(MANY), store=store)
    never = Throttled(using="sliding_window", quota=rate_limiter.per_min(1), store=store)

    async def check(key: int) -> None:
        assert not (await limiter.limit(f"k{key}")).limited

    async def refused(_: int) -> None:
        await never.limit("attacker")

    await refused(0)
    yield {**works("rate limit", check, n), "rate limit, refused": one_caller(refused, n)}


@asynccontextmanager
async def redis_py(url: str, n: int) -> AsyncIterator[Works]:
    """redis-py's locks."""
    import redis
    import redis.asyncio

    client, plain = redis.asyncio.Redis.from_url(url), redis.Redis.from_url(url)

    async def lock(key: int) -> None:
        async with client.lock(f"theirs:{key}", timeout=30):
            pass

    yield {**works("lock", lock, n), "lock without an event loop": _held(lambda: plain.lock("plain", timeout=30), n)}
    await client.aclose()


@asynccontextmanager
async def python_redis_lock(url: str, n: int) -> AsyncIterator[Works]:
    """python-redis-lock."""
    import redis
    import redis_lock

    client = redis.Redis.from_url(url)
    yield {"lock without an event loop": _held(lambda: redis_lock.Lock(client, "prl", expire=30), n)}


def _held(lock: Callable[[], Any], n: int) -> Callable[[], None]:
    def work() -> None:
        for _ in itertools.repeat(None, n):
            with lock():
                pass

    return work


if __name__ == "__main__":
    contestants = (cachebus, cachebus_sync, limits, throttled, redis_py, python_redis_lock)
    serve({contestant.__name__: contestant for contestant in contestants})
