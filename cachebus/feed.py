"""The feed: every broadcast, in order, for a while. Reading on from where one was either misses nothing or says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from cachebus.errors import ServerError
from cachebus.link import Link
from cachebus.wire import Wire

log = logging.getLogger("cachebus")

BLOCK_MS = 1000
DEADLINE_S = 2.0
"""No reply for this long, and the connection is given up."""
PAUSE_S = 0.5
RECORDS_A_READ = 1000
TIMEOUT_S = 2.0


class FeedRecord(NamedTuple):
    """One broadcast, as it went out on `ws:<topic>`."""

    id: str
    """`epoch-clock`; the epoch changes when the feed began anew, the clock only grows."""
    before: str
    """The id of the record before it; '' for the first one of an epoch."""
    topic: str
    message: bytes
    """JSON: `{"id", "ts", "fresh_after", "topic", "type", "data"}`."""


class Page(NamedTuple):
    """What came after an id."""

    records: list[FeedRecord]
    recovered: bool
    """False: something is missing between that id and these records (or `last`, where there are none)."""
    last: str
    """Where to read on from."""


class Feed:
    """The broadcasts of a deployment. Any process may read; only commits write."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._name = link.names.feed
        self.heard_at = float("-inf")
        """When it last answered, seconds of the event loop's clock; who follows it hears it each second."""

    async def newest(self) -> str:
        """Return the id of the newest record, '' where there is none. One round trip."""
        records = _records(await self._link.store.call("XREVRANGE", self._name, "+", "-", "COUNT", 1))
        self.heard_at = asyncio.get_running_loop().time()
        return records[0].id if records else ""

    async def read(self, after: str, count: int = RECORDS_A_READ) -> Page:
        """Return up to *count* records after the one with id *after*, in order. One round trip.

        `recovered` only if that record is still in the feed, or is the one just before its oldest, and none is missing
        in between; otherwise there are no records, and `last` is the newest: read what you follow anew, then go on.
        """
        _, _, clock = after.partition("-")
        store, name = self._link.store, self._name
        from_it = ("XRANGE", name, f"{clock}-0", "+", "COUNT", count + 1)
        from_oldest = ("XRANGE", name, "-", "+", "COUNT", count)
        newest = ("XREVRANGE", name, "+", "-", "COUNT", 1)
        commands = (from_it, from_oldest, newest) if clock.isdigit() else (from_oldest, newest)
        replies = await asyncio.gather(*[store.call(*command, timeout_s=TIMEOUT_S) for command in commands])
        *found, tops = map(_records, replies)
        if clock.isdigit():
            it = found.pop(0)
            if it and it[0].id == after:
                return _chained(it[1:], after)
        if found[0] and found[0][0].before == after != "":
            return _chained(found[0], after)
        return Page([], recovered=False, last=tops[0].id if tops else "")

    async def follow(self, after: str | None = None) -> AsyncIterator[Page]:
        """Yield what comes, for ever, from *after* on (None: from now on). One connection of its own.

        A page that is not `recovered` stands where something is missing. Outages are waited out.
        """
        last: str | None = after
        while True:
            wire: Wire | None = None
            try:
                wire = await self._link.store.dedicated(self._name)
                if last is None:
                    last = await self.newest()
                while True:
                    page = await self._await_page(wire, last)
                    self.heard_at = asyncio.get_running_loop().time()
                    last = page.last
                    if page.records or not page.recovered:
                        yield page
            except ServerError as broken:
                log.debug("feed: %s", broken)
                await asyncio.sleep(PAUSE_S)
            finally:
                if wire is not None:
                    await wire.close()

    async def _await_page(self, wire: Wire, last: str) -> Page:
        clock = last.partition("-")[2] or "0"
        reply = await wire.call(
            *("XREAD", "COUNT", RECORDS_A_READ, "BLOCK", BLOCK_MS, "STREAMS", self._name, f"{clock}-0"),
            timeout_s=DEADLINE_S,
        )
        if reply:
            return _chained(_records(reply[0][1]), last)
        # Nothing newer: unless the feed is another one by now, whose clock is behind ours.
        newest = _records(await wire.call("XREVRANGE", self._name, "+", "-", "COUNT", 1, timeout_s=DEADLINE_S))
        top = newest[0].id if newest else ""
        if top == last or (newest and newest[0].before == last):
            return Page([], recovered=True, last=last)
        return Page([], recovered=False, last=top)


def _records(lines: Sequence[Any]) -> list[FeedRecord]:
    found = []
    for _, flat in lines:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        message = fields[b"record"]
        identity = message[7 : message.index(b'"', 7)].decode()
        found.append(FeedRecord(identity, fields[b"before"].decode(), fields[b"topic"].decode(), message))
    return found


def _chained(records: list[FeedRecord], after: str) -> Page:
    """Return *records* as a page: recovered if each names the one before it, the first one *after*."""
    last, recovered = after, True
    for record in records:
        recovered = recovered and record.before == last
        last = record.id
    return Page(records, recovered, last)
