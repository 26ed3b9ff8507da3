"""Plain values as people write them: get, load, set. Nothing stale is stored, and no write is lost without a word."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from cachebus import Cache, CacheSettings, sync
from cachebus.cache import misses
from cachebus.cache.plain_values import SetResult
from cachebus.redis.connection import Done
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import until

T = TypeVar("T")
Way = Callable[[Coroutine[Any, Any, T]], Awaitable[T]]
KEY, TAG = "price:btc", "market"


async def directly(call: Coroutine[Any, Any, T]) -> T:
    """In the task itself."""
    return await call


async def gathered(call: Coroutine[Any, Any, T]) -> T:
    """Beside others."""
    done, _ = await asyncio.gather(call, asyncio.sleep(0))
    return done


async def waited_for(call: Coroutine[Any, Any, T]) -> T:
    """With a limit; Python 3.11 makes it a task."""
    return await asyncio.wait_for(call, 10)


async def in_a_group(call: Coroutine[Any, Any, T]) -> T:
    """In a TaskGroup."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


async def in_the_background(call: Coroutine[Any, Any, T]) -> T:
    """In a task of its own."""
    return await asyncio.create_task(call)


SHAPES: dict[str, tuple[Way[Any], Way[Any]]] = {
    "one task": (directly, directly),
    "gather": (gathered, gathered),
    "gather, set by itself": (gathered, directly),
    "wait_for": (waited_for, directly),
    "wait_for, both": (waited_for, waited_for),
    "TaskGroup": (in_a_group, in_a_group),
    "background task": (directly, in_the_background),
}
INVALIDATIONS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete(KEY),
    "key": lambda cache: cache.invalidate(keys=[KEY]),
    "tag": lambda cache: cache.invalidate(tags=[TAG]),
    "prefix": lambda cache: cache.invalidate(prefix="price:"),
    "clear": lambda cache: cache.clear(),
}


async def sees(cache: Cache, value: Any) -> None:
    """Wait until a process serves *value*."""

    async def served() -> bool:
        return bool(await cache.get(KEY) == value)

    await until(served, f"{value!r} seen elsewhere")


async def elsewhere(coroutine: Coroutine[Any, Any, T]) -> T:
    """Do something in a context that knows nothing of the others: another request's."""
    return await asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", INVALIDATIONS)
async def test_what_was_read_before_an_invalidation_is_dropped(somewhere: Cache, shape: str, kind: str) -> None:
    """Get (a miss), load; somebody changes the database and says so; set: the value is dropped, and set says so."""
    get, set_ = SHAPES[shape]
    assert await get(somewhere.get(KEY)) is None
    await elsewhere(INVALIDATIONS[kind](somewhere))
    assert await set_(somewhere.set(KEY, "old", "1m", tags=[TAG])) is SetResult.DROPPED
    assert await somewhere.get(KEY) is None
    assert somewhere.stats().totals.dropped == 1


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_was_read_before_another_process_invalidated_is_dropped(connect: Connect, shape: str) -> None:
    """Also where this process has not heard of it: nobody is served the old value."""
    get, set_ = SHAPES[shape]
    here, there = await connect(), await connect()
    assert await get(here.get(KEY)) is None
    await there.invalidate(tags=[TAG])
    assert await set_(here.set(KEY, "old", "1m", tags=[TAG])) is SetResult.DROPPED
    assert [await here.get(KEY), await there.get(KEY)] == [None, None]


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_was_read_and_nothing_changed_is_stored(somewhere: Cache, shape: str) -> None:
    """A fill."""
    get, set_ = SHAPES[shape]
    assert await get(somewhere.get(KEY)) is None
    assert await set_(somewhere.set(KEY, "value", "1m", tags=[TAG])) is SetResult.STORED
    assert await somewhere.get(KEY) == "value"
    await somewhere.invalidate(tags=[TAG])
    assert await somewhere.get(KEY) is None


@pytest.mark.parametrize("shape", ["one task", "background task"])
@pytest.mark.parametrize("kind", INVALIDATIONS)
async def test_an_own_value_after_an_own_invalidation_is_kept(somewhere: Cache, shape: str, kind: str) -> None:
    """Get (a miss), change the database, invalidate, set the new value: it is not lost."""
    get, set_ = SHAPES[shape]
    assert await get(somewhere.get(KEY)) is None
    await INVALIDATIONS[kind](somewhere)
    await INVALIDATIONS["tag"](somewhere)
    assert await set_(somewhere.set(KEY, "new", "1m", tags=[TAG])) is SetResult.STORED
    assert await somewhere.get(KEY) == "new"


