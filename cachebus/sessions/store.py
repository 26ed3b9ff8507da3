"""Who is logged in: sessions on the server's time, with ids that no copy of the store reveals.

All sessions of a user are two keys of one slot, and every id leads there (`session.py`). So each operation is one
script and one round trip; a cluster spreads users, never parts of a user; and ending all sessions of a user is one
deletion. Neither key outlives the user's longest session, and what ends before it is removed with the next write.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import (
    ConfigurationError,
    ServerError,
    SessionConflict,
    SessionsUnavailable,
    TooManySessions,
)
from cachebus.redis.client import Connector
from cachebus.redis.part import Part
from cachebus.sessions.backend import FoundSession, NewSession, SessionBackend, SessionChange, WhenFull
from cachebus.sessions.local_backend import LocalSessions
from cachebus.sessions.server_backend import ServerSessions
from cachebus.sessions.session import (
    LARGEST_DATA_BYTES,
    Place,
    Session,
    UserId,
    address_of,
    decode_session,
    encode_fields,
    encode_place,
    new_id,
    place_of,
)

log = logging.getLogger("cachebus.sessions.store")

TOUCH_US = 60_000_000
"""Activity is noted at most once in this time, or in a tenth of a shorter idle timeout."""
LONGEST_OVERLAP_MS = 10_000
"""How long an id that was rotated away may still serve requests that were under way."""
MOST_SESSIONS = 1000


class SessionStore:
    """Creates, reads, changes and ends sessions, over a `Cache` or a `Client`; created at import time too.

    Without a server (`Cache.memory()`, `REDIS_ENABLED=false`) sessions live in this process, by the same rules.

    *idle* ends a session that nobody uses, *absolute* ends every session. Activity is noted once a minute at most, so
    a session may end up to a minute early (a tenth of an idle timeout under ten minutes), never late.
    *max_per_user* sessions of a user live at once; one more ends the oldest, or is refused (`when_full`).
    `counts` counts: created, evicted, refused, rotated, ended, changed (address or agent), unknown, malformed,
    unreadable (written by something else).

    Every method raises SessionsUnavailable while the server is unavailable: an outage logs nobody out.
    Source: OWASP ASVS 5.0, chapter 7; OWASP Session Management Cheat Sheet.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        idle: Duration = "30m",
        absolute: Duration = "12h",
        max_per_user: int | None = None,
        when_full: WhenFull = "evict_oldest",
    ) -> None:
        self._part: Part[SessionBackend] = Part(
            connector, ServerSessions, lambda in_process: in_process.of(LocalSessions)
        )
        self._idle_ms = milliseconds(idle, "idle")
        self._absolute_ms = milliseconds(absolute, "absolute")
        if self._idle_ms > self._absolute_ms:
            raise ConfigurationError(f"idle: {idle!r} is longer than the absolute timeout of {absolute!r}")
        if max_per_user is not None and (type(max_per_user) is not int or not 1 <= max_per_user <= MOST_SESSIONS):
            raise ConfigurationError(f"max_per_user: {max_per_user!r} must be 1 to {MOST_SESSIONS}, or None")
        if when_full not in {"evict_oldest", "refuse"}:
            raise ConfigurationError(f"when_full: {when_full!r} is not one of evict_oldest, refuse")
        self._most = max_per_user or 0
        self._when_full = when_full
        self.counts: Counter[str] = Counter()

    async def create(
        self,
        user_id: UserId,
        data: Mapping[str, Any] | None = None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> str:
        """Begin a session and return its id, which is known nowhere else. One round trip.

        *idle* and *absolute* are this session's own ("remember me"). Not safe to repeat: each call is a session.
        Raises: TooManySessions; ConfigurationError (a ValueError) for a user id, data or times that cannot be.
        """
        idle_ms = self._idle_ms if idle is None else milliseconds(idle, "idle")
        absolute_ms = self._absolute_ms if absolute is None else milliseconds(absolute, "absolute")
        address = address_of(user_id)
        lines = encode_fields(data or {})[1::2]
        if sum(map(len, lines)) + len(lines) > LARGEST_DATA_BYTES:
            raise _too_large()
        session_id, digest = new_id(address)
        where, agent = encode_place(ip, user_agent)
        user = msgspec.json.encode(user_id)
        new = NewSession(digest, user, where, agent, lines, idle_ms * 1000, absolute_ms * 1000)
        async with self._backend() as backend:
            evicted = await backend.create(address, new, self._most, self._when_full)
        if evicted is None:
            self.counts["refused"] += 1
            raise TooManySessions(f"the user has {self._most} sessions already")
        for ref in evicted:
            self._note("evicted", ref)
        self._note("created", digest)
        return session_id

    async def get(
        self, session_id: str | None, *, ip: str | None = None, user_agent: str | None = None
    ) -> Session | None:
        """Return the session of this id, or None: unknown, ended, expired, or no id at all.

        One round trip; none for what cannot be an id. Notes the activity, and where it came from, once a minute.
        """
        place = self._find(session_id)
        if place is None:
            return None
        async with self._backend() as backend:
            found = await backend.read(place.address, place.digest, TOUCH_US, *encode_place(ip, user_agent))
        if found is None:
            self._note("unknown", place.digest)
            return None
        session = self._decode(found, ip=ip, user_agent=user_agent)
        if session is not None and session.changed and found.noted_us is not None:
            self._note("changed", session.ref)
        return session

    async def update(
        self,
        session_id: str | None,
        changes: Mapping[str, Any] | None = None,
        *,
        remove: str | Iterable[str] = (),
        version: int | None = None,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> Session | None:
        """Set the fields of *changes*, remove those of *remove*, and return the session. One round trip.

        Fields not named stay: writers of different fields lose nothing; of the same field the last one wins. With
        *version*, only a session that nobody changed since. *idle* and *absolute* are its timeouts from now on.
        None: there is no such session, and none is made.
        Raises: SessionConflict; ConfigurationError for data that cannot be stored or grow too large.
        """
        change = SessionChange(
            encode_fields(changes or {}, remove),
            LARGEST_DATA_BYTES,
            version or 0,
            0 if idle is None else milliseconds(idle, "idle") * 1000,
            0 if absolute is None else milliseconds(absolute, "absolute") * 1000,
        )
        place = self._find(session_id)
        if place is None:
            return None
        async with self._backend() as backend:
            found = await backend.update(place.address, place.digest, change)
        if found is None:
            self._note("unknown", place.digest)
            return None
        if found == "conflict":
            raise SessionConflict(f"the session is no longer at version {version}")
        if found == "too large":
            raise _too_large()
        return self._decode(found)

    async def rotate(self, session_id: str | None, *, overlap: Duration | None = "10s") -> str | None:
        """Give the session a new id and return it; the old one works for *overlap* more and then never again.

        The overlap, at most 10 s, is for requests under way; None ends the old id at once, as a change of rights needs.
        One round trip. None: there is nothing to tell the client. The session is gone, or another request has rotated
        it a moment ago, and that one's answer carries the new id.
        """
        overlap_ms = 0 if overlap is None else milliseconds(overlap, "overlap")
        if overlap_ms > LONGEST_OVERLAP_MS:
            raise ConfigurationError(f"overlap: {overlap!r} is more than {LONGEST_OVERLAP_MS // 1000} s")
        place = self._find(session_id)
        if place is None:
            return None
        session_id, digest = new_id(place.address)
        async with self._backend() as backend:
            done = await backend.rotate(place.address, place.digest, digest, overlap_ms * 1000)
        if not done:
            if done is None:
                self._note("unknown", place.digest)
            return None
        self._note("rotated", digest)
        return session_id

    async def invalidate(self, session_id: str | None) -> bool:
        """End the session (logout), also when the id given was rotated away a moment ago. Safe to repeat.

        One round trip. In force in every process when it returns. Returns whether there was one.
        """
        place = self._find(session_id)
        return place is not None and await self._end(place)

    async def revoke(self, user_id: UserId, ref: str) -> bool:
        """End the session of a user that a list shows as *ref*. Otherwise as `invalidate`."""
        return await self._end(Place(address_of(user_id), ref))

    async def invalidate_user(self, user_id: UserId, *, except_: str | None = None) -> int:
        """End all sessions of a user, but perhaps that of the id *except_*, and return how many.

        One round trip that costs the same for one and for 10,000. In force in every process when it returns.
        """
        kept = self._find(except_)
        address = address_of(user_id)
        async with self._backend() as backend:
            ended = await backend.end_all(address, kept.digest if kept is not None else "")
        self.counts["ended"] += ended
        log.info("all sessions of a user ended: %d", ended)
        return ended

    async def invalidate_everyone(self) -> int:
        """End every session of every user and return how many users had one. Walks all keys: for incidents.

        Sessions that begin meanwhile may end too. Safe to repeat, also after it raised.
        """
        async with self._backend() as backend:
            users = await backend.end_everyone()
        log.warning("all sessions of all users ended: %d users", users)
        return users

    async def list_user(self, user_id: UserId) -> list[Session]:
        """Return the live sessions of a user, the most recently used first. One round trip; writes nothing."""
        address = address_of(user_id)
        async with self._backend() as backend:
            decoded = [self._decode(found) for found in await backend.live(address)]
        sessions = [session for session in decoded if session is not None]
        return sorted(sessions, key=lambda session: session.last_seen_at, reverse=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _backend(self) -> AsyncIterator[SessionBackend]:
        try:
            yield await self._part.get()
        except ServerError as reason:
            raise SessionsUnavailable("the session store cannot be asked; nobody is logged out by that") from reason

    async def _end(self, place: Place) -> bool:
        async with self._backend() as backend:
            ended = await backend.end(place.address, place.digest)
        if ended:
            self._note("ended", place.digest)
        return ended

    def _find(self, session_id: str | None) -> Place | None:
        place = place_of(session_id) if session_id is not None else None
        if place is None and session_id is not None:
            self.counts["malformed"] += 1
        return place

    def _decode(self, found: FoundSession, **seen_from: str | None) -> Session | None:
        try:
            return decode_session(found.digest, found.record, seen_us=found.noted_us, **seen_from)
        except ValueError:
            self._note("unreadable", found.digest)
            return None

    def _note(self, event: str, ref: str) -> None:
        self.counts[event] += 1
        log.info("session %s: %s", event, ref)


def _too_large() -> ConfigurationError:
    return ConfigurationError(f"data: more than {LARGEST_DATA_BYTES:,} bytes; keep large things elsewhere")
