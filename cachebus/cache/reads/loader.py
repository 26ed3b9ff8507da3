"""The load: run the view's function once, store what it returns, tell whoever waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from cachebus.cache.call import Call, Load, Value
from cachebus.cache.policy import draw
from cachebus.cache.reads.conditional import Condition, Unchanged, condition
from cachebus.cache.reads.single_flight import Flight
from cachebus.cache.stats import Purpose
from cachebus.cache.tiers.entry import Header, pack, unpack
from cachebus.cache.tiers.memory import Memory
from cachebus.cache.tiers.redis import Ask, Entries, Found
from cachebus.clock import now_s
from cachebus.errors import NotCacheable, ServerError
from cachebus.freshness.clock import Born
from cachebus.freshness.ledger import Ledger
from cachebus.freshness.rule import Freshness, Verdict
from cachebus.freshness.scopes import scopes_of
from cachebus.waiting import is_cancelled, pass_on

log = logging.getLogger("cachebus")

MOST_REPORTED = 1000
"""Views and keys remembered as reported; beyond them the warnings are repeated."""


Loaded = Callable[[Call, float, bytes, Purpose], None]
"""Called with what was loaded, how long that took in ms, the encoded value, and what the load was for."""


class Packed(NamedTuple):
    """A loaded value, ready to be stored."""

    value: Any
    payload: bytes
    data: bytes
    header: Header
    scopes: tuple[str, ...]
    kept: bool
    """Whether the view's `keep=` says that it is stored at all."""


