"""When jobs fire: the same moments in every worker, whatever its start; every day once, also when the clocks change."""

from __future__ import annotations

import datetime
import random
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachebus.errors import ConfigurationError
from cachebus.schedules.fire_times import Calendar, Slots
from tests.support.wallclock import DAY, HOUR, MINUTE, expected_fires, us

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "America/Havana", "UTC")


def fires(times: Calendar | Slots, after: int, before: int) -> list[int]:
    """Return all fire times between two moments."""
    found, moment = [], after
    while (fire := times.next(moment)) is not None and fire < before:
        found.append(fire)
        moment = fire
    return found


def shown(moments: list[int], zone: str) -> list[str]:
    """Return moments as the clocks of a zone show them."""
    return [datetime.datetime.fromtimestamp(us / 1e6, ZoneInfo(zone)).strftime("%d %H:%M%z") for us in moments]


def test_slots_are_the_same_whenever_a_worker_starts() -> None:
    """Workers that look at different moments of a slot see one fire time."""
    slots = Slots(90_000_000)
    fire = 90_000_000 * 19_000_000
    assert {slots.last(fire), slots.last(fire + 1), slots.last(fire + 89_999_999)} == {fire}
    assert slots.next(fire) == fire + 90_000_000


def test_a_calendar_finds_the_newest_fire_time_however_long_ago() -> None:
    """A worker that comes back after a month, or years, still knows which fire time was the last."""
    monthly = Calendar("0 6 1 * *", "UTC")
    assert monthly.last(us(2026, 3, 30)) == us(2026, 3, 1, 6)
    assert monthly.last(us(2026, 3, 1, 6)) == us(2026, 3, 1, 6)
    assert monthly.next(us(2026, 3, 1, 6)) == us(2026, 4, 1, 6)
    assert Calendar("0 6 29 2 *", "UTC").last(us(2027, 6, 1)) == us(2024, 2, 29, 6)


def test_the_newest_fire_time_of_a_weekend_is_on_friday() -> None:
    """Thousands of fire times before a pause do not hide the last of them."""
    exchange = Calendar("* 9-16 * * mon-fri", "America/New_York")
    assert exchange.last(us(2026, 11, 22, 12)) == us(2026, 11, 20, 16, 59, zone="America/New_York")


@pytest.mark.parametrize(
    ("expression", "zone", "day", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", (2026, 3, 29), "29 03:00+0200"),
        ("0 2 * * *", "Europe/Berlin", (2026, 3, 29), "29 03:00+0200"),
        ("30 2 * * *", "America/New_York", (2026, 3, 8), "08 03:00-0400"),
        ("0 0 * * *", "America/Santiago", (2026, 9, 6), "06 01:00-0300"),
        ("30 0 * * *", "America/Havana", (2026, 3, 8), "08 01:00-0400"),
        ("15 2 * * *", "Australia/Lord_Howe", (2026, 10, 4), "04 02:30+1100"),
    ],
)
def test_a_time_the_clocks_skip_fires_when_they_do(
    expression: str, zone: str, day: tuple[int, int, int], expected: str
) -> None:
    """The job runs that day, once, at the first moment after the gap; midnight may lie in the gap, too."""
    noon_before, noon_after = us(*day, 12, zone=zone) - DAY, us(*day, 12, zone=zone)
    assert shown(fires(Calendar(expression, zone), noon_before, noon_after), zone) == [expected]


def test_times_skipped_together_fire_once() -> None:
    """Four quarters of an hour that does not exist are one moment."""
    quarters = Calendar("0,15,30,45 2 * * *", "Europe/Berlin")
    assert len(fires(quarters, us(2026, 3, 28, 12), us(2026, 3, 29, 12))) == 1


