"""Durations as people write them: "90s", "5m", "1h30m", seconds as a number, or a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache

from cachebus.errors import ConfigurationError

_HOW = 'write it as "90s", "5m", "2h", "1d", a number of seconds or a timedelta'
Duration = str | int | float | timedelta

_LONGEST_MS = 100 * 365 * 86_400_000
"""A hundred years. Beyond it a number is a mistake, and soon too large for what it is written into."""

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def milliseconds(duration: Duration, field: str) -> int:
    """Return *duration* in whole milliseconds, at least 1.

    Raises: ConfigurationError naming *field* when it is malformed, not finite, zero, negative or over 100 years.
    """
    ms = _parse(duration)
    if ms is None:
        raise ConfigurationError(f"{field}: {duration!r} is not a duration; {_HOW}")
    if ms < 1:
        raise ConfigurationError(f"{field}: {duration!r} must be at least 1 ms")
    if ms > _LONGEST_MS:
        raise ConfigurationError(f"{field}: {duration!r} is longer than 100 years; {_HOW}")
    return ms


def backoff_s(failures: int, first_s: float, longest_s: float, draw: float) -> float:
    """Return how many seconds to wait after *failures* in a row (1 or more). Pure.

    Doubles from *first_s* to *longest_s*; *draw* in [0, 1) spreads callers over the upper half of that.
    """
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 40)) * (0.5 + draw / 2)


def _parse(duration: Duration) -> int | None:
    if isinstance(duration, timedelta):
        return round(duration.total_seconds() * 1000)
    if isinstance(duration, bool):
        return None
    if isinstance(duration, int | float):
        return _whole(duration * 1000)
    return _parse_text(duration) if isinstance(duration, str) else None  # type: ignore[redundant-expr] # or anything else


@lru_cache(maxsize=256)
def _parse_text(duration: str) -> int | None:
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration.replace(" ", ""):
        return None
    return _whole(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))


def _whole(ms: float) -> int | None:
    return round(ms) if abs(ms) < float("inf") else None
