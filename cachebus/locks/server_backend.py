"""Locks on the server: each verb is one script; releases and renewals are pushed to those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from cachebus.errors import ServerError
from cachebus.locks.terms import Attempt, Holder, Wake
from cachebus.redis.client import Client
from cachebus.redis.replies import Reply
from cachebus.redis.subscriptions import Subscription

TIMEOUT_S = 1.0
"""How long a call may take: longer than a read, which can do without Redis. Of a late call nobody knows the outcome."""


class ServerLocks:
    """Locks in Redis: each verb is one script, one round trip."""

    def __init__(self, client: Client, owner: str, hear: Callable[[Wake], None], on_gap: Callable[[], None]) -> None:
        self._client = client
        self._owner = owner
        self.hear = hear
        self._on_gap = on_gap
        self._channel = client.names.bus("lock-wakes")
        self._before_name = client.names.spread("lock", "")[:-1]
        self._listening: asyncio.Future[Subscription] | None = None

    async def _run(self, verb: str, lock: str, *args: str | int | bytes, timeout_s: float = TIMEOUT_S) -> Reply:
        keys = (self._client.names.spread("lock", lock), self._client.names.spread("lock-line", lock))
        return await self._client.store.run(verb, keys, args, timeout_s=timeout_s)

    async def take(self, lock: str, claim: str, lease_ms: int, *, wait: bool, place: str) -> Attempt:
        """See `LockBackend.take`."""
        asked = (claim, self._owner, lease_ms, "wait" if wait else "", place, self._channel)
        ours, *rest = await self._run("locks/take", lock, *asked)
        if ours:
            return Attempt(ours=True, token=rest[0])
        left_ms, owner, place_now, before = rest
        return Attempt(ours=False, owner=owner.decode(), left_ms=left_ms, place=place_now.decode(), before=before)

    async def release(self, lock: str, claim: str) -> bool:
        """See `LockBackend.release`."""
        return bool(await self._run("locks/release", lock, claim, self._channel))

    async def renew(self, lock: str, claim: str, lease_ms: int, *, timeout_s: float) -> bool:
        """See `LockBackend.renew`."""
        return bool(await self._run("locks/renew", lock, claim, lease_ms, self._channel, timeout_s=timeout_s))

    async def unlock(self, lock: str, token: int) -> bool:
        """See `LockBackend.unlock`."""
        return bool(await self._run("locks/unlock", lock, token, self._channel))

    async def look(self, lock: str) -> Holder | None:
        """See `LockBackend.look`."""
        reply = await self._run("locks/look", lock)
        if reply is None:
            return None
        owner, token, left_ms, waiting, held_ms = reply
        return Holder(owner.decode(), token, left_ms / 1000, waiting, held_ms / 1000)

    async def write(self, name: str, value: bytes, token: int, ttl_ms: int) -> int:
        """See `LockBackend.write`."""
        key = self._client.names.spread("guarded", name)
        return int(await self._client.store.run("locks/guarded_set", (key,), (token, value, ttl_ms)))

    async def read(self, name: str) -> tuple[int, bytes] | None:
        """See `LockBackend.read`."""
        key = self._client.names.spread("guarded", name)
        token, value = await self._client.store.call("HMGET", key, "token", "value", key=key)
        return None if token is None else (int(token), value)

    async def listen(self) -> bool:
        """See `LockBackend.listen`."""
        listening = self._listening
        if listening is not None and listening.done() and not listening.exception():
            return True
        if listening is None or listening.done():
            subscribing = self._client.subscriptions.subscribe(self._channel, self._heard, on_gap=self._on_gap)
            listening = self._listening = asyncio.ensure_future(subscribing)
        await asyncio.shield(listening)
        return False

    def _heard(self, _channel: str, message: bytes) -> None:
        wake = msgspec.json.decode(message, type=Wake)
        self.hear(msgspec.structs.replace(wake, lock=wake.lock[len(self._before_name) : -1]))

    async def ready(self) -> None:
        """See `LockBackend.ready`."""
        await self._client.store.ready()

    async def close(self) -> None:
        """See `LockBackend.close`."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError, ServerError):
                await (await listening).cancel()
