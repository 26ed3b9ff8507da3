"""The clock of an invalidation, as it travels outside: opaque text, `<number>.<era>`. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

_TEXT = re.compile(r"(\d{1,18})\.([0-9a-f]{1,32})(?:\.queued)?", re.ASCII)


class Born(NamedTuple):
    """When a value began to be true: a number of the logical clock, microseconds, in an era.

    Numbers of different eras cannot be compared; eras are compared for equality only.
    """

    number: int
    era: str


Clock = NewType("Clock", str)
"""The clock of an invalidation, to pass on as `fresh_after`. Plain text, for JSON, headers, logs. See `is_queued`."""
_QUEUED = ".queued"


def clock_of(born: Born, *, queued: bool = False) -> Clock:
    """Return the text of a number in an era."""
    return Clock(f"{born.number}.{born.era}{_QUEUED if queued else ''}")


def is_queued(clock: str) -> bool:
    """Return whether Redis was unavailable: the invalidation holds in its own process, and is sent on reconnecting."""
    return clock.endswith(_QUEUED)


def parse_clock(text: str) -> Born | None:
    """Return what a clock from outside says, or None for text that is no clock. Never raises."""
    found = _TEXT.fullmatch(text)
    return Born(int(found[1]), found[2]) if found else None


def parse_score(score: bytes | None) -> int:
    """Return a score of the ledger as a number; 0 where there is none. Absurd ones stay finite. Never raises."""
    try:
        return int(min(max(float(score or 0), 0.0), 2.0**62))
    except ValueError:
        return 0
