"""Durations as people write them: "90s", "5m", "1h30m", seconds as a number, or a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta

from cachebus.errors import ConfigurationError

_HOW = 'write it as "90s", "5m", "2h", "1d", a number of seconds or a timedelta'
Duration = str | int | float | timedelta

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def milliseconds(duration: Duration, field: str) -> int:
    """Return *duration* in whole milliseconds, at least 1.

    Raises: ConfigurationError naming *field* when it is malformed, not finite, zero or negative.
    """
    ms = _parse(duration)
    if ms is None:
        raise ConfigurationError(f"{field}: {duration!r} is not a duration; {_HOW}")
    if ms < 1:
        raise ConfigurationError(f"{field}: {duration!r} must be longer than nothing")
    return ms


def _parse(duration: Duration) -> int | None:
    if isinstance(duration, timedelta):
        return round(duration.total_seconds() * 1000)
    if isinstance(duration, bool):
        return None
    if isinstance(duration, int | float):
        return round(duration * 1000) if abs(duration) < float("inf") else None
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration.replace(" ", ""):
        return None
    return round(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))
