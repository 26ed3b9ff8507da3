"""When jobs fire: the same moments in every worker, whatever its clock, zone or start."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from cachebus.errors import ConfigurationError
from cachebus.schedules import Calendar, Job, Slots, cron, daily, every

BERLIN = ZoneInfo("Europe/Berlin")


def us(*when: int, zone: datetime.tzinfo = datetime.UTC) -> int:
    """Return a moment as microseconds."""
    return round(datetime.datetime(*when, tzinfo=zone).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]


def local(moment_us: int | None) -> datetime.datetime:
    """Return a moment on a Berlin clock."""
    assert moment_us is not None
    return datetime.datetime.fromtimestamp(moment_us / 1e6, BERLIN)


def test_slots_are_the_same_whenever_a_worker_starts() -> None:
    """Two workers that look at different moments of a slot see one fire time."""
    slots = Slots(90_000_000)
    fire = 90_000_000 * 1000
    assert {slots.last(fire), slots.last(fire + 1), slots.last(fire + 89_999_999)} == {fire}
    assert slots.next(fire) == fire + 90_000_000


def test_a_calendar_finds_the_newest_fire_time_however_long_ago() -> None:
    """A worker that comes back after a month still knows which fire time was the last."""
    monthly = Calendar("0 6 1 * *", "UTC")
    assert monthly.last(us(2026, 3, 30)) == us(2026, 3, 1, 6)
    assert monthly.last(us(2026, 3, 1, 6)) == us(2026, 3, 1, 6)
    assert monthly.next(us(2026, 3, 1, 6)) == us(2026, 4, 1, 6)


def test_a_time_the_clocks_skip_fires_once_that_day() -> None:
    """02:30 does not exist on the last Sunday of March in Berlin; the job still runs that day, once."""
    half_past_two = Calendar("30 2 * * *", "Europe/Berlin")
    fires, moment = [], us(2026, 3, 28, 12)
    while (fire := half_past_two.next(moment)) is not None and fire < us(2026, 3, 31):
        fires.append(local(fire))
        moment = fire
    assert [fire.date().day for fire in fires] == [29, 30]


def test_a_time_that_comes_twice_fires_once() -> None:
    """02:30 comes twice on the last Sunday of October in Berlin; a daily job runs once."""
    half_past_two = Calendar("30 2 * * *", "Europe/Berlin")
    fires, moment = [], us(2026, 10, 24, 12)
    while (fire := half_past_two.next(moment)) is not None and fire < us(2026, 10, 26, 12):
        fires.append(local(fire))
        moment = fire
    assert [fire.date().day for fire in fires] == [25, 26]


def test_jitter_is_the_same_in_every_worker_and_spread_over_slots() -> None:
    """The delay of a fire time is a property of the fire time."""

    @every("60s", jitter="10s", name="spread")
    async def job() -> None: ...

    delays = [job.delay_ms(slot * 60_000_000) for slot in range(200)]
    assert delays == [job.delay_ms(slot * 60_000_000) for slot in range(200)]
    assert max(delays) < 10_000
    assert len(set(delays)) > 150


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: every("0s"), "every"),
        (lambda: every("10s", jitter="10s")(_job), "jitter"),
        (lambda: every("10s", misfire="perhaps")(_job), "misfire"),  # type: ignore[arg-type]
        (lambda: every("10s", on_death="mourn")(_job), "on_death"),  # type: ignore[arg-type]
        (lambda: every("10s")(_plain), "async def"),  # type: ignore[arg-type]
        (lambda: every("10s")(_wants), "warm"),
        (lambda: cron("61 * * * *"), "cron"),
        (lambda: cron("* * * * *", zone="Europe/Atlantis"), "zone"),
        (lambda: daily("half past six"), "daily"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_by_name(make: object, named: str) -> None:
    """The error names the option that is wrong."""
    with pytest.raises(ConfigurationError, match=named):
        make()  # type: ignore[operator]


async def _job() -> None: ...


async def _wants(database: object) -> None: ...


def _plain() -> None: ...


def test_a_job_stays_the_function_it_was() -> None:
    """Calling it in a test calls the function."""
    job = every("10s")(_job)
    assert isinstance(job, Job)
    assert job.function is _job
