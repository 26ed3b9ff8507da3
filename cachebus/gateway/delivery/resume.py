"""Where a client was, looked for in the feed when memory does not reach back so far, or the client is ahead of us."""

from __future__ import annotations

import asyncio
from typing import Protocol

from cachebus.bus.feed import Page
from cachebus.errors import ServerError
from cachebus.gateway.delivery.hub import Follower, Hub, Standing
from cachebus.gateway.protocol import EncodedMessage, Position, message_of


class Reads(Protocol):
    """What recovery asks of `cachebus.bus.feed.Feed`."""

    async def read(self, after: str) -> Page:
        """Return what came after an id."""
        ...


class Recovery:
    """Attaches clients. What one client had to be looked up for is in memory for the next: a thousand that come back
    at once after a restart cost one walk through the feed, not a thousand.
    """

    def __init__(self, hub: Hub, feed: Reads) -> None:
        self._hub = hub
        self._feed = feed
        self._one = asyncio.Lock()

    async def attach(self, client: Follower, topics: list[str], after: str | None) -> None:
        """Let *client* in where it was, or say `recovered: false`. Asks Redis only where memory does not know."""
        ahead = False
        if after is not None and self._hub.standing(after) is Standing.ELSEWHERE:
            async with self._one:
                if self._hub.standing(after) is Standing.ELSEWHERE:
                    ahead = await self._look_for(after)
        # From the last reply to here nothing has waited, so what was found still holds.
        self._hub.attach(client, topics, after, ahead=ahead)

    async def _look_for(self, after: str) -> bool:
        """Fill the window back to *after*; True: it is in the feed, and newer than anything in the window."""
        found: list[EncodedMessage] = []
        last = after
        while True:
            try:
                page = await self._feed.read(last)
            except ServerError:
                return False
            window, asked = self._hub.window, Position.of(after)
            newest = Position.of(window.newest)
            if not page.recovered or asked is None or newest is None or asked.epoch != newest.epoch:
                return False
            if asked.clock > newest.clock:
                return True
            messages = _up_to(window.base, page)
            found += messages
            if messages and messages[-1].id == window.base:
                window.prepend(after, found)
            if len(messages) < len(page.records) or not page.records or window.base == after:
                return False
            last = page.last


def _up_to(base: str, page: Page) -> list[EncodedMessage]:
    """Return the messages of a page, but none after the one that the window begins after."""
    messages: list[EncodedMessage] = []
    for record in page.records:
        message = message_of(record)
        if message is None:
            break
        messages.append(message)
        if message.id == base:
            break
    return messages
