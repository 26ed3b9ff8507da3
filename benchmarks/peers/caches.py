"""Contestants that hold values in Redis, each as its own documentation has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from harness import CALLS_A_TURN, Works, callers, one_caller, serve
from values import Summary, decode, encode, large, summary

TTL_S = 1800
MANY = 100
Get = Callable[[int], Awaitable[object]]


def reads(get: Get, n: int, one: int) -> Works:
    """Return the works of a cache that answers one key at a time."""
    return {
        "50 callers": callers(get, 50, n),
        "200 callers": callers(get, 200, n),
        "1 caller": one_caller(get, one),
    }


def keys(n: int) -> list[int]:
    """Return the keys that `reads` asks for."""
    found = {
        number * CALLS_A_TURN + turn for count in (50, 200) for number in range(count) for turn in range(n // count)
    }
    return sorted(found)


def value(key: int, size: int) -> Summary:
    """Return what lies under *key*."""
    return large(key, size) if size else summary(key)


async def each(ask: Get, given: Iterable[int]) -> None:
    """Ask for all, a hundred at once."""
    all_keys = list(given)
    for first in range(0, len(all_keys), 100):
        await asyncio.gather(*[ask(key) for key in all_keys[first : first + 100]])


@asynccontextmanager
async def cachebus(
    url: str, n: int, one: int, size: int = 0, tags: int = 0, everything: bool = False
) -> AsyncIterator[Works]:
    """Ours, without its memory; with predictions, traces and metrics, or none of them."""
    from memories import observed

    from cachebus import Cache, CacheSettings, Policy

    settings = CacheSettings(url=url, max_memory_entries=0, predict="live" if everything else "off")
    async with Cache(settings=settings) as cache:
        if everything:
            observed(cache)

        @cache.view(
            "ours:{user_id}",
            ttl="30m",
            tags=[f"t{number}:{{user_id}}" for number in range(tags)],
            policy=Policy(predict=everything),
        )
        async def get(user_id: int) -> Summary:
            return value(user_id, size)

        for _ in range(2):  # the second time they are found: from then on they are looked for
            await each(get, keys(n))
        yield reads(get, n, one)


@asynccontextmanager
async def cashews(url: str, n: int, one: int, size: int = 0) -> AsyncIterator[Works]:
    """cashews."""
    from cashews import Cache

    cache = Cache()
    cache.setup(url, client_side=False)

    @cache(ttl="30m", key="cashews:{user_id}")
    async def get(user_id: int) -> Summary:
        return value(user_id, size)

    await each(get, keys(n))
    yield reads(get, n, one)
    await cache.close()


@asynccontextmanager
async def aiocache(url: str, n: int, one: int) -> AsyncIterator[Works]:
    """aiocache with its serializer for JSON; it returns plain data."""
    import aiocache as library
    import msgspec

    place = urlsplit(url)

    @library.cached(
        ttl=TTL_S,
        cache=library.Cache.REDIS,
        endpoint=place.hostname,
        port=place.port,
        serializer=library.serializers.JsonSerializer(),
        key_builder=lambda _function, user_id: f"aiocache:{user_id}",
    )
    async def get(user_id: int) -> Any:
        return msgspec.to_builtins(summary(user_id))

    await each(get, keys(n))
    works = reads(get, n, one)
    del works["200 callers"]  # connecting so many at once, it runs into its own timeout of 5 s
    yield works
    await get.cache.close()


@asynccontextmanager
async def fastapi_cache2(url: str, n: int, one: int) -> AsyncIterator[Works]:
    """fastapi-cache2 around a function; it returns plain data."""
    import msgspec
    import redis.asyncio
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.redis import RedisBackend
    from fastapi_cache.decorator import cache

    client = redis.asyncio.Redis.from_url(url)
    FastAPICache.init(RedisBackend(client), key_builder=lambda *_, args, **__: f"fc2:{args[0]}")

    @cache(expire=TTL_S)
    async def get(user_id: int) -> Any:
        return msgspec.to_builtins(summary(user_id))

    await each(get, keys(n))
    yield reads(get, n, one)
    await client.aclose()


@asynccontextmanager
async def dogpile(url: str, n: int, one: int) -> AsyncIterator[Works]:
    """dogpile.cache: one thread, no event loop."""
    import json

    from dogpile.cache import make_region

    region = make_region(serializer=lambda v: json.dumps(v).encode(), deserializer=json.loads).configure(
        "dogpile.cache.redis", expiration_time=TTL_S, arguments={"url": url, "distributed_lock": False}
    )

    @region.cache_on_arguments()
    def get(user_id: int) -> Any:
        import msgspec

        return msgspec.to_builtins(summary(user_id))

    get(CALLS_A_TURN)

    def work() -> None:
        for _ in range(one):
            get(CALLS_A_TURN)

    yield {"1 caller": work}


async def stored(client: Any, n: int, size: int) -> None:
    """Store all with redis-py."""
    await each(lambda key: client.set(f"raw:{key}", encode(value(key, size)), ex=TTL_S), keys(n))


@asynccontextmanager
async def redis_py(url: str, n: int, one: int, size: int = 0) -> AsyncIterator[Works]:
    """redis-py: a GET for each, decoded."""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url, max_connections=500)  # else the 101st caller gets an error
    await stored(client, n, size)

    async def get(key: int) -> Summary:
        return decode(await client.get(f"raw:{key}"))

    yield reads(get, n, one)
    await client.aclose()


class Gathered:
    """What one writes by hand: the keys asked for in one tick of the loop are one MGET."""

    def __init__(self, mget: Callable[[list[str]], Awaitable[Any]]) -> None:
        self._mget = mget
        self._waiting: list[tuple[str, asyncio.Future[Any]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, key: str) -> asyncio.Future[Any]:
        """Ask for *key* with the others of this tick."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((key, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._answer(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, batch: list[tuple[str, asyncio.Future[Any]]]) -> None:
        for found, (_, future) in zip(await self._mget([key for key, _ in batch]), batch, strict=True):
            if not future.done():
                future.set_result(found)


