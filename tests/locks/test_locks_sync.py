"""Locks, limits and sessions from threads that have no event loop."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachebus import Cache, CacheSettings, sync
from cachebus.errors import (
    AlreadyHeld,
    ConfigurationError,
    LockError,
    LockLost,
    LockNotAcquired,
    LockUnavailable,
    RateLimited,
    SessionConflict,
    StaleToken,
    TooManySessions,
)
from cachebus.limits.rules import Limit
from cachebus.testing.server import PrivateServer

_numbers = itertools.count()


@pytest.fixture
def cache(server: PrivateServer) -> Iterator[sync.Cache]:
    """A cache of its own namespace."""
    settings = CacheSettings(url=server.url, namespace=f"sync{os.getpid()}-{next(_numbers)}")
    cache = sync.Cache(Cache(settings=settings))
    yield cache
    cache.close()


@pytest.fixture
def locks(cache: sync.Cache) -> sync.Locks:
    """Locks over it."""
    return sync.Locks(cache)


def until(fact: Callable[[], object], deadline_s: float = 20) -> None:
    """Return when *fact* holds."""
    end = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.005)


def test_threads_exclude_each_other(locks: sync.Locks) -> None:
    """32 threads read, add one and write, under one lock object: nothing is lost."""
    lock, value = locks.lock("a"), [0]

    def add(_: int) -> None:
        with lock:
            seen = value[0]
            time.sleep(0.001)
            value[0] = seen + 1

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(add, range(64)))
    assert value == [64]


def test_the_lock_is_kept_while_the_thread_works(locks: sync.Locks) -> None:
    """A thread that computes for two leases still has it; who will not wait that long is told who has it."""
    with locks.lock("a", "1s") as held:
        refused: list[str] = []

        def other() -> None:
            try:
                locks.lock("a", blocking_timeout="20ms").acquire()
            except LockNotAcquired as error:
                refused.append(str(error))

        time.sleep(2)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(refused) == 1
        held.ensure()
        assert 0 < held.remaining <= 1
        assert not held.lost
        seen = locks.holder("a")
        assert seen is not None
        assert (seen.owner, seen.token) == (held.owner, held.token)
    assert locks.holder("a") is None


def test_a_lost_lock_is_raised_at_the_end(server: PrivateServer, cache: sync.Cache, locks: sync.Locks) -> None:
    """A thread cannot be stopped: `lost` turns true, `ensure` raises, and so does the exit."""
    with pytest.raises(LockLost), locks.lock("a", "300ms") as held:  # noqa: PT012 - what the body meets is the point
        server.ask("DEL", cache.cache.names.spread("lock", "a"))
        until(lambda: held.lost)
        with pytest.raises(LockLost):
            held.ensure()
    with pytest.raises(ValueError, match="mine") as caught, locks.lock("a"):  # noqa: PT012 - what the body meets is the point
        server.ask("DEL", cache.cache.names.spread("lock", "a"))
        raise ValueError("mine")
    assert "lock 'a'" in caught.value.__notes__[0]


def test_a_thread_does_not_wait_for_itself_nor_release_anothers(locks: sync.Locks) -> None:
    """Asking again is an error; releasing twice is one."""
    held = locks.lock("a").acquire()
    with pytest.raises(AlreadyHeld):
        locks.lock("a").acquire()
    held.release()
    with pytest.raises(LockError, match="released already"):
        held.release()
    with locks.lock("a") as again:
        again.release()


def test_many_and_guarded_writes(locks: sync.Locks) -> None:
    """As from tasks: several at once, and a write with an old token is refused."""
    with locks.many(["b", "a"]) as held:
        locks.guarded_set("v", {"n": 1}, held["a"].token)
        assert locks.guarded_get("v") == {"n": 1}
        with pytest.raises(StaleToken):
            locks.guarded_set("v", {"n": 0}, held["a"].token - 1)
    locks.close()


async def test_a_running_loop_is_not_blocked(locks: sync.Locks) -> None:
    """Where one can await, the synchronous lock refuses instead of stopping everything."""
    with pytest.raises(RuntimeError, match="event loop"):
        locks.lock("a").acquire()


def test_a_forked_child_has_locks_of_its_own(locks: sync.Locks) -> None:
    """As under gunicorn or Celery: the parent keeps its lock, the child is refused it, and takes others."""
    with locks.lock("a") as held:
        child = os.fork()
        if not child:
            try:
                with pytest.raises(LockNotAcquired):
                    locks.lock("a", blocking_timeout=0).acquire()
                with locks.lock("b"):
                    pass
                with pytest.raises(LockError, match="forked"):
                    held.release()
                os._exit(0)
            except BaseException:  # noqa: BLE001 - the child must never return into pytest
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        held.ensure()


def test_without_redis_locks_limits_and_sessions_are_the_processs_own() -> None:
    """`REDIS_ENABLED=false`: threads exclude each other, calls are counted, and sessions live in memory."""
    cache = sync.Cache(Cache.memory())
    locks = sync.Locks(cache)
    with locks.lock("a"), ThreadPoolExecutor(1) as pool, pytest.raises(LockNotAcquired):
        pool.submit(lambda: locks.lock("a", blocking_timeout=0).acquire()).result()
    assert [bool(sync.RateLimiter(cache).check("k", limit=1, window=60)) for _ in range(2)] == [True, False]
    session = sync.SessionStore(cache).get(sync.SessionStore(cache).create(7, {"theme": "dark"}))
    assert session is not None
    assert session.data == {"theme": "dark"}
    cache.close()


def test_an_outage_is_never_a_lock() -> None:
    """Away, it raises; nothing is pretended."""
    with PrivateServer.start("appendonly no") as gone:
        url = gone.url
    cache = sync.Cache(Cache(settings=CacheSettings(url=url)))
    with pytest.raises(LockUnavailable):
        sync.Locks(cache).lock("a").acquire()
    cache.close()


def test_limits_from_threads(cache: sync.Cache) -> None:
    """The same decisions as from tasks, the decorator included, exact among 16 threads."""
    limiter = sync.RateLimiter(cache, patience="5s")
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: limiter.check("k", limit=20, window=60), range(50)))
    assert sum(result.allowed for result in results) == 20
    assert limiter.reset("k")
    assert limiter.peek("k", limit=20, window=60).remaining == 20
    assert limiter.check_all("both", {"a": Limit(2, 60), "b": Limit(5, 60)}).remaining == 1

    @limiter.limited("report:{user}", limit=1, window=60)
    def report(user: int) -> int:
        return user

    assert report(7) == 7
    assert report(8) == 8
    with pytest.raises(RateLimited):
        report(7)
    with pytest.raises(ConfigurationError, match="parameter"):
        limiter.limited("report:{nobody}", limit=1, window=60)(report)


def test_sessions_from_threads(cache: sync.Cache) -> None:
    """Begin, read, change, rotate, list and end, as from tasks; refusals come as errors of one tree."""
    store = sync.SessionStore(cache, max_per_user=2, when_full="refuse")
    first = store.create(7, {"theme": "dark"})
    found = store.get(first)
    assert found is not None
    assert found.data == {"theme": "dark"}
    changed = store.update(first, {"theme": "light"})
    assert changed is not None
    with pytest.raises(SessionConflict):
        store.update(first, {"theme": "blue"}, version=changed.version + 5)
    second = store.create(7)
    with pytest.raises(TooManySessions):
        store.create(7)
    rotated = store.rotate(first, overlap=None)
    assert store.get(first) is None
    assert store.get(rotated) is not None
    assert len(store.list_user(7)) == 2
    assert store.invalidate(second)
    assert store.revoke(7, store.list_user(7)[0].ref)
    store.create(7)
    assert store.invalidate_user(7) == 1
    store.create(8)
    assert store.invalidate_everyone() == 1
