"""What carries messages: the channels of a server, or those of one process."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Protocol

from cachebus.redis.client import Client
from cachebus.redis.subscriptions import Subscription

_PATTERN = re.compile(r"[*?\[]")

Heard = Callable[[str, bytes], None]
"""Called with channel and payload of each message."""


class Channels(Protocol):
    """What `PubSub` asks of them."""

    async def publish(self, channel: str, payload: bytes) -> int:
        """Return how many received it."""
        ...

    async def subscribe(self, channel: str, heard: Heard, on_reconnect: Callable[[], None]) -> Callable[[], None]:
        """Call *heard* with what is published from now on; return what ends that."""
        ...


class ServerChannels:
    """Channels of the server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, channel: str, payload: bytes) -> int:
        """See `Channels.publish`. One round trip."""
        return int(await self._client.store.call("PUBLISH", channel, payload, key=self._client.names.wake))

    async def subscribe(self, channel: str, heard: Heard, on_reconnect: Callable[[], None]) -> Callable[[], None]:
        """See `Channels.subscribe`; returns when the server has confirmed."""
        subscriptions = self._client.subscriptions
        subscription: Subscription = await subscriptions.subscribe(
            channel, heard, pattern=_is_pattern(channel), on_reconnect=on_reconnect
        )
        return lambda: subscriptions.drop(subscription)


class LocalChannels:
    """Channels of one process, shared by every `PubSub` of its cache."""

    def __init__(self) -> None:
        self._hearing: list[tuple[str, Heard]] = []

    async def publish(self, channel: str, payload: bytes) -> int:
        """See `Channels.publish`."""
        hearing = [heard for name, heard in self._hearing if _matches(name, channel)]
        for heard in hearing:
            heard(channel, payload)
        return len(hearing)

    async def subscribe(self, channel: str, heard: Heard, _on_reconnect: Callable[[], None]) -> Callable[[], None]:
        """See `Channels.subscribe`."""
        pair = (channel, heard)
        self._hearing.append(pair)
        return lambda: self._hearing.remove(pair)


def _is_pattern(channel: str) -> bool:
    return _PATTERN.search(channel) is not None


def _matches(name: str, channel: str) -> bool:
    return fnmatchcase(channel, name) if _is_pattern(name) else channel == name
