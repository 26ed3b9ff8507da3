"""Where a cached function's load runs, for whom, and what happens when the server is away."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from cachebus import CacheSettings, ConfigurationError, is_queued
from cachebus.errors import SessionsUnavailable
from cachebus.redis.keyspace import Names
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until

REQUEST: ContextVar[str] = ContextVar("request")


def test_32_threads_cause_one_load(caching: SimpleNamespace) -> None:
    """All at once, of one key: one of them runs the function, all get its value."""
    loads: list[str] = []
    begin = threading.Barrier(32)

    @caching.query_cache.cache_query(ttl=60)
    def slow(number: int) -> int:
        loads.append(threading.current_thread().name)
        return number * 2

    def read(_: int) -> int:
        begin.wait()
        return slow(21)

    with ThreadPoolExecutor(32, thread_name_prefix="reader") as pool:
        assert list(pool.map(read, range(32))) == [42] * 32
    assert len(loads) == 1
    assert loads[0].startswith("reader")


def test_an_async_load_runs_in_its_callers_loop_and_context(caching: SimpleNamespace) -> None:
    """There is its database session. Loop after loop: each may use the function."""
    where: list[Any] = []

    @caching.cache_response(ttl=60)
    async def load(number: int) -> int:
        where.append((asyncio.get_running_loop(), REQUEST.get()))
        return number

    async def request(number: int) -> asyncio.AbstractEventLoop:
        REQUEST.set(f"request {number}")
        assert await load(number) == await load(number) == number
        return asyncio.get_running_loop()

    loops = [asyncio.run(request(number)) for number in (1, 2)]
    assert where == [(loops[0], "request 1"), (loops[1], "request 2")]

    async def late() -> int:
        return int(await load(1))

    assert asyncio.run(late()) == 1
    assert len(where) == 2


async def test_a_caller_that_gives_up_takes_nobody_with_it(caching: SimpleNamespace) -> None:
    """The one whose load it is is cancelled; the load goes on, and the other one gets its value."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    loads = 0

    @caching.cache_response(ttl=60)
    async def load() -> int:
        nonlocal loads
        loads += 1
        begun.set()
        await go_on.wait()
        return loads

    first = asyncio.create_task(load())
    await begun.wait()
    second = asyncio.create_task(load())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert await second == 1


async def test_an_error_of_the_load_is_the_callers(caching: SimpleNamespace) -> None:
    """As if nothing were cached; the next call loads again."""
    loads = 0

    @caching.cache_response(ttl=60)
    async def load() -> int:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise LookupError("no such user")
        return loads

    with pytest.raises(LookupError, match="no such user"):
        await load()
    assert await load() == 2


def test_a_loop_that_ends_during_a_load_leaves_the_key_free(caching: SimpleNamespace) -> None:
    """Its load is over, with an error; the next caller loads."""
    loads = 0

    @caching.cache_response(ttl=60)
    async def load() -> int:
        nonlocal loads
        loads += 1
        if loads == 1:
            await asyncio.Event().wait()
        return loads

    async def given_up() -> None:
        task = asyncio.create_task(load())
        await until(lambda: loads, "the load")
        task.cancel()

    async def patient() -> int:
        return int(await load())

    asyncio.run(given_up())
    try:
        assert asyncio.run(patient()) == 2
    except RuntimeError as over:  # joined the load that was just ending
        assert "ended by CancelledError" in str(over)  # noqa: PT017 - one of two outcomes
        assert asyncio.run(patient()) == 2


async def test_a_call_that_would_wait_for_itself_says_so(caching: SimpleNamespace) -> None:
    """In the cache's own loop nobody would be left to answer: an error at once instead of a timeout."""

    @caching.query_cache.cache_query(ttl=60)
    def query() -> int:
        return 1

    async def inside() -> None:
        for call in (query, caching.cache_manager.clear, caching.get_redis_info):
            with pytest.raises(RuntimeError, match="would wait for itself"):
                call()

    await asyncio.wrap_future(caching.facade.portal.submit(inside()))


async def test_an_outage_is_nobodys_error(caching: SimpleNamespace, proxy: FaultProxy) -> None:
    """Functions load, the manager finds nothing, health says unavailable; sessions say that it is an outage."""
    caching.facade.cache._settings = CacheSettings(url=proxy.url, namespace=caching.facade.cache.names.namespace)
    loads = 0

    @caching.query_cache.cache_query(ttl=60)
    def query(number: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    assert await asyncio.to_thread(query, 1) == 1
    session_id = await asyncio.to_thread(caching.session_store.create_session, 7)
    proxy.refusing = True
    proxy.cut()

    def during() -> None:
        assert caching.get_redis_info()["status"] == "unavailable"
        assert query(2) == 2
        assert caching.cache_manager.get("x", "nothing") == "nothing"
        caching.cache_manager.set("x", 1)
        assert is_queued(caching.invalidate_trades_cache(7))
        assert caching.cache_manager.get_stats()["backend"] == "memory"
        with pytest.raises(SessionsUnavailable):
            caching.session_store.get_session(session_id)
        assert tuple(caching.rate_limiter.check_rate_limit("login:1", limit=5, window=300)) == (True, 4)

    await asyncio.to_thread(during)


def test_people_may_look_at_the_server(caching: SimpleNamespace) -> None:
    """INFO by name, names by pattern, and what it runs while somebody watches."""
    caching.cache_manager.set("market:btc:price", 45000, ttl=60)
    info = caching.get_redis_info()
    assert info["status"] == "ok"
    assert type(info["used_memory"]) is int
    assert info["db0"]["keys"] > 0
    assert caching.redis_client.ping()
    assert any("market:btc:price" in name for name in caching.redis_client.keys("*price*"))
    assert caching.redis_client.execute_command("ECHO", "hello") == "hello"
    with caching.redis_client.monitor() as lines:
        caching.redis_client.execute_command("ECHO", "watched")
        assert any('"watched"' in line for line in lines)


def test_statistics_add_up(caching: SimpleNamespace) -> None:
    """Two of three reads are hits, of a key and of a function alike."""
    manager = caching.cache_manager
    assert manager.get("k") is None
    manager.set("k", 1)
    assert [manager.get("k"), manager.get("k")] == [1, 1]
    stats = manager.get_stats()
    assert (stats["backend"], stats["connected"], stats["enabled"]) == ("redis", True, True)
    assert stats["hits"] / (stats["hits"] + stats["misses"]) == pytest.approx(stats["hit_rate"], abs=1e-4)


def test_without_a_ttl_it_is_the_environments(
    caching: SimpleNamespace, server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CACHE_DEFAULT_TTL`, for functions and keys alike; nothing lives for ever, and a TTL of nothing is refused."""
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "7")

    @caching.query_cache.cache_query()
    def query() -> int:
        return 1

    query()
    caching.cache_manager.set("key", 1)
    left_ms = [server.ask("PTTL", name) for name in server.ask("KEYS", f"{Names(namespace).entries}*")]
    assert len(left_ms) == 2
    assert all(0 < left <= 8_000 for left in left_ms)
    with pytest.raises(ConfigurationError, match="ttl"):
        caching.query_cache.cache_query(ttl=0)(lambda: 1)
