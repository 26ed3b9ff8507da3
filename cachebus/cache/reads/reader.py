"""One read: memory, then Redis, then one load in the whole cluster. Freshness decides at each step.

`Reader.read` is the main path, in the order it happens.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cachebus.cache.call import USUAL, Call, Demand, Load, Value
from cachebus.cache.policy import SERVED, Age, draw
from cachebus.cache.reads.backoff import Backoff
from cachebus.cache.reads.conditional import unconditional
from cachebus.cache.reads.loader import Loader
from cachebus.cache.reads.lookup import Lookup, longer
from cachebus.cache.reads.single_flight import Flight, SingleFlight
from cachebus.cache.stats import Purpose
from cachebus.cache.tiers.memory import Memory
from cachebus.cache.tiers.redis import LEASE_MS, NEVER, Found, LeaseState
from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue
from cachebus.clock import now_s
from cachebus.errors import LoadCycle, ServerError
from cachebus.freshness.clock import Born, is_queued, parse_clock
from cachebus.freshness.journal import Journal
from cachebus.freshness.rule import Freshness, Verdict

log = logging.getLogger("cachebus")

CATCH_UP_S = 0.25
"""How long a `fresh_after` read waits for the journal before it asks the ledger instead."""
AHEAD_US = 3_600_000_000
"""A clock so far ahead of all we know is absurd: no read waits for it."""
WARM_BELOW = 0.25
"""`warm` renews an entry with less than this share of its TTL left."""


class Reader:
    """Reads of one process: its memory, its table, and the entries everybody shares."""

    def __init__(self, memory: Memory, lookup: Lookup | None, journal: Journal | None) -> None:
        """*lookup*, *journal*: None where this process works alone."""
        self.memory = memory
        self.freshness: Freshness = memory.freshness
        entries, ledger = (lookup.entries, lookup.ledger) if lookup is not None else (None, None)
        self.loader = Loader(memory, memory.freshness, entries, ledger)
        self._lookup = lookup
        self._journal = journal
        self._flights = SingleFlight(lambda call: self._pause(call, f"longer than {call.kind.policy.max_load_ms} ms"))
        self._backoff = Backoff()

    # -- the main path ----------------------------------------------------------------------------------------------

    async def read(self, call: Call, load: Load, demand: Demand = USUAL) -> Any:
        """Return the value of *call*: from memory, from Redis, or from one load in the cluster."""
        asks = demand is not USUAL and await _must_ask(demand, self.freshness, self._journal)
        came_at = self.freshness.seen
        held = self.memory.held.get(call.key)
        if held is not None:
            age = await self.memory.age(held, call, demand, asks=asks)
            if age in SERVED or (age is Age.ERROR_ONLY and self._backoff.pauses(call.entry, now_s())):
                return self._from_memory(held, call, load, age)
        flight = self._flights.under_way(call.entry)
        if flight is not None:
            try:
                value = await self._join(flight, call, asks=asks, strictly=asks)
            except Exception:
                call.kind.stats.joined += 1
                raise
            if value is not None and not self.freshness.is_overtaken(value.born, value.late_scopes, came_at):
                call.kind.stats.joined += 1
                return self._deliver(call, load, value)
            # Whatever departs from here on is born after this caller came, and is for this caller too.
            flight = self._suitable(call, asks=asks)
        own = False
        if flight is None:
            seen = await self._lookup.look(call, asks=asks) if self._lookup is not None else None
            if isinstance(seen, Value):
                call.kind.stats.l2_hits += 1
                return self._deliver(call, load, seen)
            flight, own = self._board(call, load, seen, asks=asks)
            await self._give_back(seen, flight)
        call.kind.stats.joined += not own
        return self._deliver(call, load, await self._arrive(flight, call, own=own, strictly=asks))

    async def warm(self, call: Call, load: Load, demand: Demand = USUAL) -> Value:
        """Make sure a valid entry with a good part of its life left lies in Redis; load it here if need be.

        With `fresh_after` it is the refresh that an event asks for, and counted as one.
        """
        asks = demand is not USUAL and await _must_ask(demand, self.freshness, self._journal)
        flight = self._flights.under_way(call.entry)
        if flight is not None and (value := await self._join(flight, call, asks=asks, strictly=True)):
            return value
        need_ms = call.kind.policy.grace_ms + int(call.kind.policy.ttl_ms * WARM_BELOW)
        why = Purpose.REFRESH if demand.fresh_after else Purpose.WARM
        flight, own = self._board(call, load, None, need_ms, why, asks=asks)
        return await self._arrive(flight, call, own=own, strictly=True)

    async def peek(self, call: Call, demand: Demand = USUAL) -> Value | None:
        """Return what is cached and valid, or None; never load."""
        asks = demand is not USUAL and await _must_ask(demand, self.freshness, self._journal)
        held = self.memory.held.get(call.key)
        if held is not None and await self.memory.age(held, call, demand, asks=asks) in SERVED:
            call.kind.stats.l1_hits += 1
            return Value(held.value, held.payload, held.as_of, loaded=False)
        seen = await self._lookup.look(call, asks=asks, claim=False) if self._lookup is not None else None
        if not isinstance(seen, Value):
            return None
        call.kind.stats.l2_hits += 1
        return seen

    async def peek_many(self, calls: list[Call], demand: Demand = USUAL) -> list[Value | None]:
        """Do the same with several plain values that memory cannot answer by itself, in one round trip."""
        lookup = self._lookup
        if lookup is None or demand is not USUAL or not lookup.can_glance(calls):
            return await asyncio.gather(*[self.peek(call, demand) for call in calls])
        seen = await lookup.glance_at_all(calls)
        calls[0].kind.stats.l2_hits += len(seen) - seen.count(None)
        return seen

    def sweep(self, now: float) -> None:
        """Forget what has expired, asked for or not."""
        self.memory.store.sweep(now)
        self._backoff.sweep(now)

    async def clocks(self, scopes: tuple[str, ...]) -> dict[str, int] | None:
        """Return the clock of each scope's last invalidation. At most one round trip; None where nobody can say."""
        if self._lookup is None:
            return {scope: self.freshness.latest((scope,)) for scope in scopes}
        try:
            return await self._lookup.clocks(scopes)
        except ServerError as unavailable:
            log.debug("the ledger could not be asked: %s", unavailable)
            return None

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._flights.close()

    # -- a read's end -----------------------------------------------------------------------------------------------

    def _deliver(self, call: Call, load: Load, value: Value) -> Any:
        if value.renew_ms:
            self._renew_behind(call, load, value.renew_ms)
        return call.own(value.value, value.payload)

    def _from_memory(self, held: CachedValue, call: Call, load: Load, age: Age) -> Any:
        held.hits = min(held.hits + 1, MOST_HITS)
        call.kind.stats.l1_hits += 1
        if age is not Age.FRESH:
            call.kind.stats.stale += age is Age.STALE
            self._renew_behind(call, load, longer(int((held.keep_until - now_s()) * 1000), call))
        return call.own(held.value, held.payload)

    # -- flights ----------------------------------------------------------------------------------------------------

    def _suitable(self, call: Call, *, asks: bool) -> Flight | None:
        """Return the flight under way that departed after this caller came, if its value will do."""
        flight = self._flights.under_way(call.entry)
        if flight is None or (asks and flight.born is None and not flight.asks):
            return None
        return flight

    def _board(
        self, call: Call, load: Load, found: Found | None, need_ms: int = 0, why: Purpose = Purpose.READ, *, asks: bool
    ) -> tuple[Flight, bool]:
        """Return the flight under way, or begin one; and whether this caller began it."""
        flight = self._suitable(call, asks=asks)
        if flight is not None:
            return flight, False
        return self._depart(call, load, found, need_ms, why, asks=asks), True

    def _depart(
        self, call: Call, load: Load, found: Found | None, need_ms: int, why: Purpose, *, asks: bool = False
    ) -> Flight:
        """Begin a load, or the wait for somebody else's, that everyone in this process may share."""
        token = found.ask.token if found is not None else self._lookup.token() if self._lookup is not None else ""
        return self._flights.depart(
            call, token, lambda flight: self._fly(flight, call, load, found, need_ms), why, asks=asks
        )

    async def _join(self, flight: Flight, call: Call, *, asks: bool, strictly: bool) -> Value | None:
        """Wait for a flight that departed before this caller came; None where its value is not for this caller."""
        if not await self._may_join(flight, call, asks=asks):
            await self._flights.wait(flight)  # two loads of a key do not run at once
            return None
        try:
            return await self._arrived(flight, call, own=False, strictly=strictly)
        except Exception:
            if flight.renews:  # there may be an older value in Redis that memory had no room for
                return None
            raise

    async def _may_join(self, flight: Flight, call: Call, *, asks: bool) -> bool:
        if flight.born is None:  # what it finds in Redis is judged after this caller came
            return flight.asks or not asks
        heard = not asks and self.freshness.hears(now_s())
        verdict = self.freshness.judge(flight.born, call.scopes, heard=heard, moment=flight.moment)
        if verdict is not Verdict.ASK:
            return verdict is Verdict.VALID
        return await self.memory.confirmed(flight.born, call.scopes, flight.began_at, strictly=asks) is not None

    async def _arrive(self, flight: Flight, call: Call, *, own: bool, strictly: bool) -> Value:
        """Wait for a flight that departed after this caller came. Raises: what the load raises, TimeoutError."""
        value = await self._arrived(flight, call, own=own, strictly=strictly)
        if value is None:
            raise TimeoutError(f"{call.key}: the load takes longer than {call.kind.policy.max_load_ms} ms")
        return value

    async def _arrived(self, flight: Flight, call: Call, *, own: bool, strictly: bool) -> Value | None:
        """Wait for a flight; None where it is overdue and was begun by somebody else.

        Where it fails or is late, a caller gets an older value that a window allows, unless it asks *strictly*.
        """
        limit_ms = call.kind.policy.hard_timeout_ms
        limit_s = limit_ms / 1000 if limit_ms else None
        if limit_s and not strictly and self._stand_in(call) is not None:  # nobody waits again for what is late already
            limit_s = max(0.0, flight.departed_at + limit_s - now_s())
        await self._flights.wait(flight, limit_s)
        if flight.succeeded:
            return flight.result()
        held = self._stand_in(call) if not strictly and not flight.circular else None
        if held is not None:
            call.kind.stats.stale += 1
            return Value(held.value, held.payload, held.as_of, loaded=False)
        if not flight.task.done():
            if limit_ms:
                raise TimeoutError(
                    f"{call.key}: the load takes longer than {limit_ms} ms; it continues in the background"
                )
            if not own:
                return None
            await self._flights.wait_for_task(flight)
        return flight.result()

    def _renew_behind(self, call: Call, load: Load, need_ms: int) -> None:
        if self._flights.under_way(call.entry) is None and not self._backoff.pauses(call.entry, now_s()):
            self._depart(call, load, None, need_ms, Purpose.REFRESH).renews = True

    # -- loads that fail --------------------------------------------------------------------------------------------

    def _stand_in(self, call: Call) -> CachedValue | None:
        """Return an older value that may be served in place of a load: valid, and within a window that says so."""
        held = self.memory.held.get(call.key)
        return held if held is not None and self.memory.serves_on_error(held, call.kind.policy) else None

    def _pause(self, call: Call, failed: object) -> None:
        """Leave a key alone for a while whose old value is served meanwhile. A view's first failure is logged."""
        now, held, policy = now_s(), self.memory.held.get(call.key), call.kind.policy
        if held is None:
            window_s = policy.grace_ms / 1000  # what Redis may hold, where memory has no room
        elif policy.serve_invalidated_ms or self.memory.is_valid(held):
            window_s = held.keep_until - now
        else:
            return
        if window_s > 0 and self._backoff.failed(call.entry, id(call.kind.stats), now, window_s=window_s, draw=draw()):
            log.warning("%s: the load failed; an older value is served where there is one: %r", call.key, failed)

    # -- loading ----------------------------------------------------------------------------------------------------

    async def _fly(self, flight: Flight, call: Call, load: Load, found: Found | None, need_ms: int) -> Value:
        """Bring the value. After a failure, or a renewal that is not kept, the key is left alone for a while."""
        try:
            value = await self._fetch(flight, call, load, found, need_ms)
        except Exception as failed:
            if not isinstance(failed, LoadCycle):  # a mistake in the program, which no older value should hide
                self._pause(call, failed)
            raise
        if flight.renews and not value.kept:  # otherwise each read of the window would renew, to be refused again
            self._pause(call, "keep= refuses the value")
        elif failures := self._backoff.succeeded(call.entry):
            log.info("%s: the load succeeded again after %d failures", call.key, failures)
        return value

    async def _fetch(self, flight: Flight, call: Call, load: Load, found: Found | None, need_ms: int) -> Value:
        """Load, if the lease is ours; otherwise wait until the fill wakes us, and look again."""
        lookup = self._lookup
        if lookup is None or not lookup.is_trusted(call.scopes):
            return await self._load(flight, call, load)
        entries = lookup.entries
        ends = now_s() + (call.kind.policy.max_load_ms + LEASE_MS) / 1000
        floor, deaf = 0, found is not None  # deaf: that read was sent before a fill could have woken us
        woken = entries.expect(call.entry)
        try:
            while now_s() < ends:
                if found is None:
                    found, value = await lookup.find(call, flight.token, floor=floor, need_ms=need_ms, asks=flight.asks)
                else:
                    value = await lookup.accept(call, found, asks=flight.asks)
                if found.state in (LeaseState.OURS, LeaseState.ALONE):
                    return await self._load(flight, call, load, found)
                if found.state is LeaseState.USE and value is not None:
                    call.kind.stats.l2_hits += flight.purpose is Purpose.READ
                    return value
                floor = NEVER if found.state is LeaseState.USE else 0
                if found.state is LeaseState.ELSEWHERE:
                    call.kind.stats.waits += 1
                    if await entries.listen() and not deaf:
                        await asyncio.wait([woken], timeout=max(found.wait_ms, 1) / 1000)
                        entries.forget(call.entry, woken)
                        woken = entries.expect(call.entry)
                found, deaf = None, False
        except ServerError as away:
            log.debug("%s: loading without Redis: %s", call.key, away)
        finally:
            entries.forget(call.entry, woken)
        # Without a lease: Redis is unavailable, or somebody has kept the lease for longer than any load may.
        return await self._load(flight, call, load)

    async def _give_back(self, found: Found | None, flight: Flight) -> None:
        """Somebody else departed while we looked: the lease we were given is theirs to take."""
        if self._lookup is None or found is None or found.state is not LeaseState.OURS:
            return
        if flight.token != found.ask.token:
            await self._lookup.entries.give_back(found)

    async def _load(self, flight: Flight, call: Call, load: Load, found: Found | None = None) -> Value:
        seen, era = self.freshness.born
        born = Born(max(0, seen - call.kind.policy.read_lag_us), era)
        self._flights.loads(flight, call, born, self.freshness.moment())
        return await self.loader.load(call, load, flight, found)


async def read_and_store_nothing(reader: Reader, call: Call, load: Load, demand: Demand) -> Any:
    """Return what is cached and valid, or else load for this caller alone: nobody joins the load."""
    found = await reader.peek(call, demand)
    if found is not None:
        return call.own(found.value, found.payload)
    call.kind.stats.direct += 1
    with unconditional():
        return await load()


async def _must_ask(demand: Demand, freshness: Freshness, journal: Journal | None) -> bool:
    """Wait for the journal where a caller demands it; return whether this read must ask the ledger.

    What a caller brings changes nothing but its own read: its clock may be of another era, from the far future, or
    no clock at all, and is never taken for one of ours. A queued invalidation is not in the journal that far: only the
    ledger may know of it.
    """
    if demand.strict or not demand.fresh_after:
        return demand.strict
    clock = parse_clock(demand.fresh_after)
    if clock is None or journal is None or clock.number > freshness.seen + AHEAD_US or is_queued(demand.fresh_after):
        return True
    return not await journal.reached(clock, CATCH_UP_S)