@pytest.mark.parametrize("shape", ["gather", "gather, set by itself", "TaskGroup"])
async def test_who_sets_and_invalidates_for_others_keeps_no_older_value(somewhere: Cache, shape: str) -> None:
    """A consumer of a queue: a reader's value arrives there after a writer's invalidation."""
    get, set_ = SHAPES[shape]
    assert await get(somewhere.get(KEY)) is None
    await somewhere.delete(KEY)
    assert await set_(somewhere.set(KEY, "old", "1m")) is SetResult.DROPPED
    assert await somewhere.get(KEY) is None


async def test_an_earlier_miss_of_the_same_task_is_its_own(somewhere: Cache) -> None:
    """Who looked twice and set once may invalidate and set again; what somebody else invalidated meanwhile wins."""
    assert [await somewhere.get(KEY) for _ in range(2)] == [None, None]
    assert await somewhere.set(KEY, "first", "1m") is SetResult.STORED
    await somewhere.delete(KEY)
    assert await somewhere.set(KEY, "second", "1m") is SetResult.STORED
    await asyncio.create_task(deleted(somewhere))
    assert await somewhere.set(KEY, "old", "1m") is SetResult.DROPPED


async def deleted(cache: Cache) -> None:
    """Delete the key, in a context of its own."""
    await cache.delete(KEY)


async def test_a_value_that_says_when_it_was_born_is_excused_by_nothing(somewhere: Cache) -> None:
    """Neither by the miss nor by the invalidation of the context that sets it."""
    born = await somewhere.clock()
    assert await somewhere.get(KEY) is None
    await somewhere.delete(KEY)
    assert await somewhere.set(KEY, "old", "1m", born=born) is SetResult.DROPPED
    assert await somewhere.set(KEY, "new", "1m", born=await somewhere.clock()) is SetResult.STORED


@pytest.mark.parametrize("between", ["before", "after"])
@pytest.mark.parametrize("kind", INVALIDATIONS)
async def test_an_own_value_is_dropped_where_somebody_else_invalidated_too(
    connect: Connect, between: str, kind: str
) -> None:
    """Before the own invalidation or after it, known here or not: the other change may not be in the value."""
    here, there = await connect(), await connect()
    assert await here.get(KEY) is None
    if between == "before":
        await INVALIDATIONS[kind](there)
    await here.invalidate(keys=[KEY], tags=[TAG])
    if between == "after":
        await INVALIDATIONS[kind](there)
    assert await here.set(KEY, "half new", "1m", tags=[TAG]) is SetResult.DROPPED
    assert [await here.get(KEY), await there.get(KEY)] == [None, None]


async def test_two_callers_who_invalidate_together_are_not_one(somewhere: Cache) -> None:
    """Invalidations of one tick share one clock: neither may take the other's for its own."""
    assert await somewhere.get(KEY) is None
    other = asyncio.create_task(somewhere.invalidate(tags=[TAG]))
    await somewhere.invalidate(tags=[TAG])
    await other
    assert await somewhere.set(KEY, "whose?", "1m", tags=[TAG]) is SetResult.DROPPED
    assert await somewhere.get(KEY) is None


async def test_a_set_without_a_miss_is_a_write(connect: Connect) -> None:
    """Nobody looked in vain: the value is the newest there is, and memory elsewhere drops what it holds."""
    here, there = await connect(), await connect()
    for value in range(5):
        assert await here.set(KEY, value, "1m") is SetResult.STORED
        await sees(there, value)


async def test_a_write_is_one_by_name(somewhere: Cache) -> None:
    """Whatever was missed before."""
    assert await somewhere.get(KEY) is None
    await elsewhere(somewhere.delete(KEY))
    assert await somewhere.write(KEY, "pushed", "1m") is SetResult.STORED
    assert await somewhere.get(KEY) == "pushed"


async def test_a_pushed_price_is_seen_everywhere_although_misses_are_outstanding(connect: Connect) -> None:
    """A `set` is a fill then, and invalidates nothing: the notice drops what other processes hold."""
    here, there = await connect(), await connect()
    await elsewhere(here.get(KEY))
    await elsewhere(here.get(KEY))
    for value in range(1, 20):
        assert await here.set(KEY, value, "1m") is SetResult.STORED
        assert await here.get(KEY) == value
        await sees(there, value)
        assert await there.get(KEY) == value
    assert there.stats().totals.l1_hits > 0


