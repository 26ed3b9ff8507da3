"""What a decorator line says, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from cachebus.cache.upkeep.warming import Warm
from cachebus.errors import ConfigurationError
from cachebus.schedules.decorators import Job, cron, daily, every


async def _nothing() -> None: ...


async def _warms(warm: Warm) -> None: ...


async def _wants_more(database: object) -> None: ...


def _plain() -> None: ...


def test_a_job_stays_the_function_it_was() -> None:
    """Calling it in a test calls the function; its name says where it is written."""
    job = every("10s")(_nothing)
    assert isinstance(job, Job)
    assert job.function is _nothing
    assert job.name == "tests.schedules.test_declarations._nothing"
    assert not job.wants_warm
    assert every("10s")(_warms).wants_warm


async def test_calling_a_job_calls_its_function() -> None:
    """A job in a test needs no scheduler."""
    called = []

    @every("10s")
    async def job() -> None:
        called.append("called")

    await job()
    assert called == ["called"]


def test_jitter_is_the_same_in_every_worker_and_spread_over_slots() -> None:
    """The delay of a fire time is a property of the fire time."""
    job = every("60s", jitter="10s", name="spread")(_nothing)
    delays = [job.delay_ms(slot * 60_000_000) for slot in range(200)]
    assert delays == [job.delay_ms(slot * 60_000_000) for slot in range(200)]
    assert max(delays) < 10_000
    assert len(set(delays)) > 150


def test_a_run_ends_before_its_next_fire_time() -> None:
    """Without `max_run` it is nine tenths of what is left after the jitter, ten minutes at most."""
    assert every("60s", jitter="10s")(_nothing).max_run_ms == 45_000
    assert cron("*/5 * * * *")(_nothing).max_run_ms == 270_000
    assert daily("06:30")(_nothing).max_run_ms == 600_000
    assert daily("06:30", max_run="2h")(_nothing).max_run_ms == 7_200_000


def test_the_shortest_time_between_fire_times_counts() -> None:
    """`0,1 9 * * *` fires once a minute, if only for a minute."""
    with pytest.raises(ConfigurationError, match="max_run"):
        cron("0,1 9 * * *", max_run="2m")(_nothing)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: every("0s")(_nothing), "every"),
        (lambda: every("soon")(_nothing), "every"),
        (lambda: every("10ms")(_nothing), "shorter than a second"),
        (lambda: every("10s", jitter="10s")(_nothing), "jitter"),
        (lambda: every("10s", jitter="5s", max_run="6s")(_nothing), "max_run"),
        (lambda: every("10s", max_run="11s")(_nothing), "max_run"),
        (lambda: every("10s", misfire="perhaps")(_nothing), "misfire"),  # type: ignore[arg-type]
        (lambda: every("10s", on_death="mourn")(_nothing), "on_death"),  # type: ignore[arg-type]
        (lambda: every("10s")(_plain), "async def"),  # type: ignore[arg-type]
        (lambda: every("10s")(_wants_more), "warm"),
        (lambda: cron("61 * * * *")(_nothing), "cron"),
        (lambda: cron("* * * * *", zone="Europe/Atlantis")(_nothing), "zone"),
        (lambda: cron("* * * * *", zone=5)(_nothing), "zone"),  # type: ignore[arg-type]
        (lambda: cron(5)(_nothing), "cron"),  # type: ignore[arg-type]
        (lambda: daily("half past six")(_nothing), "daily"),
        (lambda: daily("25:00")(_nothing), "daily"),
        (lambda: daily("6:60")(_nothing), "daily"),
        (lambda: daily(630)(_nothing), "daily"),  # type: ignore[arg-type]
    ],
)
def test_a_schedule_that_cannot_work_is_refused_by_name(make: object, named: str) -> None:
    """The error names the option that is wrong."""
    with pytest.raises(ConfigurationError, match=named):
        make()  # type: ignore[operator]


def test_everything_wrong_with_a_job_is_said_at_once() -> None:
    """One error, all problems."""
    with pytest.raises(ConfigurationError) as refused:
        every("10s", misfire="perhaps", on_death="mourn", max_run="1m")(_plain)  # type: ignore[arg-type]
    for named in ("async def", "misfire", "on_death", "max_run"):
        assert named in str(refused.value)


def test_a_mistake_says_what_where_and_how_to_fix_it() -> None:
    """The job's name, what was written, what to write."""
    with pytest.raises(ConfigurationError) as refused:
        daily("25:00")(_nothing)
    assert str(refused.value) == (
        "job 'tests.schedules.test_declarations._nothing': daily: '25:00' is not a time of day; "
        'hours are 00 to 23, minutes 00 to 59, write it as "06:30"'
    )


@pytest.mark.parametrize(("bare", "written"), [(every, '@every("5m")'), (cron, "@cron("), (daily, '@daily("06:30")')])
def test_a_decorator_without_its_parentheses_is_refused(bare: Any, written: str) -> None:
    """It gets the function where its time should be."""
    with pytest.raises(ConfigurationError) as refused:
        bare(_nothing)
    assert "_nothing" in str(refused.value)
    assert written in str(refused.value)
