"""The feed: every broadcast, in order, for a while. Reading on from where one was either misses nothing or says so."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from cachebus.bus.local import LocalBus
from cachebus.errors import ServerError
from cachebus.redis.client import Client, Connector
from cachebus.redis.part import Part
from cachebus.redis.stream_tail import StreamTail

log = logging.getLogger("cachebus")

BLOCK_MS = 1000
PAUSE_S = 0.5
RECORDS_A_READ = 500
TIMEOUT_S = 2.0
_CLOCK = re.compile(r"[0-9]{1,19}")
_IDENTITY = re.compile(rb'\{"id":"([0-9]+-[0-9]+)"')


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
    """The broadcasts of a deployment. Any process may read; only commits write.

    Without a server they are those of this process.
    """

    def __init__(self, connector: Connector) -> None:
        self._part: Part[ServerFeed | LocalFeed] = Part(
            connector, ServerFeed, lambda in_process: LocalFeed(in_process.of(LocalBus))
        )

    @property
    def heard_at(self) -> float:
        """When it last answered, seconds of the event loop's clock; who follows it hears it each second."""
        return self._part.made.heard_at if self._part.made is not None else float("-inf")

    async def newest(self) -> str:
        """Return the id of the newest record, '' where there is none. One round trip."""
        return await (await self._part.get()).newest()

    async def read(self, after: str, count: int = RECORDS_A_READ) -> Page:
        """Return up to *count* records after the one with id *after*, in order. One round trip.

        `recovered` only if that record is still in the feed, or is the one just before its oldest, and none is missing
        in between; otherwise there are no records, and `last` is the newest: read again what you follow, then resume.
        """
        return await (await self._part.get()).read(after, count)

    async def follow(self, after: str | None = None) -> AsyncIterator[Page]:
        """Yield what comes, for ever, from *after* on (None: from now on). One connection of its own.

        A page that is not `recovered` marks where something is missing. Outages are waited out.
        """
        async for page in (await self._part.get()).follow(after):
            yield page


class LocalFeed:
    """The broadcasts of this process. See `Feed`."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus

    @property
    def heard_at(self) -> float:
        """Now: there is nothing in between."""
        return asyncio.get_running_loop().time()

    async def newest(self) -> str:
        """See `Feed.newest`."""
        return self._bus.feed[-1][0] if self._bus.feed else ""

    async def read(self, after: str, count: int = RECORDS_A_READ) -> Page:
        """See `Feed.read`."""
        records = self._records()
        at = next((index for index, record in enumerate(records) if record.before == after != ""), None)
        if at is not None:
            return _chained(records[at : at + count], after)
        last = await self.newest()
        return Page([], recovered=after == last != "", last=last)

    async def follow(self, after: str | None = None) -> AsyncIterator[Page]:
        """See `Feed.follow`."""
        last = await self.newest() if after is None else after
        while True:
            coming = self._bus.broadcast.wait()
            records = [record for record in self._records() if _number(record.id) > _number(last)]
            if records:
                page = _chained(records, last)
                last = page.last
                yield page
            else:
                await coming

    def _records(self) -> list[FeedRecord]:
        ids = ["", *[identity for identity, _, _ in self._bus.feed]]
        if len(self._bus.feed) == self._bus.feed.maxlen:
            ids[0] = f"{self._bus.epoch}-0"  # there was one before it, of which nobody knows any more
        return [
            FeedRecord(identity, before, topic, message)
            for before, (identity, topic, message) in zip(ids, self._bus.feed, strict=False)
        ]


class ServerFeed:
    """The broadcasts on the server. See `Feed`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = client.names.feed
        self.heard_at = float("-inf")
        """See `Feed.heard_at`."""

    async def newest(self) -> str:
        """See `Feed.newest`."""
        records = _records(await self._client.store.call("XREVRANGE", self._name, "+", "-", "COUNT", 1))
        self.heard_at = asyncio.get_running_loop().time()
        return records[0].id if records else ""

    async def read(self, after: str, count: int = RECORDS_A_READ) -> Page:
        """See `Feed.read`."""
        clock = _clock_of(after)
        store, name = self._client.store, self._name
        from_it = ("XRANGE", name, f"{clock}-0", "+", "COUNT", count + 1)
        from_oldest = ("XRANGE", name, "-", "+", "COUNT", count)
        newest = ("XREVRANGE", name, "+", "-", "COUNT", 1)
        commands = (from_it, from_oldest, newest) if clock else (from_oldest, newest)
        replies = await asyncio.gather(*[store.call(*command, timeout_s=TIMEOUT_S) for command in commands])
        *found, tops = map(_records, replies)
        if clock:
            it = found.pop(0)
            if it and it[0].id == after:
                return _chained(it[1:], after)
        if found[0] and found[0][0].before == after != "":
            return _chained(found[0], after)
        return Page([], recovered=False, last=tops[0].id if tops else "")

    async def follow(self, after: str | None = None) -> AsyncIterator[Page]:
        """See `Feed.follow`."""
        last = after
        newest = ("XREVRANGE", self._name, "+", "-", "COUNT", 1)
        tail = StreamTail(self._client.store, self._name, block_ms=BLOCK_MS, count=RECORDS_A_READ, beside=newest)
        try:
            while True:
                try:
                    last = await self.newest() if last is None else last
                    await tail.open(f"{_clock_of(last) or 0}-0")
                    moved = False
                    while not moved:
                        page = page_after(await tail.next(), tail.answer, last)
                        self.heard_at = asyncio.get_running_loop().time()
                        last = page.last
                        if page.records or not page.recovered:
                            yield page
                        moved = not page.records and not page.recovered
                except ServerError as broken:
                    log.debug("feed: %s", broken)
                    await asyncio.sleep(PAUSE_S)
        finally:
            await tail.close()


def page_after(lines: Sequence[Any], newest: Sequence[Any], last: str) -> Page:
    """Return what came after *last*. Nothing is nothing new, unless the feed is another one, whose clock is behind."""
    if records := _records(lines):
        return _chained(records, last)
    top = _records(newest)
    if lines or len(top) != len(newest):  # somebody else's, which say nothing of ours
        return Page([], recovered=True, last=last)
    if (not top and not last) or (top and last in {top[0].id, top[0].before}):
        return Page([], recovered=True, last=last)
    return Page([], recovered=False, last=top[0].id if top else "")


def _clock_of(identity: str) -> str:
    """Return the number that orders an id within its epoch, '' for what is no id: clients send what they like."""
    clock = identity.rpartition("-")[2]
    return clock if _CLOCK.fullmatch(clock) else ""


def _number(identity: str) -> int:
    return int(_clock_of(identity) or 0)


def _records(lines: Sequence[Any]) -> list[FeedRecord]:
    found = []
    for _, flat in lines:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        message = fields.get(b"record", b"")
        identity = _IDENTITY.match(message)
        if identity is None or not fields.keys() >= {b"before", b"topic"}:
            continue  # no commit wrote it
        before, topic = fields[b"before"].decode(errors="replace"), fields[b"topic"].decode(errors="replace")
        found.append(FeedRecord(identity[1].decode(), before, topic, message))
    return found


def _chained(records: list[FeedRecord], after: str) -> Page:
    """Return *records* as a page: recovered if each names the one before it, the first one *after*."""
    last, recovered = after, True
    for record in records:
        recovered = recovered and record.before == last
        last = record.id
    return Page(records, recovered, last)
