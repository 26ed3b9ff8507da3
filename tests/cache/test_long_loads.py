"""Loads that hang, and loads that wait for themselves: nobody else waits for either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from cachebus import Cache, Policy
from cachebus.cache.tiers import redis as tier
from cachebus.errors import LoadCycle
from cachebus.sync import Cache as SyncCache
from cachebus.testing import FakeClock
from tests.conftest import Connect
from tests.support.waiting import until

SHORT = Policy(max_load="50ms")


async def ended(read: Awaitable[Any]) -> Any:
    """Return what *read* returns; fail where it never ends."""
    task = asyncio.ensure_future(read)
    try:
        await until(task.done, "the end of the read")
        return await task
    finally:
        task.cancel()


class Hanging:
    """A loader whose first call hangs until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.let_go = asyncio.Event()

    async def load(self, n: int) -> int:
        """Return the number of the call."""
        self.calls += 1
        call = self.calls
        if call == 1:
            await self.let_go.wait()
        return call


async def test_a_hung_load_takes_its_key_from_nobody(
    connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers in this process and in others load for themselves once it is overdue. One warning says so.

    None of them waits for the end of its lease: it is given back.
    """
    monkeypatch.setattr(tier, "LEASE_MS", 600_000)
    here, there = await connect(), await connect()
    hanging = Hanging()
    mine, theirs = [cache.view("hung:{n}", ttl="1h", policy=SHORT)(hanging.load) for cache in (here, there)]
    first = asyncio.create_task(mine(1))
    await until(lambda: hanging.calls, "the load")
    joined = asyncio.create_task(mine(1))
    assert await ended(theirs(1)) == 2
    assert await ended(joined) == 2
    assert await ended(mine(1)) == 2
    assert not first.done()
    assert hanging.calls == 2
    hanging.let_go.set()
    assert await ended(first) == 1, "its own caller gets what it waited for"
    assert [await mine(1), await theirs(1)] == [2, 2], "and the newer value stays"
    said = [record for record in caplog.records if record.levelname == "WARNING" and "hung:1" in record.getMessage()]
    assert len(said) == 1
    assert "running for 0.05 s" in said[0].getMessage()


async def test_what_an_overdue_load_returns_is_stored_if_nobody_has_loaded_since(connect: Connect) -> None:
    """It is late, not wrong."""
    here, there = await connect(), await connect()
    hanging = Hanging()
    mine, theirs = [cache.view("late:{n}", ttl="1h", policy=SHORT)(hanging.load) for cache in (here, there)]
    first = asyncio.create_task(mine(1))
    assert here.reader is not None
    flights = here.reader._flights
    await until(lambda: hanging.calls and not flights._by_entry, "the end of its time")
    hanging.let_go.set()
    assert await ended(first) == 1
    assert [await mine(1), await theirs(1)] == [1, 1]
    assert hanging.calls == 1


async def test_an_older_value_is_served_while_a_load_hangs(somewhere: Cache) -> None:
    """`stale_if_error`: a load that is overdue has failed, as far as its callers can tell."""
    hanging = Hanging()
    value = somewhere.view("hangs:{n}", ttl="1m", stale_if_error="1h", policy=SHORT)(hanging.load)
    hanging.let_go.set()
    assert await value(1) == 1
    hanging.calls = 0
    hanging.let_go.clear()
    with FakeClock() as clock:
        clock.advance("2m")
        assert await ended(value(1)) == 1
        assert await ended(value(1)) == 1
        assert hanging.calls == 1, "the second read does not wait for it again"
    hanging.let_go.set()


async def test_a_load_that_reads_its_own_key_raises(somewhere: Cache) -> None:
    """It would wait for itself. The error names the key."""

    @somewhere.view("own:{n}", ttl="1h")
    async def own(n: int) -> int:
        return await own(n) + 1

    with pytest.raises(LoadCycle, match="own:1 → own:1"):
        await ended(own(1))


@pytest.mark.parametrize("how", ["await", "gather", "wait_for"])
async def test_a_load_that_reads_its_own_key_through_another_view_raises(somewhere: Cache, how: str) -> None:
    """Also where the reads are tasks of their own. The error names the chain."""

    async def read(view: Any, n: int) -> int:
        if how == "gather":
            return sum(await asyncio.gather(view(n), asyncio.sleep(0, 0)))
        return await (asyncio.wait_for(view(n), 60) if how == "wait_for" else view(n))

    @somewhere.view("a:{n}", ttl="1h")
    async def a(n: int) -> int:
        return await read(b, n)

    @somewhere.view("b:{n}", ttl="1h")
    async def b(n: int) -> int:
        return await read(c, n)

    @somewhere.view("c:{n}", ttl="1h")
    async def c(n: int) -> int:
        return await read(a, n) if n == 1 else n

    with pytest.raises(LoadCycle, match="c:1 → a:1 → b:1 → c:1") as raised:
        await ended(a(1))
    assert raised.value.chain == ("c:1", "a:1", "b:1", "c:1")
    assert await ended(a(2)) == 2


async def test_two_callers_whose_loads_wait_for_each_other_are_told(somewhere: Cache) -> None:
    """Each began one of the two loads: no chain of one caller holds both."""
    both = asyncio.Barrier(2)

    @somewhere.view("left:{n}", ttl="1h")
    async def left(n: int) -> int:
        await both.wait()
        return await right(n)

    @somewhere.view("right:{n}", ttl="1h")
    async def right(n: int) -> int:
        await both.wait()
        return await left(n)

    results = await ended(asyncio.gather(left(1), right(1), return_exceptions=True))
    assert [type(result) for result in results] == [LoadCycle, LoadCycle]


async def test_a_task_that_outlives_the_load_may_read_its_key(somewhere: Cache) -> None:
    """It was begun by the load, which does not wait for it."""
    tasks: list[asyncio.Task[int]] = []
    go = asyncio.Event()

    @somewhere.view("spawns:{n}", ttl="1h")
    async def spawns(n: int) -> int:
        async def later() -> int:
            await go.wait()
            await spawns.invalidate(n)
            return await spawns(n)

        if not tasks:
            tasks.append(asyncio.create_task(later()))
        return len(tasks)

    assert await spawns(1) == 1
    go.set()
    assert await ended(tasks[0]) == 1


async def test_a_renewal_behind_a_nested_read_is_no_cycle(somewhere: Cache) -> None:
    """Nobody waits for a renewal in the background, so it may read what the load that met it belongs to."""
    outer_reads_inner = asyncio.Event()

    @somewhere.view("inner:{n}", ttl="1m", stale="1h")
    async def inner(n: int) -> int:
        if outer_reads_inner.is_set():
            return await outer(n) + 1
        return 1

    @somewhere.view("outer:{n}", ttl="1h")
    async def outer(n: int) -> int:
        outer_reads_inner.set()
        return await inner(n)

    assert await inner(1) == 1
    with FakeClock() as clock:
        clock.advance("2m")
        assert await ended(outer(1)) == 1
        await until(lambda: somewhere.stats().views["inner:{n}"].refreshes == 1, "the renewal")


def test_a_plain_function_that_reads_its_own_key_raises() -> None:
    """Through the synchronous facade, where the load runs in its caller's thread."""
    cache = SyncCache.memory()

    @cache.view("plain:{n}", ttl="1h")
    def plain(n: int) -> int:
        return plain(n) + 1

    try:
        with pytest.raises(LoadCycle, match="plain:1 → plain:1"):
            plain(1)
    finally:
        cache.close()
