"""Pub/sub for code without an event loop: handlers run in a thread of their own, or iterate with `for`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cachebus.pubsub import LIMIT, Gap, Listener, Message, OnGap, Overflow, PubSub, SubscriberTooSlow
from cachebus.sync import SyncCache
from cachebus.syncpart import SyncPart

log = logging.getLogger("cachebus")


class SyncPubSub:
    """`PubSub` for callers without a loop, over the connections of a `SyncCache`. Thread-safe."""

    def __init__(self, cache: SyncCache) -> None:
        self._part = SyncPart(cache, PubSub)

    def publish(self, channel: str, message: Any) -> int:
        """Send *message* to whoever listens now. See `PubSub.publish`."""
        return self._part.run(lambda pubsub: pubsub.publish(channel, message))

    def listen(self, channel: str, *, limit: int = LIMIT, overflow: Overflow = "drop_oldest") -> SyncListener:
        """Return a subscription to be entered with `with` and iterated with `for`. See `PubSub.listen`."""
        return SyncListener(self._part, channel, limit, overflow)

    def subscribe(
        self,
        channel: str,
        handler: Callable[[Message], object],
        *,
        on_gap: OnGap | None = None,
        limit: int = LIMIT,
        overflow: Overflow = "drop_oldest",
    ) -> SyncListener:
        """Call *handler* with each message from now on, in a thread of its own, until `unsubscribe()`.

        What it raises is logged. Returns when the server has confirmed. Raises: Unavailable when it does not.
        """
        listener = self.listen(channel, limit=limit, overflow=overflow)
        listener.start()
        work = (listener, handler, on_gap)
        threading.Thread(target=_hand, args=work, name=f"cachebus subscriber of {channel}", daemon=True).start()
        return listener


class SyncListener:
    """One subscription. Iterating waits for the next `Message` or `Gap`, and ends when it is unsubscribed."""

    def __init__(self, part: SyncPart[PubSub], channel: str, limit: int, overflow: Overflow) -> None:
        self.channel = channel
        self._part = part
        self._options: dict[str, Any] = {"limit": limit, "overflow": overflow}
        self._listener: Listener | None = None

    @property
    def dropped(self) -> int:
        """Messages missed because they came faster than they were taken."""
        return self._listener.dropped if self._listener is not None else 0

    @property
    def gaps(self) -> int:
        """Times the connection was made anew."""
        return self._listener.gaps if self._listener is not None else 0

    def start(self) -> None:
        """Subscribe; returns when the server has confirmed. Raises: Unavailable."""
        self._listener = self._part.run(self._begin)

    def unsubscribe(self) -> None:
        """Hear nothing more; what waits is still handed out. Idempotent."""
        listener = self._listener
        if listener is not None:
            self._part.run(lambda _: listener.unsubscribe())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self.unsubscribe()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message | Gap:
        item = self._part.wait(self._next)
        if item is None:
            raise StopIteration
        return item

    async def _begin(self, pubsub: PubSub) -> Listener:
        listener = pubsub.listen(self.channel, **self._options)
        await listener.start()
        return listener

    async def _next(self, _pubsub: PubSub) -> Message | Gap | None:
        return await anext(self._listener, None) if self._listener is not None else None


def _hand(listener: SyncListener, handler: Callable[[Message], object], on_gap: OnGap | None) -> None:
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
