"""Who waits for a lock: asleep until it is offered, or until the time of whoever has it is over."""

from __future__ import annotations

import asyncio

from cachebus.clock import now_s
from cachebus.locks.terms import Attempt, Terms, Wake

LATE_S = 0.005
"""Whoever is first in line looks again this long after the holder's claim has ended by itself."""
LOST_S = 5.0
"""Whoever waits looks again after this long, heard or not: a message may be lost between the nodes of a cluster."""
APART_S = 0.01
"""Those behind look one after the other: by then the first has the lock, and they have heard it."""


class Waiter:
    """One acquisition on its way: sleeps until the lock is offered to it, or the holder's time is over."""

    def __init__(self, terms: Terms, claim: str) -> None:
        self.terms = terms
        self.claim = claim
        self._late_s = LATE_S
        self._loop = asyncio.get_running_loop()
        self._look = self._loop.create_future()
        self._at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Expect news from now on, before the server is asked."""
        if self._look.done():
            self._look = self._loop.create_future()

    def expect(self, attempt: Attempt) -> None:
        """Look again when the claim of whoever has the lock has ended, those in front first."""
        self._late_s = LATE_S + APART_S * min(attempt.before, 50)
        self._look_in(attempt.left_ms / 1000)

    def hear(self, wake: Wake) -> None:
        """Take in a message about the lock."""
        if wake.claim == self.claim or (wake.dropped and self.claim.startswith(wake.dropped)):
            self.wake()
        else:
            self._look_in(wake.left_ms / 1000)

    def wake(self) -> None:
        """Look now."""
        if not self._look.done():
            self._look.set_result(None)

    async def woken(self, until_s: float | None) -> bool:
        """Wait until it is time to look; False when *until_s* comes before."""
        left_s = None if until_s is None else max(0.0, until_s - now_s())
        try:
            await asyncio.wait([self._look], timeout=left_s)
            return self._look.done()
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look_in(self, seconds: float) -> None:
        """Set the time. An earlier timer is kept: postponing it with each message would cost too much."""
        self._at_s = self._loop.time() + min(seconds, LOST_S) + self._late_s
        if self._timer is None or self._timer.when() > self._at_s:
            self._set()

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._at_s, self._due)

    def _due(self) -> None:
        if self._loop.time() < self._at_s:
            self._set()
        else:
            self.wake()
