"""Pub/sub for code without an event loop: handlers run in a thread of their own, or iterate with `for`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cachebus.errors import ConfigurationError, Unavailable
from cachebus.pubsub.pubsub import LIMIT, Gap, Message, OnGap, Overflow, SubscriberTooSlow
from cachebus.pubsub.pubsub import Listener as AsyncListener
from cachebus.pubsub.pubsub import PubSub as AsyncPubSub
from cachebus.sync.forwarders import PubSubForwarders
from cachebus.sync.part import SyncCache, asynchronous

log = logging.getLogger("cachebus")


class PubSub(PubSubForwarders):
    """A `cachebus.PubSub` for callers without a loop, over a `Cache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache) -> None:
        super().__init__(cache, AsyncPubSub(asynchronous(cache, "PubSub")))

    def listen(self, channel: str, *, limit: int = LIMIT, overflow: Overflow = "drop_oldest") -> Listener:
        """Return a subscription to be entered with `with` and iterated with `for`. See `PubSub.listen`."""
        return Listener(self, channel, limit, overflow)

    def subscribe(
        self,
        channel: str,
        handler: Callable[[Message], object],
        *,
        on_gap: OnGap | None = None,
        limit: int = LIMIT,
        overflow: Overflow = "drop_oldest",
    ) -> Listener:
        """Call *handler* with each message from now on, in a thread of its own, until `unsubscribe()`.

        What it raises is logged. Returns when the server has confirmed. Raises: Unavailable when it does not.
        """
        given: object = handler
        if not callable(given) or inspect.iscoroutinefunction(given):
            raise ConfigurationError(f"subscribe {channel!r}: handler {handler!r} is no plain function")
        listener = self.listen(channel, limit=limit, overflow=overflow)
        listener.start()
        work = (listener, handler, on_gap)
        threading.Thread(target=_call_with, args=work, name=f"cachebus subscriber of {channel}", daemon=True).start()
        return listener


class Listener:
    """One subscription. Iterating waits for the next `Message` or `Gap`, and ends when it is unsubscribed.

    So it does when the cache is closed.
    """

    def __init__(self, pubsub: PubSub, channel: str, limit: int, overflow: Overflow) -> None:
        self.channel = channel
        self._pubsub = pubsub
        self._options: dict[str, Any] = {"limit": limit, "overflow": overflow}
        self._listener: AsyncListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """In which it was begun: it ends with it."""

    @property
    def dropped(self) -> int:
        """Messages missed because they came faster than they were handled."""
        return self._listener.dropped if self._listener is not None else 0

    @property
    def gaps(self) -> int:
        """Times the connection was lost and made again."""
        return self._listener.gaps if self._listener is not None else 0

    def start(self) -> None:
        """Subscribe; returns when the server has confirmed. Raises: Unavailable."""
        self._listener = self._pubsub.run(self._begin())

    def unsubscribe(self) -> None:
        """End the subscription; what waits can still be iterated. Idempotent."""
        if self._listener is not None:
            with contextlib.suppress(Unavailable):  # the cache is closed
                self._pubsub.wait_in(self._loop, self._listener.unsubscribe())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self.unsubscribe()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message | Gap:
        try:
            item = self._pubsub.wait_in(self._loop, self._next())
        except Unavailable:  # the cache is closed
            item = None
        if item is None:
            raise StopIteration
        return item

    async def _begin(self) -> AsyncListener:
        self._loop = asyncio.get_running_loop()
        listener = self._pubsub.part.listen(self.channel, **self._options)
        await listener.start()
        return listener

    async def _next(self) -> Message | Gap | None:
        return await anext(self._listener, None) if self._listener is not None else None


def _call_with(listener: Listener, handler: Callable[[Message], object], on_gap: OnGap | None) -> None:
    try:
        for item in listener:
            try:
                if isinstance(item, Message):
                    handler(item)
                elif on_gap is not None:
                    on_gap(item)
            except Exception:
                log.exception("a subscriber of %s failed", listener.channel)
    except SubscriberTooSlow as slow:
        log.error("%s; unsubscribed", slow)  # noqa: TRY400 - its policy, not a bug here
