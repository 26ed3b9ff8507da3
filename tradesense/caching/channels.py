"""`pubsub`: messages to whoever listens at the moment, for threads and event loops alike.

What must not be lost is an event (`cachebus.bus`); a message is for those who are there.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from cachebus import ConfigurationError
from cachebus.pubsub import Message
from cachebus.syncpubsub import SyncListener, SyncPubSub
from tradesense.caching.shared import primitives


class Channels:
    """Publish and subscribe."""

    def __init__(self) -> None:
        self._pubsub = SyncPubSub(primitives)

    def publish(self, channel: str, message: Any) -> int:
        """Send *message* to whoever listens now, and return how many connections that is. One round trip.

        Raises: ServerError when the server is away; TypeError for what is not plain data.
        """
        return self._pubsub.publish(channel, message)

    def subscribe(self, channel: str, handler: Callable[[Any], object]) -> SyncListener:
        """Call *handler* with each message's data from now on; *channel* may be a pattern (`trade:*`).

        A plain handler runs in a thread of its own, an async one in the loop that this is called from, one message
        after the other. What it raises is logged. Subscribed again by itself after an outage; `gaps` and `dropped` of
        what is returned count where messages are missing. It ends with `unsubscribe()`.
        Raises: ServerError when the server does not confirm; ConfigurationError for an async handler without a loop.
        """
        return self._pubsub.subscribe(channel, _called_with_data(handler))


def _called_with_data(handler: Callable[[Any], object]) -> Callable[[Message], object]:
    if not inspect.iscoroutinefunction(handler):
        return lambda message: handler(message.data)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError("subscribe: an async handler needs the event loop it shall run in") from None
    return lambda message: asyncio.run_coroutine_threadsafe(handler(message.data), loop).result()


pubsub = Channels()
