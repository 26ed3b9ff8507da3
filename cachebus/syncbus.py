"""Publishing for code without an event loop: Flask, Django, Celery, scripts."""

from __future__ import annotations

from typing import Any

from cachebus.bus import TIMEOUT, Bus
from cachebus.durations import Duration
from cachebus.sync import SyncCache


class SyncBus:
    """A `Bus` for callers without a loop, over the connections of a `SyncCache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache, **options: Any) -> None:
        """*options* are those of `Bus`."""
        self._cache = cache
        self._options = options

    def publish(
        self,
        channel: str,
        event: Any,
        *,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own name
        wait_replicas: int = 0,
        timeout: Duration = TIMEOUT,
    ) -> str:
        """Publish, and wait until it is in the stream; returns the event's id. See `Bus.publish`."""
        return self._cache.run(
            self._publish(channel, event, key=key, id=id, wait_replicas=wait_replicas, timeout=timeout)
        )

    async def _publish(self, channel: str, event: Any, **options: Any) -> str:
        cache = self._cache.cache
        await cache.connected()
        bus = Bus(cache.link, **self._options)  # made anew: a cache that was forked, or moved, has another link
        try:
            return await bus.publish(channel, event, **options)
        finally:
            await bus.close()
