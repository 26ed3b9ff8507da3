"""The load: run the view's function once, store what it returns, tell whoever waits."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import ContextVar
from typing import Any

import msgspec

from cachebus.call import Call, Load, Value
from cachebus.dictionaries import ViewDictionary
from cachebus.entries import Ask, Entries
from cachebus.entry import Entry, Header, pack, unpack
from cachebus.errors import NotCacheable, ServerError
from cachebus.freshness import Freshness
from cachebus.keys import scopes_of
from cachebus.link import now_s
from cachebus.policy import draw
from cachebus.shelf import Shelf

log = logging.getLogger("cachebus")


class Unchanged:
    """What a loader returns to say: the value from `previous()` still holds."""


UNCHANGED = Unchanged()
_previous: ContextVar[Any] = ContextVar("cachebus_previous", default=None)


def previous() -> Any:
    """Return, inside a loader, the value it last produced for these arguments (perhaps invalidated), or None.

    A loader that finds it still right, for instance by an ETag or an `updated_at`, returns `UNCHANGED`.
    """
    return _previous.get()


class Loader:
    """Runs loads of this process and stores their results, in memory and in Redis."""

    def __init__(self, shelf: Shelf, freshness: Freshness, entries: Entries | None) -> None:
        self._shelf = shelf
        self._freshness = freshness
        self._entries = entries

    async def load(
        self, call: Call, load: Load, ask: Ask | None, old: bytes | None, *, born: int, moment: int
    ) -> Value:
        """Run the function and store the value as born at *born*, which was known before.

        *ask* holds the lease, None where there is none (Redis away). *old*: what Redis held, for `previous()`.
        Raises: what the function raises, NotCacheable.
        """
        renewal = asyncio.ensure_future(self._entries.renew_until_cancelled(ask)) if self._entries and ask else None
        released = False
        try:
            started = time.perf_counter()
            value, payload = await self._produce(call, load, old)
            load_ms = (time.perf_counter() - started) * 1000
            call.stats.loaded(load_ms, len(payload))
            tags = call.all_tags(value)
            data, header = self._pack(call, payload, born, call.ttl_ms(value), load_ms, tags)
            scopes = call.scopes if tags == call.tags else scopes_of(call.key, tags)
            if ask is not None and not self._freshness.is_pending(scopes):
                released = await self._fill(call, ask, data, header.life_ms, born)
            held = self._shelf.put(
                call,
                value,
                payload,
                header,
                now=now_s(),
                left_ms=header.life_ms,
                as_of=born,
                scopes=scopes,
                moment=moment,
            )
            late = tuple(scope for scope in scopes if scope not in call.scopes)
            return Value(value, held.payload, born, loaded=True, late_scopes=late)
        except Exception as failed:
            call.stats.load_errors += 1
            fallback = self._instead_of_error(call, failed)
            if fallback is None:
                raise
            return fallback
        finally:
            if renewal is not None:
                renewal.cancel()
            if self._entries is not None and ask is not None and not released:
                await self._entries.release(ask)

    async def write(self, call: Call, payload: bytes, born: int) -> None:
        """Store a value somebody brought, born at a clock they knew before they read it."""
        data, header = self._pack(call, payload, born, call.policy.ttl_ms, 0.0, call.tags)
        if self._entries is not None and not self._freshness.is_pending(call.scopes):
            try:
                await self._entries.write(call.entry, data, life_ms=header.life_ms, born=born)
                call.stats.bytes_stored += len(data)
            except ServerError as away:
                call.stats.fill_errors += 1
                log.debug("%s: not stored: %s", call.key, away)
        value = call.codec.decode(payload) if call.codec.shared else None
        moment = self._freshness.moment()
        self._shelf.put(
            call,
            value,
            payload,
            header,
            now=now_s(),
            left_ms=header.life_ms,
            as_of=born,
            scopes=call.scopes,
            moment=moment,
        )

    async def _produce(self, call: Call, load: Load, old: bytes | None) -> tuple[Any, bytes]:
        """Call the function; return the value as every caller will see it, and its bytes."""
        held = self._shelf.memory.held.get(call.key)
        before = call.own(held.value, held.payload) if held is not None else self._decoded(call, old)
        token = _previous.set(before)
        try:
            value = await load()
        finally:
            _previous.reset(token)
        if isinstance(value, Unchanged):
            if before is None:
                raise NotCacheable(f"{call.key}: the loader says UNCHANGED, but there was no previous value")
            value = before
        payload = call.codec.encode(value)
        return (value if call.codec.shared else call.codec.decode(payload)), payload

    def _pack(
        self, call: Call, payload: bytes, born: int, ttl_ms: int, load_ms: float, tags: tuple[str, ...]
    ) -> tuple[bytes, Header]:
        life_ms = call.policy.life_ms(ttl_ms, draw())
        header = Header(life_ms, call.policy.grace_ms, round(load_ms, 1), tags)
        dictionary = self._dictionary(call)
        return pack(payload, born, header, call.key, dictionary.compress if dictionary else None), header

    def unpack(self, call: Call, data: bytes) -> Entry | None:
        """Return the entry that was stored for *call*, or None for what is none. Never raises."""
        dictionary = self._dictionary(call)
        return unpack(data, dictionary.inflate if dictionary else None)

    def _dictionary(self, call: Call) -> ViewDictionary | None:
        return self._entries.dictionaries.of(call.dictionary) if call.dictionary and self._entries else None

    async def _fill(self, call: Call, ask: Ask, data: bytes, life_ms: int, born: int) -> bool:
        """Store and give the lease back; False where it must still be given back."""
        assert self._entries is not None  # noqa: S101 - a lease comes from there
        try:
            await self._entries.fill(ask, data, life_ms=life_ms, born=born)
        except ServerError as away:
            call.stats.fill_errors += 1
            log.debug("%s: not stored: %s", call.key, away)
            return False
        call.stats.bytes_stored += len(data)
        return True

    def _instead_of_error(self, call: Call, failed: Exception) -> Value | None:
        """Return an older value, valid and within a window that allows it."""
        held = self._shelf.memory.held.get(call.key)
        if held is None or not self._shelf.serves_on_error(held, call.policy):
            return None
        log.warning("%s: the load failed, an older value is served: %r", call.key, failed)
        call.stats.stale += 1
        return Value(held.value, held.payload, held.as_of, loaded=False)

    def _decoded(self, call: Call, data: bytes | None) -> Any:
        """Return the value of a stored entry, or None where there is none of this type."""
        entry = self.unpack(call, data) if data is not None else None
        try:
            return call.codec.decode(entry.payload) if entry is not None else None
        except msgspec.DecodeError:
            return None
