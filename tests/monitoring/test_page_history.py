"""What the live page says about an hour or a day is what all processes counted, together."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from cachebus import Cache, CacheSettings, Client
from cachebus.cache.upkeep.reporter import MOST_CAUSES, NamedCause, Observed, Reporter, causes_key
from cachebus.freshness.cause import caused_by
from cachebus.monitoring.history import Buckets, FinishedBuckets, History, percentiles, total
from cachebus.monitoring.verdict import gathering
from cachebus.monitoring.view_table import view_row
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect

VIEW = "price:{symbol}"


def declare(cache: Cache) -> None:
    """Declare one view."""

    @cache.view(VIEW, ttl="5m")
    async def price(symbol: str) -> int:
        return len(symbol)


def reporter(cache: Cache) -> Reporter:
    """Return what reports for a connected cache."""
    assert cache._running is not None
    assert cache._running.reporter is not None
    return cache._running.reporter


async def test_processes_are_added_up(connect: Connect, client: Client) -> None:
    """Two processes' reads of one view are one line, in the minute and in the hour; a restart subtracts nothing."""
    for _ in range(2):
        cache = await connect()
        declare(cache)
        await cache.views[VIEW]("AAPL")
        await cache.views[VIEW]("AAPL")
        await cache.close()  # says what it counted when it leaves
    for buckets in (await History(client).minutes(), await History(client).hours()):
        counters = total(buckets)[VIEW]
        assert counters["loads"] == 1
        assert counters["l1_hits"] + counters["l2_hits"] == 3


async def test_what_was_said_is_not_said_again(connect: Connect, client: Client) -> None:
    """Each flush adds only what is new since the one before."""
    cache = await connect()
    declare(cache)
    for _ in range(3):
        await cache.views[VIEW]("MSFT")
        await reporter(cache).flush()
    assert total(await History(client).minutes())[VIEW]["l1_hits"] == 2


async def test_a_process_says_what_it_is_like_and_signs_off(connect: Connect, client: Client) -> None:
    """Its gauges and the TTLs of its views are there while it lives, and gone when it has left."""
    cache = await connect()
    declare(cache)
    cache.observed.gauges["sockets"] = lambda: 12
    await reporter(cache).flush()
    (process,) = await History(client).processes()
    assert process.gauges == {"sockets": 12}
    assert process.ttls_ms == {VIEW: 300_000}
    await cache.close()
    assert await History(client).processes() == []


def calls(server: PrivateServer, *commands: str) -> int:
    """Return how often the server was asked these commands."""
    found = re.findall(r"cmdstat_(\w+):calls=(\d+)", server.ask("INFO", "commandstats").decode())
    return sum(int(number) for name, number in found if name in commands)


async def test_a_report_is_one_command(own_server: PrivateServer) -> None:
    """Whatever was counted since the last one, thirty views at once."""
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache:
        for number in range(30):

            @cache.view(f"view-{number}:{{symbol}}")
            async def load(symbol: str) -> str:
                return symbol

            await load("AAPL")
            await load("AAPL")
        before = calls(own_server, "evalsha", "eval")
        assert await reporter(cache).flush()
        assert calls(own_server, "evalsha", "eval") - before <= 2  # once more where the script is new to the server
        before = calls(own_server, "evalsha", "eval")
        await cache.views["view-1:{symbol}"]("AAPL")
        assert await reporter(cache).flush()
        assert calls(own_server, "evalsha", "eval") - before == 1


