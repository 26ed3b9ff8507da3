"""The feed in the forms that Socket.IO servers and Django Channels read from Redis: each broadcast at least once.

One worker at a time publishes, under a lock.
Source: python-socketio 5.18, `AsyncPubSubManager.emit`; channels_redis 4.3, `RedisPubSubLoopLayer.group_send`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from cachebus.bus.engine.draining import Drainable
from cachebus.bus.feed import Feed, FeedRecord, Page
from cachebus.errors import LockError, ServerError
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client

log = logging.getLogger("cachebus")

LEASE = "5s"
"""Another worker follows a dead one after this long."""
PAUSE_S = 1.0
KEPT_MS = 8 * 86_400_000
"""How long the position in the feed outlives the last worker that followed it."""
RENEWED_S = 86_400.0
"""A feed that is silent for days must not end it: without a position the feed is followed from its newest record on."""

Form = Callable[[FeedRecord], tuple[str, bytes]]
"""What to PUBLISH for a broadcast: channel and payload."""

_NOT_IN_A_GROUP = re.compile(r"[^A-Za-z0-9_.-]")
LONGEST_GROUP = 99


def socketio(channel: str = "socketio", namespace: str = "/") -> Form:
    """Return the form that Redis managers of Socket.IO deliver to the room named like the topic.

    The event is the broadcast's type, its argument the whole broadcast.
    """

    def form(record: FeedRecord) -> tuple[str, bytes]:
        broadcast = msgspec.json.decode(record.message)
        message = {
            "method": "emit",
            "event": broadcast["type"],
            "data": [broadcast],
            "binary": False,
            "namespace": namespace,
            "room": record.topic,
            "skip_sid": None,
            "callback": None,
            "host_id": "cachebus",
        }
        return channel, msgspec.json.encode(message)

    return form


def channels(prefix: str = "asgi") -> Form:
    """Return the form that `RedisPubSubChannelLayer` delivers to the group of the topic (`channels_group`).

    Consumers get `{"type": "cachebus.broadcast", "broadcast": {…}}`, so they have a method `cachebus_broadcast`.
    """

    def form(record: FeedRecord) -> tuple[str, bytes]:
        message = {"type": "cachebus.broadcast", "broadcast": msgspec.json.decode(record.message)}
        return f"{prefix}__group__{channels_group(record.topic)}", msgspec.msgpack.encode(message)

    return form


def channels_group(topic: str) -> str:
    """Return the group of a topic: what group names do not allow becomes '_' (`user:7` is `user_7`)."""
    return _NOT_IN_A_GROUP.sub("_", topic)[:LONGEST_GROUP]


class Rebroadcast(Drainable):
    """Publishes each record of the feed in every one of *forms*. `run` in a task of its own, in every worker.

    One of them works, under a lock; the position in the feed is kept in Redis, so the next one resumes there. What was
    published just before a crash is published again; one that drains leaves nothing to be repeated.
    """

    def __init__(self, client: Client, forms: Sequence[Form], *, lease: str = LEASE) -> None:
        super().__init__()
        self._client = client
        self._forms = forms
        self._lease = lease
        self._locks = Locks(client)
        self._position = client.names.bus("rebroadcast")
        self._page = asyncio.Lock()
        """Held from a page's first broadcast until its position is stored."""
        self.published = 0
        """Broadcasts that this worker has published again."""

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Take turns with other workers; outages are waited out. Drained, finish the page under way."""
        publishing = asyncio.create_task(self._take_turns())
        try:
            await asyncio.wait((publishing, stop), return_when=asyncio.FIRST_COMPLETED)
            async with self._page:
                publishing.cancel()
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        if not publishing.cancelled():
            publishing.result()

    async def _close(self) -> None:
        await self._locks.close()

    async def _take_turns(self) -> None:
        while True:
            try:
                async with self._locks.lock("rebroadcast", self._lease):
                    await self._follow()
            except (LockError, ServerError) as unavailable:
                log.debug("rebroadcast: %s", unavailable)
                await asyncio.sleep(PAUSE_S)

    async def _follow(self) -> None:
        call, feed = self._client.store.call, Feed(self._client)
        position = await call("GET", self._position)
        last = position.decode() if position is not None else await feed.newest()
        await call("SET", self._position, last, "PX", KEPT_MS)
        keeping = asyncio.create_task(self._keep_position())
        try:
            async for page in feed.follow(last):
                async with self._page:
                    await self._publish(page)
        finally:
            keeping.cancel()

    async def _publish(self, page: Page) -> None:
        call = self._client.store.call
        if not page.recovered:
            log.warning("rebroadcast: the feed was trimmed beyond the stored position; broadcasts are missing")
        for record in page.records:
            await asyncio.gather(*[call("PUBLISH", *form(record)) for form in self._forms])
            self.published += 1
        await call("SET", self._position, page.last, "PX", KEPT_MS)

    async def _keep_position(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_S)
            with suppress(ServerError):  # there are seven more days to do it
                await self._client.store.call("PEXPIRE", self._position, KEPT_MS)
