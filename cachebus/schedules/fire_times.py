"""When something fires: moments of the UTC epoch, in microseconds, that every worker computes alike. Pure.

`Slots` are multiples of an interval since 1970, so they do not depend on when a process started. `Calendar` is a cron
expression on the clocks of a time zone: APScheduler's trigger says which wall-clock times match, and this module says
which moments those are. The trigger is asked in UTC, where no hour is skipped and none comes twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

from cachebus.errors import ConfigurationError

UTC = datetime.UTC
_US = 1_000_000
_FIRST_STEP_S = 60
_LONGEST_STEP_S = 9 * 366 * 86_400
"""29 February can be eight years away."""
_SAMPLE_FROM_US = 1_735_689_600 * _US
_SAMPLE_FIRES = 60
"""Fire times looked at to learn how close they come: a cron expression repeats itself within the hour, or the day."""


class Times(Protocol):
    """When something fires. Microseconds of the UTC epoch."""

    def last(self, now_us: int) -> int | None:
        """Return the newest fire time at or before *now_us*."""
        ...

    def next(self, now_us: int) -> int | None:
        """Return the first fire time after *now_us*."""
        ...

    @property
    def shortest_us(self) -> int:
        """The least time between two fire times."""
        ...


class Slots:
    """Every so often: the multiples of an interval since 1970."""

    def __init__(self, interval_us: int) -> None:
        self.shortest_us = interval_us

    def last(self, now_us: int) -> int:
        """Return the slot we are in."""
        return now_us - now_us % self.shortest_us

    def next(self, now_us: int) -> int:
        """Return the next slot."""
        return self.last(now_us) + self.shortest_us


class Calendar:
    """A cron expression of five fields, read off the clocks of a time zone. Both day fields must match.

    Where clocks go forward, a time they skip fires at the moment they do, once. Where they go back, a time that comes
    twice fires at its first coming. An expression whose minute or hour begins with `*` goes by elapsed time instead:
    nothing extra where an hour is skipped, both times where it comes twice.

    Raises: ConfigurationError for what is no expression, no zone, or never fires.
    Source: the rules for clock changes are those of cron(8) in Debian.
    """

    def __init__(self, expression: str, zone: str) -> None:
        self._trigger = _trigger(expression)
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise ConfigurationError(f"zone: there is no time zone {zone!r}; write it like Europe/Berlin") from None
        self._elapsed = any(field.startswith("*") for field in expression.split()[:2])
        self._known: tuple[int, int] | None = None
        """Two fire times with none between."""
        fires = list(islice(self._from(_SAMPLE_FROM_US), _SAMPLE_FIRES))
        if not fires:
            raise ConfigurationError(f"cron: {expression!r} never fires")
        self.shortest_us = min((later - fire for fire, later in pairwise(fires)), default=366 * 86_400 * _US)

    def last(self, now_us: int) -> int | None:
        """Return the newest fire time at or before *now_us*, if there was one in nine years."""
        if self._known is not None and self._known[0] <= now_us < self._known[1]:
            return self._known[0]
        fire = self._known[1] if self._known is not None and self._known[1] <= now_us else self._one_before(now_us)
        if fire is None:
            return None
        beyond = now_us
        while (later := self.next(fire)) is not None and later <= now_us:
            middle = (later + beyond) // 2  # by halves: there may be thousands between
            nearer = self.next(middle)
            if nearer is not None and nearer <= now_us:
                fire = nearer
            else:
                fire, beyond = later, middle
        if later is not None:
            self._known = (fire, later)
        return fire

    def next(self, now_us: int) -> int | None:
        """Return the first fire time after *now_us*."""
        if self._known is not None and self._known[0] <= now_us < self._known[1]:
            return self._known[1]
        second = now_us // _US + 1
        while True:
            offset = self._offset(second)
            wall = self._matching(second + offset)
            if wall is None:
                return None
            fire = wall - offset
            change = self._change(second, fire)
            if change is not None:
                if wall < change + self._offset(change) and not self._elapsed:
                    return change * _US  # the clocks skip it
                second = change
            elif not self._elapsed and self._at(fire).fold:
                second = fire + 1  # the clocks showed it before
            else:
                return fire * _US

    def _from(self, moment_us: int) -> Iterator[int]:
        while (fire := self.next(moment_us)) is not None:
            yield fire
            moment_us = fire

    def _one_before(self, now_us: int) -> int | None:
        step_s = _FIRST_STEP_S
        while step_s < _LONGEST_STEP_S:
            fire = self.next(now_us - step_s * _US - 1)
            if fire is not None and fire <= now_us:
                return fire
            step_s *= 2
        return None

    def _matching(self, wall: int) -> int | None:
        """Return the first time on the clock, in seconds as if it were UTC, at or after *wall* that matches."""
        match = self._trigger.get_next_fire_time(None, datetime.datetime.fromtimestamp(wall, UTC))
        return None if match is None else round(match.timestamp())

    def _change(self, first: int, last: int) -> int | None:
        """Return the second in (first, last] at which the clocks change, if they differ there."""
        before = self._offset(first)
        if self._offset(last) == before:
            return None
        while last - first > 1:
            middle = (first + last) // 2
            if self._offset(middle) == before:
                first = middle
            else:
                last = middle
        return last

    def _offset(self, second: int) -> int:
        offset = self._at(second).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    def _at(self, second: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(second, self._zone)


def _trigger(expression: str) -> CronTrigger:
    if not isinstance(expression, str):
        raise ConfigurationError(f"cron: {expression!r} is no text; write minute hour day month weekday")
    fields = expression.split()
    if len(fields) != 5:
        raise ConfigurationError(f"cron: {expression!r} has {len(fields)} fields; write minute hour day month weekday")
    if any(letter.isdigit() for letter in fields[4].partition("/")[0]):
        # APScheduler counts from Monday, cron from Sunday: whoever writes 1-5 may mean either.
        raise ConfigurationError(f"cron: {expression!r}: write weekdays as names, such as mon-fri")
    try:
        return CronTrigger.from_crontab(expression, timezone=UTC)
    except (ValueError, KeyError) as bad:
        raise ConfigurationError(f"cron: {expression!r}: {bad}; write minute hour day month weekday") from None
