"""Loads that fail while an older value may be served: tried again now and then, not at each read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus import Cache, Policy
from cachebus.cache.reads import backoff
from cachebus.cache.reads.backoff import FIRST_S, LONGEST_S, MOST_KEYS, Backoff
from cachebus.clock import now_s
from cachebus.testing import FakeClock, memory_cache
from tests.conftest import Connect
from tests.support.waiting import until


class Database:
    """A database that can fail, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    async def load(self, n: int) -> int:
        """Return how often it has answered."""
        self.asked += 1
        if self.broken:
            raise OSError("no database")
        return self.asked


@pytest.fixture
def database() -> Database:
    """One that works."""
    return Database()


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A clock that jumps."""
    with FakeClock() as fake:
        yield fake


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of five to ten minutes, which no slow machine sits out."""
    monkeypatch.setattr(backoff, "FIRST_S", 600.0)
    monkeypatch.setattr(backoff, "LONGEST_S", 600.0)


@pytest.fixture
async def memory() -> AsyncIterator[Cache]:
    """A cache without a server."""
    async with memory_cache() as cache:
        yield cache


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what was logged of this test's keys."""
    return [r.getMessage() for r in caplog.records if r.levelno == level and "failing:" in r.getMessage()]


@pytest.mark.usefixtures("long_pauses")
async def test_a_renewal_that_fails_is_not_repeated_at_each_read(
    memory: Cache, clock: FakeClock, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand reads, one attempt; the next comes after a pause. The first failure and the recovery are logged."""
    caplog.set_level(logging.INFO)
    value = memory.view("failing:{n}", ttl="1h", stale="20h")(database.load)
    assert await value(1) == 1
    clock.advance("61m")
    database.broken = True
    for attempts in (2, 3, 4):
        for _ in range(1000):
            assert await value(1) == 1
        await until(lambda: database.asked, "a renewal")
        await asyncio.sleep(0)
        assert database.asked == attempts
        clock.advance("10m")
    assert len(lines(caplog, logging.WARNING)) == 1
    assert "OSError('no database')" in lines(caplog, logging.WARNING)[0]
    database.broken = False
    assert await value(1) == 1
    await until(lambda: database.asked == 5, "the renewal")
    await asyncio.sleep(0)
    assert await value(1) == 5
    assert lines(caplog, logging.INFO) == ["failing:1: the load succeeded again after 3 failures"]
    assert len(lines(caplog, logging.WARNING)) == 1


@pytest.mark.usefixtures("long_pauses")
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_a_renewal_may_raise_whatever_it_likes(
    memory: Cache, clock: FakeClock, caplog: pytest.LogCaptureFixture, raised: type[BaseException]
) -> None:
    """It failed as any other does: the old value is served, the loop goes on, and one line says why."""
    attempts = 0

    @memory.view("failing:{n}", ttl="1h", stale="20h")
    async def value(n: int) -> int:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            raise raised
        return n

    await value(1)
    clock.advance("61m")
    for _ in range(3):
        assert await value(1) == 1
        await asyncio.sleep(0)
    assert attempts == 2
    (line,) = lines(caplog, logging.WARNING)
    assert raised.__name__ in line


@pytest.mark.usefixtures("long_pauses")
async def test_a_renewal_that_is_not_kept_is_not_repeated_at_each_read(
    memory: Cache, clock: FakeClock, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that fails; the next value that is kept ends it."""
    policy = Policy(keep=lambda value: value not in {2, 3})
    value = memory.view("failing:{n}", ttl="1h", stale="20h", policy=policy)(database.load)
    assert await value(1) == 1
    clock.advance("61m")
    for attempts in (2, 3):
        for _ in range(100):
            assert await value(1) == 1
            await asyncio.sleep(0)
        assert database.asked == attempts
        clock.advance("10m")
    assert await value(1) == 1
    await until(lambda: database.asked == 4, "the renewal")
    await asyncio.sleep(0)
    assert await value(1) == 4
    assert value.stats.not_kept == 2
    (line,) = lines(caplog, logging.WARNING)
    assert "keep= refuses the value" in line


@pytest.mark.usefixtures("long_pauses")
async def test_stale_if_error_waits_for_the_failing_load_once(
    memory: Cache, clock: FakeClock, database: Database
) -> None:
    """The reads that follow get the older value without running the load."""
    value = memory.view("failing:{n}", ttl="1h", stale_if_error="20h")(database.load)
    assert await value(1) == 1
    clock.advance("61m")
    database.broken = True
    assert [await value(1) for _ in range(1000)] == [1] * 1000
    assert database.asked == 2
    clock.advance("10m")
    database.broken = False
    assert await value(1) == 3


async def test_a_pause_ends_with_the_window(memory: Cache, clock: FakeClock, database: Database) -> None:
    """When no older value is left, every read tries, and gets the error."""
    value = memory.view("failing:{n}", ttl="1h", stale="20m")(database.load)
    assert await value(1) == 1
    clock.advance("61m")
    database.broken = True
    assert await value(1) == 1
    await until(lambda: database.asked == 2, "the renewal")
    await asyncio.sleep(0)
    clock.advance("20m")
    asked = database.asked
    for failures in (1, 2, 3):
        with pytest.raises(OSError, match="no database"):
            await value(1)
        assert database.asked == asked + failures


async def test_a_refresh_is_tried_whatever_failed_before(memory: Cache, clock: FakeClock, database: Database) -> None:
    """Who asks for a new value gets one, or the error."""
    value = memory.view("failing:{n}", ttl="1h", stale_if_error="20h")(database.load)
    assert await value(1) == 1
    clock.advance("61m")
    database.broken = True
    assert await value(1) == 1
    with pytest.raises(OSError, match="no database"):
        await value.refresh(1)
    database.broken = False
    assert await value.refresh(1) == 4


@pytest.mark.usefixtures("long_pauses")
async def test_a_process_without_memory_does_not_repeat_a_renewal_either(connect: Connect, database: Database) -> None:
    """What is past its TTL comes from Redis each time, and is renewed once."""
    cache = await connect(max_memory_entries=0)
    value = cache.view("failing:{n}", ttl="20ms", stale="1h")(database.load)
    assert await value(1) == 1
    database.broken = True
    while database.asked == 1:
        assert await value(1) == 1
    for _ in range(200):
        assert await value(1) == 1
    assert database.asked == 2


async def test_a_caller_past_its_limit_gets_the_older_value_that_redis_holds(connect: Connect) -> None:
    """`hard_timeout` with `stale_if_error`, in a process whose memory was empty when the read began."""
    here, there = await connect(), await connect()
    gate = asyncio.Event()
    loads = 0

    async def load(n: int) -> int:
        nonlocal loads
        loads += 1
        if loads > 1:
            await gate.wait()
        return loads

    options = {"ttl": "20ms", "stale_if_error": "1h", "policy": Policy(hard_timeout="50ms")}
    mine, theirs = [cache.view("failing:{n}", **options)(load) for cache in (here, there)]  # type: ignore[arg-type]
    assert await mine(1) == 1
    assert here.reader is not None
    held = here.reader.memory.held[mine.key(1)]
    await until(lambda: held.fresh_until < now_s(), "the end of the TTL")
    assert await theirs(1) == 1
    assert await theirs(1) == 1
    gate.set()
    await until(lambda: there.stats().totals.loads, "the end of the load")
    assert loads == 2


def test_pauses_grow_to_half_a_minute_with_half_of_each_at_random() -> None:
    """1, 2, 4 … 30 s; a draw takes off up to a half; a window cuts it."""
    failing, now = Backoff(), 0.0
    for failures in range(1, 10):
        failing.failed("e", 1, now, window_s=3600, draw=0.0)
        pause = min(LONGEST_S, FIRST_S * 2 ** (failures - 1))
        assert failing.pauses("e", now + pause - 0.01)
        assert not failing.pauses("e", now + pause)
        now += pause
    failing.failed("e", 1, now, window_s=3600, draw=1.0)
    assert not failing.pauses("e", now + LONGEST_S / 2)
    failing.failed("e", 1, now, window_s=2, draw=0.0)
    assert not failing.pauses("e", now + 2)
    assert failing.succeeded("e") == 11
    assert not failing.pauses("e", now)


def test_a_view_reports_its_first_failing_key_and_the_last_that_recovers() -> None:
    """Ten thousand keys of one view that fail together are two lines."""
    failing = Backoff()
    firsts = [failing.failed(str(n), 1, 0.0, window_s=60, draw=0.5) for n in range(5)]
    assert firsts == [True, False, False, False, False]
    assert failing.failed("another view's", 2, 0.0, window_s=60, draw=0.5)
    assert [failing.succeeded(str(n)) for n in range(5)] == [0, 0, 0, 0, 1]
    assert failing.succeeded("never failed") == 0


def test_failing_keys_are_bounded_and_forgotten() -> None:
    """By number, and when their window ends."""
    failing = Backoff()
    for n in range(MOST_KEYS + 10):
        failing.failed(str(n), 1, float(n), window_s=60, draw=0.5)
    assert len(failing) == MOST_KEYS
    assert not failing.pauses("0", 0.0)
    failing.sweep(MOST_KEYS + 100.0)
    assert len(failing) == 0
    assert failing.failed("0", 1, 0.0, window_s=60, draw=0.5)
