"""Fire times found by looking at a clock once a minute: slow, and obviously right."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def us(*when: int, zone: str = "UTC") -> int:
    """Return a moment on the clocks of a zone as microseconds; the first one where it comes twice."""
    return round(datetime.datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]


def expected_fires(minute: int | None, hour: int | None, zone: str, first: int, last: int) -> list[int]:
    """Return when `minute hour * * *` fires between two moments; None stands for `*`."""
    found: list[int] = []
    shown_before: set[tuple[datetime.date, int, int]] = set()
    previous = _wall(first - DAY, zone)
    for moment in range(first - DAY, last, MINUTE):
        now = _wall(moment, zone)
        passed = [now]
        if minute is not None and hour is not None:  # what the clock skips counts, what it repeats does not
            skipped = int((now - previous).total_seconds() // 60)
            passed = [now - datetime.timedelta(minutes=back) for back in range(max(1, skipped))]
        hit = False
        for wall in passed:
            if minute in (None, wall.minute) and hour in (None, wall.hour):
                seen = (wall.date(), wall.hour, wall.minute)
                hit = hit or minute is None or hour is None or seen not in shown_before
                shown_before.add(seen)
        if hit and moment > first:
            found.append(moment)
        previous = now
    return found


def _wall(moment: int, zone: str) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(moment / 1e6, ZoneInfo(zone)).replace(tzinfo=None)
