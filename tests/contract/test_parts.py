"""Locks, limits, sessions and pub/sub over a cache: made at import time, used anywhere, with a server and without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cachebus import Cache, CacheSettings, Locks, PubSub, RateLimiter, SessionStore
from cachebus.pubsub.pubsub import Message
from cachebus.testing import memory_cache
from cachebus.testing.server import PrivateServer


class Application:
    """What an application's modules make at import time, over a cache that is not connected."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.locks = Locks(cache)
        self.limiter = RateLimiter(cache, patience="5s")
        self.sessions = SessionStore(cache)
        self.pubsub = PubSub(cache)

    async def use(self) -> int:
        """Use each of them once; return how many sessions the user has."""
        heard: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        listener = await self.pubsub.subscribe("news", heard.set_result)
        async with self.locks.lock("a", blocking_timeout=0) as held:
            assert held.token > 0
            assert await self.limiter.check("k", limit=5, window="1h")
            await self.sessions.create(7)
            assert await self.pubsub.publish("news", "hello") == 1
            assert (await heard).data == "hello"
        await listener.unsubscribe()
        return len(await self.sessions.list_user(7))

    async def run(self) -> int:
        """The same, in a loop of its own."""
        try:
            return await self.use()
        finally:
            await self.locks.close()
            await self.pubsub.close()
            await self.cache.close()


@pytest.fixture(params=["server", "process"])
def make(request: pytest.FixtureRequest, server: PrivateServer, namespace: str) -> Callable[[], Cache]:
    """A function that makes a cache, on a server or of this process."""
    settings = CacheSettings(url=server.url, namespace=namespace)
    return lambda: Cache(settings=settings) if request.param == "server" else Cache.memory()


async def test_what_was_made_before_the_loop_connects_when_it_is_used(make: Callable[[], Cache]) -> None:
    """No `async with`, no `await` before the first use."""
    assert await Application(make()).run() == 1


def test_the_same_objects_serve_one_loop_after_another(make: Callable[[], Cache]) -> None:
    """A server keeps its sessions between two runs of a script; memory begins empty, as that of the cache does."""
    application = Application(make())
    runs = [asyncio.run(application.run()) for _ in range(3)]
    assert runs == ([1, 1, 1] if not application.cache.settings.redis_enabled else [1, 2, 3])


def test_a_loop_that_ended_without_closing_leaves_nothing_held(make: Callable[[], Cache]) -> None:
    """What an earlier loop held ends with its lease; the next loop is not told that it holds the lock already."""
    application = Application(make())

    async def abandon() -> None:
        await application.locks.lock("a", "300ms").acquire()
        await application.cache.close()

    async def acquire() -> None:
        held = await application.locks.lock("a", "300ms", blocking_timeout="20s").acquire()
        await held.release()
        await application.locks.close()
        await application.cache.close()

    asyncio.run(abandon())
    asyncio.run(acquire())


async def test_modules_of_one_process_share_what_has_no_server() -> None:
    """Two `Locks` exclude each other, two limiters share a count, stores share sessions, pub/subs channels."""
    async with Cache.memory() as cache:
        here, there = Application(cache), Application(cache)
        async with here.locks.lock("a"):
            holder = await there.locks.holder("a")
            assert holder is not None
        assert await here.limiter.check("k", limit=1, window="1h")
        assert not await there.limiter.check("k", limit=1, window="1h")
        assert await there.sessions.get(await here.sessions.create(7)) is not None
        heard: list[object] = []
        await here.pubsub.subscribe("news", heard.append)
        assert await there.pubsub.publish("news", 1) == 1


async def test_each_block_of_a_test_begins_empty(server: PrivateServer, namespace: str) -> None:
    """`memory_cache` leaves no session, no count and no lock of the test before."""
    application = Application(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    for _ in range(2):
        async with memory_cache(application.cache):
            assert await application.use() == 1
            assert (await application.limiter.peek("k", limit=5, window="1h")).remaining == 4
