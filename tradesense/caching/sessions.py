"""`session_store`: who is logged in, for code without an event loop. The rules are `cachebus.sessions`'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cachebus.durations import Duration
from cachebus.session import Session, UserId
from cachebus.sessions import SessionStore
from tradesense.caching.shared import PerLink, run

_store = PerLink(SessionStore)


class Sessions:
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
        return run(self._create(user_id, dict(data or {}), idle, absolute))

    @staticmethod
    async def _create(user_id: UserId, data: dict[str, Any], idle: Duration | None, absolute: Duration | None) -> str:
        place = {name: data[name] for name in ("ip", "user_agent") if isinstance(data.get(name), str)}
        return await (await _store.get()).create(user_id, data, idle=idle, absolute=absolute, **place)

    def get_session(
        self, session_id: str | None, *, ip: str | None = None, user_agent: str | None = None
    ) -> Session | None:
        """Return the session, or None: unknown, ended, expired. Notes the activity, once a minute."""

        async def get() -> Session | None:
            return await (await _store.get()).get(session_id, ip=ip, user_agent=user_agent)

        return run(get())

    def update_session(
        self, session_id: str | None, changes: Mapping[str, Any] | None = None, *, remove: Iterable[str] = ()
    ) -> Session | None:
        """Set and remove fields, and return the session; None, and none is made, where there is none."""

        async def update() -> Session | None:
            return await (await _store.get()).update(session_id, changes, remove=remove)

        return run(update())

    def rotate_session(self, session_id: str | None, *, overlap: Duration | None = "10s") -> str | None:
        """Give the session a new id, as a login needs; None where there is nothing to tell the client."""

        async def rotate() -> str | None:
            return await (await _store.get()).rotate(session_id, overlap=overlap)

        return run(rotate())

    def invalidate_session(self, session_id: str | None) -> bool:
        """End the session (logout). Returns whether there was one."""

        async def invalidate() -> bool:
            return await (await _store.get()).invalidate(session_id)

        return run(invalidate())

    def invalidate_user_sessions(self, user_id: UserId, *, except_: str | None = None) -> int:
        """End all sessions of a user, but perhaps that of the id *except_*; returns how many."""

        async def invalidate() -> int:
            return await (await _store.get()).invalidate_user(user_id, except_=except_)

        return run(invalidate())

    def list_user_sessions(self, user_id: UserId) -> list[Session]:
        """Return the live sessions of a user, the most recently used first."""

        async def found() -> list[Session]:
            return await (await _store.get()).list_user(user_id)

        return run(found())


session_store = Sessions()
