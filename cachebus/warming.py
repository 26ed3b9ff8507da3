"""Warming: load before anyone asks, gradually, so that the database hardly notices."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, ServerError
from cachebus.link import Link
from cachebus.popularity import popular
from cachebus.view import View

log = logging.getLogger("cachebus")

BASELINE_LOADS = 8
"""The first loads say how fast the database is when it is not busy."""
SLOWER = 2.0
"""Loads this much slower than the first ones: it is busy, half as many at a time."""
FASTER_AFTER = 20
"""So many loads at normal speed, and one more at a time is tried."""


@dataclass(slots=True)
class Warmth:
    """How far a warming has come."""

    total: int
    fresh: int = 0
    """Were there already; cost one round trip each."""
    loaded: int = 0
    failed: int = 0
    stopped: str = ""
    """Why it ended early, '' if it did not."""

    def __str__(self) -> str:
        done = self.fresh + self.loaded + self.failed
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{done}/{self.total} ({self.loaded} loaded, {self.fresh} fresh{failed})" + (
            f", stopped: {self.stopped}" if self.stopped else ""
        )


class Pace:
    """How many loads at a time: halves when they take twice as long, grows back one by one. Pure."""

    def __init__(self, most: int) -> None:
        self.most = self.now = most
        self._first: list[float] = []
        self._usual = 0.0
        self._recent = 0.0
        self._good = 0

    def took(self, seconds: float) -> None:
        """Take note of one load."""
        if len(self._first) < BASELINE_LOADS:
            self._first.append(seconds)
            self._usual = self._recent = sorted(self._first)[len(self._first) // 2]
            return
        self._recent += 0.25 * (seconds - self._recent)
        if self._recent > self._usual * SLOWER:
            self.now, self._good, self._recent = max(1, self.now // 2), 0, self._usual
        else:
            self._good += 1
            if self._good >= FASTER_AFTER and self.now < self.most:
                self.now, self._good = self.now + 1, 0


class Warm:
    """What a schedule warms with: `await warm(view, arguments, per_second=50)`."""

    def __init__(self, link: Link, said: Callable[[str], None] | None = None) -> None:
        self._link = link
        self._said = said or (lambda _progress: None)

    async def popular(self, view: View[Any, Any], limit: int = 500) -> list[tuple[Any, ...]]:
        """Return the arguments *view* was most asked for lately, by all processes, the most wanted first."""
        found = await popular(self._link, view.name, limit)
        arguments = []
        for encoded in found:
            try:
                arguments.append(view.decode_arguments(encoded))
            except (TypeError, ValueError):  # noted by a process with another version of the view
                continue
        return arguments

    async def __call__(
        self,
        view: View[Any, Any],
        arguments: Iterable[Any],
        *,
        per_second: float = 50,
        concurrency: int = 4,
        budget: Duration = "5m",
    ) -> Warmth:
        """Make sure that *view* is fresh for each of *arguments* (a tuple each, or the one argument).

        In their order, at most *per_second* begun a second and *concurrency* under way, fewer when the loader slows
        down. What is fresh is passed over, what another process loads is not loaded again. Ends early when Redis goes
        away (what would be loaded could not be kept) or after *budget*. A load that fails is counted and passed over.
        """
        if per_second <= 0 or concurrency < 1:
            raise ConfigurationError(f"warm {view.name!r}: per_second and concurrency must be above 0")
        calls = [item if isinstance(item, tuple) else (item,) for item in arguments]
        warmth, pace = Warmth(len(calls)), Pace(concurrency)
        ends = time.monotonic() + milliseconds(budget, "budget") / 1000
        under_way: set[asyncio.Task[None]] = set()
        try:
            for call in calls:
                if warmth.stopped:
                    break
                while len(under_way) >= pace.now:
                    _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                if time.monotonic() > ends:
                    warmth.stopped = "the budget is used up"
                    break
                if not self._link.entries.up:
                    warmth.stopped = "Redis is away"
                    break
                under_way.add(asyncio.create_task(self._one(view, call, warmth, pace)))
                self._said(str(warmth))
                await asyncio.sleep(random.uniform(0.5, 1.5) / per_second)  # noqa: S311 - jitter, not a secret
            if under_way:
                await asyncio.wait(under_way)
        finally:
            for task in under_way:
                task.cancel()
            self._said(str(warmth))
        return warmth

    async def _one(self, view: View[Any, Any], call: tuple[Any, ...], warmth: Warmth, pace: Pace) -> None:
        started = time.perf_counter()
        try:
            loaded = (await view.warm(*call)).loaded
        except ServerError:
            warmth.stopped = "Redis is away"
        except Exception as failed:  # noqa: BLE001 - one bad load is no reason to leave the others cold
            warmth.failed += 1
            log.warning("warming %s%r failed: %r", view.name, call, failed)
        else:
            warmth.loaded += loaded
            warmth.fresh += not loaded
            if loaded:
                pace.took(time.perf_counter() - started)
