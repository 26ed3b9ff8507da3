"""Who watches the feed and the ledger of a fleet from outside: what is broadcast must be invalidated."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec

from cachebus.errors import ServerError
from cachebus.freshness.clock import parse_clock
from cachebus.freshness.scopes import tag_scope
from cachebus.redis.client import Client
from tests.support.fleet.checker import Event, Seen
from tests.support.fleet.shape import Changed, mark

LOOK_S = 0.01
RECORDS_A_LOOK = 500
ERA = -1
"""The score that the ledger gives the name of its era."""


class Message(msgspec.Struct):
    """A record of the feed."""

    id: str
    fresh_after: str
    data: Changed


class Unchecked(NamedTuple):
    """A broadcast whose invalidations have not been looked at yet."""

    event: Event
    clock: str


class Witness:
    """Follows the feed, and asks the ledger about each event in it.

    A ledger that lacks one is right where another era has begun since: everything from before is invalid then.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.feed: list[Seen] = []
        self.wrong: list[str] = []
        self.in_era = 0
        """Events whose scopes were found in the ledger."""
        self.eras: set[str] = set()
        self._after = "-"
        self._last = ""
        self._unchecked: list[Unchecked] = []

    async def run(self) -> None:
        """Look until cancelled; outages are waited out."""
        while True:
            try:
                await self.look()
            except ServerError:
                await asyncio.sleep(LOOK_S)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once. Raises: ServerError."""
        call, names = self._client.store.call, self._client.names
        lines = await call("XRANGE", names.feed, self._after, "+", "COUNT", RECORDS_A_LOOK)
        at = time.monotonic()
        for position, flat in lines:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            message = msgspec.json.decode(fields[b"record"], type=Message)
            if (before := fields[b"before"].decode()) != self._last:
                self.wrong.append(f"broadcast {message.id} names {before!r} before it, which is {self._last!r}")
            event = (message.data.key, message.data.n)
            self._after, self._last = f"({position.decode()}", message.id
            self.feed.append(Seen(event, at))
            self._unchecked.append(Unchecked(event, message.fresh_after))
        await self._ask_ledger()

    async def _ask_ledger(self) -> None:
        """Look for what was seen. The era is asked last: where it is the event's own, it was while scopes were read."""
        if not (asked := self._unchecked[:RECORDS_A_LOOK]):
            return
        call, ledger = self._client.store.call, self._client.names.ledger
        scores = await call("ZMSCORE", ledger, *[tag_scope(mark(*event)) for event, _ in asked])
        (named,) = await call("ZRANGEBYSCORE", ledger, ERA, ERA) or (b"",)
        era = named.decode().removeprefix("@era:")
        del self._unchecked[: len(asked)]
        self.eras.add(era)
        for (event, clock), score in zip(asked, scores, strict=True):
            committed = parse_clock(clock)
            assert committed is not None
            if committed.era != era:
                continue
            self.in_era += 1
            if score is None or int(float(score)) != committed.number:
                self.wrong.append(f"{event} is broadcast with {clock}, and the ledger says {score!r} of its tag")