class Loader:
    """Runs loads of this process and stores their results, in memory and in Redis."""

    def __init__(self, memory: Memory, freshness: Freshness, entries: Entries | None, ledger: Ledger | None) -> None:
        self._memory = memory
        self._freshness = freshness
        self._entries = entries
        self._ledger = ledger
        self._reported: set[str] = set()
        self.loaded: tuple[Loaded, ...] = ()
        """Who is told of each load."""

    async def load(self, call: Call, load: Load, flight: Flight, found: Found | None) -> Value:
        """Run the function and store the value as born at `flight.born`, which was known before.

        *found*: what the read that began this load brought, the lease among it; None without Redis.
        What cannot be stored is returned all the same, counted, and reported once. Raises: what the function raises;
        RuntimeError for `sys.exit` and its like.
        """
        assert flight.born is not None  # noqa: S101 - set when the load begins
        ask, born = (found.ask, flight.born) if found is not None else (None, flight.born)
        renewal = self._renewed(ask, call) if ask is not None else None
        released = False
        try:
            started = time.perf_counter()
            loaded, validator = await self._run(call, load, found.data if found is not None else None)
            load_ms = (time.perf_counter() - started) * 1000
            try:
                packed = self._packed(call, loaded, flight, load_ms, validator)
            except NotCacheable as refused:
                call.kind.stats.loaded(flight.purpose, load_ms, 0)
                self._report(call, refused)
                return Value(loaded, None, born, loaded=True)
            value, payload, data, header, scopes, kept = packed
            call.kind.stats.loaded(flight.purpose, load_ms, len(payload))
            for told in self.loaded:
                told(call, load_ms, payload, flight.purpose)
            if not kept:
                call.kind.stats.not_kept += 1
                return Value(value, None if call.kind.codec.shared else payload, born, loaded=True, kept=False)
            if ask is not None and born.era == self._freshness.era and not self._freshness.is_pending(scopes):
                released = await self._fill(call, ask, data, header.life_ms, born)
            if not flight.overdue or call.key not in self._memory.held:  # somebody else may have loaded a newer one
                self._memory.put(
                    call,
                    value,
                    payload,
                    header,
                    now=now_s(),
                    left_ms=header.life_ms,
                    as_of=born,
                    scopes=scopes,
                    moment=flight.moment,
                )
            late = tuple(scope for scope in scopes if scope not in call.scopes)
            return Value(value, None if call.kind.codec.shared else payload, born, loaded=True, late_scopes=late)
        except Exception:
            call.kind.stats.failed(flight.purpose)
            raise
        finally:
            if renewal is not None:
                renewal.cancel()
            if self._entries is not None and ask is not None and not released:
                await self._entries.release(ask)

    async def write(self, call: Call, payload: bytes, born: Born, *, moment: int, notify: bool = False) -> bool:
        """Store a value somebody brought, born at a clock they knew before they read it; False where it is old by now.

        *moment*: of this process, likewise. *notify*: drop the copies in the memory of other processes.
        """
        freshness = self._freshness
        if freshness.judge(born, call.scopes, heard=True, moment=moment) is Verdict.INVALID:
            return False
        policy = call.kind.policy
        header = Header(policy.life_ms(policy.ttl_ms, draw()), policy.grace_ms, 0.0, call.tags)
        data = pack(payload, born, header, call.key)
        as_of: Born | None = born
        if self._entries is None:
            held = self._memory.held.get(call.key)
            if held is not None and held.as_of.number > born.number and self._memory.is_valid(held):
                return False
        elif not freshness.is_pending(call.scopes):
            try:
                as_of = await self._share(call, data, header, born, notify=notify)
            except ServerError as unavailable:
                call.kind.stats.fill_errors += 1
                log.debug("%s: stored in this process only: %s", call.key, unavailable)
        if as_of is None:
            return False
        self._memory.put(
            call,
            call.kind.codec.decode(payload) if call.kind.codec.shared else None,
            payload,
            header,
            now=now_s(),
            left_ms=header.life_ms,
            as_of=as_of,
            scopes=call.scopes,
            moment=moment,
        )
        return True

    async def _share(self, call: Call, data: bytes, header: Header, born: Born, *, notify: bool) -> Born | None:
        """Store a value in Redis; returns up to when it is valid, None where it is old. Raises: ServerError."""
        assert self._entries is not None and self._ledger is not None  # noqa: S101, PT018 - only with Redis
        if not await self._entries.write(call.entry, data, life_ms=header.life_ms, born=born):
            return None
        call.kind.stats.bytes_stored += len(data)
        return await self._ledger.notify_set(call.key, born, call.scopes) if notify else born

    async def _run(self, call: Call, load: Load, old: bytes | None) -> tuple[Any, str]:
        """Call the function; return what it returned, or the previous value where it says that this still holds.

        Beside it the validator to keep, '' where there is none.
        """
        held = self._memory.held.get(call.key)
        if held is not None:
            before = Condition(call.own(held.value, held.payload), held.validator, known=True)
        else:
            before = self._stored(call, old)
        token = condition.set(before)
        try:
            value = await load()
        except BaseException as raised:
            if is_cancelled():
                raise
            pass_on(raised, Exception)
            # As it is it would end the event loop, or the task of each caller who waits for this load.
            raise RuntimeError(f"{call.key}: the loader raised {type(raised).__name__} {raised}".rstrip()) from raised
        finally:
            condition.reset(token)
        validator = before.validator_of(value)
        if isinstance(value, Unchanged):
            if not before.known:
                raise NotCacheable(f"{call.key}: the loader says UNCHANGED, but there was no previous value")
            value = before.value
        return value, validator

    def _packed(self, call: Call, loaded: Any, flight: Flight, load_ms: float, validator: str) -> Packed:
        """Return what the function returned as every caller will see it, and as it is stored. Raises: NotCacheable."""
        value, payload = call.kind.codec.settle(loaded)
        try:
            tags, ttl_ms = call.all_tags(value), call.kind.ttl_ms(value)
            kept = call.kind.keep is None or bool(call.kind.keep(value))
        except BaseException as failed:  # the view's own functions of the value
            pass_on(failed)
            raise NotCacheable(f"{call.kind.codec.what}: no ttl or tags for this value: {failed!r}") from failed
        assert flight.born is not None  # noqa: S101 - set when the load began
        header = Header(
            call.kind.policy.life_ms(ttl_ms, draw()),
            call.kind.policy.grace_ms,
            round(load_ms, 1),
            tags,
            validator=validator,
            purpose="" if flight.purpose is Purpose.READ else flight.purpose.value,
        )
        data = pack(payload, flight.born, header, call.key)
        scopes = call.scopes if tags == call.tags else scopes_of(call.key, tags)
        return Packed(value, payload, data, header, scopes, kept)

    def settle(self, call: Call, loaded: Any) -> tuple[Any, bytes | None]:
        """Return a loaded value as every caller will see it, and as bytes; None for what cannot be stored."""
        try:
            return call.kind.codec.settle(loaded)
        except NotCacheable as refused:
            self._report(call, refused)
            return loaded, None

    def _report(self, call: Call, refused: NotCacheable) -> None:
        """Count a value that is served without being stored; the first of a view, or plain key, is a warning."""
        call.kind.stats.uncacheable += 1
        name = call.key if call.kind.plain else call.kind.codec.what
        if name not in self._reported:
            if len(self._reported) >= MOST_REPORTED:
                self._reported.clear()
            self._reported.add(name)
            log.warning("%s; the value is served and not stored (key %s)", refused, call.key)

    async def _fill(self, call: Call, ask: Ask, data: bytes, life_ms: int, born: Born) -> bool:
        """Store and give the lease back; False where it must still be given back."""
        assert self._entries is not None  # noqa: S101 - a lease comes from there
        try:
            await self._entries.fill(ask, data, life_ms=life_ms, born=born)
        except ServerError as away:
            call.kind.stats.fill_errors += 1
            log.debug("%s: not stored: %s", call.key, away)
            return False
        call.kind.stats.bytes_stored += len(data)
        return True

    def _renewed(self, ask: Ask, call: Call) -> asyncio.Task[None]:
        """Keep the lease while the load runs, until it is overdue: then others load."""
        assert self._entries is not None  # noqa: S101 - a lease comes from there
        return asyncio.ensure_future(self._entries.renew(ask, call.kind.policy.max_load_ms / 1000))

    def _stored(self, call: Call, data: bytes | None) -> Condition:
        """Return what a stored entry says to a load, where there is one of this type."""
        entry = unpack(data) if data is not None else None
        if entry is not None:
            with contextlib.suppress(msgspec.DecodeError):
                return Condition(call.kind.codec.decode(entry.payload), entry.header.validator, known=True)
        return Condition(None, "", known=False)
