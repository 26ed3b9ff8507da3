"""Who is logged in: sessions on the server's time, with ids that no copy of the store gives away.

All sessions of a user lie in two keys of one slot, and every id leads there (`session.py`). So each operation is one
script and one round trip; a cluster spreads users, never parts of a user; and ending all sessions of a user is one
deletion. Neither key outlives the user's longest session, and what dies before it goes with the next write.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import (
    CommandRefused,
    ConfigurationError,
    ServerError,
    SessionConflict,
    SessionsUnavailable,
    TooManySessions,
)
from cachebus.link import Link
from cachebus.session import (
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
from cachebus.wire import Argument, Reply, key_slot

log = logging.getLogger("cachebus.sessions")

TOUCH_US = 60_000_000
"""Activity is noted at most once in this time, or in a tenth of a shorter idle timeout."""
LONGEST_OVERLAP_MS = 10_000
"""How long an id that was rotated away may still serve requests that were under way."""
MOST_SESSIONS = 1000


class SessionStore:
    """Creates, reads, changes and ends sessions. One for all tasks of a process; holds no connection of its own.

    *idle* ends a session that nobody uses, *absolute* ends every session. Activity is noted once a minute at most, so
    a session may end up to a minute early (a tenth of an idle timeout under ten minutes), never late.
    *max_per_user* sessions of a user live at once; one more ends the oldest, or is refused (`when_full`).
    `counts` counts: created, evicted, refused, rotated, ended, changed (address or agent), unknown, malformed,
    unreadable (written by something else).

    Every method raises SessionsUnavailable when the server is away: an outage logs nobody out.
    Source: OWASP ASVS 5.0, chapter 7; OWASP Session Management Cheat Sheet.
    """

    def __init__(
        self,
        link: Link,
        *,
        idle: Duration = "30m",
        absolute: Duration = "12h",
        max_per_user: int | None = None,
        when_full: Literal["evict_oldest", "refuse"] = "evict_oldest",
    ) -> None:
        self._link = link
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
        """Begin a session and return its id, which is told nowhere else. One round trip.

        *idle* and *absolute* are this session's own ("remember me"). Not safe to repeat: each call is a session.
        Raises: TooManySessions; ConfigurationError (a ValueError) for a user id, data or times that cannot be.
        """
        idle_ms = self._idle_ms if idle is None else milliseconds(idle, "idle")
        absolute_ms = self._absolute_ms if absolute is None else milliseconds(absolute, "absolute")
        address = address_of(user_id)
        fields = encode_fields(data or {})[1::2]
        if sum(map(len, fields)) + len(fields) > LARGEST_DATA_BYTES:
            raise _too_large()
        session_id, digest = new_id(address)
        who: list[Argument] = [digest, msgspec.json.encode(user_id), *encode_place(ip, user_agent)]
        limits: list[Argument] = [idle_ms * 1000, absolute_ms * 1000, self._most, self._when_full]
        created, *evicted = await self._run("session_create", address, [*who, *limits, *fields])
        if not created:
            self.counts["refused"] += 1
            raise TooManySessions(f"the user has {self._most} sessions already")
        for ref in evicted:
            self._note("evicted", ref.decode())
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
        reply = await self._run("session_read", place.address, [place.digest, TOUCH_US, *encode_place(ip, user_agent)])
        if reply is None:
            self._note("unknown", place.digest)
            return None
        digest, record, noted_us = reply
        seen_us = None if noted_us is None else int(noted_us)
        session = self._decode(digest, record, seen_us=seen_us, ip=ip, user_agent=user_agent)
        if session is not None and session.changed and noted_us is not None:
            self._note("changed", session.ref)
        return session

    async def update(
        self,
        session_id: str | None,
        changes: Mapping[str, Any] | None = None,
        *,
        remove: Iterable[str] = (),
        version: int | None = None,
    ) -> Session | None:
        """Set the fields of *changes*, take away those of *remove*, and return the session. One round trip.

        Fields not named stay: writers of different fields lose nothing; of the same field the last one wins. With
        *version*, only a session that nobody changed since. None: there is no such session, and none is made.
        Raises: SessionConflict; ConfigurationError for data that cannot be stored or grow too large.
        """
        pairs = encode_fields(changes or {}, remove)
        place = self._find(session_id)
        if place is None:
            return None
        arguments: list[Argument] = [place.digest, version or 0, LARGEST_DATA_BYTES, *pairs]
        reply = await self._run("session_update", place.address, arguments)
        if reply is None:
            self._note("unknown", place.digest)
            return None
        if reply == b"conflict":
            raise SessionConflict(f"the session is no longer at version {version}")
        if reply == b"too large":
            raise _too_large()
        return self._decode(*reply)

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
        done = await self._run("session_rotate", place.address, [place.digest, digest, overlap_ms * 1000])
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
        ended = int(await self._run("session_end_all", address_of(user_id), [kept.digest if kept is not None else ""]))
        self.counts["ended"] += ended
        log.info("all sessions of a user ended: %d", ended)
        return ended

    async def invalidate_everyone(self) -> int:
        """End every session of every user and return how many users had one. Walks all keys: for incidents.

        Sessions that begin meanwhile may end too. Safe to repeat, also after it raised.
        """
        users = 0
        store, pattern = self._link.store, f"{self._link.names.namespace}:session*"
        try:
            for node in await self._key_on_each_node():
                cursor = 0
                while True:
                    cursor, keys = await store.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, key=node)
                    for key in keys:
                        removed = await store.call("UNLINK", key, key=key.decode())
                        users += removed if b":session:" in key else 0
                    if int(cursor) == 0:
                        break
        except ServerError as away:
            raise _unavailable() from away
        log.warning("all sessions of all users ended: %d users", users)
        return users

    async def list_user(self, user_id: UserId) -> list[Session]:
        """Return the live sessions of a user, the most recently used first. One round trip; writes nothing."""
        reply = await self._run("session_list", address_of(user_id), [])
        found = [self._decode(reply[i], reply[i + 1]) for i in range(0, len(reply), 2)]
        sessions = [session for session in found if session is not None]
        return sorted(sessions, key=lambda session: session.last_seen_at, reverse=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _run(self, verb: str, address: str, arguments: Sequence[Argument]) -> Reply:
        names = self._link.names
        keys = [names.spread("session", address), names.spread("session-ends", address)]
        try:
            return await self._link.store.run(verb, keys, arguments)
        except ServerError as away:
            raise _unavailable() from away

    async def _end(self, place: Place) -> bool:
        ended = bool(await self._run("session_end", place.address, [place.digest]))
        if ended:
            self._note("ended", place.digest)
        return ended

    def _find(self, session_id: str | None) -> Place | None:
        place = place_of(session_id) if session_id is not None else None
        if place is None and session_id is not None:
            self.counts["malformed"] += 1
        return place

    def _decode(self, digest: bytes, record: bytes, **seen: Any) -> Session | None:
        try:
            return decode_session(digest, record, **seen)
        except ValueError:
            self._note("unreadable", digest.decode())
            return None

    def _note(self, event: str, ref: str) -> None:
        self.counts[event] += 1
        log.info("session %s: %s", event, ref)

    async def _key_on_each_node(self) -> list[str]:
        try:
            shards = await self._link.store.call("CLUSTER", "SLOTS")
        except CommandRefused:  # no cluster: one node has all
            return [self._link.names.ledger]
        spans = {(node[0], node[1]): (first, last) for first, last, node, *_ in shards}
        return [next(k for k in map(str, count()) if first <= key_slot(k) <= last) for first, last in spans.values()]


def _unavailable() -> SessionsUnavailable:
    return SessionsUnavailable("the session store cannot be asked; nobody is logged out by that")


def _too_large() -> ConfigurationError:
    return ConfigurationError(f"data: more than {LARGEST_DATA_BYTES:,} bytes; keep large things elsewhere")
