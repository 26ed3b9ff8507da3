"""What all processes counted, together, over time: each adds what is new every ten seconds, anybody may read.

A minute is one hash and lasts two hours, an hour is one hash and lasts a day and two hours. Fields are `view|counter`:
templates of views, never keys, so a bucket has some hundred fields however many users there are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict

import msgspec

from cachebus.errors import ServerError
from cachebus.link import Link
from cachebus.stats import CacheStats

log = logging.getLogger("cachebus")

FLUSH_S = 10.0
SILENT_US = 35_000_000
"""A process that has said nothing for three flushes and a half is gone."""
MINUTE_TTL_S = 2 * 3600
HOUR_TTL_S = 26 * 3600
PROCESSES_TTL_S = 3600
PAIRS_AT_ONCE = 450
"""Counters in one call: a script takes at most 1,000 arguments."""
PLATFORM_NAMES = ("DYNO", "RAILWAY_REPLICA_ID", "RENDER_INSTANCE_ID", "FLY_MACHINE_ID")
"""How Heroku, Railway, Render and Fly call one running copy."""
BOUNDS_MS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 5000, 10_000)
"""Upper bounds of what is counted as a latency; beyond the last it is "more"."""
LATENCY = "(events)"
"""The place of latencies among the views: no template begins with a bracket."""

Buckets = Mapping[int, Mapping[str, Mapping[str, int]]]
"""Start of a bucket, seconds since 1970 by the server's clock -> view -> counter -> number."""


class Observed:
    """What a process tells of itself beside its cache: gauges that are asked for, latencies that are brought."""

    def __init__(self) -> None:
        self.gauges: dict[str, Callable[[], float]] = {}
        """Such as `sockets`: how many are open now."""
        self.latencies: Counter[str] = Counter()

    def fresh(self, latency_ms: float, events: int = 1) -> None:
        """Count events that took so long from their publication until no process reads older values any more."""
        if not events:
            return
        at = bisect_left(BOUNDS_MS, latency_ms)
        self.latencies[str(BOUNDS_MS[at]) if at < len(BOUNDS_MS) else "more"] += events


class ProcessReport(msgspec.Struct, frozen=True):
    """What a process last said of itself."""

    name: str
    at_us: int
    """The server's time."""
    entries: int
    bytes: int
    evictions: int
    journal_lag_ms: float | None
    gaps: int
    queued: int
    gauges: dict[str, float]
    ttls_ms: dict[str, int]
    """The TTL of each view it declares."""


def process_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return a name for this process that a person finds again on the platform."""
    place = next((environment[name] for name in PLATFORM_NAMES if environment.get(name)), None)
    return f"{place or socket.gethostname()}.{os.getpid()}"


class Reporter:
    """Says every ten seconds what this process counted. One command for some thirty busy views.

    What is under way when the connection breaks is not sent again: better a gap of ten seconds than counting twice.
    """

    def __init__(
        self,
        link: Link,
        stats: Callable[[], CacheStats],
        observed: Observed,
        *,
        ttls_ms: Callable[[], dict[str, int]] = dict,
        name: str | None = None,
    ) -> None:
        self._link = link
        self._stats = stats
        self._observed = observed
        self._ttls_ms = ttls_ms
        self._name = name or process_name()
        self._sent = self._counted()
        """What is counted in Redis already; what was before, another loop of this process has reported."""
        self._told = False

    async def run(self) -> None:
        """Report until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        finally:
            if self._link.store.up:
                await self.flush(last=True)

    async def flush(self, *, last: bool = False) -> bool:
        """Add what is new; returns whether it was. A process where nothing ever happened says nothing."""
        if not self._link.store.up:
            return False
        counted = self._counted()
        new = [(name, count - self._sent[name]) for name, count in counted.items() if count > self._sent[name]]
        if not new and (last or not (self._told or self._observed.gauges or counted)):
            return await self._leave() if self._told else False
        self._sent = counted
        try:
            for first in range(0, max(1, len(new)), PAIRS_AT_ONCE):
                await self._note(new[first : first + PAIRS_AT_ONCE])
            self._told = True
            return await self._leave() if last else True
        except ServerError as away:
            log.debug("history: %s", away)
            return False

    async def _note(self, pairs: list[tuple[str, int]]) -> None:
        names, now_us = self._link.names, self._link.now_us()
        second = now_us // 1_000_000
        keys = (
            names.bus("history", "minute", str(second - second % 60)),
            names.bus("history", "hour", str(second - second % 3600)),
            names.bus("processes"),
        )
        stats = self._stats()
        report = ProcessReport(
            self._name,
            now_us,
            stats.entries,
            stats.bytes,
            stats.evictions,
            stats.journal_lag_ms,
            stats.gaps,
            stats.queued,
            {name: gauge() for name, gauge in self._observed.gauges.items()},
            self._ttls_ms(),
        )
        fixed = (MINUTE_TTL_S, HOUR_TTL_S, PROCESSES_TTL_S, self._name, msgspec.json.encode(report))
        await self._link.store.run("note_history", keys, (*fixed, *(part for pair in pairs for part in pair)))

    async def _leave(self) -> bool:
        try:
            await self._link.store.call("HDEL", self._link.names.bus("processes"), self._name)
        except ServerError as away:
            log.debug("history: not signed off: %s", away)
        return True

    def _counted(self) -> Counter[str]:
        """Return every counter of this process as a whole number."""
        counted = Counter({f"{LATENCY}|{bound}": count for bound, count in self._observed.latencies.items()})
        for view, stats in self._stats().views.items():
            for name, count in asdict(stats).items():
                if count:
                    counted[f"{view}|{name}"] = round(count)
        return counted