async def test_a_look_costs_some_twenty_commands(own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over is not read again each time: two minutes, and the present."""
    monkeypatch.setattr(gathering, "FAST_S", 0.0)
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache:
        looks = gathering.Gathering(cache.client, shards=1, scheduler=None)
        await looks.glance()
        asked = ("hgetall", "get", "xlen", "hget", "zcard", "xrevrange", "info", "scan", "ping", "evalsha")
        before = calls(own_server, *asked)
        await looks.glance()
        assert calls(own_server, *asked) - before <= 20


async def test_it_can_be_switched_off(connect: Connect, client: Client) -> None:
    """With CACHE_REPORT=false a process says nothing, not even when it leaves."""
    assert not CacheSettings.from_environment({"CACHE_REPORT": "false"}).report
    cache = await connect(report=False)
    declare(cache)
    await cache.views[VIEW]("AAPL")
    await cache.close()
    assert total(await History(client).hours()) == {}


def test_percentiles_are_upper_bounds_of_their_step() -> None:
    """p50 of 98 fast events and 2 slow ones is fast, p99 is slow; nothing is promised of no events."""
    observed = Observed()
    observed.fresh(2.5, 98)
    observed.fresh(420, 2)
    assert percentiles(observed.latencies) == [3, 3, 500]
    observed.fresh(60_000, 1000)
    assert percentiles(observed.latencies)[0] == float("inf")
    assert percentiles({}) == [None, None, None]


def test_a_process_tells_a_bounded_number_of_causes_apart() -> None:
    """More are counted by their kind: nothing is lost, and nobody's thousand names fill the memory of all."""
    observed = Observed()
    for number in range(MOST_CAUSES + 50):
        with caused_by("deploy", f"v{number}"):
            observed.invalidated(["k:a"])
    assert len(observed._invalidated) == MOST_CAUSES + 1
    assert sum(observed._invalidated[NamedCause("deploy")].values()) == 50


async def test_an_hour_keeps_a_bounded_number_of_causes(connect: Connect, client: Client) -> None:
    """Of those it has it counts on; the rest is in the counters of kinds."""
    cache = await connect()
    declare(cache)
    hour = client.now_us() // 3_600_000_000 * 3600
    full = [part for number in range(1000) for part in (f'["v","event","h{number}",""]', "1 1")]
    for key in (causes_key(client, hour), causes_key(client, hour + 3600)):  # whichever the test runs in
        await client.store.call("HSET", key, *full)
        await client.store.call("EXPIRE", key, 60)
    await cache.views[VIEW]("AAPL")
    await cache.invalidate(keys=["price:AAPL"])
    assert await reporter(cache).flush()
    assert await client.store.call("HLEN", causes_key(client, hour)) == 1000
    assert total(await History(client).minutes(2))[VIEW]["invalidated by process"] == 1


def test_a_view_says_how_long_its_loads_take() -> None:
    """p50 and p95 beside the average, which one slow load bends; beyond the last step that is said."""
    row = view_row(VIEW, Counter({"loads": 20, "load_ms": 100_090, "load 5": 18, "load more": 2}), None, 1)
    assert (row.load_ms, row.load_p50_ms, row.load_p95_ms) == (5004.5, 5, -1)
    row = view_row(VIEW, Counter({"loads": 20, "load_ms": 5_100, "load 5": 19, "load 10000": 1}), None, 1)
    assert (row.load_p50_ms, row.load_p95_ms) == (5, 5)
    assert view_row(VIEW, Counter(), None, 1).load_p50_ms is None


async def test_buckets_that_are_over_are_read_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those under way each time, and all that were under way when somebody last looked, however long ago that is."""
    history, read = History(client), []

    async def reading(kind: str, starts: list[int]) -> Buckets:
        read.append(starts)
        return {at: {"view": {"loads": len(read)}} for at in starts}

    monkeypatch.setattr(history, "read", reading)
    monkeypatch.setattr(type(client), "now_us", lambda _: now_s * 1_000_000)
    now_s, buckets = 600_000, FinishedBuckets(history, "minute", 60, 5)

    async def looked() -> list[int]:
        read.clear()
        assert len(await buckets.get()) == 5
        return [(600_000 - at) // 60 for part in read for at in part]

    assert await looked() == [4, 3, 2, 1, 0]
    assert await looked() == [1, 0]
    now_s += 60
    assert await looked() == [1, 0, -1]
    now_s += 180
    assert await looked() == [0, -1, -2, -3, -4]