@pytest.mark.parametrize(
    ("expression", "zone", "day", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", (2026, 10, 25), "25 02:30+0200"),
        ("30 1 * * *", "America/New_York", (2026, 11, 1), "01 01:30-0400"),
        ("45 1 * * *", "Australia/Lord_Howe", (2026, 4, 5), "05 01:45+1100"),
        ("30 23 * * *", "America/Santiago", (2026, 4, 5), "04 23:30-0300"),
    ],
)
def test_a_time_that_comes_twice_fires_at_its_first_coming(
    expression: str, zone: str, day: tuple[int, int, int], expected: str
) -> None:
    """A daily job runs once on the day that has 25 hours, whenever it is asked."""
    noon_before, noon_after = us(*day, 12, zone=zone) - DAY, us(*day, 12, zone=zone)
    calendar = Calendar(expression, zone)
    assert shown(fires(calendar, noon_before, noon_after), zone) == [expected]
    (fire,) = fires(calendar, noon_before, noon_after)
    assert {calendar.last(fire + minutes * MINUTE) for minutes in range(150)} == {fire}


def test_an_expression_of_every_hour_goes_by_elapsed_time() -> None:
    """Every twenty minutes stay twenty minutes apart through both changes of clocks."""
    often = Calendar("*/20 * * * *", "Europe/Berlin")
    for day in ((2026, 3, 29), (2026, 10, 25)):
        found = fires(often, us(*day) - 3 * HOUR, us(*day) + 6 * HOUR)
        assert {later - fire for fire, later in pairwise(found)} == {20 * MINUTE}


@settings(max_examples=40, deadline=None, database=None)
@given(
    minute=st.one_of(st.none(), st.integers(0, 59)),
    hour=st.one_of(st.none(), st.integers(0, 23)),
    zone=st.sampled_from(ZONES),
    day=st.integers(0, 370),
)
def test_a_calendar_agrees_with_looking_at_a_clock_every_minute(
    minute: int | None, hour: int | None, zone: str, day: int
) -> None:
    """Any hour and minute, any zone, any three days of a year and more: the same moments."""
    first = us(2026, 1, 1) + day * DAY
    expression = f"{'*' if minute is None else minute} {'*' if hour is None else hour} * * *"
    expected = expected_fires(minute, hour, zone, first, first + 3 * DAY)
    assert fires(Calendar(expression, zone), first, first + 3 * DAY) == expected


@pytest.mark.parametrize("change", [(2026, 3, 8), (2026, 11, 1)])
@pytest.mark.parametrize("hour", range(4))
def test_the_days_of_a_change_agree_with_a_clock(change: tuple[int, int, int], hour: int) -> None:
    """The same, on the very days, for each hour around the change, by the quarter."""
    for minute in (0, 15, 59):
        first = us(*change) - DAY
        expected = expected_fires(minute, hour, "America/New_York", first, first + 3 * DAY)
        found = fires(Calendar(f"{minute} {hour} * * *", "America/New_York"), first, first + 3 * DAY)
        assert found == expected


def test_last_and_next_agree_whatever_was_asked_before() -> None:
    """What a calendar remembers of earlier questions changes no answer."""
    calendar = Calendar("*/7 1-3 * * *", "America/New_York")
    draw = random.Random(7)  # noqa: S311 - moments that can be had again
    start = us(2026, 10, 31)
    for _ in range(300):
        moment = start + draw.randrange(3 * DAY)
        fresh = Calendar("*/7 1-3 * * *", "America/New_York")
        last, following = calendar.last(moment), calendar.next(moment)
        assert (last, following) == (fresh.last(moment), fresh.next(moment))
        assert last is not None
        assert fresh.next(last) == following
        assert last <= moment


@pytest.mark.parametrize(
    ("expression", "zone", "named"),
    [
        ("61 * * * *", "UTC", "61"),
        ("* * * *", "UTC", "4 fields"),
        ("0 9 * * 1-5", "UTC", "mon-fri"),
        ("0 0 30 2 *", "UTC", "never fires"),
        ("0 9 * * moonday", "UTC", "moonday"),
        ("0 9 * * *", "Europe/Atlantis", "Europe/Atlantis"),
        ("0 9 * * *", "", "time zone"),
        ("0 9 * * *", "Europe", "time zone"),
    ],
)
def test_an_expression_that_cannot_work_is_refused(expression: str, zone: str, named: str) -> None:
    """Bad fields, numbers as weekdays (they mean different days to different crons), zones that do not exist."""
    with pytest.raises(ConfigurationError, match=named):
        Calendar(expression, zone)
