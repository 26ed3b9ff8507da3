"""After an owner that crashed or hung: one event at a time, each marked before it runs, past all it had in progress.

The mark of an event that ends its process stays. With the second one the event is a poison message: a dead letter, and
the stream resumes behind it. While nobody crashes nothing is marked, and none of this costs anything: whatever an owner
may have had in hand when it crashed is marked for it by the next one (`take_shard.lua`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from cachebus.bus.engine.commit import ENOUGH_EVENTS, Plan
from cachebus.bus.engine.dispatcher import Cut, Dispatcher
from cachebus.bus.engine.runs import DueRetry
from cachebus.bus.engine.shard_lease import Shard
from cachebus.bus.events import EventRecord, order

CAREFUL_EVENTS = 2 * ENOUGH_EVENTS
"""An owner has at most two batches in progress: one being committed, one being handled."""
CAREFUL_RETRIES = 100
MOST_CRASHES = 2
"""After this many crashes while it was in progress, an event counts as a poison message and is dead-lettered."""
CERTAIN_CRASHES = 4
"""With this many a network split is ruled out: dead-letter at once. Waiting here would let the next crash count too."""


class Takeover:
    """What an owner does about the events and retries that the owner before it may have had in progress."""

    def __init__(
        self, shard: Shard, dispatcher: Dispatcher, *, cut: Cut, settle: Callable[[], Awaitable[None]]
    ) -> None:
        self._shard = shard
        self._dispatcher = dispatcher
        self._cut = cut
        self._settle = settle
        self._events_left = 0
        self._retries_left = 0

    def begin(self) -> None:
        """Look at how the shard was found; called when it has been taken."""
        careful = bool(self._shard.careful_until)
        self._events_left, self._retries_left = careful * CAREFUL_EVENTS, careful * CAREFUL_RETRIES

    @property
    def careful_with_events(self) -> bool:
        """Whether the next events may have ended the owner before."""
        return self._events_left > 0

    @property
    def careful_with_retries(self) -> bool:
        """Whether the next retries may have ended the owner before."""
        return self._retries_left > 0

    async def work(self, records: Sequence[EventRecord], plan: Plan) -> Plan:
        """As `Dispatcher.work`, each record marked, run and committed by itself."""
        limit = order(self._shard.careful_until.encode())
        for at, record in enumerate(records):
            if not self._events_left or order(record.position) > limit:
                self._events_left = 0
                return await self._dispatcher.work(records[at:], plan, self._cut)
            name = record.event.position
            crashes = await self._crashes(name, await self._shard.mark(name))
            if crashes >= MOST_CRASHES:
                plan.begin(record.position, time.monotonic())
                self._dispatcher.condemn(record.event, plan, crashes)
            else:
                plan = await self._dispatcher.work([record], plan, self._cut)
            plan.unmark(name)
            plan = await self._cut(plan)
            await self._settle()
            self._events_left -= 1
        return plan

    async def spare(self, due: Sequence[DueRetry], marks: Sequence[int], plan: Plan) -> list[DueRetry]:
        """Return the retries that may run; poison messages become dead letters. *marks*: how many each one has."""
        careful = self.careful_with_retries
        if careful:
            self._retries_left = self._retries_left - 1 if due else 0
        spared = []
        for retry, marked in zip(due, marks, strict=True):
            if (crashes := await self._crashes(retry.name, marked)) >= MOST_CRASHES:
                self._dispatcher.condemn_retry(retry, plan, crashes)
            else:
                spared.append(retry)
            if careful:
                plan.unmark(retry.name)
        return spared

    async def _crashes(self, name: str, marks: int) -> int:
        """Return how many owners *name* has ended. An owner that was only cut off clears its mark when it reconnects,
        so two disconnects do not dead-letter an event: give it the time.
        """
        if not MOST_CRASHES <= marks < CERTAIN_CRASHES:
            return marks
        await asyncio.sleep(self._shard.pardon_s)
        return await self._shard.mark(name)
