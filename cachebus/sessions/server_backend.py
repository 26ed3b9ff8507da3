"""Sessions on the server: all of a user's are two keys in one slot, and each verb is one script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cachebus.redis.client import Client
from cachebus.redis.connection import Argument
from cachebus.redis.replies import Reply
from cachebus.redis.walk import literal, names_like
from cachebus.sessions.backend import FoundSession, NewSession, SessionChange, WhenFull


class ServerSessions:
    """Implements `SessionBackend` over a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, address: str, new: NewSession, most: int, when_full: WhenFull) -> list[str] | None:
        """See `SessionBackend.create`."""
        who: list[Argument] = [new.digest, new.user, new.ip, new.agent]
        limits: list[Argument] = [new.idle_us, new.absolute_us, most, when_full]
        created, *evicted = await self._run("sessions/create", address, [*who, *limits, *new.lines])
        return [ref.decode() for ref in evicted] if created else None

    async def read(self, address: str, digest: str, touch_us: int, ip: bytes, agent: bytes) -> FoundSession | None:
        """See `SessionBackend.read`."""
        reply = await self._run("sessions/read", address, [digest, touch_us, ip, agent])
        if reply is None:
            return None
        found, record, noted_us = reply
        return FoundSession(found.decode(), record, None if noted_us is None else int(noted_us))

    async def update(
        self, address: str, digest: str, change: SessionChange
    ) -> FoundSession | Literal["conflict", "too large"] | None:
        """See `SessionBackend.update`."""
        bounds = (change.version, change.most_bytes, change.idle_us, change.absolute_us)
        reply = await self._run("sessions/update", address, [digest, *bounds, *change.pairs])
        if reply is None:
            return None
        if reply in (b"conflict", b"too large"):
            return "conflict" if reply == b"conflict" else "too large"
        found, record = reply
        return FoundSession(found.decode(), record)

    async def rotate(self, address: str, digest: str, new_digest: str, overlap_us: int) -> bool | None:
        """See `SessionBackend.rotate`."""
        done = await self._run("sessions/rotate", address, [digest, new_digest, overlap_us])
        return None if done is None else bool(done)

    async def end(self, address: str, digest: str) -> bool:
        """See `SessionBackend.end`."""
        return bool(await self._run("sessions/end", address, [digest]))

    async def end_all(self, address: str, kept: str) -> int:
        """See `SessionBackend.end_all`."""
        return int(await self._run("sessions/end_all", address, [kept]))

    async def end_everyone(self) -> int:
        """See `SessionBackend.end_everyone`. Walks all keys of all nodes."""
        users, store = 0, self._client.store
        async for names in names_like(store, f"{literal(self._client.names.namespace)}:session*"):
            for name in names:
                removed = await store.call("UNLINK", name, key=name)
                users += removed if ":session:" in name else 0
        return users

    async def live(self, address: str) -> list[FoundSession]:
        """See `SessionBackend.live`."""
        reply = await self._run("sessions/list", address, [])
        return [FoundSession(reply[i].decode(), reply[i + 1]) for i in range(0, len(reply), 2)]

    async def _run(self, verb: str, address: str, arguments: Sequence[Argument]) -> Reply:
        names = self._client.names
        keys = [names.spread("session", address), names.spread("session-ends", address)]
        return await self._client.store.run(verb, keys, arguments)
