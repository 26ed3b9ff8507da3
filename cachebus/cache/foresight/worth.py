"""Whether a refresh is worth its load: by how often such entries were read before they were invalidated again.

`Refresh(view, …, worth=True)` invalidates in any case. It loads where a read is likely enough: counted for each view by
how long ago the entry was last loaded or read. What is counted are entries that were not loaded: those that somebody
has read meanwhile are in Redis again, and no others. So one in eight that would be loaded is left out. Nothing is
loaded before thirty were counted. Counts name templates of views, never arguments.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from cachebus.cache.foresight.prediction.contexts import IDLES, idle_of
from cachebus.cache.foresight.prediction.decision import MEMORY, chance_of, threshold
from cachebus.cache.tiers.entry import FIRST_BYTES, Stub
from cachebus.cache.tiers.entry import stub as stub_of
from cachebus.cache.upkeep.popularity import read_at
from cachebus.cache.view import View
from cachebus.clock import now_s
from cachebus.freshness.clock import Clock, parse_clock
from cachebus.redis.client import Client
from cachebus.templates import stored_name

LEFT_OUT = 8
"""One in so many that are worth a load is not loaded, to see whether it would have been read."""
PRICE = 1.0
"""What a millisecond of the database is worth in milliseconds of a user's wait."""
HORIZON_S = 3600.0
"""A read later than this was not waited for."""
MOST_PENDING = 5_000
"""Entries whose outcome is waited for in one process; of more, the oldest are not counted."""
TTL_S = 8 * 86_400


class _Pending(NamedTuple):
    """An entry that was not loaded."""

    view: View[Any, Any]
    context: str
    since: int
    """The clock of its invalidation."""
    era: str
    until: float


class Worth:
    """Decides, and counts what became of what was not loaded. One a worker; the counts are everybody's."""

    def __init__(self, client: Client, views: Mapping[str, View[Any, Any]], draw: random.Random | None = None) -> None:
        self._client = client
        self._views = views
        self._draw = draw or random.Random()  # noqa: S311 - a sample, not a secret
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        """By entry."""

    async def is_likely(self, name: str, arguments: bytes, after: Clock | str) -> bool:
        """Return whether an entry is worth a load, after its invalidation at that clock. Two round trips.

        True for a view that is not known here: whoever loads will say so. Raises: ServerError.
        """
        view, clock = self._views.get(name), parse_clock(after)
        if view is None or clock is None:
            return True
        entry = self._entry(view, arguments)
        stub, read_us = await asyncio.gather(self._stub(entry), read_at(self._client, name, arguments))
        await self._settle(entry, stub)
        if stub is not None and stub.born.era == clock.era and stub.born.number >= clock.number:
            return True  # somebody has loaded it since: nothing is left to do
        now_us = self._client.now_us()
        used_us = max(stub.born.number if stub is not None else 0, read_us)
        context = f"{name}|{IDLES[idle_of(max(0, now_us - used_us) / 1_000_000)]}"
        counted = await self._client.store.call("HGET", worth_key(self._client), context)
        chance = chance_of(*map(float, (counted or b"0 0").split()))
        least = threshold(stub.header.load_ms if stub is not None and stub.header.load_ms else None, PRICE)
        if chance >= least and self._draw.randrange(LEFT_OUT):
            return True
        lives_s = min(HORIZON_S, view.policy.ttl_ms / 1000)
        self._pending[entry] = _Pending(view, context, clock.number, clock.era, now_s() + lives_s)
        if len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)
        return False

    async def _settle(self, entry: str, stub: Stub | None) -> None:
        """Count what became of an entry that is invalidated again, and of those that were waited for long enough."""
        outcomes: list[str | int] = []
        if (pending := self._pending.pop(entry, None)) is not None:
            outcomes += [pending.context, _was_read(pending, stub)]
        now = now_s()
        while self._pending and next(iter(self._pending.values())).until <= now:
            oldest, pending = self._pending.popitem(last=False)
            outcomes += [pending.context, _was_read(pending, await self._stub(oldest))]
        if outcomes:
            args = (TTL_S, MEMORY, *outcomes)
            await self._client.store.run("cache/foresight/add_outcomes", (worth_key(self._client),), args)

    async def _stub(self, entry: str) -> Stub | None:
        return stub_of(await self._client.entries.call("GETRANGE", entry, 0, FIRST_BYTES - 1))

    def _entry(self, view: View[Any, Any], arguments: bytes) -> str:
        key = view.key(*view.decode_arguments(arguments))
        return self._client.names.entry(stored_name(key), view.fingerprint)


def worth_key(client: Client) -> str:
    """Return the name of the hash of contexts: outcomes and reads, of which older ones count less."""
    return client.names.bus("worth")


def _was_read(pending: _Pending, stub: Stub | None) -> int:
    return int(stub is not None and stub.born.era == pending.era and stub.born.number >= pending.since)
