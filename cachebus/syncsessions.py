"""Sessions for code without an event loop: Flask, Django, `def` endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cachebus.durations import Duration
from cachebus.session import Session, UserId
from cachebus.sessions import SessionStore
from cachebus.sync import SyncCache
from cachebus.syncpart import SyncPart, needed


class SyncSessionStore:
    """A `SessionStore` for callers without a loop, over the connections of a `SyncCache`. Thread-safe; fork-safe.

    Raises in a process without Redis: ConfigurationError, at the first use.
    """

    def __init__(self, cache: SyncCache, **options: Any) -> None:
        """*options* are those of `SessionStore`."""
        self._part = SyncPart(cache, lambda link: SessionStore(needed(link), **options))

    def create(
        self,
        user_id: UserId,
        data: Mapping[str, Any] | None = None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> str:
        """Begin a session and return its id. See `SessionStore.create`."""
        return self._part.run(
            lambda store: store.create(user_id, data, ip=ip, user_agent=user_agent, idle=idle, absolute=absolute)
        )

    def get(self, session_id: str | None, *, ip: str | None = None, user_agent: str | None = None) -> Session | None:
        """Return the session of this id, or None. See `SessionStore.get`."""
        return self._part.run(lambda store: store.get(session_id, ip=ip, user_agent=user_agent))

    def update(
        self,
        session_id: str | None,
        changes: Mapping[str, Any] | None = None,
        *,
        remove: Iterable[str] = (),
        version: int | None = None,
    ) -> Session | None:
        """Set and take away fields. See `SessionStore.update`."""
        return self._part.run(lambda store: store.update(session_id, changes, remove=remove, version=version))

    def rotate(self, session_id: str | None, *, overlap: Duration | None = "10s") -> str | None:
        """Give the session a new id and return it. See `SessionStore.rotate`."""
        return self._part.run(lambda store: store.rotate(session_id, overlap=overlap))

    def invalidate(self, session_id: str | None) -> bool:
        """End the session. See `SessionStore.invalidate`."""
        return self._part.run(lambda store: store.invalidate(session_id))

    def revoke(self, user_id: UserId, ref: str) -> bool:
        """End the session that a list shows as *ref*. See `SessionStore.revoke`."""
        return self._part.run(lambda store: store.revoke(user_id, ref))

    def invalidate_user(self, user_id: UserId, *, except_: str | None = None) -> int:
        """End all sessions of a user. See `SessionStore.invalidate_user`."""
        return self._part.run(lambda store: store.invalidate_user(user_id, except_=except_))

    def invalidate_everyone(self) -> int:
        """End every session of every user. See `SessionStore.invalidate_everyone`."""
        return self._part.run(lambda store: store.invalidate_everyone())

    def list_user(self, user_id: UserId) -> list[Session]:
        """Return the live sessions of a user. See `SessionStore.list_user`."""
        return self._part.run(lambda store: store.list_user(user_id))
