"""What is worth warming: which calls of a view were read lately, and how often, by all processes together.

Each process samples its reads into a bounded table and adds it to Redis every few seconds. Per view there are two
sorted sets, bounded and with a TTL: calls by count, an older read counting less, and calls by the time they were last
read. Nothing is configured, and a read writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ServerError
from cachebus.link import Link

log = logging.getLogger("cachebus")
T = TypeVar("T")

MOST_COUNTED = 5_000
"""Calls of a view counted by one process between two flushes; the less read half makes room."""
MOST_KEPT = 10_000
"""Calls kept in Redis per view, about 2 MB."""
FLUSH_S = 10.0
CALLS_AT_ONCE = 250
HALF_LIFE_US = 30 * 60 * 1_000_000
"""A read half an hour ago counts half."""
EPOCH_US = 64 * HALF_LIFE_US
"""Counts grow twofold per half-life; after 64 of them they begin anew, long before a double overflows."""
KEPT_MS = 2 * EPOCH_US // 1000


class _Seen:
    """A call, and how many reads of it were noted."""

    __slots__ = ("call", "reads")

    def __init__(self, reads: int, call: partial[bytes]) -> None:
        self.reads = reads
        self.call = call


class Popularity:
    """One process's table of sampled reads."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._views: dict[str, dict[tuple[object, ...], _Seen]] = {}

    def note(self, view: str, call: partial[bytes], weight: int) -> None:
        """Count *weight* reads of a call, given as `partial(view.encode_arguments, *args)`.

        It is counted by its arguments and encoded at the next flush, once however often it was read. A call whose
        arguments cannot be told apart (a list among them) is not counted.
        """
        calls = self._views.get(view)
        if calls is None:
            calls = self._views[view] = {}
        try:
            seen = calls.get(call.args)
        except TypeError:
            return
        if seen is not None:
            seen.reads += weight
            return
        calls[call.args] = _Seen(weight, call)
        if len(calls) > MOST_COUNTED:
            kept = sorted(calls.items(), key=lambda item: item[1].reads, reverse=True)[: MOST_COUNTED // 2]
            self._views[view] = dict(kept)

    async def run(self) -> None:
        """Add the table to Redis every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Add what was counted to Redis; lost where Redis is away, they are only samples."""
        views, self._views = self._views, {}
        try:
            for view, calls in views.items():
                for part in batched(_encoded(calls.values()), CALLS_AT_ONCE):
                    await self._add(view, part)
        except ServerError as away:
            log.debug("popularity not noted: %s", away)

    async def _add(self, view: str, reads: list[tuple[int, bytes]]) -> None:
        epoch = self._link.now_us() // EPOCH_US
        keys = (_count_key(self._link, view, epoch), _time_key(self._link, view))
        args: list[int | bytes] = [epoch * EPOCH_US, HALF_LIFE_US, MOST_KEPT, KEPT_MS]
        for weight, arguments in reads:
            args += (weight, arguments)
        await self._link.store.run("note_reads", keys, args)


async def popular(link: Link, view: str, limit: int) -> list[bytes]:
    """Return the encoded arguments of the calls most read lately, the most read first. One round trip.

    Raises: ServerError.
    """
    epoch = link.now_us() // EPOCH_US
    replies = await asyncio.gather(
        *[link.store.call("ZREVRANGE", _count_key(link, view, e), 0, limit - 1, "WITHSCORES") for e in _epochs(epoch)]
    )
    counts: dict[bytes, float] = {}
    for back, reply in enumerate(replies):
        for i in range(0, len(reply), 2):
            counts[reply[i]] = counts.get(reply[i], 0.0) + _as_of(float(reply[i + 1]), back)
    return sorted(counts, key=lambda call: counts[call], reverse=True)[:limit]


async def recently_active(link: Link, view: str, within: Duration, limit: int) -> list[bytes]:
    """Return the encoded arguments of calls read *within* the last so long, the most read first. Two round trips.

    Raises: ServerError.
    """
    since = link.now_us() - milliseconds(within, "within") * 1000
    calls = await link.store.call("ZREVRANGEBYSCORE", _time_key(link, view), "+inf", since, "LIMIT", 0, MOST_KEPT)
    if not calls:
        return []
    epoch = link.now_us() // EPOCH_US
    replies = await asyncio.gather(
        *[link.store.call("ZMSCORE", _count_key(link, view, e), *calls) for e in _epochs(epoch)]
    )
    counts = [
        sum(_as_of(float(score or 0), back) for back, score in enumerate(scores))
        for scores in zip(*replies, strict=True)
    ]
    order = sorted(range(len(calls)), key=lambda i: counts[i], reverse=True)
    return [calls[i] for i in order[:limit]]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield *items* in lists of at most *size*."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _encoded(calls: Iterable[_Seen]) -> Iterator[tuple[int, bytes]]:
    for seen in calls:
        try:
            yield seen.reads, seen.call()
        except (TypeError, ValueError):  # arguments that have no JSON form
            continue


def _epochs(epoch: int) -> tuple[int, int]:
    """Return the epochs that count: this one, and the one before, which has just ended or hardly matters."""
    return epoch, epoch - 1


def _as_of(count: float, back: int) -> float:
    """Return a count of *back* epochs ago on this epoch's scale."""
    return count / float(2 ** (back * EPOCH_US // HALF_LIFE_US))


def _count_key(link: Link, view: str, epoch: int) -> str:
    return link.names.bus("popular", view, str(epoch))


def _time_key(link: Link, view: str) -> str:
    return link.names.bus("read-at", view)