async def test_a_copy_that_was_read_before_the_notice_is_not_kept(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that left before a `set`, and arrives after its notice, brings the old value: memory must not serve it."""
    here, there = await connect(), await connect()
    await elsewhere(here.get(KEY))
    await here.set(KEY, "before", "1m")
    assert here.reader is not None
    assert there.reader is not None
    glances = there.reader._lookup._glances  # type: ignore[union-attr] # it has a server
    fetch, arrived, late = glances._fetch, asyncio.Event(), list[Callable[[], None]]()

    def keep(entries: list[str], done: Done) -> None:
        fetch(entries, lambda replies: (late.append(lambda: done(replies)), arrived.set())[0])

    monkeypatch.setattr(glances, "_fetch", keep)
    monkeypatch.setattr(there.reader.freshness, "hears", lambda _now: True)  # however busy the machine is
    reading = asyncio.create_task(there.get(KEY))
    await arrived.wait()
    await here.set(KEY, "after", "1m")
    notice, heard = here.reader.freshness.replaced_at(KEY), there.reader.freshness
    await until(lambda: heard.replaced_at(KEY) >= notice, "the notice")
    late.pop()()
    assert await reading == "before"
    monkeypatch.undo()
    assert await there.get(KEY) == "after"


async def test_of_what_waits_to_be_invalidated_the_server_is_asked_nothing(connect: Connect) -> None:
    """Every key of a `get_many` may be among it; nothing is sent that the server would refuse."""
    cache = await connect()
    await cache.set("a", 1, "1m")
    (await cache.connected()).freshness.queued(["k:a"])
    assert await cache.get_many(["a"]) == {}
    assert cache.client.refusals.count == 0


async def test_a_set_never_answers_another_context_s_miss(somewhere: Cache) -> None:
    """A reader that missed, and another caller's set: the reader's own set is still a fill."""
    loop = asyncio.get_running_loop()
    missed, gone_on = loop.create_future(), loop.create_future()

    async def reader() -> SetResult:
        assert await somewhere.get(KEY) is None
        missed.set_result(None)
        await gone_on
        return await somewhere.set(KEY, "old", "1m")

    slow = asyncio.create_task(reader())
    await missed
    assert await elsewhere(somewhere.set(KEY, "first", "1m")) is SetResult.STORED
    await elsewhere(somewhere.delete(KEY))
    assert await elsewhere(somewhere.set(KEY, "no token", "1m")) is SetResult.DROPPED
    gone_on.set_result(None)
    assert await slow is SetResult.DROPPED
    assert await somewhere.get(KEY) is None


async def test_a_minute_ends_a_cycle(somewhere: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss that nobody answers does not make every later set a fill."""
    assert await somewhere.get(KEY) is None
    await elsewhere(somewhere.get(KEY))
    await elsewhere(somewhere.delete(KEY))
    monkeypatch.setattr(misses, "WINDOW_S", -1.0)
    assert await somewhere.set(KEY, "later", "1m") is SetResult.STORED
    assert await somewhere.get(KEY) == "later"


async def test_warming_by_hand(somewhere: Cache) -> None:
    """`born=`: a clock taken before the values were read says it outright, whatever was missed."""
    born = await somewhere.clock()
    await elsewhere(somewhere.delete("k:2"))
    assert await somewhere.set("k:1", 1, "1m", born=born) is SetResult.STORED
    assert await somewhere.set("k:2", 2, "1m", born=born) is SetResult.DROPPED
    assert await somewhere.get_many(["k:1", "k:2"]) == {"k:1": 1}


async def test_a_set_while_the_server_is_unavailable_keeps_to_the_rule(proxy: FaultProxy, namespace: str) -> None:
    """Memory serves what was read after a queued invalidation, not what was read before it."""
    settings = CacheSettings(url=proxy.url, namespace=namespace)
    async with Cache(settings=settings) as cache:
        assert await cache.get(KEY) is None
        proxy.black_hole()
        proxy.cut()
        await until(lambda: not cache.client.store.up, "the outage being noticed")
        await elsewhere(cache.delete(KEY))
        assert await cache.set(KEY, "old", "1m") is SetResult.DROPPED
        assert await cache.get(KEY) is None
        assert await cache.write(KEY, "new", "1m") is SetResult.STORED
        assert await cache.get(KEY) == "new"


async def test_a_server_that_was_never_reached() -> None:
    """The rule holds in this process alone, also where no era is known yet."""
    async with Cache("redis://127.0.0.1:1") as cache:
        assert await cache.get(KEY) is None
        await elsewhere(cache.delete(KEY))
        assert await cache.set(KEY, "old", "1m") is SetResult.DROPPED
        assert await cache.get(KEY) is None
        assert await cache.write(KEY, "new", "1m") is SetResult.STORED
        assert await cache.get(KEY) == "new"


async def test_a_miss_outlives_the_connection_it_happened_on(server: PrivateServer, namespace: str) -> None:
    """Closed and opened again in between: the value is still no newer than the miss."""
    cache = Cache(settings=CacheSettings(url=server.url, namespace=namespace))
    async with cache:
        assert await cache.get(KEY) is None
    async with cache:
        await elsewhere(cache.delete(KEY))
        assert await cache.set(KEY, "old", "1m") is SetResult.DROPPED
        assert await cache.get(KEY) is None


async def test_many_are_one_read_one_load_one_fill(somewhere: Cache) -> None:
    """Misses of `get_many` are tokens too; values that `get_or_load_many` loads are held to the rule."""
    assert await somewhere.get_many(["k:1", "k:2"]) == {}
    await elsewhere(somewhere.delete("k:2"))
    assert [await somewhere.set("k:1", 1), await somewhere.set("k:2", 2)] == [SetResult.STORED, SetResult.DROPPED]

    async def load(keys: list[str]) -> dict[str, int]:
        await elsewhere(somewhere.delete("k:3"))
        return dict.fromkeys(keys, 7)

    assert await somewhere.get_or_load_many(["k:1", "k:2", "k:3"], load) == {"k:1": 1, "k:2": 7, "k:3": 7}
    assert await somewhere.get_many(["k:1", "k:2", "k:3"]) == {"k:1": 1, "k:2": 7}


# -- without an event loop ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["server", "memory"])
def facade(request: pytest.FixtureRequest, server: PrivateServer, namespace: str) -> Iterator[sync.Cache]:
    """A facade over one cache."""
    settings = CacheSettings(url=server.url, namespace=namespace, redis_enabled=request.param == "server")
    with sync.Cache(Cache(settings=settings)) as cache:
        yield cache


def in_this_thread(work: Callable[[], T]) -> T:
    """Where the caller is."""
    return work()


def in_another_thread(work: Callable[[], T]) -> T:
    """In a thread that knows nothing."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.parametrize("get", [in_this_thread, in_another_thread])
@pytest.mark.parametrize("set_", [in_this_thread, in_another_thread])
def test_threads_keep_to_the_rule(facade: sync.Cache, get: Any, set_: Any) -> None:
    """Fills, drops and own values, whichever thread misses and whichever sets."""
    assert get(lambda: facade.get(KEY)) is None
    in_another_thread(lambda: facade.delete(KEY))
    assert set_(lambda: facade.set(KEY, "old", "1m")) is SetResult.DROPPED
    assert facade.get(KEY) is None
    assert get(lambda: facade.get("k:1")) is None
    assert set_(lambda: facade.set("k:1", "read", "1m")) is SetResult.STORED
    assert facade.get("k:1") == "read"

    def cycle(key: str) -> SetResult:
        facade.get(key)
        facade.delete(key)
        return facade.set(key, "new", "1m")

    assert set_(lambda: cycle("k:2")) is SetResult.STORED
    assert facade.get("k:2") == "new"


def _cycle(facade: sync.Cache, missed: Any, changed: Any, answers: Any) -> None:
    assert facade.get(KEY) is None
    missed.set()
    changed.wait(20)
    answers.put(facade.set(KEY, "old", "1m").value)
    facade.get("k:1")
    facade.delete("k:1")
    answers.put(facade.set("k:1", "new", "1m").value)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # forking is the point
def test_forked_workers_keep_to_the_rule(server: PrivateServer, namespace: str) -> None:
    """A worker misses; the master invalidates; the worker's set is dropped, its own write is not."""
    fork = multiprocessing.get_context("fork")
    with sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace))) as facade:
        assert facade.get(KEY) is None
        missed, changed, answers = fork.Event(), fork.Event(), fork.Queue()
        worker = fork.Process(target=_cycle, args=(facade, missed, changed, answers))
        worker.start()
        assert missed.wait(20)
        facade.invalidate(keys=[KEY])
        changed.set()
        assert [answers.get(timeout=20), answers.get(timeout=20)] == ["dropped", "stored"]
        worker.join(20)
        assert facade.get(KEY) is None
        assert facade.get("k:1") == "new"


async def test_many_values_are_found_in_one_round_trip_whatever_memory_holds(connect: Connect) -> None:
    """Some in memory, some set elsewhere since, some only in Redis, some nowhere: each value is the newest."""
    here, there = await connect(), await connect()
    for n in range(30):
        await there.set(f"k:{n}", n)
    assert await here.get_many([f"k:{n}" for n in range(20)]) == {f"k:{n}": n for n in range(20)}
    for n in range(10):
        await there.write(f"k:{n}", -n)
    clock = await there.delete("k:11")
    with here.reading(fresh_after=clock):
        await here.get("k:11")
    wanted = {f"k:{n}": -n if n < 10 else n for n in range(30) if n != 11}
    sent: list[str] = []
    submit = here.client.entries.submit
    here.client.entries.submit = lambda key, commands, *rest, **more: (  # type: ignore[method-assign]
        sent.extend(str(command[0]) for command in commands),
        submit(key, commands, *rest, **more),
    )[1]
    assert await here.get_many([f"k:{n}" for n in range(40)]) == wanted
    assert sent.count("MGET") <= 2
    sent.clear()
    assert await here.get_many(list(wanted)) == wanted
    assert sent == []
