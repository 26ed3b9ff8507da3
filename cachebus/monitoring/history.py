"""What all processes counted, together, over time: minutes, hours, and what each process last reported of itself.

Each process writes its part with `cachebus.cache.upkeep.reporter`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from cachebus.cache.upkeep.reporter import BOUNDS_MS, FLUSH_S, ProcessReport, releases_key
from cachebus.redis.client import Client

SILENT_US = int(3.5 * FLUSH_S * 1_000_000)
"""A process that has not reported for three and a half flushes is gone."""

LATEST = 2
"""Buckets that may still change, the one under way among them: processes flush every ten seconds."""
AT_ONCE = 2

Buckets = Mapping[int, Mapping[str, Mapping[str, int]]]
"""Start of a bucket, seconds since 1970 by the server's clock -> view -> counter -> number."""


class Release(msgspec.Struct, frozen=True):
    """Something that was deployed."""

    name: str
    at_ms: float
    """When a process of it first reported."""


class History:
    """Reads what all processes counted. Each method is one shared round trip. Raise: ServerError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def minutes(self, count: int = 60) -> Buckets:
        """Return the last *count* minutes, the one under way included, oldest first."""
        return await self._buckets("minute", 60, count)

    async def hours(self, count: int = 24) -> Buckets:
        """Return the last *count* hours, the one under way included, oldest first."""
        return await self._buckets("hour", 3600, count)

    async def processes(self) -> list[ProcessReport]:
        """Return what every living process last said; the silent are left out."""
        reply = await self._client.store.call("HGETALL", self._client.names.bus("processes"))
        reports = [msgspec.json.decode(report, type=ProcessReport) for report in reply[1::2]]
        oldest = self._client.now_us() - SILENT_US
        return sorted((report for report in reports if report.at_us > oldest), key=lambda report: report.name)

    async def releases(self) -> list[Release]:
        """Return the last releases, newest first."""
        name = releases_key(self._client)
        reply = await self._client.store.call("ZREVRANGE", name, 0, -1, "WITHSCORES")
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [Release(release.decode(errors="replace"), float(us) / 1000) for release, us in pairs]

    async def _buckets(self, kind: str, length_s: int, count: int) -> Buckets:
        return await self.read(kind, self.starts(length_s, count))

    def starts(self, length_s: int, count: int) -> list[int]:
        """Return when the last *count* buckets of this length began, the one under way included, oldest first."""
        second = self._client.now_us() // 1_000_000
        newest = second - second % length_s
        return [newest - length_s * back for back in reversed(range(count))]

    async def read(self, kind: str, starts: Sequence[int]) -> Buckets:
        """Return some buckets: of `minute` or `hour`."""
        names = [self._client.names.bus("history", kind, str(start)) for start in starts]
        replies = await asyncio.gather(*[self._client.store.call("HGETALL", name) for name in names])
        return {start: _by_view(reply) for start, reply in zip(starts, replies, strict=True)}


class FinishedBuckets:
    """The last buckets of one kind, looked at again and again: those that are over are read once.

    Of many views they are large: a few at a time are taken apart, so that whatever else this process does goes on.
    """

    def __init__(self, history: History, kind: str, length_s: int, count: int) -> None:
        self._history = history
        self._kind, self._length_s, self._count = kind, length_s, count
        self._known: dict[int, Mapping[str, Mapping[str, int]]] = {}
        self._final = 0
        """The start of the newest bucket that cannot change any more."""

    async def get(self) -> Buckets:
        """Return them, oldest first. One round trip for each few that are new. Raises: ServerError."""
        starts = self._history.starts(self._length_s, self._count)
        self._known = {at: self._known[at] for at in starts if at in self._known}
        wanted = [at for at in starts if at not in self._known or at > self._final]
        for first in range(0, len(wanted), AT_ONCE):
            self._known |= await self._history.read(self._kind, wanted[first : first + AT_ONCE])
        self._final = starts[-1] - LATEST * self._length_s
        return {at: self._known[at] for at in starts}


def total(buckets: Buckets) -> dict[str, Counter[str]]:
    """Return the sum of some buckets, by view."""
    views: dict[str, Counter[str]] = {}
    for bucket in buckets.values():
        for view, counters in bucket.items():
            views.setdefault(view, Counter()).update(counters)
    return views


def percentiles(
    latencies: Mapping[str, int], shares: Sequence[float] = (0.5, 0.95, 0.99), bounds: Sequence[int] = BOUNDS_MS
) -> list[float | None]:
    """Return latencies in ms below which these shares of the events lie: the upper bound of their step."""
    whole = sum(latencies.values())
    if not whole:
        return [None] * len(shares)
    found: list[float | None] = []
    for share in shares:
        seen = 0
        for bound in bounds:
            seen += latencies.get(str(bound), 0)
            if seen >= share * whole:
                found.append(bound)
                break
        else:
            found.append(float("inf"))
    return found


def shown(latency: float | None) -> float | None:
    """Return a latency as JSON can say it: -1 for more than the last step."""
    return -1 if latency == float("inf") else latency


def _by_view(reply: list[bytes]) -> dict[str, Counter[str]]:
    views: dict[str, Counter[str]] = {}
    for field, number in zip(reply[::2], reply[1::2], strict=True):
        view, _, counter = field.decode().rpartition("|")
        views.setdefault(view, Counter())[counter] = int(number)
    return views
