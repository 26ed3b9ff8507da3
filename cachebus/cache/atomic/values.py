"""Atomic values: stored once, counted, kept alive, in one step for every process. Kept in Redis alone."""

from __future__ import annotations

from typing import Any

import msgspec

from cachebus.cache.atomic.backends import LEAST, MOST, LocalValues, ServerValues, ValueBackend
from cachebus.cache.cache import Cache
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, NotANumber, NotCacheable
from cachebus.freshness.scopes import checked_key_scope
from cachebus.redis.part import Part
from cachebus.templates import stored_name


class AtomicValues:
    """Plain values under keys of their own, for what several processes change at once: `AtomicValues(cache)`.

    They are no cached values: `cache.get` does not see them, no process keeps a copy, no invalidation reaches them, and
    they need no journal. Each call is one step and one round trip. A value is what JSON has: None, bool, int, float,
    text, and lists and dictionaries of these. Without a server they are those of this process. Every call raises
    Unavailable where the server does not answer: then nobody knows whether it was done.
    """

    def __init__(self, cache: Cache) -> None:
        self._part: Part[ValueBackend] = Part(cache, ServerValues, lambda in_process: in_process.of(LocalValues))
        self._never = cache.never

    async def add(self, key: str, value: Any, ttl: Duration) -> bool:
        """Store *value* under *key* for *ttl*, if there is none; returns whether it was stored.

        Raises: NotCacheable for what is not JSON, or holds what must never be cached.
        """
        backend = await self._part.get()  # once connected, the settings have said what is never cached
        return await backend.add(_stored(key), self._encoded(value), milliseconds(ttl, "ttl"))

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value of *key*, *default* where there is none."""
        found = await (await self._part.get()).get(_stored(key))
        try:
            return default if found is None else msgspec.json.decode(found)
        except (msgspec.DecodeError, UnicodeDecodeError):  # no value of ours
            return default

    async def incr(self, key: str, amount: int = 1, *, ttl: Duration) -> int:
        """Add *amount* to the number under *key* and return the sum. Where there is none it begins at 0, for *ttl*.

        A number that is there lives on for as long as before: see `touch`. Not safe to repeat.
        Raises: NotANumber, and nothing was changed, where that is no whole number of 64 bits.
        """
        if type(amount) is not int or not LEAST <= amount <= MOST:
            raise ConfigurationError(f"amount: {amount!r} must be a whole number of 64 bits")
        total = await (await self._part.get()).count(_stored(key), amount, milliseconds(ttl, "ttl"))
        if total is None:
            raise NotANumber(key)
        return total

    async def decr(self, key: str, amount: int = 1, *, ttl: Duration) -> int:
        """Take *amount* from the number under *key* and return what is left. Otherwise as `incr`."""
        if type(amount) is not int:
            raise ConfigurationError(f"amount: {amount!r} must be a whole number of 64 bits")
        return await self.incr(key, -amount, ttl=ttl)

    async def touch(self, key: str, ttl: Duration) -> bool:
        """Let the value of *key* live for *ttl* from now; False where there is none."""
        return await (await self._part.get()).touch(_stored(key), milliseconds(ttl, "ttl"))

    async def ttl(self, key: str) -> float | None:
        """Return for how many seconds the value of *key* lives on, None where there is none."""
        left_ms = await (await self._part.get()).ttl_ms(_stored(key))
        return None if left_ms is None else left_ms / 1000

    async def delete(self, key: str) -> bool:
        """Delete the value of *key*; False where there was none."""
        return await (await self._part.get()).delete(_stored(key))

    def _encoded(self, value: Any) -> bytes:
        if refused := self._never.find(value):
            raise NotCacheable(f"value: field {refused!r} must never be stored; leave it out")
        try:
            encoded = msgspec.json.encode(value)
            same = msgspec.json.decode(encoded) == value
        except (TypeError, ValueError, OverflowError, RecursionError) as unsupported:
            raise NotCacheable(f"value: a {type(value).__name__} is no JSON: {unsupported}") from None
        if not same:
            raise NotCacheable(f"value: {value!r} would come back as something else; store what JSON has")
        return encoded


def _stored(key: str) -> str:
    checked_key_scope(key)
    return stored_name(key)
