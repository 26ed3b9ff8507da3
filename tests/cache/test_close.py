"""Closing a cache that is in use: whoever waits gets a clear error, and nothing stays open."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cachebus import Bus, Cache, CacheSettings, sync
from cachebus.errors import Unavailable
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until
from tests.support.worker_program import until as until_there


async def test_whoever_waits_for_a_load_is_told(cache: Cache) -> None:
    """Not with a bare CancelledError, which a server or a TaskGroup takes for its own."""
    begun = asyncio.Event()

    async def load() -> int:
        begun.set()
        await asyncio.sleep(3600)
        return 1

    readers = [asyncio.create_task(cache.get_or_load("slow", load)) for _ in range(2)]
    await begun.wait()
    await cache.close()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [repr(answer) for answer in answers] == ["Unavailable('slow: the cache was closed during the load')"] * 2


def left() -> list[str]:
    """Return what caches still do in this loop."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("cachebus")]


async def test_a_cache_that_is_closed_while_it_connects_stays_closed(server: PrivateServer) -> None:
    """The connection that comes about afterwards is closed by whoever wanted it, and the others are told."""
    cache = Cache(server.url)
    readers = [asyncio.create_task(cache.get("a")) for _ in range(2)]
    await asyncio.sleep(0)
    await cache.close()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [repr(answer) for answer in answers] == ["Unavailable('the cache was closed while it connected')"] * 2
    await cache.close()
    await until(lambda: not left(), "the end of everything it had begun")


async def test_a_first_use_that_is_cancelled_leaves_nothing_open(own_server: PrivateServer) -> None:
    """`wait_for` around a first read: nobody else would close what was open by then."""
    cache = Cache(own_server.url)
    own_server.pause()
    reader = asyncio.create_task(cache.get("a"))
    await until(left, "the beginning of a connection")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert left() == []
    own_server.resume()
    assert await cache.get("a") is None, "it may be used again"
    await cache.close()


@pytest.fixture
def threads() -> Any:
    """Threads that wait for a cache."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_threads_that_wait_are_told(own_server: PrivateServer, threads: ThreadPoolExecutor) -> None:
    """For the server, for another thread's load, or in a load of their own; and the cache can be used again."""
    cache = sync.Cache(settings=CacheSettings(url=own_server.url))
    begun, leave = threading.Event(), threading.Event()

    def load() -> int:
        begun.set()
        leave.wait()
        return 1

    loads = threads.submit(cache.get_or_load, "slow", load)
    begun.wait()
    own_server.pause()
    asked: list[Future[Any]] = [threads.submit(cache.get_or_load, "slow", load), threads.submit(cache.clear)]
    closing = threads.submit(cache.close)
    closing.result()
    own_server.resume()
    leave.set()
    assert isinstance(loads.exception(), Unavailable)
    assert all(isinstance(waits.exception(), Unavailable) or not waits.exception() for waits in asked)
    assert cache.get("a") is None
    cache.close()


def test_a_cache_may_be_closed_while_threads_use_it(server: PrivateServer, threads: ThreadPoolExecutor) -> None:
    """They get answers or `Unavailable`, and none is left waiting in a loop that has ended."""
    cache = sync.Cache(settings=CacheSettings(url=server.url), timeout="10s")
    stop = threading.Event()

    def use(call: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                call()
            except Unavailable:
                continue

    calls: list[Callable[[], object]] = [
        lambda: cache.get("a"),
        lambda: cache.get_or_load("b", lambda: 1),
        lambda: cache.invalidate(keys=["b"]),
    ]
    uses = [threads.submit(use, call) for call in calls]
    for _ in range(20):
        cache.close()
    stop.set()
    assert [used.exception() for used in uses] == [None] * 3
    cache.close()


def test_a_loop_that_ends_leaves_no_connection_behind(own_server: PrivateServer) -> None:
    """`asyncio.run` again and again over a cache of the module, as a task of Celery may: nobody says `close`."""
    cache = Cache(own_server.url)
    bus = Bus(cache)

    @cache.view("ran:{n}", ttl="1m")
    async def ran(n: int) -> int:
        return n

    async def task(n: int) -> None:
        assert await ran(n) == n
        await bus.publish("ran", {"n": n})

    gc.collect()
    gc.disable()  # it would end some of them, some time
    try:
        for n in range(3):
            asyncio.run(task(n))
        until_there(
            lambda: len(own_server.ask("CLIENT", "LIST").splitlines()) == 1, "the server hears only this question"
        )
    finally:
        gc.enable()


async def test_a_second_loop_is_told_that_the_cache_is_connected_in_the_first(cache: Cache) -> None:
    """Two loops at once would take it from each other with every call; whoever comes second learns what to write."""
    await cache.set("key", 1)
    with pytest.raises(RuntimeError, match=r"event loop of another thread.*cachebus\.sync\.Cache"):
        await asyncio.to_thread(lambda: asyncio.run(cache.invalidate(keys=["key"])))
    assert await cache.get("key") == 1
