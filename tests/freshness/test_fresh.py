"""Nothing older than an invalidation is served: here at once, elsewhere after the journal, whatever fails."""

from __future__ import annotations

import asyncio

import pytest

from cachebus import Cache, Policy, View, is_queued
from cachebus.clock import now_s
from cachebus.freshness.journal import Journal
from cachebus.freshness.rule import TRUST_S
from cachebus.redis.keyspace import FORMAT, Names
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import caught_up, until


class Truth:
    """The database: one number, and how often it was asked."""

    def __init__(self) -> None:
        self.value = 1
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def view(self, cache: Cache, **options: object) -> View[..., int]:
        """Return a view of it."""

        @cache.view("truth:{user_id}:number", ttl="1h", tags=["user:{user_id}"], **options)  # type: ignore[arg-type]
        async def number(user_id: int) -> int:
            self.asked += 1
            seen = self.value
            await self.gate.wait()
            return seen

        return number


SCOPES = [
    {"keys": ["truth:1:number"]},
    {"tags": ["user:1"]},
    {"prefix": "truth:1:"},
    {"prefix": "truth:"},
    {"pattern": "truth:*:number"},
]


@pytest.mark.parametrize("scope", SCOPES)
async def test_every_kind_of_invalidation_reaches_every_process(connect: Connect, scope: dict[str, object]) -> None:
    """Key, tag, prefix and glob: here at once, elsewhere once the journal is applied."""
    truth, here, there = Truth(), await connect(), await connect()
    mine, other = truth.view(here), truth.view(there)
    assert [await mine(1), await other(1)] == [1, 1]
    truth.value = 2
    clock = await here.invalidate(**scope)  # type: ignore[arg-type]
    assert await mine(1) == 2
    await caught_up(there, clock)
    assert await other(1) == 2


async def test_clear_reaches_everything(connect: Connect) -> None:
    """clear() is one invalidation, whatever lies there."""
    truth, here, there = Truth(), await connect(), await connect()
    mine, other = truth.view(here), truth.view(there)
    assert [await mine(1), await other(1)] == [1, 1]
    truth.value = 2
    await caught_up(there, await here.clear())
    assert [await mine(1), await other(1)] == [2, 2]


async def test_user_1_is_not_user_12(connect: Connect) -> None:
    """Invalidating one user's key, tag and prefix leaves a similar number alone."""
    truth, cache = Truth(), await connect()
    view = truth.view(cache)
    assert await view(12) == 1
    truth.value = 2
    await cache.invalidate(keys=["truth:1:number"], tags=["user:1"], prefix="truth:1:")
    assert await view(12) == 1
    assert truth.asked == 1


async def test_a_value_loaded_before_an_invalidation_is_not_stored_as_new(connect: Connect) -> None:
    """Read before, stored after: those who waited get it, nobody who comes later does. Neither here nor elsewhere."""
    truth, here, there = Truth(), await connect(), await connect()
    mine, other = truth.view(here), truth.view(there)
    truth.gate.clear()
    early = asyncio.create_task(mine(1))
    await until(lambda: truth.asked, "the load")
    truth.value = 2
    clock = await here.invalidate(tags=["user:1"])
    truth.gate.set()
    assert await early == 1
    assert await mine(1) == 2
    await caught_up(there, clock)
    assert await other(1) == 2


