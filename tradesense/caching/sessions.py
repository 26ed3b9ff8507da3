"""`session_store`: who is logged in, for code without an event loop. The rules are `cachebus.sessions`'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachebus.durations import Duration
from cachebus.session import UserId
from cachebus.syncsessions import SyncSessionStore
from tradesense.caching.shared import primitives


class Sessions(SyncSessionStore):
    """Sessions that end after 30 minutes without use, or after 12 hours. Every call is one round trip and blocks.

    Every method raises SessionsUnavailable when the server is away: an outage logs nobody out.
    """

    def create_session(
        self,
        user_id: UserId,
        data: Mapping[str, Any] | None = None,
        *,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> str:
        """Begin a session and return its id. `ip` and `user_agent` in *data* are also where the user is known to be."""
        given = dict(data or {})
        ip, user_agent = (
            word if isinstance(word, str) else None for word in (given.get("ip"), given.get("user_agent"))
        )
        return self.create(user_id, given, ip=ip, user_agent=user_agent, idle=idle, absolute=absolute)

    get_session = SyncSessionStore.get
    update_session = SyncSessionStore.update
    rotate_session = SyncSessionStore.rotate
    invalidate_session = SyncSessionStore.invalidate
    invalidate_user_sessions = SyncSessionStore.invalidate_user
    list_user_sessions = SyncSessionStore.list_user


session_store = Sessions(primitives)
