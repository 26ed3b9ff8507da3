"""`pubsub`: messages to whoever listens at the moment, for code without an event loop.

What must not be lost is an event (`cachebus.bus`); a message is for those who are there.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import re
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus import ConfigurationError, Link
from cachebus.subscriptions import Subscription
from cachebus.syncpart import SyncPart, needed
from tradesense.caching.shared import primitives

log = logging.getLogger("tradesense.caching")

MOST_WAITING = 1000
"""Messages kept for a handler that is slower than they come; the oldest go first, and are counted."""
_PATTERN = re.compile(r"[*?\[]")


class Channels:
    """Publish and subscribe. Messages are plain data, JSON on the way, so other programs can take part."""

    def __init__(self) -> None:
        self._part = SyncPart(primitives, needed)

    def publish(self, channel: str, message: Any) -> int:
        """Send *message* to whoever listens now, and return how many connections that is. One round trip.

        Raises: ServerError when the server is away; TypeError for what is not plain data.
        """
        data = message if isinstance(message, str | bytes) else msgspec.json.encode(message)
        return int(self._part.run(lambda link: link.store.call("PUBLISH", channel, data, key=channel)))

    def subscribe(self, channel: str, handler: Callable[[Any], object]) -> Listening:
        """Call *handler* with each message from now on, one after the other; *channel* may be a pattern (`trade:*`).

        A plain handler runs in a thread of its own, an async one in the loop that this is called from. What it raises
        is logged. Subscribed again by itself after an outage; what was published meanwhile is missed.
        Raises: ServerError when the server does not confirm; ConfigurationError for an async handler without a loop.
        """
        listening = Listening(self._part, channel, handler)
        listening.begin()
        return listening


class Listening:
    """A subscription, until `unsubscribe()`. `dropped` counts messages that a slow handler missed."""

    def __init__(self, part: SyncPart[Link], channel: str, handler: Callable[[Any], object]) -> None:
        self.channel = channel
        self.dropped = 0
        self._part = part
        self._handler = handler
        self._loop = _loop_of(handler)
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._subscription: Subscription | None = None

    def begin(self) -> None:
        """Subscribe, and start the thread that calls the handler."""
        is_pattern = _PATTERN.search(self.channel) is not None
        self._subscription = self._part.run(
            lambda link: link.subscriptions.subscribe(self.channel, self._heard, pattern=is_pattern)
        )
        threading.Thread(target=self._work, name=f"subscriber of {self.channel}", daemon=True).start()

    def unsubscribe(self) -> None:
        """Hear nothing more; what waits is still handled. Idempotent."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._part.run(lambda _: subscription.cancel())
            self._put(None)

    def _heard(self, _channel: str, payload: bytes) -> None:
        self._put(payload)

    def _put(self, payload: bytes | None) -> None:
        while True:
            try:
                return self._waiting.put_nowait(payload)
            except queue.Full:
                self._waiting.get_nowait()
                self.dropped += 1

    def _work(self) -> None:
        while (payload := self._waiting.get()) is not None:
            try:
                message = _decoded(payload)
                if self._loop is None:
                    self._handler(message)
                else:
                    asyncio.run_coroutine_threadsafe(self._handler(message), self._loop).result()  # type: ignore[arg-type] # it is a coroutine function
            except Exception:
                log.exception("a subscriber of %s failed", self.channel)


def _loop_of(handler: Callable[[Any], object]) -> asyncio.AbstractEventLoop | None:
    if not inspect.iscoroutinefunction(handler):
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError("subscribe: an async handler needs the event loop it shall run in") from None


def _decoded(payload: bytes) -> Any:
    """Return the message: JSON where it is that, otherwise text, otherwise bytes."""
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload


pubsub = Channels()
