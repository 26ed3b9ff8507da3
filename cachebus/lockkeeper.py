"""Where locks are kept: scripts on the server, or, in a process that has none, their rules in its memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from cachebus.errors import ServerError
from cachebus.link import Link, now_s
from cachebus.lock import Holder, LocalLocks, Taken, Wake
from cachebus.server import TIMEOUT_S
from cachebus.subscriptions import Subscription
from cachebus.wire import Reply


class LockKeeper(Protocol):
    """What locks are made of. *lock* is a name as `Terms` checked it; errors are the server's."""

    async def take(self, lock: str, claim: str, lease_ms: int, *, wait: bool, place: str) -> Taken:
        """Take the lock, or stand in line for it. Safe to repeat with the same claim."""
        ...

    async def release(self, lock: str, claim: str) -> bool:
        """Give the lock back, or leave its line; False where it was not ours any more. Safe to repeat."""
        ...

    async def renew(self, lock: str, claim: str, lease_ms: int, *, timeout_s: float) -> bool:
        """Keep the lock; False where it is not ours any more."""
        ...

    async def look(self, lock: str) -> Holder | None:
        """Return who has the lock."""
        ...

    async def write(self, name: str, value: bytes, token: int, ttl_ms: int) -> int:
        """Write a guarded value; return the later token that forbids it, or 0."""
        ...

    async def read(self, name: str) -> tuple[int, bytes] | None:
        """Return a guarded value and the token it was written with."""
        ...

    async def listen(self) -> bool:
        """Hear the wakes from now on; False where that begins only now, so that one was perhaps missed."""
        ...

    async def ready(self) -> None:
        """Return when the server is there."""
        ...

    async def close(self) -> None:
        """Hear nothing more. Idempotent."""
        ...


class ServerKeeper:
    """Locks in Redis: each verb is one script, one round trip."""

    def __init__(self, link: Link, owner: str, tell: Callable[[Wake], None], on_gap: Callable[[], None]) -> None:
        self._link = link
        self._owner = owner
        self._tell = tell
        self._on_gap = on_gap
        self._channel = link.names.bus("lock-wakes")
        self._before_name = link.names.spread("lock", "")[:-1]
        self._listening: asyncio.Future[Subscription] | None = None

    async def _run(self, verb: str, lock: str, *args: str | int | bytes, timeout_s: float = TIMEOUT_S) -> Reply:
        keys = (self._link.names.spread("lock", lock), self._link.names.spread("lock-line", lock))
        return await self._link.store.run(verb, keys, args, timeout_s=timeout_s)

    async def take(self, lock: str, claim: str, lease_ms: int, *, wait: bool, place: str) -> Taken:
        """See `LockKeeper.take`."""
        asked = (claim, self._owner, lease_ms, "wait" if wait else "", place, self._channel)
        ours, *rest = await self._run("lock_take", lock, *asked)
        if ours:
            return Taken(ours=True, token=rest[0])
        left_ms, owner, place_now, before = rest
        return Taken(ours=False, owner=owner.decode(), left_ms=left_ms, place=place_now.decode(), before=before)

    async def release(self, lock: str, claim: str) -> bool:
        """See `LockKeeper.release`."""
        return bool(await self._run("lock_release", lock, claim, self._channel))

    async def renew(self, lock: str, claim: str, lease_ms: int, *, timeout_s: float) -> bool:
        """See `LockKeeper.renew`."""
        return bool(await self._run("lock_renew", lock, claim, lease_ms, self._channel, timeout_s=timeout_s))

    async def look(self, lock: str) -> Holder | None:
        """See `LockKeeper.look`."""
        reply = await self._run("lock_look", lock)
        if reply is None:
            return None
        owner, token, left_ms, waiting = reply
        return Holder(owner.decode(), token, left_ms / 1000, waiting)

    async def write(self, name: str, value: bytes, token: int, ttl_ms: int) -> int:
        """See `LockKeeper.write`."""
        key = self._link.names.spread("guarded", name)
        return int(await self._link.store.run("lock_guarded_set", (key,), (token, value, ttl_ms)))

    async def read(self, name: str) -> tuple[int, bytes] | None:
        """See `LockKeeper.read`."""
        key = self._link.names.spread("guarded", name)
        token, value = await self._link.store.call("HMGET", key, "token", "value", key=key)
        return None if token is None else (int(token), value)

    async def listen(self) -> bool:
        """See `LockKeeper.listen`."""
        listening = self._listening
        if listening is not None and listening.done() and not listening.exception():
            return True
        if listening is None or listening.done():
            subscribing = self._link.subscriptions.subscribe(self._channel, self._heard, on_gap=self._on_gap)
            listening = self._listening = asyncio.ensure_future(subscribing)
        await asyncio.shield(listening)
        return False

    def _heard(self, _channel: str, message: bytes) -> None:
        wake = msgspec.json.decode(message, type=Wake)
        self._tell(msgspec.structs.replace(wake, lock=wake.lock[len(self._before_name) : -1]))

    async def ready(self) -> None:
        """See `LockKeeper.ready`."""
        await self._link.store.ready()

    async def close(self) -> None:
        """See `LockKeeper.close`."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError, ServerError):
                await (await listening).cancel()


class ProcessKeeper:
    """Locks of this process alone, for `REDIS_ENABLED=false`. Never fails."""

    def __init__(self, owner: str, tell: Callable[[Wake], None]) -> None:
        self._owner = owner
        self._locks = LocalLocks(tell)

    async def take(self, lock: str, claim: str, lease_ms: int, *, wait: bool, place: str) -> Taken:
        """See `LockKeeper.take`."""
        return self._locks.take(lock, claim, self._owner, lease_ms, wait=wait, now_s=now_s())

    async def release(self, lock: str, claim: str) -> bool:
        """See `LockKeeper.release`."""
        return self._locks.release(lock, claim, now_s=now_s())

    async def renew(self, lock: str, claim: str, lease_ms: int, *, timeout_s: float) -> bool:
        """See `LockKeeper.renew`."""
        return self._locks.renew(lock, claim, lease_ms, now_s=now_s())

    async def look(self, lock: str) -> Holder | None:
        """See `LockKeeper.look`."""
        return self._locks.look(lock, now_s=now_s())

    async def write(self, name: str, value: bytes, token: int, ttl_ms: int) -> int:
        """See `LockKeeper.write`."""
        now = now_s()
        return self._locks.write(name, value, token, now_s=now, ends_s=now + ttl_ms / 1000)

    async def read(self, name: str) -> tuple[int, bytes] | None:
        """See `LockKeeper.read`."""
        return self._locks.read(name, now_s=now_s())

    async def listen(self) -> bool:
        """Wakes are heard from the beginning."""
        return True

    async def ready(self) -> None:
        """Nothing is ever away."""

    async def close(self) -> None:
        """Nothing is open."""
