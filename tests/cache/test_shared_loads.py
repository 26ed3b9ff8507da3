"""Whoever wants a value that nobody has: one load, in one process, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachebus import Cache
from cachebus.redis.connection import Done
from tests.conftest import Connect
from tests.support.waiting import caught_up, until


class Slow:
    """A loader that is counted, and waits until its gate is opened."""

    def __init__(self) -> None:
        self.loads = 0
        self.gate = asyncio.Event()

    async def load(self, n: int) -> int:
        """Return the argument."""
        self.loads += 1
        await self.gate.wait()
        return n


async def test_fifty_callers_of_a_cold_key_cause_one_load(cache: Cache) -> None:
    """Single flight: one call of the loader, one answer for all."""
    slow = Slow()
    view = cache.view("cold:{n}", ttl="1m")(slow.load)

    callers = [asyncio.create_task(view(1)) for _ in range(50)]
    await until(lambda: slow.loads, "the load")
    slow.gate.set()
    assert await asyncio.gather(*callers) == [1] * 50
    assert slow.loads == 1


async def test_two_processes_load_a_cold_key_once(connect: Connect) -> None:
    """The lease picks one; the other is woken by the fill."""
    slow = Slow()
    caches = [await connect() for _ in range(4)]
    views = [cache.view("shared:{n}", ttl="1m")(slow.load) for cache in caches]

    callers = [asyncio.create_task(view(1)) for view in views for _ in range(10)]
    await until(lambda: sum(cache.stats().totals.waits for cache in caches) >= 3, "three waiting processes")
    slow.gate.set()
    assert await asyncio.gather(*callers) == [1] * 40
    assert slow.loads == 1


async def test_callers_who_looked_in_different_ways_share_one_load(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One only looked, one asked with a lease: neither gives back what the other loads with, so no process joins in."""
    slow = Slow()
    one, two = await connect(), await connect()
    here, there = [cache.view("mixed:{n}", ttl="1m", tags=["mixed"])(slow.load) for cache in (one, two)]
    slow.gate.set()
    await there(1)
    assert await here(1) == 1  # found in Redis: this process will only look the next time
    await caught_up(one, await two.invalidate(tags=["mixed"]))
    slow.gate.clear()
    slow.loads = 0

    assert one.reader is not None
    server, flights = one.reader._lookup.entries._server, one.reader._flights  # type: ignore[union-attr] # it has a server
    send, late = server.submit_run, list[Callable[[], None]]()

    def keep(verb: str, keys: Any, args: Any, done: Done, **more: Any) -> None:
        monkeypatch.undo()
        send(verb, keys, args, lambda replies: late.append(lambda: done(replies)), **more)

    monkeypatch.setattr(server, "submit_run", keep)
    asked = asyncio.create_task(here(1, strict=True))
    await until(lambda: late, "the reply to the one who asked")
    looked = asyncio.create_task(here(1))
    await until(lambda: flights._by_entry, "the flight of the one who looked")
    late[0]()
    await until(lambda: slow.loads, "the load")
    elsewhere = asyncio.create_task(there(1))
    await until(lambda: two.stats().totals.waits or slow.loads > 1, "the other process")
    slow.gate.set()
    assert await asyncio.gather(looked, asked, elsewhere) == [1, 1, 1]
    assert slow.loads == 1


@pytest.mark.parametrize("gone", range(1, 11))
async def test_cancelling_some_waiters_cancels_nobody_else(cache: Cache, gone: int) -> None:
    """However many leave, one load, and an answer for everyone who stayed."""
    slow = Slow()
    view = cache.view("cancel:{n}", ttl="1m")(slow.load)

    callers = [asyncio.create_task(view(1)) for _ in range(10)]
    await until(lambda: slow.loads, "the load")
    for caller in callers[:gone]:  # the first of them set the load off
        caller.cancel()
    slow.gate.set()
    assert await asyncio.gather(*callers[gone:]) == [1] * (10 - gone)
    assert slow.loads == 1


async def test_a_failing_loader_is_called_once_and_all_get_its_exception(cache: Cache) -> None:
    """The same error for every waiter; nothing is stored, the next call loads again."""
    loads = 0
    gate = asyncio.Event()

    @cache.view("fails:{n}", ttl="1m")
    async def fails(n: int) -> int:
        nonlocal loads
        loads += 1
        await gate.wait()
        raise LookupError(n)

    callers = [asyncio.create_task(fails(1)) for _ in range(10)]
    await until(lambda: loads, "the load")
    gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 10
    assert loads == 1
    with pytest.raises(LookupError):
        await fails(1)
    assert loads == 2


@pytest.mark.parametrize("raised", [SystemExit, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_what_no_loader_should_raise_is_an_error_for_everyone_who_waits(
    connect: Connect, raised: type[BaseException]
) -> None:
    """Also in another process, which gets the lease at once and loads itself."""
    loads = 0
    gate = asyncio.Event()

    async def exits(n: int) -> int:
        nonlocal loads
        loads += 1
        if loads == 1:
            await gate.wait()
            raise raised("enough")
        return n

    one, two = await connect(), await connect()
    here, there = [cache.view("exits:{n}", ttl="1m")(exits) for cache in (one, two)]
    callers = [asyncio.create_task(here(1)) for _ in range(3)]
    await until(lambda: loads, "the load")
    elsewhere = asyncio.create_task(there(1))
    await until(lambda: two.stats().totals.waits, "the other process")
    gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(result) for result in results] == [f"exits:1: the loader raised {raised.__name__} enough"] * 3
    assert {type(result) for result in results} == {RuntimeError}
    assert await elsewhere == 1
    assert one.stats().totals.load_errors == 1


@pytest.mark.parametrize("others", [0, 1])
async def test_a_caller_who_is_cancelled_as_the_lease_arrives_gives_it_back(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Another process then loads at once; unless a caller beside this one has got the same lease, and loads with it."""
    monkeypatch.setattr("cachebus.cache.tiers.redis.LEASE_MS", 600_000)  # nobody sits it out
    slow = Slow()
    one, two = await connect(), await connect()
    here, there = [cache.view("given:{n}", ttl="1m")(slow.load) for cache in (one, two)]
    assert one.reader is not None
    server = one.reader._lookup.entries._server  # type: ignore[union-attr] # it has a server
    send, late = server.submit_run, list[Callable[[], None]]()

    def keep(verb: str, keys: Any, args: Any, done: Done, **more: Any) -> None:
        monkeypatch.setattr(server, "submit_run", send)
        send(verb, keys, args, lambda replies: late.append(lambda: done(replies)), **more)

    monkeypatch.setattr(server, "submit_run", keep)
    gone = asyncio.create_task(here(1))
    staying = [asyncio.create_task(here(1)) for _ in range(others)]
    await until(lambda: late, "the lease")
    late[0]()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    elsewhere = asyncio.create_task(there(1))
    await until(lambda: slow.loads, "a load")
    await until(lambda: two.stats().totals.waits or not others, "the other process")
    slow.gate.set()
    assert await asyncio.gather(*staying, elsewhere) == [1] * (others + 1)
    assert slow.loads == 1
