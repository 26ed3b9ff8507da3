"""The cache for programs without an event loop: where loads run, how long a call waits, what a block demands."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError, sync
from cachebus.errors import ServerTimeout
from cachebus.testing.server import PrivateServer


class GreenletExit(BaseException):
    """As gevent ends what it no longer waits for."""


@pytest.fixture(params=["server", "process"])
def cache(request: pytest.FixtureRequest, server: PrivateServer, namespace: str) -> Iterator[sync.Cache]:
    """A cache on a server, and one of a process without it."""
    settings = CacheSettings(url=server.url, namespace=namespace)
    with sync.Cache(settings=settings) if request.param == "server" else sync.Cache.memory() as cache:
        yield cache


def test_loads_run_in_the_callers_thread(cache: sync.Cache) -> None:
    """A view, `warm`, `refresh`, `get_or_load` and `get_or_load_many` load where the database session is."""
    ran_in: list[int] = []

    @cache.view("number:{n}", ttl="1m", tags=["numbers:{n}"])
    def number(n: int) -> int:
        ran_in.append(threading.get_ident())
        return n

    def load_many(keys: list[str]) -> dict[str, int]:
        ran_in.append(threading.get_ident())
        return dict.fromkeys(keys, 7)

    assert number.warm(1).loaded
    assert number(1) == 1
    assert number.refresh(1) == 1
    assert number.load(1) == 1
    assert number.tags(1) == ["numbers:1"]
    assert cache.get_or_load("a", lambda: ran_in.append(threading.get_ident())) is None
    assert cache.get_or_load_many(["b", "c"], load_many) == {"b": 7, "c": 7}
    assert cache.get_or_load_many(["b", "c"], load_many) == {"b": 7, "c": 7}
    assert ran_in == [threading.get_ident()] * 5


def test_what_a_load_raises_comes_out_of_the_call(cache: sync.Cache) -> None:
    """Of a view and of `get_or_load` alike; nothing is stored."""

    def failing() -> int:
        raise LookupError("no such row")

    for _ in range(2):
        with pytest.raises(LookupError, match="no such row"):
            cache.get_or_load("a", failing)
    assert cache.get("a") is None


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GreenletExit])
def test_the_call_after_an_interrupted_load_loads(cache: sync.Cache, interruption: type[BaseException]) -> None:
    """As in a notebook where somebody pressed Ctrl-C: what was interrupted is over for whoever calls next."""
    interrupting = [interruption] * 20
    loads = 0

    @cache.view("interrupted:{n}", ttl="1m")
    def load(n: int) -> int:
        nonlocal loads
        loads += 1
        raise interrupting.pop()

    for _ in range(20):
        with pytest.raises(interruption):
            load(1)
    assert loads == 20


def test_a_demand_of_a_block_holds_for_the_thread(cache: sync.Cache) -> None:
    """`loading_only` and `reading` hold for calls of this thread, and for no other thread's."""
    loads: list[int] = []

    @cache.view("number:{n}", ttl="1m")
    def number(n: int) -> int:
        loads.append(n)
        return n

    number(1)
    with cache.loading_only(), ThreadPoolExecutor(1) as pool:
        number(1)
        assert len(loads) == 2
        pool.submit(number, 1).result()
        assert len(loads) == 2
    with cache.reading(strict=True):
        assert number(1) == 1


def test_a_load_of_ones_own_is_not_cut_short(cache: sync.Cache) -> None:
    """It cannot be: the value that took longer than `timeout` is returned, and stored."""
    brief = sync.Cache(cache.cache, timeout="100ms", portal=cache.portal)

    def slow() -> str:
        time.sleep(0.3)
        return "loaded"

    assert brief.get_or_load("a", slow) == "loaded"
    assert brief.get("a") == "loaded"


def test_a_load_of_another_thread_is_waited_for_no_longer_than_the_timeout(cache: sync.Cache) -> None:
    """Who joins a load that takes too long gets ServerTimeout; the load goes on for the one who runs it."""
    brief = sync.Cache(cache.cache, timeout="100ms", portal=cache.portal)
    loading, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        loading.set()
        may_end.wait(20)
        return "loaded"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(brief.get_or_load, "a", slow)
        loading.wait(20)
        with pytest.raises(ServerTimeout, match=r"no answer within 0\.1 s"):
            brief.get_or_load("a", slow)
        may_end.set()
        assert first.result() == "loaded"


async def test_the_wrong_kind_of_with_says_which_one_is_right() -> None:
    """`with` for `async with` and the other way round name the lock and the class to use."""
    blocking = sync.Cache.memory()
    with pytest.raises(TypeError, match=r"with `with`; asynchronous code uses cachebus\.Cache"):
        async with blocking:
            pass
    with pytest.raises(TypeError, match=r"lock 'a': write `with`"):
        async with sync.Locks(blocking).lock("a"):
            pass
    locks = Cache.memory()
    from cachebus.locks.locks import Locks  # noqa: PLC0415 - the asynchronous one, beside its namesake

    with pytest.raises(TypeError, match=r"lock 'a': write `async with`"), Locks(locks).lock("a"):
        pass


def test_a_cache_in_a_block_is_closed_after_it() -> None:
    """`with` connects and closes; the next use connects again."""
    with sync.Cache.memory() as cache:
        cache.set("a", 1)
        assert cache.get("a") == 1
    assert cache.get("a") is None
    cache.close()


def test_an_async_function_is_not_for_it() -> None:
    """It would be given a coroutine, and cache nothing. Refused where it is declared."""
    with pytest.raises(ConfigurationError, match=r"above .*orders: .* plain function returns; write `def`, or use"):

        @sync.Cache.memory().view("orders:{n}", ttl="1m")
        async def orders(n: int) -> int:
            return n
