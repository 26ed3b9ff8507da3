"""Single flight: callers of one key in this process share one read, if they may have its value.

A flight is the wait for another process's load, or a load. No wait is for ever: a load that runs longer than its
policy's `max_load_ms` is overdue, and nobody waits for it but its own caller; a load that would wait for itself,
directly or through other views, raises `LoadCycle`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from cachebus.cache.call import Call, Value
from cachebus.cache.reads.conditional import condition
from cachebus.cache.stats import Purpose
from cachebus.clock import now_s
from cachebus.errors import LoadCycle, Unavailable
from cachebus.freshness.clock import Born

log = logging.getLogger("cachebus")
T = TypeVar("T")

CLOSE_S = 2.0
"""How long `close` waits for loads that do not end when they are cancelled."""


class Flight:
    """A read that is under way for all callers of one key in this process."""

    __slots__ = (
        "asks",
        "awaits",
        "began_at",
        "born",
        "closed",
        "departed_at",
        "key",
        "moment",
        "over",
        "overdue",
        "purpose",
        "renews",
        "task",
        "timer",
        "token",
    )

    def __init__(self, key: str, token: str, purpose: Purpose) -> None:
        self.key = key
        self.purpose = purpose
        """What it was begun for, whoever joins it later."""
        self.departed_at = now_s()
        self.token = token
        """Of the read that set it off, whose lease it may hold."""
        self.asks = False
        """Whether it asks the ledger about whatever it finds, for a caller who demands that."""
        self.born: Born | None = None
        """Set when the load begins; before that anyone may join, for what Redis holds is judged after they came."""
        self.moment = 0
        self.began_at = 0.0
        self.task: asyncio.Task[Value]
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolved when the flight has landed or is overdue, whichever is first."""
        self.overdue = False
        self.closed = False
        """Whether the cache was closed while it was under way."""
        self.renews = False
        """Whether it renews, in the background, what may be served meanwhile."""
        self.timer: asyncio.TimerHandle | None = None
        self.awaits: list[Flight] = []
        """Flights that this one's load waits for, because it reads them."""

    @property
    def succeeded(self) -> bool:
        """Whether it has landed, with a value."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def circular(self) -> bool:
        """Whether it failed because a load waits for itself: a mistake in the program, which no value should hide."""
        return self.task.done() and not self.task.cancelled() and isinstance(self.task.exception(), LoadCycle)

    def result(self) -> Value:
        """Return the value, once it has landed. Raises: what the load raised; Unavailable where `close` ended it."""
        if self.closed and self.task.cancelled():
            raise Unavailable(f"{self.key}: the cache was closed during the load")
        return self.task.result()

    def ended(self) -> None:
        """Wake everyone who waits for it."""
        if not self.over.done():
            self.over.set_result(None)


_loading: ContextVar[Flight | None] = ContextVar("cachebus_loading", default=None)
"""The flight whose load this code is part of. A task that outlives the load keeps it; it is then over."""


def in_this_load(function: Callable[..., T]) -> Callable[..., T]:
    """Return *function* to be run in another thread as part of the load that this code is part of."""
    flight, known = _loading.get(), condition.get()

    def run(*args: Any) -> T:
        token, token_of_known = _loading.set(flight), condition.set(known)
        try:
            return function(*args)
        finally:
            condition.reset(token_of_known)
            _loading.reset(token)

    return run


def is_within_load() -> bool:
    """Whether this code is part of a load: what it reads, nobody has asked for."""
    flight = _loading.get()
    return flight is not None and not flight.task.done()


class SingleFlight:
    """The flights of one process, by entry."""

    def __init__(self, overdue: Callable[[Call], None]) -> None:
        self._by_entry: dict[str, Flight] = {}
        self._all: set[Flight] = set()
        self._overdue = overdue

    def under_way(self, entry: str) -> Flight | None:
        """Return the flight that callers of *entry* may have to wait for; none that has landed or is overdue."""
        flight = self._by_entry.get(entry)
        return flight if flight is not None and not flight.task.done() else None

    def depart(
        self,
        call: Call,
        token: str,
        fly: Callable[[Flight], Coroutine[Any, Any, Value]],
        purpose: Purpose,
        *,
        asks: bool = False,
    ) -> Flight:
        """Begin *fly* in a task of its own, for everyone who comes until it lands or is overdue."""
        flight = Flight(call.key, token, purpose)
        flight.asks = asks
        token_before = _loading.set(flight)  # for the task, which copies this context
        flight.task = asyncio.ensure_future(fly(flight))
        _loading.reset(token_before)
        self._by_entry[call.entry] = flight
        self._all.add(flight)
        flight.task.add_done_callback(lambda _: self.landed(call, flight))
        return flight

    def loads(self, flight: Flight, call: Call, born: Born, moment: int) -> None:
        """Take note that the load of *flight* begins now, as born at *born*."""
        flight.born, flight.moment, flight.began_at = born, moment, now_s()
        limit_s = call.kind.policy.max_load_ms / 1000
        flight.timer = asyncio.get_running_loop().call_later(limit_s, self._give_up, flight, call)

    def landed(self, call: Call, flight: Flight) -> None:
        """Forget a flight whose task has ended."""
        self._forget(call, flight)
        self._all.discard(flight)
        if flight.timer is not None:
            flight.timer.cancel()
        flight.ended()
        if not flight.task.cancelled() and flight.task.exception() is not None:
            log.debug("%s: the load failed: %r", call.key, flight.task.exception())

    async def wait(self, flight: Flight, timeout_s: float | None = None) -> None:
        """Wait until *flight* has landed or is overdue. Cancelling this caller cancels nobody else.

        Raises: LoadCycle where this code is part of a load that *flight* waits for.
        """
        await self._wait_for(flight.over, flight, timeout_s)

    async def wait_for_task(self, flight: Flight) -> None:
        """Wait until *flight* has landed, however long it is overdue."""
        await self._wait_for(flight.task, flight, None)

    async def close(self) -> None:
        """Cancel what is under way. A load that ignores its cancellation is named and left behind."""
        flights = list(self._all)
        for flight in flights:
            flight.closed = True
            flight.task.cancel()
        if flights:
            await asyncio.wait([flight.task for flight in flights], timeout=CLOSE_S)
        stuck = [flight.key for flight in flights if not flight.task.done()]
        if stuck:
            log.warning("closing without %d loads that do not end: %s", len(stuck), ", ".join(sorted(stuck)[:10]))

    async def _wait_for(self, future: asyncio.Future[Any], flight: Flight, timeout_s: float | None) -> None:
        load = _loading.get()
        if load is None or load.task.done():
            await asyncio.wait([future], timeout=timeout_s)
            return
        path = _path(flight, load)
        if path is not None:
            raise LoadCycle([load.key, *path])
        load.awaits.append(flight)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            load.awaits.remove(flight)

    def _give_up(self, flight: Flight, call: Call) -> None:
        flight.overdue = True
        self._forget(call, flight)
        log.warning(
            "%s: the load has been running for %g s; others no longer wait for it and may load the key themselves",
            call.key,
            call.kind.policy.max_load_ms / 1000,
        )
        self._overdue(call)
        flight.ended()

    def _forget(self, call: Call, flight: Flight) -> None:
        if self._by_entry.get(call.entry) is flight:
            del self._by_entry[call.entry]


def _path(start: Flight, end: Flight) -> list[str] | None:
    """Return the keys from *start* to *end*, each waiting for the next; None where *start* does not wait for *end*."""
    paths, seen = [[start]], {start}
    for path in paths:  # grows while it is walked
        if path[-1] is end:
            return [flight.key for flight in path]
        for awaited in path[-1].awaits:
            if awaited not in seen:
                seen.add(awaited)
                paths.append([*path, awaited])
    return None
