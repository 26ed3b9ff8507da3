"""The bus's settings, read from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, get_args

from cachebus.bus.signatures import Policy, Signatures
from cachebus.environment import duration_ms, text, variable, whole, words
from cachebus.errors import ConfigurationError


def _channels(name: str, text: str) -> tuple[tuple[str, Policy], ...]:
    """Read `pattern=policy` separated by commas."""
    pairs = [pair.rpartition("=") for pair in words(name, text)]
    for pattern, _, policy in pairs:
        if not pattern or policy not in get_args(Policy):
            raise ConfigurationError(f"{name}: write it like orders:*=require, with off, warn or require")
    return tuple((pattern, cast("Policy", policy)) for pattern, _, policy in pairs)


RETENTION = "1h"
"""How long handled events stay in the stream, for people to look at."""
HANDLER_LIMIT = "60s"
"""Longer than any handler that computes, shorter than anybody's patience."""


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How events are signed, spread and kept, and who else gets the broadcasts."""

    shards: int = variable(
        "BUS_SHARDS", "1", whole(1, 64), "Streams that events are spread over by their key; order holds within each"
    )
    retention_ms: int = variable(
        "BUS_RETENTION",
        RETENTION,
        duration_ms("1s", "30d"),
        "How long handled events stay readable; unhandled ones stay",
    )
    handler_limit_ms: int = variable(
        "BUS_HANDLER_LIMIT",
        HANDLER_LIMIT,
        duration_ms("1s", "1h"),
        "A handler that blocks the event loop longer ends its worker with exit code 70",
    )
    signing_keys: tuple[str, ...] | None = variable(
        "BUS_SIGNING_KEYS", "", words, "whsec_… keys, comma-separated; the first signs, all are accepted", secret=True
    )
    signed_channels: tuple[tuple[str, Policy], ...] | None = variable(
        "BUS_SIGNED_CHANNELS", "", _channels, "Channels whose events must be signed, such as orders:*=require"
    )
    socketio_channel: str | None = variable(
        "SOCKETIO_CHANNEL", "", text, "Broadcasts also for Socket.IO's Redis managers, on this channel: socketio"
    )
    channels_prefix: str | None = variable(
        "CHANNELS_PREFIX", "", text, "Broadcasts also for Django Channels' pub/sub layer, with this prefix: asgi"
    )

    def signatures(self) -> Signatures | None:
        """Return how events are signed and checked, None where they are not. Raises: ConfigurationError."""
        if not self.signed_channels:
            return None
        return Signatures(self.signing_keys or (), dict(self.signed_channels))

    def problems(self) -> Iterator[str]:
        """Yield what these values cannot be together."""
        try:
            self.signatures()
        except ConfigurationError as problem:
            yield f"BUS_SIGNING_KEYS, BUS_SIGNED_CHANNELS: {problem}"
