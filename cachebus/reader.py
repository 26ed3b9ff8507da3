"""One read: memory, then Redis, then one load in the whole cluster. Freshness decides at each step.

`Reader.read` is the main path, in the order it happens. What may be served is decided by `Freshness` (invalidations)
and `Policy` (age); this file only acts on it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from cachebus.codec import Codec
from cachebus.entries import Ask, Entries, Found, State
from cachebus.entry import Entry, pack, unpack
from cachebus.errors import NotCacheable, ServerError
from cachebus.freshness import Freshness, Verdict
from cachebus.journal import Journal
from cachebus.keys import scopes_of
from cachebus.ledger import Ledger
from cachebus.link import now_s
from cachebus.memory import Held, Memory
from cachebus.names import Names
from cachebus.policy import EARLY_REACH, Age, Policy, draw
from cachebus.stats import ViewStats

log = logging.getLogger("cachebus")

TRUST_S = 2.0
"""A process whose last journal reply is older than this asks the ledger before it serves from memory."""
CATCH_UP_S = 0.25
"""How long a `fresh_after` read waits for the journal before it asks the ledger instead."""
RENEW_AHEAD = 0.25
"""`warm` renews an entry with less than this share of its TTL left."""


class Unchanged:
    """What a loader returns to say: the value from `previous()` still holds."""


UNCHANGED = Unchanged()
NEVER = 10**16 - 1
"""A clock no entry is born at: the next read takes the lease whatever lies there."""
_previous: ContextVar[Any] = ContextVar("cachebus_previous", default=None)


def previous() -> Any:
    """Return, inside a loader, the value it last produced for these arguments (perhaps invalidated), or None.

    A loader that finds it still right, for instance by an ETag or an `updated_at`, returns `UNCHANGED`.
    """
    return _previous.get()


class Demand(NamedTuple):
    """What a caller demands beyond the usual guarantee."""

    fresh_after: int = 0
    strict: bool = False
    load_only: bool = False


USUAL = Demand()


@dataclass(slots=True)
class Call:
    """One view with one set of arguments: everything a read of it needs."""

    key: str
    entry: str
    lease: str
    scopes: tuple[str, ...]
    tags: tuple[str, ...]
    codec: Codec
    policy: Policy
    stats: ViewStats
    load: Callable[[], Awaitable[Any]]
    ttl_of: Callable[[Any], int] | None = None
    tags_of: Callable[[Any], tuple[str, ...]] | None = None


class Value(NamedTuple):
    """What a flight brings home. `payload` is what each caller decodes for itself; None: `value` may be shared."""

    value: Any
    payload: bytes | None
    born: int
    loaded: bool
    late_scopes: tuple[str, ...] = ()
    """Scopes known only after the load; see `Reader._entitled`."""
    renew_ms: int = 0
    """Non-zero: somebody should renew it, in the background, to live longer than this."""


class Flight:
    """A read that is under way for all callers of one key in this process."""

    __slots__ = ("born", "moment", "task")

    def __init__(self) -> None:
        self.born: int | None = None
        """Set when the load begins; before that anyone may join, for nothing has been read yet."""
        self.moment = 0
        self.task: asyncio.Task[Value]


class Reader:
    """Reads for one process: its memory, its table, and the entries everybody shares."""

    def __init__(  # noqa: PLR0913 - the parts a read needs, put together in one place
        self,
        memory: Memory,
        freshness: Freshness,
        *,
        ledger: Ledger | None,
        journal: Journal | None,
        entries: Entries | None,
        names: Names,
        max_staleness_s: float,
        up: Callable[[], bool],
        now_us: Callable[[], int],
    ) -> None:
        self.memory = memory
        self.freshness = freshness
        self.names = names
        self._ledger = ledger
        self._journal = journal
        self._entries = entries
        self._max_staleness_s = max_staleness_s
        self._up = up
        self._now_us = now_us
        self._since = -1
        self._since_at = 0.0
        self._flights: dict[str, Flight] = {}
        self._process = f"{os.getpid():x}.{secrets.token_hex(6)}"
        self._count = itertools.count()

    # -- the main path ----------------------------------------------------------------------------------------------

    async def read(self, call: Call, demand: Demand = USUAL) -> Any:
        """Return the value of *call*: from memory, from Redis, or from one load in the cluster."""
        joined_at = await self._catch_up(call, demand)
        held = self.memory.held.get(call.key)
        if held is not None:
            age = await self._age_of(held, call, demand)
            if age is Age.FRESH:
                call.stats.l1_hits += 1
                return _share(held.value, held.payload, call.codec)
            if age in (Age.EARLY, Age.STALE):
                call.stats.l1_hits += 1
                call.stats.stale += age is Age.STALE
                self._renew_behind(call, int((held.keep_until - now_s()) * 1000) + 1)
                return _share(held.value, held.payload, call.codec)
        while True:
            flight = self._flights.get(call.entry)
            if flight is None:
                flight = self._depart(call)
            elif not self._may_join(flight, call):
                await asyncio.wait([flight.task])
                continue
            else:
                call.stats.joined += 1
            result = await self._arrive(flight, call, held)
            if self._entitled(result, joined_at):
                if result.renew_ms:
                    self._renew_behind(call, result.renew_ms)
                return _share(result.value, result.payload, call.codec)

    async def warm(self, call: Call, demand: Demand = USUAL) -> Value:
        """Make sure a valid entry with a good part of its life left lies in Redis; load it here if need be."""
        await self._catch_up(call, demand)
        need_ms = call.policy.grace_ms + int(call.policy.ttl_ms * RENEW_AHEAD)
        while True:
            flight = self._flights.get(call.entry)
            if flight is None:
                flight = self._depart(call, need_ms)
            elif not self._may_join(flight, call):
                await asyncio.wait([flight.task])
                continue
            return await asyncio.shield(flight.task)

    async def peek(self, call: Call, demand: Demand = USUAL) -> Value | None:
        """Return what is cached and valid, or None; never load."""
        await self._catch_up(call, demand)
        held = self.memory.held.get(call.key)
        if held is not None and await self._age_of(held, call, demand) in (Age.FRESH, Age.EARLY, Age.STALE):
            call.stats.l1_hits += 1
            return Value(held.value, held.payload, held.as_of, loaded=False)
        if self._entries is None:
            return None
        known = self.freshness.seen
        need_ms = call.policy.grace_ms - call.policy.stale_ms
        try:
            found = await self._entries.read(
                Ask(
                    call.entry,
                    call.lease,
                    self.freshness.latest(call.scopes),
                    need_ms=need_ms,
                    scopes=self._doubted(call),
                )
            )
            usable = await self._accept(call, found, known)
        except ServerError:
            return None
        if usable is None or found.left_ms < need_ms:
            return None
        call.stats.l2_hits += 1
        return usable

    async def write(self, call: Call, payload: bytes, born: int) -> None:
        """Store a value somebody brought, born at a clock they knew before they read it."""
        life_ms = call.policy.life_ms(call.policy.ttl_ms, draw())
        data = pack(
            payload,
            born=born,
            life_ms=life_ms,
            grace_ms=call.policy.grace_ms,
            load_ms=0.0,
            tags=call.tags,
            what=call.key,
        )
        if self._entries is not None and self._up() and not self.freshness.is_pending(call.scopes):
            try:
                await self._entries.write(call.entry, data, life_ms=life_ms, born=born)
                call.stats.bytes_stored += len(data)
            except ServerError as away:
                call.stats.fill_errors += 1
                log.debug("%s: not stored: %s", call.key, away)
        entry = unpack(data)
        assert entry is not None  # noqa: S101 - we packed it
        value = call.codec.decode(payload) if call.codec.shared else None
        moment = self.freshness.moment()
        self._hold(call, value, entry, life_ms, as_of=born, scopes=call.scopes, moment=moment)

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- memory -----------------------------------------------------------------------------------------------------

    async def _catch_up(self, call: Call, demand: Demand) -> int:
        """Bring this process's table to where the caller needs it; returns the newest clock it knows."""
        if demand.fresh_after:
            self.freshness.observe(demand.fresh_after)
        asking = demand.strict
        if demand.fresh_after and self._journal is not None and not asking:
            asking = not await self._journal.reached(demand.fresh_after, CATCH_UP_S)
        if asking and self._ledger is not None and self._up():
            try:
                await self._ledger.ask(call.scopes)
            except ServerError:
                log.debug("%s: the ledger could not be asked", call.key)
        return self.freshness.seen

    async def _age_of(self, held: Held, call: Call, demand: Demand) -> Age:
        """Decide whether what memory holds may be served."""
        now = now_s()
        verdict = self.freshness.verdict(held.as_of, held.scopes, held.moment)
        if verdict is Verdict.INVALID:
            return self._age_of_invalid(held, call, demand, now)
        age = self._age_by_time(held, call.policy, now)
        if age in (Age.DEAD, Age.ERROR_ONLY):
            return age
        if verdict is Verdict.VALID and not self._stalled(now):
            held.checked = self.freshness.version
            return age
        if self._ledger is None:
            return age
        return age if await self._confirmed(held, now) else Age.DEAD

    def _age_by_time(self, held: Held, policy: Policy, now: float) -> Age:
        if now < held.early_at:
            return Age.FRESH
        return policy.age((held.fresh_until - now) * 1000, held.load_ms, draw())

    def _age_of_invalid(self, held: Held, call: Call, demand: Demand, now: float) -> Age:
        """Only a view that says so serves what was invalidated, never to a `fresh_after` or strict read."""
        policy = call.policy
        if demand is not USUAL or held.keep_until <= now:
            return Age.DEAD
        if (now - held.loaded_at) * 1000 < policy.settle_ms:
            return Age.FRESH
        return Age.STALE if self._since_invalidated_ms(held.scopes) < policy.serve_invalidated_ms else Age.DEAD

    def _since_invalidated_ms(self, scopes: tuple[str, ...]) -> float:
        return (self._now_us() - self.freshness.latest(scopes)) / 1000

    def _stalled(self, now: float) -> bool:
        return now - self.freshness.heard_at > TRUST_S

    async def _confirmed(self, held: Held, now: float) -> bool:
        """Ask the ledger about an entry older than this process's table, or after a stall. Away: bounded staleness."""
        assert self._ledger is not None  # noqa: S101 - told apart by the caller
        known = self.freshness.seen
        if self._up():
            try:
                answer = await self._ledger.ask(held.scopes)
            except ServerError:
                log.debug("the ledger could not be asked")
            else:
                if not answer.allows(held.as_of, held.scopes):
                    return False
                held.as_of = max(held.as_of, min(known, answer.clock))
                return True
        vouched = self.freshness.heard_at if held.as_of >= self.freshness.since else held.loaded_at
        return now - max(vouched, held.loaded_at) <= self._max_staleness_s

    # -- flights ----------------------------------------------------------------------------------------------------

    def _depart(self, call: Call, need_ms: int = 0) -> Flight:
        """Begin a read that everyone in this process may share."""
        flight = Flight()
        flight.task = asyncio.ensure_future(self._fly(flight, call, need_ms))
        self._flights[call.entry] = flight
        flight.task.add_done_callback(lambda task: self._land(call, flight, task))
        return flight

    def _land(self, call: Call, flight: Flight, task: asyncio.Task[Value]) -> None:
        if self._flights.get(call.entry) is flight:
            del self._flights[call.entry]
        if not task.cancelled() and task.exception() is not None:
            log.debug("%s: the load failed: %r", call.key, task.exception())

    def _may_join(self, flight: Flight, call: Call) -> bool:
        return flight.born is None or self.freshness.may_join(flight.born, call.scopes, flight.moment)

    async def _arrive(self, flight: Flight, call: Call, held: Held | None) -> Value:
        """Wait for a flight. Cancelling this caller cancels nobody else."""
        policy = call.policy
        fallback = (
            held if held is not None and policy.soft_timeout_ms and self._may_serve_on_error(held, policy) else None
        )
        limit_ms = policy.soft_timeout_ms if fallback is not None else policy.hard_timeout_ms
        done, _ = await asyncio.wait([flight.task], timeout=limit_ms / 1000 if limit_ms else None)
        if done:
            return flight.task.result()
        if fallback is not None:
            call.stats.stale += 1
            return Value(fallback.value, fallback.payload, fallback.as_of, loaded=False)
        raise TimeoutError(f"{call.key}: the load takes longer than {limit_ms} ms; it goes on in the background")

    def _entitled(self, result: Value, joined_at: int) -> bool:
        """Return whether a caller may have this value, now that tags known only after the load are known.

        A tag invalidated after the load began and before this caller came: the next load is for this caller.
        """
        return not any(result.born < self.freshness.latest((scope,)) <= joined_at for scope in result.late_scopes)

    def _renew_behind(self, call: Call, need_ms: int) -> None:
        if call.entry not in self._flights:
            self._depart(call, need_ms)

    async def _fly(self, flight: Flight, call: Call, need_ms: int) -> Value:
        """Redis, or the load. Whoever holds the lease loads; whoever does not is woken by the fill and looks again."""
        if self._entries is None or not self._up() or self.freshness.is_pending(call.scopes):
            return await self._load(flight, call, None, None)
        policy = call.policy
        need_ms = max(need_ms, policy.grace_ms - policy.stale_ms)
        touch_ms = policy.life_ms(policy.ttl_ms, 0) if policy.sliding else 0
        token = f"{self._process}.{next(self._count)}"
        floor = 0
        while True:
            known = self.freshness.seen
            floor = max(floor, self.freshness.latest(call.scopes))
            ask = Ask(call.entry, call.lease, floor, token, known, need_ms, touch_ms, self._doubted(call))
            floor = 0
            woken = self._entries.expect(call.entry)
            try:
                found = await self._entries.read(ask)
                usable = await self._accept(call, found, known)
                if found.state in (State.OURS, State.ALONE):
                    return await self._load(flight, call, ask, found)
                if found.state is State.ELSEWHERE:
                    call.stats.waits += 1
                    if await self._entries.listen():
                        await asyncio.wait([woken], timeout=max(found.wait_ms, 1) / 1000)
                elif usable is None:
                    floor = NEVER
                else:
                    call.stats.l2_hits += 1
                    return usable
            except ServerError as away:
                log.debug("%s: loading without Redis: %s", call.key, away)
                return await self._load(flight, call, None, None)
            finally:
                self._entries.forget(call.entry, woken)

    def _doubted(self, call: Call) -> tuple[str, ...]:
        """Scopes to ask the ledger about in the same round trip: only while entries older than our table may exist."""
        if self.freshness.since != self._since:
            self._since, self._since_at = self.freshness.since, now_s()
        policy = call.policy
        return call.scopes if (now_s() - self._since_at) * 1000 <= policy.ttl_ms + policy.grace_ms else ()

    async def _accept(self, call: Call, found: Found, known: int) -> Value | None:
        """Turn what Redis holds into a value: an entry, of our type, valid. *known*: newest clock seen before the read."""
        entry = unpack(found.data) if found.data is not None else None
        if entry is None:
            return None
        tags = entry.header.tags
        scopes = call.scopes if tags == call.tags else scopes_of(call.key, dict.fromkeys((*call.tags, *tags)))
        as_of = entry.born
        verdict = self.freshness.verdict(as_of, scopes)
        if verdict is Verdict.ASK and self._ledger is not None:
            answer = found.ledger
            if answer is None or scopes is not call.scopes:
                answer = await self._ledger.ask(scopes)
            if answer.allows(as_of, scopes):
                verdict, as_of = Verdict.VALID, max(as_of, min(known, answer.clock))
        if verdict is not Verdict.VALID:
            return None
        try:
            value = call.codec.decode(entry.payload)
        except msgspec.DecodeError:
            return None
        held = self._hold(call, value, entry, found.left_ms, as_of=as_of, scopes=scopes, moment=None)
        age = self._age_by_time(held, call.policy, now_s())
        if age is Age.STALE:
            call.stats.stale += 1
        renew_ms = found.left_ms + 1 if age in (Age.EARLY, Age.STALE) else 0
        return Value(value, held.payload, entry.born, loaded=False, renew_ms=renew_ms)

    # -- loading ----------------------------------------------------------------------------------------------------

    async def _load(self, flight: Flight, call: Call, ask: Ask | None, found: Found | None) -> Value:
        """Call the loader, store what it returns, tell whoever waits."""
        old = unpack(found.data) if found is not None and found.data is not None else None
        flight.moment = self.freshness.moment()
        flight.born = max(0, self.freshness.seen - call.policy.read_lag_us)
        started = time.perf_counter()
        renewal = None
        if ask is not None and self._entries is not None:
            renewal = asyncio.ensure_future(self._entries.renew_until_cancelled(ask))
        stored = False
        try:
            value, payload = await self._produce(call, old)
            load_ms = (time.perf_counter() - started) * 1000
            call.stats.loaded(load_ms, len(payload))
            tags = tuple(dict.fromkeys((*call.tags, *call.tags_of(value)))) if call.tags_of else call.tags
            scopes = scopes_of(call.key, tags) if tags != call.tags else call.scopes
            late = tuple(scope for scope in scopes if scope not in call.scopes)
            ttl_ms = self._ttl_ms(call, value)
            life_ms = call.policy.life_ms(ttl_ms, draw())
            data = pack(
                *(payload,),
                born=flight.born,
                life_ms=life_ms,
                grace_ms=call.policy.grace_ms,
                load_ms=load_ms,
                tags=tags,
                what=call.key,
            )
            if ask is not None and self._entries is not None and not self.freshness.is_pending(scopes):
                stored = await self._store(call, ask, data, life_ms, flight.born)
            entry = unpack(data)
            assert entry is not None  # noqa: S101 - we packed it
            held = self._hold(call, value, entry, life_ms, as_of=flight.born, scopes=scopes, moment=flight.moment)
            return Value(value, held.payload, flight.born, loaded=True, late_scopes=late)
        except Exception as failed:
            call.stats.load_errors += 1
            fallback = self._fallback(call, failed)
            if fallback is None:
                raise
            return fallback
        finally:
            if renewal is not None:
                renewal.cancel()
            if ask is not None and self._entries is not None and not stored:
                await self._entries.release(ask)

    async def _produce(self, call: Call, old: Entry | None) -> tuple[Any, bytes]:
        """Call the loader; return the value as every caller will see it, and its bytes."""
        held = self.memory.held.get(call.key)
        before = _share(held.value, held.payload, call.codec) if held is not None else _decoded(call.codec, old)
        token = _previous.set(before)
        try:
            value = await call.load()
        finally:
            _previous.reset(token)
        if isinstance(value, Unchanged):
            if before is None:
                raise NotCacheable(f"{call.key}: the loader says UNCHANGED, but there was no previous value")
            value = before
        payload = call.codec.encode(value)
        return (value if call.codec.shared else call.codec.decode(payload)), payload

    def _ttl_ms(self, call: Call, value: Any) -> int:
        if value is None and call.policy.negative_ttl_ms:
            return call.policy.negative_ttl_ms
        return call.ttl_of(value) if call.ttl_of is not None else call.policy.ttl_ms

    async def _store(self, call: Call, ask: Ask, data: bytes, life_ms: int, born: int) -> bool:
        assert self._entries is not None  # noqa: S101 - told apart by the caller
        try:
            await self._entries.fill(ask, data, life_ms=life_ms, born=born)
        except ServerError as away:
            call.stats.fill_errors += 1
            log.debug("%s: not stored: %s", call.key, away)
            return False
        call.stats.bytes_stored += len(data)
        return True

    def _fallback(self, call: Call, failed: Exception) -> Value | None:
        """Return what may be served instead of an error: a valid value within `stale_if_error`."""
        held = self.memory.held.get(call.key)
        if held is None or not self._may_serve_on_error(held, call.policy):
            return None
        log.warning("%s: the load failed, an older value is served: %r", call.key, failed)
        call.stats.stale += 1
        return Value(held.value, held.payload, held.as_of, loaded=False)

    def _may_serve_on_error(self, held: Held, policy: Policy) -> bool:
        late_ms = (now_s() - held.fresh_until) * 1000
        valid = self.freshness.verdict(held.as_of, held.scopes, held.moment) is Verdict.VALID
        return valid and late_ms < max(policy.stale_if_error_ms, policy.stale_ms)

    def _hold(
        self,
        call: Call,
        value: Any,
        entry: Entry,
        left_ms: int,
        *,
        as_of: int,
        scopes: tuple[str, ...],
        moment: int | None,
    ) -> Held:
        """Keep a value in memory, never longer than Redis does. A value that is invalid by now is not kept."""
        now = now_s()
        header = entry.header
        fresh_until = now + (left_ms - header.grace_ms) / 1000
        held = Held(
            value if call.codec.shared else None,
            None if call.codec.shared else entry.payload,
            as_of=as_of,
            moment=moment,
            checked=self.freshness.version,
            scopes=scopes,
            fresh_until=fresh_until,
            early_at=fresh_until - header.load_ms * EARLY_REACH / 1000,
            keep_until=now + left_ms / 1000,
            loaded_at=now - max(0, header.life_ms - left_ms) / 1000,
            load_ms=header.load_ms,
        )
        if self.freshness.verdict(as_of, scopes, moment) is not Verdict.INVALID:
            self.memory.put(call.key, held, len(entry.payload))
        return held


def _share(value: Any, payload: bytes | None, codec: Codec) -> Any:
    return value if payload is None else codec.decode(payload)


def _decoded(codec: Codec, entry: Entry | None) -> Any:
    try:
        return codec.decode(entry.payload) if entry is not None else None
    except msgspec.DecodeError:
        return None