async def test_a_caller_after_an_invalidation_does_not_join_a_load_from_before(connect: Connect) -> None:
    """It waits for that load and takes the next: never two at once, and never the old one."""
    truth, cache = Truth(), await connect()
    view = truth.view(cache)
    truth.gate.clear()
    early = asyncio.create_task(view(1))
    await until(lambda: truth.asked == 1, "the load")
    truth.value = 2
    await cache.invalidate(tags=["user:1"])
    late = [asyncio.create_task(view(1)) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert truth.asked == 1
    truth.gate.set()
    assert await early == 1
    assert await asyncio.gather(*late) == [2] * 5
    assert truth.asked == 2


async def test_another_processes_load_from_before_is_not_taken_either(connect: Connect) -> None:
    """The lease carries a birth: who knows of a later invalidation waits, then loads."""
    truth, here, there = Truth(), await connect(), await connect()
    mine, other = truth.view(here), truth.view(there)
    truth.gate.clear()
    early = asyncio.create_task(mine(1))
    await until(lambda: truth.asked == 1, "the load")
    truth.value = 2
    clock = await there.invalidate(tags=["user:1"])
    late = asyncio.create_task(other(1))
    await until(lambda: there.stats().totals.waits, "the wait")
    assert truth.asked == 1
    truth.gate.set()
    assert [await early, await late] == [1, 2]
    await caught_up(here, clock)
    assert await mine(1) == 2


async def test_a_read_with_a_clock_is_never_older_than_it(connect: Connect) -> None:
    """`fresh_after`, however far this process's journal is behind."""
    truth, here, there = Truth(), await connect(), await connect()
    mine, other = truth.view(here), truth.view(there)
    for turn in range(2, 60):
        await other(1)
        truth.value = turn
        clock = await here.invalidate(tags=["user:1"])
        assert await other(1, fresh_after=clock) == turn
    assert await mine(1) == truth.value


async def test_a_read_with_a_clock_asks_the_ledger_when_the_journal_does_not_come(
    connect: Connect, proxy: FaultProxy
) -> None:
    """A process whose journal hangs still keeps the promise."""
    truth, here, there = Truth(), await connect(), await connect()
    truth.view(here)
    other = truth.view(there)
    await other(1)
    there.reader._journal.reached = lambda clock, timeout_s: asyncio.sleep(0, False)  # type: ignore[union-attr,method-assign]
    there._running._tasks[0].cancel()  # type: ignore[union-attr]
    truth.value = 2
    clock = await here.invalidate(tags=["user:1"])
    assert await other(1, fresh_after=clock) == 2


async def test_a_strict_read_needs_no_clock(connect: Connect) -> None:
    """`strict=True` checks the ledger: nothing that was executed before the read began is missed."""
    truth, here, there = Truth(), await connect(), await connect()
    truth.view(here)
    other = truth.view(there)
    await other(1)
    there._running._tasks[0].cancel()  # type: ignore[union-attr] # its journal is deaf
    truth.value = 2
    await here.invalidate(tags=["user:1"])
    assert await other(1, strict=True) == 2
    with there.reading(strict=True):
        assert await other(1) == 2


async def test_set_after_a_miss_is_a_fill_born_at_the_miss(connect: Connect) -> None:
    """Cache-aside as people write it does not outlive an invalidation that came between."""
    here, there = await connect(), await connect()
    assert await here.get("k") is None
    await there.delete("k")
    await here.set("k", "read before", "1m")
    assert await there.get("k") is None
    await there.set("k", "written", "1m")
    assert await there.get("k") == "written"


async def test_set_without_a_miss_is_an_authoritative_write(connect: Connect) -> None:
    """It takes the place of what others hold."""
    here, there = await connect(), await connect()
    await here.set("k", 1, "1m")
    assert await there.get("k") == 1
    await here.set("k", 2, "1m")
    await until_value(there, "k", 2)


async def until_value(cache: Cache, key: str, value: object) -> None:
    """Wait until a plain value is seen."""
    for _ in range(2000):
        if await cache.get(key) == value:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{key} never became {value!r}")


async def test_tags_known_only_to_another_version_still_count(connect: Connect) -> None:
    """A reader checks the tags it declares and those the entry was written with."""
    truth, old, new = Truth(), await connect(), await connect()
    await old.set("plain", 1, "1m", tags=["extra"])
    assert await new.get("plain") == 1
    await old.invalidate(tags=["extra"])
    await until_value(new, "plain", None)
    assert truth.asked == 0


@pytest.mark.parametrize("lost", ["journal", "ledger", "everything"])
async def test_a_server_that_loses_the_journal_or_ledger_shows_nothing_old(
    connect: Connect, server: PrivateServer, namespace: str, lost: str
) -> None:
    """Evicted, trimmed or flushed right after an invalidation that nobody has read yet."""
    truth, here, there = Truth(), await connect(), await connect()
    mine, other = truth.view(here), truth.view(there)
    await mine(1)
    await other(1)
    for victim in {"journal": ["journal"], "ledger": ["ledger"], "everything": ["journal", "ledger"]}[lost]:
        truth.value += 1
        server.ask("MULTI") if False else None
        await here.invalidate(tags=["user:1"])
        server.ask("DEL", Names(namespace).bus(victim, FORMAT))
    await until_fresh(other, truth.value)
    assert await mine(1) == truth.value


async def until_fresh(view: View[..., int], value: int) -> None:
    """Wait until a view shows what is true; what it shows meanwhile is journal lag."""
    for _ in range(4000):
        if await view(1) == value:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{value} was never shown")


async def test_a_quiet_journal_that_was_lost_is_noticed(
    connect: Connect, server: PrivateServer, namespace: str
) -> None:
    """No record ever comes after the lost one: the probe of an idle second finds the gap."""
    truth, here, there = Truth(), await connect(), await connect()
    truth.view(here)
    other = truth.view(there)
    await other(1)
    there._running._tasks[0].cancel()  # type: ignore[union-attr] # paused while it happens
    truth.value = 2
    await here.invalidate(tags=["user:1"])
    server.ask("DEL", Names(namespace).journal)
    assert there._running is not None
    assert there._running.journal is not None
    there._running._tasks.append(asyncio.create_task(there._running.journal.run()))
    await until_fresh(other, 2)
    await until(lambda: there.stats().gaps >= 1, "the gap is counted")


async def test_a_cut_connection_costs_nothing_that_is_still_valid(connect: Connect, proxy: FaultProxy) -> None:
    """Resume is exact: entries nobody invalidated stay, what was invalidated meanwhile does not."""
    truth, here, behind = Truth(), await connect(), await connect(url=proxy.url)
    truth.view(here)
    other = truth.view(behind)
    for user in range(1, 51):
        await other(user)
    asked = truth.asked
    proxy.refusing = True
    proxy.cut()
    await until(lambda: not behind.stats().up, "the outage")
    truth.value = 2
    clock = await here.invalidate(tags=["user:1"])
    proxy.resume()
    await until(lambda: behind.stats().up, "the end of the outage")
    await caught_up(behind, clock)
    assert await other(1) == 2
    assert [await other(user) for user in range(2, 51)] == [1] * 49
    assert truth.asked == asked + 1


async def test_while_nobody_reaches_redis_a_queued_clock_still_means_nothing_older(
    connect: Connect, proxy: FaultProxy
) -> None:
    """A process that cannot ask the ledger either loads, whatever its memory may serve otherwise."""
    truth, here, there = Truth(), await connect(url=proxy.url), await connect(url=proxy.url)
    truth.view(here)
    other = truth.view(there)
    assert await other(1) == 1
    proxy.cut()
    proxy.black_hole()
    truth.value = 2
    clock = await here.invalidate(tags=["user:1"])
    assert is_queued(clock)
    assert await other(1) == 1
    assert await other(1, fresh_after=clock) == 2


async def test_an_invalidation_while_redis_is_away_holds_here_and_is_sent_first(
    connect: Connect, proxy: FaultProxy
) -> None:
    """Applied at once, said to be queued, delivered before anything in Redis is trusted again."""
    truth, elsewhere, cut = Truth(), await connect(), await connect(url=proxy.url)
    other, mine = truth.view(elsewhere), truth.view(cut)
    assert [await mine(1), await other(1)] == [1, 1]
    proxy.refusing = True
    proxy.cut()
    await until(lambda: not cut.stats().up, "the outage")
    truth.value = 2
    clock = await cut.invalidate(tags=["user:1"])
    assert is_queued(clock)
    assert cut.stats().queued == 1
    assert await mine(1) == 2
    assert await other(1) == 1
    proxy.resume()
    await until(lambda: cut.stats().queued == 0, "the delivery")
    assert await mine(1) == 2
    await until_fresh(other, 2)


@pytest.mark.parametrize("allowed_ms", [0, 30_000])
async def test_without_redis_memory_answers_only_as_long_as_it_may(
    connect: Connect, proxy: FaultProxy, allowed_ms: int
) -> None:
    """CACHE_MAX_STALENESS: 0 loads at every read, 30 s serves what was verified that lately."""
    truth, cache = Truth(), await connect(url=proxy.url, max_staleness_ms=allowed_ms)
    view = truth.view(cache)
    await view(1)
    proxy.refusing = True
    proxy.cut()
    await until(lambda: not cache.stats().up, "the outage")
    assert cache.reader is not None
    cache.reader.freshness.heard_at -= 5  # as if it had lasted five seconds already
    truth.value = 2
    assert await view(1) == (1 if allowed_ms else 2)
    assert truth.asked == (1 if allowed_ms else 2)


async def test_a_black_hole_is_noticed_and_survived(connect: Connect, proxy: FaultProxy) -> None:
    """No answer and no error: reads go on from the loader, and from Redis when it is back."""
    truth, cache = Truth(), await connect(url=proxy.url, max_staleness_ms=0)
    view = truth.view(cache)
    await view(1)
    proxy.black_hole()
    assert await view(2) == 1
    await until(lambda: not cache.stats().up, "the notice")
    truth.value = 3
    assert await view(3) == 3
    proxy.resume()
    await until(lambda: cache.stats().up, "the return")
    assert await view(4) == 3


async def test_a_server_restarted_from_an_older_copy_shows_nothing_old(
    own_server: PrivateServer, namespace: str
) -> None:
    """A failover that lost invalidations: whoever knew of them makes the whole cache cold."""
    truth = Truth()
    async with Cache(own_server.url) as here, Cache(own_server.url) as there:
        mine, other = truth.view(here), truth.view(there)
        await mine(1)
        await other(1)
        own_server.ask("CONFIG", "SET", "appendfsync", "no")
        copy = {key: own_server.ask("DUMP", key) for key in own_server.ask("KEYS", "*")}
        truth.value = 2
        clock = await here.invalidate(tags=["user:1"])
        await caught_up(there, clock)
        own_server.ask("FLUSHALL")
        for key, data in copy.items():
            own_server.ask("RESTORE", key, 0 if b"{cachebus}" in key else 60_000, data)
        own_server.restart()
        await until(lambda: not here.stats().up or here.client.store.connects > 1, "the new connection")  # type: ignore[attr-defined]
        await until(lambda: here.stats().up and there.stats().up, "the return")
        await until_fresh(mine, 2)
        await until_fresh(other, 2)


async def test_a_process_that_was_stopped_does_not_trust_its_memory(connect: Connect) -> None:
    """After a stall the first hit asks the ledger, before the journal has caught up."""
    truth, here, there = Truth(), await connect(), await connect()
    truth.view(here)
    other = truth.view(there)
    await other(1)
    there._running._tasks[0].cancel()  # type: ignore[union-attr] # as SIGSTOP would
    truth.value = 2
    await here.invalidate(tags=["user:1"])
    assert there.reader is not None
    there.reader.freshness.heard_at -= 600
    assert await other(1) == 2


async def test_a_storm_of_invalidations_settles(connect: Connect) -> None:
    """`settle`: at most one load an interval here, and a read with a clock is not answered from before it."""
    truth, cache = Truth(), await connect()
    view = truth.view(cache, policy=Policy(settle="1h"))
    assert await view(1) == 1
    truth.value = 2
    clock = await cache.invalidate(tags=["user:1"])
    assert await view(1) == 1
    assert await view(1, fresh_after=clock) == 2


async def test_an_invalidated_value_is_served_only_where_a_view_says_so(connect: Connect) -> None:
    """`serve_invalidated`: nobody waits while one renews it, but a read with a clock does."""
    truth, cache = Truth(), await connect()
    view = truth.view(cache, policy=Policy(serve_invalidated="1m"))
    assert await view(1) == 1
    truth.value = 2
    await cache.invalidate(tags=["user:1"])
    assert await view(1) == 1
    await until(lambda: truth.asked == 2, "the renewal")
    await until_fresh(view, 2)
    truth.value = 3
    clock = await cache.invalidate(tags=["user:1"])
    assert await view(1, fresh_after=clock) == 3


async def test_inside_a_handler_views_load_and_never_serve(connect: Connect) -> None:
    """What a handler computes must not be from before its own invalidation, whatever else the read demands."""
    truth, cache = Truth(), await connect()
    view = truth.view(cache)
    assert await view(1) == 1
    clock = await cache.invalidate(tags=["another"])
    truth.value = 2
    with cache.loading_only():
        assert await view(1) == 2
        assert await view(1, fresh_after=clock) == 2
        with cache.reading(strict=True):
            assert await view(1) == 2
    assert await view(1) == 1


async def test_ten_thousand_invalidations_in_one_burst_are_few_scripts(cache: Cache, server: PrivateServer) -> None:
    """Invalidations of one tick share a script; equal ones are one."""

    def scripts() -> int:
        stats = server.ask("INFO", "commandstats").decode()
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "cmdstat_eval" in line)

    before = scripts()
    clocks = await asyncio.gather(*[cache.invalidate(tags=[f"burst:{n % 10}"]) for n in range(10_000)])
    assert scripts() - before <= 20
    assert len(set(clocks)) <= 20


@pytest.mark.parametrize("heard_ago_s", [float("inf"), TRUST_S + 1], ids=["never heard", "stalled"])
async def test_a_process_that_does_not_hear_asks_before_it_serves_what_redis_holds(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, heard_ago_s: float
) -> None:
    """Just started, stopped for a while, or deaf: what others invalidated since is not served from Redis either."""
    truth, here = Truth(), await connect()
    monkeypatch.setattr(Journal, "run", lambda _self: asyncio.Event().wait())
    there = await connect()
    mine, other = truth.view(here), truth.view(there)
    assert await mine(1) == 1
    truth.value = 2
    await here.invalidate(tags=["user:1"])
    assert there.reader is not None
    there.reader.freshness.heard_at = now_s() - heard_ago_s
    assert await other(1) == 2
