"""Sessions for code without an event loop: Flask, Django, `def` endpoints."""

from __future__ import annotations

from typing import Any

from cachebus.sessions.store import SessionStore as AsyncSessionStore
from cachebus.sync.forwarders import SessionStoreForwarders
from cachebus.sync.part import SyncCache, asynchronous


class SessionStore(SessionStoreForwarders):
    """A `cachebus.SessionStore` for callers without a loop, over a `Cache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache, **options: Any) -> None:
        """*options* are those of `cachebus.SessionStore`."""
        super().__init__(cache, AsyncSessionStore(asynchronous(cache, "SessionStore"), **options))
