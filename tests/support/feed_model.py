"""A feed without a server: what a commit writes, and the commands that `cachebus.bus.feed.ServerFeed` reads it with."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from cachebus.bus.feed import FeedRecord, Page, ServerFeed, page_after


class FeedModel:
    """The stream, and what may happen to it."""

    def __init__(self) -> None:
        self.now = 1_000
        self.records: list[FeedRecord] = []
        self.store = self
        self.names = SimpleNamespace(feed="feed")
        self.feed = ServerFeed(self)  # type: ignore[arg-type]  # the two things of a Client that a feed asks for
        self.during_read: Callable[[], Awaitable[None]] | None = None
        self._reading = False

    def publish(self, topic: str) -> FeedRecord:
        """Append a record as a commit does."""
        self.now += 3
        newest = self.records[-1] if self.records else None
        epoch = newest.id.partition("-")[0] if newest else str(self.now)
        clock = max(int(newest.id.partition("-")[2]) if newest else 0, self.now - 1) + 1
        body = {"id": f"{epoch}-{clock}", "ts": 1, "fresh_after": str(self.now), "topic": topic, "type": "t", "data": 1}
        message = json.dumps(body, separators=(",", ":")).encode()
        record = FeedRecord(f"{epoch}-{clock}", newest.id if newest else "", topic, message)
        self.records.append(record)
        return record

    def trim(self, keep: int) -> None:
        """Drop the oldest."""
        del self.records[: max(0, len(self.records) - keep)]

    def fail_over(self, lost: int) -> list[FeedRecord]:
        """Lose the newest; return them."""
        gone = self.records[len(self.records) - lost :] if lost else []
        del self.records[len(self.records) - len(gone) :]
        return gone

    async def call(self, *command: Any, **_: Any) -> Any:
        """Answer XRANGE, XREVRANGE, XREAD."""
        match command:
            case ("XRANGE", _, start, _, "COUNT", count):
                least = 0 if start == "-" else int(start.partition("-")[0])
                found = [record for record in self.records if clock_of(record) >= least][:count]
            case ("XREVRANGE", *_):
                found = self.records[-1:]
            case ("XREAD", _, count, _, _, _, _, after):
                found = [record for record in self.records if clock_of(record) > int(after.partition("-")[0])][:count]
                return [[b"feed", lines(found)]] if found else None
        if self.during_read is not None and not self._reading:
            self._reading = True
            await self.during_read()
            self._reading = False
        return lines(found)

    async def step(self, last: str) -> Page:
        """Return what a gateway that stands at *last* hears next."""
        newest = await self.call("XREVRANGE", "feed", "+", "-", "COUNT", 1)  # asked as the read begins
        reply = await self.call(*("XREAD", "COUNT", 1000, "BLOCK", 1000, "STREAMS", "feed"), f"{clock_in(last)}-0")
        return page_after(reply[0][1] if reply else (), newest, last)


def clock_of(record: FeedRecord) -> int:
    """Return the clock of a record's id."""
    return clock_in(record.id)


def clock_in(identity: str) -> int:
    """Return the clock of an id, 0 of none."""
    return int(identity.partition("-")[2] or 0)


def lines(records: list[FeedRecord]) -> list[Any]:
    """Return records as a server sends them."""
    return [
        [b"x", [b"before", record.before.encode(), b"topic", record.topic.encode(), b"record", record.message]]
        for record in records
    ]