class History:
    """Reads what all processes counted. Each method is one shared round trip. Raise: ServerError."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def minutes(self, count: int = 60) -> Buckets:
        """Return the last *count* minutes, the one under way included, oldest first."""
        return await self._buckets("minute", 60, count)

    async def hours(self, count: int = 24) -> Buckets:
        """Return the last *count* hours, the one under way included, oldest first."""
        return await self._buckets("hour", 3600, count)

    async def processes(self) -> list[ProcessReport]:
        """Return what every living process last said; the silent are left out."""
        reply = await self._link.store.call("HGETALL", self._link.names.bus("processes"))
        reports = [msgspec.json.decode(report, type=ProcessReport) for report in reply[1::2]]
        oldest = self._link.now_us() - SILENT_US
        return sorted((report for report in reports if report.at_us > oldest), key=lambda report: report.name)

    async def _buckets(self, kind: str, length_s: int, count: int) -> Buckets:
        second = self._link.now_us() // 1_000_000
        newest = second - second % length_s
        starts = [newest - length_s * back for back in reversed(range(count))]
        names = [self._link.names.bus("history", kind, str(start)) for start in starts]
        replies = await asyncio.gather(*[self._link.store.call("HGETALL", name) for name in names])
        return {start: _by_view(reply) for start, reply in zip(starts, replies, strict=True)}


def total(buckets: Buckets) -> dict[str, Counter[str]]:
    """Return the sum of some buckets, by view."""
    views: dict[str, Counter[str]] = {}
    for bucket in buckets.values():
        for view, counters in bucket.items():
            views.setdefault(view, Counter()).update(counters)
    return views


def percentiles(latencies: Mapping[str, int], shares: tuple[float, ...] = (0.5, 0.95, 0.99)) -> list[float | None]:
    """Return latencies in ms below which these shares of the events lie: the upper bound of their step."""
    whole = sum(latencies.values())
    if not whole:
        return [None] * len(shares)
    found: list[float | None] = []
    for share in shares:
        seen = 0
        for bound in BOUNDS_MS:
            seen += latencies.get(str(bound), 0)
            if seen >= share * whole:
                found.append(bound)
                break
        else:
            found.append(float("inf"))
    return found


def _by_view(reply: list[bytes]) -> dict[str, Counter[str]]:
    views: dict[str, Counter[str]] = {}
    for field, number in zip(reply[::2], reply[1::2], strict=True):
        view, _, counter = field.decode().rpartition("|")
        views.setdefault(view, Counter())[counter] = int(number)
    return views
