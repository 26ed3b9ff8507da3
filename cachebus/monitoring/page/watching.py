"""The live tail: one reader for all who watch, none while nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from cachebus.errors import ServerError
from cachebus.monitoring.timeline import Happening, Timeline
from cachebus.redis.client import Client

log = logging.getLogger("cachebus")

LOOK_S = 0.4
KEPT = 80
"""Happenings a new viewer is shown at once."""
QUEUED = 200
"""A viewer this far behind gets a notice that something is missing."""
SIGN_S = 15.0
"""A connection on which nothing happens carries a sign of life: proxies close silent ones."""

LONGEST_S = 300.0
"""The browser then connects again, and is asked again who it is: an ended session sees no more."""

SocketsOf = Callable[[str], int]
"""How many sockets follow a topic here."""


class Watching:
    """Looks while there are viewers, and queues all for each. A slow one loses its oldest and gets a notice."""

    def __init__(self, client: Client, *, shards: int, sockets_of: SocketsOf | None) -> None:
        self._client = client
        self._shards = shards
        self._sockets_of = sockets_of
        self._viewers: dict[object, deque[bytes]] = {}
        self._news = asyncio.Condition()
        self._recent: deque[bytes] = deque(maxlen=KEPT)
        self._task: asyncio.Task[None] | None = None

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield server-sent events until the viewer leaves."""
        queue: deque[bytes] = deque(self._recent, maxlen=QUEUED)
        me = object()
        self._viewers[me] = queue
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="live page tail")
        try:
            yield b"retry: 2000\n\n"
            ends = time.monotonic() + LONGEST_S
            while time.monotonic() < ends:
                while queue:
                    yield queue.popleft()
                if not await self._wait():
                    yield b": still here\n\n"
        finally:
            del self._viewers[me]

    async def _wait(self) -> bool:
        try:
            async with asyncio.timeout(SIGN_S), self._news:
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self) -> None:
        timeline = Timeline(self._client, shards=self._shards)
        try:
            while self._viewers:
                try:
                    found = await timeline.look()
                except ServerError as away:
                    log.debug("live page: %s", away)
                    found = []
                if found:
                    await self._tell(found)
                await asyncio.sleep(LOOK_S)
        finally:
            self._task = None
            self._recent.clear()  # whoever comes next gets the last few from Redis

    async def _tell(self, found: list[Happening]) -> None:
        lines = [b"data: " + self._encoded(happening) + b"\n\n" for happening in found]
        self._recent += lines
        for queue in self._viewers.values():
            if len(queue) + len(lines) > QUEUED:
                queue.clear()
                queue.append(b"event: gap\ndata: {}\n\n")
            queue.extend(lines)
        async with self._news:
            self._news.notify_all()

    def _encoded(self, happening: Happening) -> bytes:
        plain = msgspec.to_builtins(happening)
        if self._sockets_of is not None:
            plain["sockets"] = sum(self._sockets_of(told.topic) for told in happening.told)
        return msgspec.json.encode(plain)
