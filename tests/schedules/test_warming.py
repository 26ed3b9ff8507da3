"""Warming: at the database's pace, nothing twice, and on from where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError
from cachebus.cache.upkeep.warming import MOST_FAILURES, WINDOW, Pace, Warm
from cachebus.cache.view import View
from cachebus.schedules.decorators import Job, every
from cachebus.schedules.scheduler import Scheduler
from cachebus.schedules.store import JobRun
from cachebus.testing.server import PrivateServer
from tests.support.scheduled_workers import running, status_of, until, until_idle


class Database:
    """A loader that counts, and waits if it is told to."""

    def __init__(self) -> None:
        self.loads: list[int] = []
        self.under_way = self.most = 0
        self.go = asyncio.Event()
        self.go.set()
        self.broken: set[int] = set()

    async def read(self, number: int) -> int:
        """Return a row."""
        self.loads.append(number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.001)
            await self.go.wait()
        finally:
            self.under_way -= 1
        if number in self.broken:
            raise LookupError(number)
        return number


@pytest.fixture
def database() -> Database:
    """What the view reads."""
    return Database()


@pytest.fixture
async def cache(server: PrivateServer, namespace: str) -> AsyncIterator[Cache]:
    """A cache of a worker; it keeps nothing in memory, so that only what lies in Redis counts."""
    settings = CacheSettings(url=server.url, namespace=namespace, max_memory_entries=0)
    async with Cache(settings=settings) as connected:
        yield connected


@pytest.fixture
def row(cache: Cache, database: Database) -> View[[int], int]:
    """A view."""

    @cache.view("row:{number}", ttl="1h")
    async def row(number: int) -> int:
        return await database.read(number)

    return row


async def test_what_is_missing_is_loaded_in_order_and_what_is_fresh_is_not(
    cache: Cache, row: View[[int], int], database: Database
) -> None:
    """The most wanted come first because they stand first; a second warming loads nothing."""
    await row(2)
    done = await Warm(cache.client)(row, [3, (2,), 1], per_second=10_000, concurrency=1)
    assert database.loads == [2, 3, 1]
    assert (done.loaded, done.fresh, done.done, done.total, done.stopped) == (2, 1, 3, 3, "")
    again = await Warm(cache.client)(row, [3, 2, 1])
    assert (again.loaded, again.fresh) == (0, 3)
    assert str(again) == "3/3 (0 loaded, 3 fresh)"


async def test_fresh_entries_use_up_no_rate(cache: Cache, row: View[[int], int]) -> None:
    """At one load a day, a hundred fresh entries are passed over all the same."""
    await Warm(cache.client)(row, range(100), per_second=100_000)
    done = await asyncio.wait_for(Warm(cache.client)(row, range(100), per_second=1 / 86_400), 20)
    assert done.fresh == 100


async def test_no_more_are_under_way_than_may_be(cache: Cache, row: View[[int], int], database: Database) -> None:
    """Whatever the rate."""
    await Warm(cache.client)(row, range(40), per_second=100_000, concurrency=3)
    assert database.most == 3
    assert sorted(database.loads) == list(range(40))


async def test_warming_and_traffic_load_each_entry_once(
    cache: Cache, row: View[[int], int], database: Database
) -> None:
    """Readers that come while it is being warmed wait for that load; nobody loads beside it."""
    numbers = range(60)
    warming = asyncio.create_task(Warm(cache.client)(row, numbers, per_second=100_000, concurrency=4))
    values = await asyncio.gather(*[row(number) for number in numbers for _ in range(5)])
    done = await warming
    assert values == [number for number in numbers for _ in range(5)]
    assert sorted(database.loads) == list(numbers)
    assert done.loaded + done.fresh == 60


async def test_a_load_that_fails_leaves_the_others_warm(
    cache: Cache, row: View[[int], int], database: Database
) -> None:
    """It is counted and passed over."""
    database.broken = {2}
    done = await Warm(cache.client)(row, [1, 2, 3], per_second=10_000)
    assert (done.loaded, done.failed, done.total, done.stopped) == (2, 1, 3, "")


async def test_nothing_but_failures_end_it(cache: Cache, row: View[[int], int], database: Database) -> None:
    """A database that is away is not asked five hundred times."""
    database.broken = set(range(500))
    done = await Warm(cache.client)(row, range(500), per_second=100_000, concurrency=1)
    assert done.failed == len(database.loads) == MOST_FAILURES
    assert "in a row failed" in done.stopped


async def test_without_redis_nothing_is_loaded() -> None:
    """What would be loaded could not be kept."""
    async with Cache("redis://127.0.0.1:1") as away:
        loads = []

        @away.view("away:{number}", ttl="1h")
        async def row(number: int) -> int:
            loads.append(number)
            return number

        done = await Warm(away.client)(row, [1, 2, 3])
    assert done.stopped == "redis unavailable"
    assert loads == []


async def test_redis_going_away_ends_it(own_server: PrivateServer, namespace: str, database: Database) -> None:
    """In the middle: nothing further is begun."""
    async with Cache(settings=CacheSettings(url=own_server.url, namespace=namespace)) as cache:

        @cache.view("row:{number}", ttl="1h")
        async def row(number: int) -> int:
            return await database.read(number)

        await row(0)
        database.go.clear()
        warming = asyncio.create_task(Warm(cache.client)(row, range(1, 100), per_second=100_000, concurrency=2))
        await until(lambda: database.under_way == 2, "the loads")
        own_server.kill()
        await until(lambda: not cache.client.entries.up, "the loss")
        database.go.set()
        done = await asyncio.wait_for(warming, 20)
    assert done.stopped == "redis unavailable"
    assert database.loads == [0, 1, 2]


async def test_a_used_up_budget_ends_it_with_a_word(cache: Cache, row: View[[int], int], database: Database) -> None:
    """What is under way is finished, nothing further is begun, nothing has failed."""
    database.go.clear()
    warm = Warm(cache.client, budget="1h")
    warming = asyncio.create_task(warm(row, range(100), per_second=100_000, concurrency=2))
    await until(lambda: database.under_way == 2, "the loads")
    warm._ends = time.monotonic()  # an hour later
    database.go.set()
    done = await warming
    assert (done.loaded, done.failed, done.stopped) == (2, 0, "the budget is used up")


async def test_a_pace_that_cannot_be_kept_is_refused(cache: Cache, row: View[[int], int]) -> None:
    """The error names the view."""
    for pace in ({"per_second": 0}, {"concurrency": 0}):
        with pytest.raises(ConfigurationError, match="row:"):
            await Warm(cache.client)(row, [1], **pace)


# -- the pace ----------------------------------------------------------------------------------------------------------


def paced(pace: Pace, took: float, loads: int) -> Pace:
    """Note so many loads that took so long."""
    for _ in range(loads):
        pace.loaded(took, 0.0, 0.5)
    return pace


def test_the_pace_halves_when_loads_take_twice_as_long_and_recovers_one_by_one() -> None:
    """Busy: half as many, then half of that, never none. Back to normal: one more at a time, never too many."""
    pace = paced(Pace(8, 50), 0.010, 2 * WINDOW)
    assert pace.now == 8
    assert paced(pace, 0.015, WINDOW).now == 8
    assert paced(pace, 0.025, WINDOW).now == 4
    assert paced(pace, 0.025, WINDOW).now == 2
    assert paced(pace, 0.025, 3 * WINDOW).now == 1
    assert paced(pace, 0.010, WINDOW).now == 2
    assert paced(pace, 0.010, 20 * WINDOW).now == 8


def test_one_slow_load_says_nothing() -> None:
    """A dear row among cheap ones is no busy database."""
    pace = paced(Pace(8, 50), 0.010, WINDOW)
    for _ in range(10):
        paced(paced(pace, 1.0, 1), 0.010, WINDOW - 1)
    assert pace.now == 8


def test_the_rate_holds_over_many_loads() -> None:
    """A thousand loads at fifty a second take twenty seconds of the clock that is given, jitter and all."""
    pace, now = Pace(4, 50), 0.0
    for number in range(1_000):
        pace.loaded(0.001, now, (number * 0.618) % 1.0)
        now = max(now, pace.next_at)
    assert now == pytest.approx(20.0, rel=0.01)


# -- in a job ----------------------------------------------------------------------------------------------------------


def warming_job(row: View[[int], int], numbers: Any, **options: Any) -> Job:
    """Return a job that warms the view."""

    @every("1h", name="job", misfire="once")
    async def job(warm: Warm) -> None:
        await warm(row, list(numbers), per_second=100_000, **options)

    return job


async def test_a_job_warms_and_its_progress_is_seen(cache: Cache, row: View[[int], int], database: Database) -> None:
    """The status says what is being warmed and how far it has come."""
    scheduler = Scheduler(cache.client, [warming_job(row, range(30))])
    await scheduler.run_now("job")
    await scheduler.drain()
    status = await status_of(scheduler)
    assert status.progress == "row:{number} 30/30 (30 loaded, 0 fresh)"
    assert (status.outcome, len(database.loads)) == ("done", 30)


async def test_a_run_that_is_started_again_goes_on_where_it_stopped(
    cache: Cache, row: View[[int], int], database: Database
) -> None:
    """The second worker asks for nothing that the first had seen to, and loads what is left."""
    job = warming_job(row, range(30), concurrency=1)
    original = row.warm
    asked: list[int] = []

    async def warm(number: int) -> Any:
        if number == 20 and len(asked) <= 20:
            database.go.clear()
        asked.append(number)
        return await original(number)

    row.warm = warm  # type: ignore[method-assign]
    first = Scheduler(cache.client, [job], worker="first")
    async with running(first):
        await first.run_now("job")
        await until(lambda: database.under_way == 1 and len(asked) == 21, "the load of 20")
    database.go.set()
    second = Scheduler(cache.client, [job], worker="second")
    async with running(second):
        status = await until_idle(second)
    assert asked == [*range(21), *range(20, 30)]
    assert "20 before" in status.progress
    assert sorted(set(database.loads)) == list(range(30))


async def test_another_list_is_warmed_from_its_beginning(cache: Cache, row: View[[int], int]) -> None:
    """What a mark says of one list says nothing of another: it is walked from its beginning."""
    marks: dict[str, tuple[int, int]] = {}
    await Warm(cache.client, None, marks)(row, range(5), per_second=10_000)
    again = await Warm(cache.client, None, marks)(row, range(5), per_second=10_000)
    other = await Warm(cache.client, None, marks)(row, range(1, 6), per_second=10_000)
    assert (again.resumed, other.resumed) == (5, 0)
    assert (other.fresh, other.loaded) == (4, 1)


async def test_a_job_ends_its_warming_before_it_would_be_cancelled(
    cache: Cache, row: View[[int], int], database: Database
) -> None:
    """At nine tenths of `max_run` nothing further is begun, and the run is done, not failed."""

    @every("1h", name="job", max_run="3s")  # a tenth of it must do for the end
    async def job(warm: Warm) -> None:
        await warm(row, range(1_000), per_second=20, concurrency=1)

    scheduler = Scheduler(cache.client, [job])
    await scheduler.run_now("job")
    await scheduler.drain()
    status = await status_of(scheduler)
    assert status.outcome == "done"
    assert "the budget is used up" in status.progress
    assert 0 < len(database.loads) < 1_000


def test_marks_survive_the_store() -> None:
    """What a worker wrote is what the next one reads."""
    job = every("1h", name="job")(_nothing)
    run = JobRun(job, "token", 1, 1, b'{"1 row:{number}":[20,4000000000]}')
    assert run.marks == {"1 row:{number}": (20, 4_000_000_000)}
    assert JobRun(job, "token", 1, 1).marks == {}


async def _nothing() -> None: ...