@asynccontextmanager
async def redis_py_mget(url: str, n: int, one: int, size: int = 0) -> AsyncIterator[Works]:
    """redis-py: one MGET a tick, decoded. It checks nothing."""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url, max_connections=500)  # else the 101st caller gets an error
    await stored(client, n, size)
    gathered = Gathered(client.mget)

    async def get(key: int) -> Summary:
        return decode(await gathered.get(f"raw:{key}"))

    yield reads(get, n, one)
    await client.aclose()


@asynccontextmanager
async def coredis(url: str, n: int, one: int) -> AsyncIterator[Works]:
    """coredis: a GET for each, decoded."""
    import coredis as library

    async with library.Redis.from_url(url) as client:
        await each(lambda key: client.set(f"raw:{key}", encode(summary(key)), ex=TTL_S), keys(n))

        async def get(key: int) -> Summary:
            found = await client.get(f"raw:{key}")
            assert found is not None
            return decode(found)

        yield reads(get, n, one)


@asynccontextmanager
async def glide(url: str, n: int, one: int) -> AsyncIterator[Works]:
    """valkey-glide: a GET for each, decoded."""
    import glide as library

    place = urlsplit(url)
    where = [library.NodeAddress(place.hostname or "", place.port or 6379)]
    client = await library.GlideClient.create(library.GlideClientConfiguration(where, request_timeout=10_000))
    await each(lambda key: client.set(f"raw:{key}", encode(summary(key))), keys(n))

    async def get(key: int) -> Summary:
        found = await client.get(f"raw:{key}")
        assert found is not None
        return decode(found)

    yield reads(get, n, one)
    await client.close()


# -- a hundred keys at once ------------------------------------------------------------------------------------------


def together(ask: Callable[[], Awaitable[Any]], times: int) -> Callable[[], Any]:
    """Return a work: a hundred keys, *times* times."""

    async def work() -> None:
        for _ in range(times):
            assert len(await ask()) == MANY

    return work


@asynccontextmanager
async def cachebus_many(url: str, times: int, memory: bool) -> AsyncIterator[Works]:
    """Ours: `get_many`."""
    from cachebus import Cache
    from cachebus.cache.settings import CacheSettings

    async with Cache(settings=CacheSettings(url=url, max_memory_entries=1000 if memory else 0)) as cache:
        names = [f"many:{number}" for number in range(MANY)]
        for number, name in enumerate(names):
            await cache.set(name, summary(number), ttl=TTL_S)
        yield {"many": together(lambda: cache.get_many(names, type=Summary), times)}


