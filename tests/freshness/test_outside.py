"""Numbers from outside: whatever a caller or another program brings, it changes its own read, and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from cachebus import Cache
from cachebus.freshness.clock import Born, clock_of, is_queued, parse_clock, parse_score
from cachebus.freshness.present import newest_clock
from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import caught_up, until

ERA = "0123456789abcdef"
ABSURD = [
    "999999999999999999",
    "999999999999999999.{era}",
    "2000000000000000.{era}",
    "1.{era}",
    "1.ffffffffffffffff",
    "9" * 5000,
    "inf.{era}",
    "-1.{era}",
    "1e400.{era}",
    "٣.{era}",
    "x" * 100_000,
    "\x00.\n",
]


@pytest.mark.parametrize("text", ABSURD)
async def test_a_clock_that_a_caller_brings_changes_only_its_own_read(connect: Connect, text: str) -> None:
    """A header, a message, a forgery: answered with what is true, and nobody's clock moves."""
    version = 1

    async def load(n: int) -> int:
        return version

    here, there = await connect(), await connect()
    mine, theirs = [cache.view("outside:{n}", ttl="1h")(load) for cache in (here, there)]
    assert [await mine(1), await theirs(1)] == [1, 1]
    clock = await here.invalidate(keys=["other"])
    await caught_up(there, clock)
    assert there.reader is not None
    freshness = there.reader.freshness
    before = (freshness.born, freshness.position, await newest_clock(here.client))
    assert await theirs(1, fresh_after=text.format(era=freshness.era)) == 1
    with there.reading(fresh_after=text.format(era=freshness.era)):
        assert await theirs(1) == 1
    assert (freshness.born, freshness.position, await newest_clock(here.client)) == before
    version = 2
    assert await theirs(1, fresh_after=await here.invalidate(keys=["outside:1"])) == 2


def test_a_clock_is_text_that_says_its_era() -> None:
    """It goes through JSON, headers and logs as it is, and comes back as a number in an era."""
    clock = clock_of(Born(1_795_426_296_001_200, ERA))
    assert json.loads(json.dumps({"fresh_after": clock})) == {"fresh_after": f"1795426296001200.{ERA}"}
    assert parse_clock(clock) == Born(1_795_426_296_001_200, ERA)
    assert not is_queued(clock)
    queued = clock_of(Born(1, ERA), queued=True)
    assert is_queued(queued)
    assert parse_clock(queued) == Born(1, ERA)


@pytest.mark.parametrize(
    ("score", "number"), [(b"7", 7), (b"inf", 2**62), (b"-inf", 0), (b"1e+300", 2**62), (b"x", 0), (None, 0)]
)
def test_a_score_is_a_finite_number(score: bytes | None, number: int) -> None:
    """Whatever somebody wrote into the ledger."""
    assert parse_score(score) == number


DAMAGE = {
    "a clock without end": ("ZADD", "ledger", "inf", "@clock"),
    "a clock of the year 30000": ("ZADD", "ledger", "9e17", "@clock"),
    "a floor without end": ("ZADD", "ledger", "inf", "@floor"),
    "no floor": ("ZREM", "ledger", "@floor"),
    "a record of the far future": ("XADD", "journal", "18446744073709551614-1", "x", "y"),
    "no clock": ("ZREM", "ledger", "@clock"),
    "an era whose name is too short": ("ZADD", "ledger", "-1", "@era:0"),
    "an era whose name is no text": ("ZADD", "ledger", "-1", b"@era:\x00\xff"),
    "a ledger of another type": ("SET", "ledger", "x"),
    "a journal of another type": ("SET", "journal", "x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_ledger_that_cannot_be_right_begins_a_new_era(
    connect: Connect, server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """One clear line, an empty journal, and everything is cached and invalidated as before."""
    version = loads = 0

    async def load(n: int) -> int:
        nonlocal loads
        loads += 1
        return version

    here, there = await connect(), await connect()
    mine, theirs = [cache.view("damaged:{n}", ttl="1h")(load) for cache in (here, there)]
    assert [await mine(1), await theirs(1)] == [0, 0]
    was = eras(here, there)
    verb, key, *rest = DAMAGE[damage]
    caplog.clear()
    with caplog.at_level(logging.INFO, "cachebus"):
        server.ask(verb, getattr(Names(namespace), key), *rest)
        await connect()  # some damage shows only to a newcomer
        await until(lambda: not set(eras(here, there)) & set(was) and settled(here, there), "a new era")
    told = [record.getMessage() for record in caplog.records if "new era" in record.getMessage()]
    assert len(told) == 1
    assert parse_score(server.ask("ZSCORE", Names(namespace).ledger, "@clock")) < here.client.now_us() + 1_000_000
    version, loads = 1, 0
    await caught_up(there, await here.invalidate(keys=["damaged:1"]))
    assert [await mine(1), await theirs(1), await mine(1), await theirs(1)] == [1, 1, 1, 1]
    assert loads == 1


async def test_an_absurd_clock_of_one_scope_costs_that_scope_alone(
    connect: Connect, server: PrivateServer, namespace: str
) -> None:
    """Somebody writes infinity beside a key: it is as if the key were invalidated now."""
    cache = await connect()
    await asyncio.gather(cache.invalidate(keys=["a"]), cache.invalidate(keys=["b"]))
    server.ask("ZADD", Names(namespace).ledger, "inf", "k:a")
    late = await connect()
    await until(lambda: settled(late), "the journal")

    async def load(n: str) -> str:
        return n

    view = late.view("{n}", ttl="1h")(load)
    assert [await view("a"), await view("b")] == ["a", "b"]
    await late.invalidate(keys=["a"])
    assert await view("a") == "a"


def eras(*caches: Cache) -> list[str]:
    """Return the era of each process."""
    return [cache.reader.freshness.era for cache in caches if cache.reader is not None]


def settled(*caches: Cache) -> bool:
    """Return whether all of them follow the journal in one era."""
    return len(set(eras(*caches))) == 1 and all(cache.stats().journal_lag_ms is not None for cache in caches)
