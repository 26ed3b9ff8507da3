"""What is worth warming: which arguments of a view were asked for lately, by all processes together.

Each process samples its reads into a bounded table and adds it to Redis every few seconds: one sorted set per view and
hour, bounded, gone after two hours. Nothing is configured, nothing is written on a read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from cachebus.errors import ServerError
from cachebus.link import Link

log = logging.getLogger("cachebus")
T = TypeVar("T")

MOST_COUNTED = 5_000
"""Calls counted between two flushes by one process; the least asked for half makes room."""
MOST_KEPT = 10_000
"""Calls kept in Redis per view and hour, about 1 MB."""
FLUSH_S = 10.0
HOUR_US = 3_600_000_000
KEPT_S = 3 * 3600
CALLS_AT_ONCE = 200
PAST_WEIGHT = 0.5
"""The hour before counts half: what was popular fades."""


class Popularity:
    """One process's table of sampled reads."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._counts: dict[str, dict[bytes, int]] = {}

    def note(self, view: str, encoded: Callable[[], bytes], weight: int) -> None:
        """Count *weight* reads of a call. *encoded* is asked for its arguments; one that has none is not counted."""
        counts = self._counts.setdefault(view, {})
        try:
            arguments = encoded()
        except (TypeError, ValueError):
            return
        counts[arguments] = counts.get(arguments, 0) + weight
        if len(counts) > MOST_COUNTED:
            kept = sorted(counts.items(), key=lambda item: item[1], reverse=True)[: MOST_COUNTED // 2]
            self._counts[view] = dict(kept)

    async def run(self) -> None:
        """Add the table to Redis every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Add what was counted to Redis; lost where Redis is away, they are only samples."""
        counts, self._counts = self._counts, {}
        hour = self._link.now_us() // HOUR_US
        for view, calls in counts.items():
            key = _key(self._link, view, hour)
            try:
                for part in batched(calls.items(), CALLS_AT_ONCE):
                    await asyncio.gather(*[self._add(key, count, arguments) for arguments, count in part])
                await asyncio.gather(
                    self._link.store.call("ZREMRANGEBYRANK", key, 0, -MOST_KEPT - 1, key=key),
                    self._link.store.call("EXPIRE", key, KEPT_S, key=key),
                )
            except ServerError as away:
                log.debug("popularity not noted: %s", away)
                return

    async def _add(self, key: str, count: int, arguments: bytes) -> None:
        await self._link.store.call("ZINCRBY", key, count, arguments, key=key)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield *items* in lists of at most *size*."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


async def popular(link: Link, view: str, limit: int) -> list[bytes]:
    """Return the encoded arguments most asked for in this hour and the one before, the most wanted first.

    Raises: ServerError.
    """
    hour = link.now_us() // HOUR_US
    scores: dict[bytes, float] = {}
    for back, weight in ((0, 1.0), (1, PAST_WEIGHT)):
        reply = await link.store.call("ZREVRANGE", _key(link, view, hour - back), 0, 2 * limit, "WITHSCORES")
        for i in range(0, len(reply), 2):
            scores[reply[i]] = scores.get(reply[i], 0.0) + weight * float(reply[i + 1])
    return sorted(scores, key=lambda call: scores[call], reverse=True)[:limit]


def _key(link: Link, view: str, hour: int) -> str:
    return link.names.bus("popular", view, str(hour))
