"""How long handlers took on the last events: in the memory of a worker, for who asks of one event."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from cachebus.clock import now_s

MOST_RUNS = 2000
"""Runs that are remembered, about 300 KB."""

Run = tuple[bytes | str, str, int, float, float, int, str]
"""Position, handler, attempt, begin and end on `time.monotonic`, how many events it was for, what it raised."""


class RememberedRun(msgspec.Struct, frozen=True):
    """One run of a handler on an event."""

    handler: str
    attempt: int
    from_ms: float
    """The server's time."""
    until_ms: float
    events: int
    """It was for: more than one where the handler takes lists."""
    error: str
    """What it raised; '' where it ended well."""


class RunLog:
    """The last runs of one consumer."""

    def __init__(self) -> None:
        self._runs = deque[Run](maxlen=MOST_RUNS)
        self.add = self._runs.append

    def of(self, position: str, at_us: Callable[[float], int]) -> Iterator[RememberedRun]:
        """Return the runs on the event at a position, the oldest first."""
        names = {position, position.encode(errors="replace")}
        shift_s = now_s() - time.monotonic()
        for at, handler, attempt, began, ended, events, error in list(self._runs):
            if at in names:
                yield RememberedRun(
                    handler, attempt, at_us(began + shift_s) / 1000, at_us(ended + shift_s) / 1000, events, error
                )
