"""Warming: load before anyone asks, gradually, so that the database hardly notices."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from cachebus.cache.upkeep.popularity import Popularity, popular, recently_active
from cachebus.cache.view import BoundView, View
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, ServerError, Unavailable
from cachebus.redis.client import Client

log = logging.getLogger("cachebus")

WINDOW = 8
"""Loads whose median is one measurement: one slow load says nothing."""
SLOWER = 2.0
"""Loads this much slower than the fastest measurement: the database is busy."""
MOST_FAILURES = 5
"""With this many loads failing in a row the arguments are not what is wrong."""
LEAST_READS = 1.0
"""Without a floor, what was read once eight hours ago was warmed: 3.5 % of such loads were used on a real trace."""
MOST_AHEAD = 5_000
"""Calls of a critical view looked at, the most read first."""

Arguments = tuple[Any, ...]


class SyncView(Protocol):
    """A view of `cachebus.sync`, as far as it is known here."""

    view: View[..., Any]
    """The one behind it, which lives in the worker's loop."""


Warmable = View[..., Any] | SyncView


class Warmth:
    """How far a warming has come."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.resumed = 0
        """Were seen to before, by a worker that could not finish this run."""
        self.fresh = 0
        """Were there already, or are being loaded by somebody else; one round trip each."""
        self.loaded = 0
        self.failed = 0
        self.stopped = ""
        """Why it ended early, '' if it did not."""

    @property
    def done(self) -> int:
        """How many were seen to."""
        return self.resumed + self.fresh + self.loaded + self.failed

    def __str__(self) -> str:
        parts = [f"{self.loaded} loaded", f"{self.fresh} fresh"]
        parts += [f"{count} {what}" for count, what in ((self.resumed, "before"), (self.failed, "failed")) if count]
        stopped = f", stopped: {self.stopped}" if self.stopped else ""
        return f"{self.done}/{self.total} ({', '.join(parts)}){stopped}"


class Pace:
    """How many loads at a time, and when the next may begin. Pure: seconds of any clock are arguments.

    Halves when loads take twice as long as they did at their fastest, grows by one when they do not.
    """

    def __init__(self, most: int, per_second: float) -> None:
        self.most = self.now = most
        self.next_at = 0.0
        self._per_second = per_second
        self._window: list[float] = []
        self._fastest = float("inf")

    def loaded(self, took: float, now: float, draw: float) -> None:
        """Take note of one load; *draw* in [0, 1) is its jitter."""
        self.next_at = max(self.next_at, now) + (0.5 + draw) / self._per_second
        self._window.append(took)
        if len(self._window) < WINDOW:
            return
        median = sorted(self._window)[WINDOW // 2]
        self._window.clear()
        if median > SLOWER * self._fastest:
            self.now = max(1, self.now // 2)
        elif self.now < self.most:
            self.now += 1
        self._fastest = min(self._fastest, median)


class Warm:
    """What a schedule warms with: `await warm(view, arguments, per_second=50)`.

    *said* is told of the progress, *marks* outlive the worker: with those of a run that was broken off, warming goes
    on where it stopped. After *budget* no warming begins another load.
    """

    def __init__(
        self,
        client: Client | None,
        said: Callable[[str], None] | None = None,
        marks: dict[str, tuple[int, int]] | None = None,
        *,
        budget: Duration | None = None,
        counted: Popularity | None = None,
    ) -> None:
        """Without a *client*, in a process alone, *counted* says what was read."""
        self._client = client
        self._counted = counted
        self._said = said or (lambda _progress: None)
        self._marks = marks if marks is not None else {}
        self._ends = float("inf") if budget is None else time.monotonic() + milliseconds(budget, "budget") / 1000
        self._begun = 0

    def say(self, progress: str) -> None:
        """Have people see how far the job is, and how it went: in `schedule list` and `run`, and on the live page.

        Warming says so by itself.
        """
        self._said(progress)

    async def popular(self, view: Warmable, limit: int = 500, *, least: float = LEAST_READS) -> list[Arguments]:
        """Return the arguments *view* was most read with lately, by all processes, the most read first.

        A read half an hour ago counts half; with fewer than *least* reads so counted, a call is not worth a load.
        Raises: ServerError.
        """
        view = _of_loop(view)
        if self._client is None:
            return self._read_here(view, limit, least)
        return _decoded(view, await popular(self._client, view.name, limit, least))

    async def recently_active(self, view: Warmable, within: Duration = "1h", limit: int = 500) -> list[Arguments]:
        """Return the arguments *view* was read with *within* the last so long, the most read first.

        Raises: ServerError.
        """
        view = _of_loop(view)
        if self._client is None:
            return self._read_here(view, limit)
        return _decoded(view, await recently_active(self._client, view.name, within, limit))

    async def ahead(self, view: Warmable, *, per_second: float = 50, concurrency: int = 4) -> Warmth:
        """Renew what *view* was read with within its last TTL, once less than a quarter of that is left.

        Called a few times in that quarter, nobody who keeps reading ever waits for a load; what nobody reads any more
        expires. Two round trips and one for each entry looked at. Raises: ServerError.
        """
        view = _of_loop(view)
        within_s = view.policy.ttl_ms / 1000
        return await self(
            view,
            await self.recently_active(view, within_s, MOST_AHEAD),
            per_second=per_second,
            concurrency=concurrency,
        )

    async def __call__(
        self, view: Warmable, arguments: Iterable[Any], *, per_second: float = 50, concurrency: int = 4
    ) -> Warmth:
        """Make sure that *view* is fresh for each of *arguments* (a tuple each, or the one argument), in their order.

        At most *per_second* loads a second and *concurrency* at a time, fewer while the loader is slower than it was.
        What is fresh is passed over without using up the rate; what somebody else loads is not loaded again. A load
        that fails is counted and passed over. Ends early when Redis becomes unavailable
        (what is loaded could not be kept), when all loads fail, and when the budget is used up.
        """
        view = _of_loop(view)
        if per_second <= 0 or concurrency < 1:
            raise ConfigurationError(f"warm {view.name!r}: per_second and concurrency must be above 0")
        calls = [item if isinstance(item, tuple) else (item,) for item in arguments]
        self._begun += 1
        name = f"{self._begun} {view.name}"
        fingerprint = zlib.crc32("\n".join(view.key(*call) for call in calls).encode())
        first, marked = self._marks.get(name, (0, 0))

        def reached(index: int) -> None:
            self._marks[name] = (index, fingerprint)
            self._said(f"{view.name} {warming.warmth}")

        warming = _Warming(view.warm, calls, Pace(concurrency, per_second), reached, self._why_not)
        return await warming.run(first if marked == fingerprint else 0)

    def _why_not(self) -> str:
        """Return why no further load may begin, '' if one may."""
        if time.monotonic() > self._ends:
            return "the budget is used up"
        return "" if self._client is None or self._client.entries.up else "redis unavailable"

    def _read_here(self, view: View[..., Any], limit: int, least: float = 0.0) -> list[Arguments]:
        return _decoded(view, self._counted.most_read(view.name, limit, least)) if self._counted is not None else []


class _Warming:
    """One list of calls being warmed."""

    def __init__(
        self,
        warm: Callable[..., Awaitable[Any]],
        calls: Sequence[Arguments],
        pace: Pace,
        reached: Callable[[int], None],
        why_not: Callable[[], str],
    ) -> None:
        self.warmth = Warmth(len(calls))
        self._warm = warm
        self._calls = calls
        self._pace = pace
        self._reached = reached
        self._why_not = why_not
        self._under_way: dict[asyncio.Task[None], int] = {}
        self._next = 0
        self._failures = 0

    async def run(self, first: int) -> Warmth:
        """See to each call from index *first* on; cancelling it cancels the loads under way."""
        self.warmth.resumed = self._next = first
        self._reached(first)
        try:
            while self._next < len(self._calls) and await self._may_begin():
                task = asyncio.create_task(self._one(self._calls[self._next]))
                self._under_way[task] = self._next
                self._next += 1
            while self._under_way:
                await self._one_ended()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
        self._reached(self._next)
        return self.warmth

    async def _may_begin(self) -> bool:
        """Wait until one more may begin; False when none may any more."""
        while len(self._under_way) >= self._pace.now:
            await self._one_ended()
        await asyncio.sleep(max(0.0, self._pace.next_at - time.monotonic()))
        self.warmth.stopped = self.warmth.stopped or self._why_not()
        return not self.warmth.stopped

    async def _one_ended(self) -> None:
        done, _ = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._under_way[task]
        self._reached(min(self._under_way.values(), default=self._next))

    async def _one(self, call: Arguments) -> None:
        began = time.monotonic()
        try:
            loaded = (await self._warm(*call)).loaded
        except ServerError as refused:
            self.warmth.stopped = "redis unavailable" if isinstance(refused, Unavailable) else str(refused)
        except Exception as failed:  # noqa: BLE001 - one bad load is no reason to leave the others cold
            self.warmth.failed += 1
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                self.warmth.stopped = f"{self._failures} loads in a row failed"
            log.warning("warming with %r failed: %r", call, failed)
        else:
            now = time.monotonic()
            self.warmth.loaded += loaded
            self.warmth.fresh += not loaded
            self._failures = 0
            if loaded:
                self._pace.loaded(now - began, now, random.random())  # noqa: S311 - jitter, not a secret


def _of_loop(view: Warmable) -> View[..., Any]:
    """Return the asynchronous view, which *view* is or has behind it. Raises: TypeError for what is no view."""
    found: Any = view if isinstance(view, View | BoundView) else getattr(view, "view", None)
    if not isinstance(found, View | BoundView):
        raise TypeError(f"warm: {view!r} is not a view; name the function below @cache.view")
    return found  # type: ignore[return-value] # a BoundView has what a View has


def _decoded(view: View[..., Any], found: Iterable[bytes]) -> list[Arguments]:
    arguments = []
    for encoded in found:
        try:
            arguments.append(view.decode_arguments(encoded))
        except (TypeError, ValueError):  # noted by a process with another version of the view
            continue
    return arguments