@asynccontextmanager
async def redis_py_many(url: str, times: int) -> AsyncIterator[Works]:
    """redis-py: MGET, decoded."""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url)
    names = [f"raw many:{number}" for number in range(MANY)]
    for number, name in enumerate(names):
        await client.set(name, encode(summary(number)), ex=TTL_S)

    async def ask() -> list[Summary]:
        return [decode(found) for found in await client.mget(names)]

    yield {"many": together(ask, times)}
    await client.aclose()


@asynccontextmanager
async def cashews_many(url: str, times: int) -> AsyncIterator[Works]:
    """cashews: `get_many`."""
    from cashews import Cache

    cache = Cache()
    cache.setup(url, client_side=False)
    names = [f"cashews many:{number}" for number in range(MANY)]
    for number, name in enumerate(names):
        await cache.set(name, summary(number), expire=TTL_S)
    yield {"many": together(lambda: cache.get_many(*names), times)}
    await cache.close()


@asynccontextmanager
async def aiocache_many(url: str, times: int) -> AsyncIterator[Works]:
    """aiocache: `multi_get`; it returns plain data."""
    import aiocache as library
    import msgspec

    cache = library.Cache.from_url(url)
    cache.serializer = library.serializers.JsonSerializer()
    names = [f"aiocache many:{number}" for number in range(MANY)]
    for number, name in enumerate(names):
        await cache.set(name, msgspec.to_builtins(summary(number)), ttl=TTL_S)
    yield {"many": together(lambda: cache.multi_get(names), times)}
    await cache.close()


@asynccontextmanager
async def glide_many(url: str, times: int) -> AsyncIterator[Works]:
    """valkey-glide: MGET, decoded."""
    import glide as library

    place = urlsplit(url)
    where = [library.NodeAddress(place.hostname or "", place.port or 6379)]
    client = await library.GlideClient.create(library.GlideClientConfiguration(where, request_timeout=10_000))
    names: list[str | bytes] = [f"glide many:{number}" for number in range(MANY)]
    for number, name in enumerate(names):
        await client.set(name, encode(summary(number)))

    async def ask() -> list[Summary]:
        return [decode(found) for found in await client.mget(names) if found is not None]

    yield {"many": together(ask, times)}
    await client.close()


# -- clusters --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def redis_py_cluster(url: str, n: int, node: str) -> AsyncIterator[Works]:
    """redis-py's client for clusters: a GET for each, decoded."""
    import redis.asyncio

    client = redis.asyncio.RedisCluster.from_url(node)
    for key in keys(n):  # one after the other: while it connects many times at once, it may lose a connection
        await client.set(f"raw:{key}", encode(summary(key)), ex=TTL_S)

    async def get(key: int) -> Summary:
        return decode(await client.get(f"raw:{key}"))

    yield {"50 callers": callers(get, 50, n)}
    await client.aclose()


@asynccontextmanager
async def glide_cluster(url: str, n: int, node: str) -> AsyncIterator[Works]:
    """valkey-glide's client for clusters: a GET for each, decoded."""
    import glide as library

    place = urlsplit(node)
    where = [library.NodeAddress(place.hostname or "", place.port or 6379)]
    made = library.GlideClusterClientConfiguration(where, request_timeout=10_000)
    client = await library.GlideClusterClient.create(made)
    await each(lambda key: client.set(f"raw:{key}", encode(summary(key))), keys(n))

    async def get(key: int) -> Summary:
        found = await client.get(f"raw:{key}")
        assert found is not None
        return decode(found)

    yield {"50 callers": callers(get, 50, n)}
    await client.close()


@asynccontextmanager
async def cachebus_cluster(url: str, n: int, cluster: str) -> AsyncIterator[Works]:
    """Ours, on a cluster."""
    async with cachebus(cluster, n, 1) as works:
        yield {"50 callers": works["50 callers"]}


@asynccontextmanager
async def cachebus_one_node(url: str, n: int, node: str) -> AsyncIterator[Works]:
    """Ours, on a single server."""
    async with cachebus(node, n, 1) as works:
        yield {"50 callers": works["50 callers"]}


# -- what changes ----------------------------------------------------------------------------------------------------


if __name__ == "__main__":
    serve(
        {
            contestant.__name__: contestant
            for contestant in (
                cachebus,
                cashews,
                aiocache,
                fastapi_cache2,
                dogpile,
                redis_py,
                redis_py_mget,
                coredis,
                glide,
                cachebus_many,
                redis_py_many,
                cashews_many,
                aiocache_many,
                glide_many,
                cachebus_cluster,
                cachebus_one_node,
                redis_py_cluster,
                glide_cluster,
            )
        }
    )
