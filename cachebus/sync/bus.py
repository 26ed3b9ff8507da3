"""Publishing for code without an event loop: Flask, Django, Celery, scripts."""

from __future__ import annotations

from typing import Any

from cachebus.bus.publisher import Bus as AsyncBus
from cachebus.sync.forwarders import BusForwarders
from cachebus.sync.part import SyncCache, asynchronous


class Bus(BusForwarders):
    """A `cachebus.Bus` for callers without a loop, over a `Cache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache, **options: Any) -> None:
        """*options* are those of `cachebus.Bus`."""
        super().__init__(cache, AsyncBus(asynchronous(cache, "Bus"), **options))
