"""The clock by which everything in this process ages: leases, entries, time limits. Never sent anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial


def now_s() -> float:
    """Return seconds on a clock that runs on while the machine sleeps (CLOCK_MONOTONIC stops there)."""
    return _clock()


_clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
