"""Events in a test: what was published, and the handlers, run when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.bus.handlers import Handler
from cachebus.bus.letters import Letter
from cachebus.bus.local import LocalBus
from cachebus.cache.cache import Cache
from cachebus.errors import ConfigurationError


class PublishedEvent(NamedTuple):
    """An event as it was published; `data` is its JSON, decoded."""

    channel: str
    data: Any


class FailedRun(NamedTuple):
    """A handler that failed on an event, and is to run on it again."""

    handler: str
    channel: str
    data: Any


class SentBroadcast(NamedTuple):
    """A broadcast as gateways send it."""

    topic: str
    type: str
    data: Any


class PublishedEvents:
    """The events of a cache without a server. The newest 1,000 of each kind are kept."""

    def __init__(self, cache: Cache, run: Callable[[Coroutine[Any, Any, None]], Any] | None = None) -> None:
        self._cache = cache
        self._run = run

    @property
    def published(self) -> list[PublishedEvent]:
        """Every event published so far, by the application and by its handlers, the oldest first."""
        bus = self._bus()
        return [PublishedEvent(*_decoded(event)) for event in bus.published] if bus is not None else []

    @property
    def delayed(self) -> list[PublishedEvent]:
        """Every event that is to be published later, and was not cancelled, the one that is due first comes first."""
        bus = self._bus()
        waiting = sorted(bus.delayed.values(), key=itemgetter(0)) if bus is not None else []
        return [PublishedEvent(*_decoded((item.channel, item.payload))) for _, item in waiting]

    @property
    def broadcasts(self) -> list[SentBroadcast]:
        """Every broadcast that handlers have sent so far, the oldest first."""
        bus = self._bus()
        messages = [msgspec.json.decode(message) for _, _, message in bus.feed] if bus is not None else []
        return [SentBroadcast(message["topic"], message["type"], message["data"]) for message in messages]

    @property
    def retries(self) -> list[FailedRun]:
        """Handlers that failed on an event, and have attempts left: as long as there is one, not all is done."""
        bus = self._bus()
        items = [item for _, _, item in bus.retries.values()] if bus is not None else []
        return [FailedRun(item.handler, *_decoded((item.channel, item.payload))) for item in items]

    @property
    def dead_letters(self) -> list[Letter]:
        """Events that failed for good, with reason and traceback."""
        bus = self._bus()
        return list(bus.letters.values()) if bus is not None else []

    def handle(self, *handlers: Handler[..., Any]) -> Awaitable[None] | None:
        """Run *handlers* on every event that waits, and on what they publish in turn; their effects are applied here.

        To be awaited; over a `cachebus.sync.Cache` it is done when it returns. An event without a handler among them
        is dropped. A debounced handler runs at once, as if its time were over. What is to be retried or published later
        stays, and is handled by a later call once it is due.
        """
        work = self._handle(handlers)
        return work if self._run is None else self._run(work)

    async def _handle(self, handlers: tuple[Handler[..., Any], ...]) -> None:
        consumer = LocalConsumer(self._cache, handlers)
        running = asyncio.create_task(consumer.run())
        await asyncio.sleep(0)  # it has begun, so that draining waits for its end
        await consumer.drain()
        running.cancel()  # drained, it waits for this; what ended it before is for the test to see
        with contextlib.suppress(asyncio.CancelledError):
            await running

    def _bus(self) -> LocalBus | None:
        try:
            return self._cache.in_process.of(LocalBus)
        except ConfigurationError:  # nothing was published: the cache was not used yet
            return None


def _decoded(event: tuple[str, bytes]) -> tuple[str, Any]:
    channel, payload = event
    return channel, msgspec.json.decode(payload)
