"""A broadcast in the forms that Socket.IO servers and Django Channels read from Redis. Pure.

Source: python-socketio 5.18, `AsyncPubSubManager.emit`; channels_redis 4.3, `RedisPubSubLoopLayer.group_send`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from cachebus.feed import FeedRecord

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
