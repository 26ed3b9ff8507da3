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
from cachebus.redis.client import Client

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
    """One process's table of sampled reads. Without a client they are counted here, and nowhere else."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client
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

    def most_read(self, view: str, limit: int, least: float) -> list[bytes]:
        """Return the encoded arguments of the calls that this process read most, *least* times or more."""
        noted = [seen for seen in self._views.get(view, {}).values() if seen.reads >= least]
        calls = sorted(noted, key=lambda seen: seen.reads, reverse=True)
        return [arguments for _, arguments in islice(_encoded(calls), limit)]

    async def run(self) -> None:
        """Add the table to Redis every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Add what was counted to Redis; lost while Redis is unavailable: they are only samples."""
        views, self._views = self._views, {}
        try:
            for view, calls in views.items():
                for part in batched(_encoded(calls.values()), CALLS_AT_ONCE):
                    await self._add(view, part)
        except ServerError as away:
            log.debug("popularity not noted: %s", away)

    async def _add(self, view: str, reads: list[tuple[int, bytes]]) -> None:
        assert self._client is not None  # noqa: S101 - run and flushed only with a server
        epoch = self._client.now_us() // EPOCH_US
        keys = (_count_key(self._client, view, epoch), _time_key(self._client, view))
        args: list[int | bytes] = [epoch * EPOCH_US, HALF_LIFE_US, MOST_KEPT, KEPT_MS]
        for weight, arguments in reads:
            args += (weight, arguments)
        await self._client.store.run("cache/upkeep/note_reads", keys, args)


async def popular(client: Client, view: str, limit: int, least: float = 0.0) -> list[bytes]:
    """Return the encoded arguments of the calls most read lately, the most read first. One round trip.

    *least*: reads a call must have, an older read counting less. Raises: ServerError.
    """
    return [call for call, reads in await most_read(client, view, limit) if reads >= least]


async def most_read(client: Client, view: str, limit: int) -> list[tuple[bytes, float]]:
    """Return calls as `popular` does, each with its reads, one half an hour ago counting half."""
    now_us = client.now_us()
    epoch = now_us // EPOCH_US
    replies = await asyncio.gather(
        *[
            client.store.call("ZREVRANGE", _count_key(client, view, e), 0, limit - 1, "WITHSCORES")
            for e in _epochs(epoch)
        ]
    )
    counts: dict[bytes, float] = {}
    for back, reply in enumerate(replies):
        for i in range(0, len(reply), 2):
            counts[reply[i]] = counts.get(reply[i], 0.0) + _as_of(float(reply[i + 1]), back)
    grown = float(2 ** ((now_us - epoch * EPOCH_US) / HALF_LIFE_US))  # what a read of now adds to a count
    most = sorted(counts, key=lambda call: counts[call], reverse=True)[:limit]
    return [(call, counts[call] / grown) for call in most]


async def forget_calls(client: Client, view: str, calls: list[bytes]) -> int:
    """Remove calls, whatever their reads; return how many were known. Raises: ServerError."""
    epoch = client.now_us() // EPOCH_US
    places = [_time_key(client, view), *(_count_key(client, view, each) for each in _epochs(epoch))]
    removed = [await client.store.call("ZREM", place, *part) for part in batched(calls, 500) for place in places]
    return sum(removed[:: len(places)])


async def noted_calls(client: Client, view: str) -> list[bytes]:
    """Return the encoded arguments of every call of a view that is remembered, in no order. Raises: ServerError."""
    epoch = client.now_us() // EPOCH_US
    places = [_time_key(client, view), *(_count_key(client, view, each) for each in _epochs(epoch))]
    replies = await asyncio.gather(*[client.store.call("ZRANGE", place, 0, -1, timeout_s=5.0) for place in places])
    return list(dict.fromkeys(call for reply in replies for call in reply))


async def recently_active(client: Client, view: str, within: Duration, limit: int) -> list[bytes]:
    """Return the encoded arguments of calls read *within* the last so long, the most read first. Two round trips.

    Raises: ServerError.
    """
    since = client.now_us() - milliseconds(within, "within") * 1000
    calls = await client.store.call("ZREVRANGEBYSCORE", _time_key(client, view), "+inf", since, "LIMIT", 0, MOST_KEPT)
    if not calls:
        return []
    epoch = client.now_us() // EPOCH_US
    replies = await asyncio.gather(
        *[client.store.call("ZMSCORE", _count_key(client, view, e), *calls) for e in _epochs(epoch)]
    )
    counts = [
        sum(_as_of(float(score or 0), back) for back, score in enumerate(scores))
        for scores in zip(*replies, strict=True)
    ]
    order = sorted(range(len(calls)), key=lambda i: counts[i], reverse=True)
    return [calls[i] for i in order[:limit]]


async def read_at(client: Client, view: str, call: bytes) -> int:
    """Return when a call was last noted as read, microseconds by the server's clock; 0: never. Raises: ServerError."""
    return int(float(await client.store.call("ZSCORE", _time_key(client, view), call) or 0))


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


def _count_key(client: Client, view: str, epoch: int) -> str:
    return client.names.bus("popular", view, str(epoch))


def _time_key(client: Client, view: str) -> str:
    return client.names.bus("read-at", view)
