"""How much time a process has had: the event loop's clock, less the time in which the loop was stopped.

A deadline for somebody else must not run while this process could not have noticed them: on a busy machine, or after
SIGSTOP, a loop wakes with a past deadline and the answer both waiting. Where the deadline is checked first, the answer
comes too late without being late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

BEAT_S = 0.2
SLACK_S = 0.1
"""A beat that comes later than this counts: the loop was stopped."""


class Attention:
    """Seconds in which the loop ran. Keep `run()` going as a task; without it, this is the loop's own clock."""

    def __init__(self) -> None:
        self._lost_s = 0.0
        self._beat_at: float | None = None

    async def run(self) -> None:
        """Notice stops of the loop until cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                self._beat_at = clock()
                await asyncio.sleep(BEAT_S)
                self._lost_s += self._stopped_s(clock())
        finally:
            self._beat_at = None

    def now(self) -> float:
        """Return seconds since some moment. A stop that is only ending counts already."""
        now = asyncio.get_running_loop().time()
        return now - self._lost_s - self._stopped_s(now)

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """Return what *work* returns. Raises: TimeoutError after that much attention; *work* is cancelled."""
        task = asyncio.ensure_future(work)
        ends = self.now() + seconds
        try:
            while not task.done():
                left_s = ends - self.now()
                if left_s <= 0:
                    raise TimeoutError
                await asyncio.wait([task], timeout=left_s)
            return task.result()
        finally:
            task.cancel()

    def _stopped_s(self, now: float) -> float:
        if self._beat_at is None:
            return 0.0
        late_s = now - self._beat_at - BEAT_S
        return late_s if late_s > SLACK_S else 0.0
