"""One read: memory, then Redis, then one load in the whole cluster. Freshness decides at each step.

`Reader.read` is the main path, in the order it happens.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus.call import USUAL, Call, Demand, Load, Value
from cachebus.entries import NEVER, Ask, Entries, Found, State
from cachebus.errors import ServerError
from cachebus.freshness import Freshness, Verdict
from cachebus.journal import Journal
from cachebus.keys import key_scope, scopes_of
from cachebus.ledger import Ledger
from cachebus.link import now_s
from cachebus.loader import Loader
from cachebus.memory import MOST_HITS, Held
from cachebus.policy import Age
from cachebus.shelf import TRUST_S, Shelf

log = logging.getLogger("cachebus")

CATCH_UP_S = 0.25
"""How long a `fresh_after` read waits for the journal before it asks the ledger instead."""
RENEWED_BY = 0.1
"""An entry that ends later than ours by this share of the TTL is another, newer one."""
WARM_BELOW = 0.25
"""`warm` renews an entry with less than this share of its TTL left."""


class Flight:
    """A read that is under way for all callers of one key in this process."""

    __slots__ = ("born", "moment", "task", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        """Of the read that set it off, whose lease it may hold."""
        self.born: int | None = None
        """Set when the load begins; before that anyone may join, for what Redis holds is judged after they came."""
        self.moment = 0
        self.task: asyncio.Task[Value]


class Reader:
    """Reads of one process: its memory, its table, and the entries everybody shares."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        ledger: Ledger | None,
        journal: Journal | None,
        entries: Entries | None,
        up: Callable[[], bool],
        at_us: Callable[[float], int],
    ) -> None:
        self.shelf = shelf
        self.memory = shelf.memory
        self.freshness: Freshness = shelf.freshness
        self.loader = Loader(shelf, shelf.freshness, entries)
        self._ledger = ledger
        self._journal = journal
        self._entries = entries
        self._up = up
        self._at_us = at_us
        self._flights: dict[str, Flight] = {}
        self._process = f"{os.getpid():x}.{secrets.token_hex(6)}"
        self._count = itertools.count()

    # -- the main path ----------------------------------------------------------------------------------------------

    async def read(self, call: Call, load: Load, demand: Demand = USUAL) -> Any:
        """Return the value of *call*: from memory, from Redis, or from one load in the cluster."""
        came_at = self.freshness.seen if demand is USUAL else await self._catch_up(call, demand)
        held = self.memory.held.get(call.key)
        if held is not None:
            age = await self.shelf.age(held, call, demand)
            if age in (Age.FRESH, Age.EARLY, Age.STALE):
                return self._from_memory(held, call, load, age)
        while True:
            flight = self._flights.get(call.entry)
            if flight is None:
                found, value = await self._look(call)
                if value is not None:
                    return self._deliver(call, load, value)
                flight = self._flights.get(call.entry) or self._depart(call, load, found)
                await self._give_back(found, flight)
            elif self._may_join(flight, call):
                call.stats.joined += 1
            else:
                await asyncio.wait([flight.task])
                continue
            value = await self._arrive(flight, call, held)
            if self._entitled(value, came_at):
                return self._deliver(call, load, value)

    async def warm(self, call: Call, load: Load, demand: Demand = USUAL) -> Value:
        """Make sure a valid entry with a good part of its life left lies in Redis; load it here if need be."""
        await self._catch_up(call, demand)
        need_ms = call.policy.grace_ms + int(call.policy.ttl_ms * WARM_BELOW)
        while True:
            flight = self._flights.get(call.entry) or self._depart(call, load, None, need_ms)
            if self._may_join(flight, call):
                return await asyncio.shield(flight.task)
            await asyncio.wait([flight.task])

    async def peek(self, call: Call, demand: Demand = USUAL) -> Value | None:
        """Return what is cached and valid, or None; never load."""
        await self._catch_up(call, demand)
        held = self.memory.held.get(call.key)
        if held is not None and await self.shelf.age(held, call, demand) in (Age.FRESH, Age.EARLY, Age.STALE):
            call.stats.l1_hits += 1
            return Value(held.value, held.payload, held.as_of, loaded=False)
        _, value = await self._look(call, claim=False)
        return value

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._entries is not None:
            await self._entries.dictionaries.close()

    # -- before a read ----------------------------------------------------------------------------------------------

    async def _catch_up(self, call: Call, demand: Demand) -> int:
        """Bring this process's table to where the caller needs it; returns the newest clock it knows."""
        asking = demand.strict
        if demand.fresh_after:
            self.freshness.observe(demand.fresh_after)
            if self._journal is not None and not asking:
                asking = not await self._journal.reached(demand.fresh_after, CATCH_UP_S)
        if asking and not await self._asked(call) and demand.fresh_after:
            # What was invalidated up to that clock cannot be known here: this entry is taken to be among it.
            self.freshness.invalidated((key_scope(call.key),), demand.fresh_after)
        return self.freshness.seen

    async def _asked(self, call: Call) -> bool:
        """Ask the ledger about this call; False where it cannot be asked."""
        if self._ledger is None or not self._up():
            return False
        try:
            await self._ledger.ask(call.scopes)
        except ServerError as away:
            log.debug("%s: the ledger could not be asked: %s", call.key, away)
            return False
        return True

    def _deliver(self, call: Call, load: Load, value: Value) -> Any:
        if value.renew_ms:
            self._renew_behind(call, load, value.renew_ms)
        return call.own(value.value, value.payload)

    def _from_memory(self, held: Held, call: Call, load: Load, age: Age) -> Any:
        held.hits = min(held.hits + 1, MOST_HITS)
        call.stats.l1_hits += 1
        if age is not Age.FRESH:
            call.stats.stale += age is Age.STALE
            self._renew_behind(call, load, _longer(int((held.keep_until - now_s()) * 1000), call))
        return call.own(held.value, held.payload)

    # -- flights ----------------------------------------------------------------------------------------------------

    def _depart(self, call: Call, load: Load, found: Found | None = None, need_ms: int = 0) -> Flight:
        """Begin a load, or the wait for somebody else's, that everyone in this process may share."""
        flight = Flight(found.ask.token if found is not None else "")
        flight.task = asyncio.ensure_future(self._fly(flight, call, load, found, need_ms))
        self._flights[call.entry] = flight
        flight.task.add_done_callback(lambda task: self._land(call, flight, task))
        return flight

    def _land(self, call: Call, flight: Flight, task: asyncio.Task[Value]) -> None:
        if self._flights.get(call.entry) is flight:
            del self._flights[call.entry]
        if not task.cancelled() and task.exception() is not None:
            log.debug("%s: the load failed: %r", call.key, task.exception())

    def _may_join(self, flight: Flight, call: Call) -> bool:
        if flight.born is None:  # it has loaded nothing yet; once it has landed, what it found may have become invalid
            return not flight.task.done()
        return self.freshness.may_join(flight.born, call.scopes, flight.moment)

    async def _arrive(self, flight: Flight, call: Call, held: Held | None) -> Value:
        """Wait for a flight. Cancelling this caller cancels nobody else."""
        policy = call.policy
        old = held if held is not None and policy.soft_timeout_ms and self.shelf.serves_on_error(held, policy) else None
        limit_ms = policy.soft_timeout_ms if old is not None else policy.hard_timeout_ms
        done, _ = await asyncio.wait([flight.task], timeout=limit_ms / 1000 if limit_ms else None)
        if done:
            return flight.task.result()
        if old is None:
            raise TimeoutError(f"{call.key}: the load takes longer than {limit_ms} ms; it goes on in the background")
        call.stats.stale += 1
        return Value(old.value, old.payload, old.as_of, loaded=False)

    def _entitled(self, result: Value, came_at: int) -> bool:
        """Return whether a caller may have this value, now that tags known only after the load are known.

        A tag invalidated after the load began and before this caller came: the next load is for this caller.
        """
        return not any(result.born < self.freshness.latest((scope,)) <= came_at for scope in result.late_scopes)

    def _renew_behind(self, call: Call, load: Load, need_ms: int) -> None:
        if call.entry not in self._flights:
            self._depart(call, load, None, need_ms)

    # -- Redis ------------------------------------------------------------------------------------------------------

    async def _look(self, call: Call, *, claim: bool = True) -> tuple[Found | None, Value | None]:
        """Ask Redis once: the value that may be served, or else who loads. (None, None) where Redis cannot be asked."""
        if not self._trusts_redis(call):
            return None, None
        assert self._entries is not None  # noqa: S101 - trusted
        try:
            found = await self._entries.read(self._ask(call, 0, 0, self._token() if claim else ""))
            value = await self._accept(call, found)
        except ServerError as away:
            log.debug("%s: Redis cannot be asked: %s", call.key, away)
            return None, None
        if value is None or found.state is not State.USE:
            return found, None
        call.stats.l2_hits += 1
        return found, value

    async def _fly(self, flight: Flight, call: Call, load: Load, found: Found | None, need_ms: int) -> Value:
        """Load, if the lease is ours; otherwise wait until the fill wakes us, and look again."""
        if not self._trusts_redis(call):
            return await self._load(flight, call, load)
        assert self._entries is not None  # noqa: S101 - trusted
        flight.token = flight.token or self._token()
        floor, deaf = 0, found is not None  # deaf: that read was sent before a fill could have woken us
        woken = self._entries.expect(call.entry)
        try:
            while True:
                found = found or await self._entries.read(self._ask(call, floor, need_ms, flight.token))
                value = await self._accept(call, found)
                if found.state in (State.OURS, State.ALONE):
                    return await self._load(flight, call, load, found)
                if found.state is State.USE and value is not None:
                    call.stats.l2_hits += 1
                    return value
                floor = NEVER if found.state is State.USE else 0
                if found.state is State.ELSEWHERE:
                    call.stats.waits += 1
                    if await self._entries.listen() and not deaf:
                        await asyncio.wait([woken], timeout=max(found.wait_ms, 1) / 1000)
                        woken = self._entries.expect(call.entry)
                found, deaf = None, False
        except ServerError as away:
            log.debug("%s: loading without Redis: %s", call.key, away)
            return await self._load(flight, call, load)
        finally:
            self._entries.forget(call.entry, woken)

    async def _give_back(self, found: Found | None, flight: Flight) -> None:
        """Somebody else departed while we looked: the lease we were given is theirs to take."""
        if (
            self._entries is not None
            and found is not None
            and found.state is State.OURS
            and flight.token != found.ask.token
        ):
            await self._entries.release(found.ask)

    def _trusts_redis(self, call: Call) -> bool:
        return self._entries is not None and self._up() and not self.freshness.is_pending(call.scopes)

    def _token(self) -> str:
        return f"{self._process}.{next(self._count)}"

    def _ask(self, call: Call, floor: int, need_ms: int, token: str) -> Ask:
        policy, now = call.policy, now_s()
        need_ms = max(need_ms, policy.grace_ms - policy.stale_ms)
        return Ask(
            call.entry,
            call.lease,
            max(floor, self._floor(call)),
            token,
            self.freshness.seen,
            self._at_us(now) + need_ms * 1000 if need_ms else 0,
            policy.life_ms(policy.ttl_ms, 0) if policy.sliding else 0,
            self._doubted(call, now),
        )

    async def _load(self, flight: Flight, call: Call, load: Load, found: Found | None = None) -> Value:
        flight.moment = self.freshness.moment()
        flight.born = max(0, self.freshness.seen - call.policy.read_lag_us)
        ask, old = (found.ask, found.data) if found is not None else (None, None)
        return await self.loader.load(call, load, ask, old, born=flight.born, moment=flight.moment)

    def _floor(self, call: Call) -> int:
        """Return the clock an entry must at least be born at; looked up again only when something was invalidated."""
        if call.floor_version != self.freshness.version:
            call.floor, call.floor_version = self.freshness.latest(call.scopes), self.freshness.version
        return call.floor

    def _doubted(self, call: Call, now: float) -> tuple[str, ...]:
        """Scopes to ask the ledger about in the same round trip: while our table may lack an invalidation."""
        oldest_us = self._at_us(now) - (call.policy.ttl_ms + call.policy.grace_ms) * 1000
        return call.scopes if oldest_us <= self.freshness.since or not self._hears(now) else ()

    def _hears(self, now: float) -> bool:
        """Whether the journal answered lately: a process that was stopped, or is deaf, must not trust its table."""
        return now - self.freshness.heard_at <= TRUST_S

    async def _accept(self, call: Call, found: Found) -> Value | None:
        """Turn what Redis holds into a value: an entry, of our type, valid."""
        entry = self.loader.unpack(call, found.data) if found.data is not None else None
        if entry is None:
            return None
        now = now_s()
        left_ms = (entry.ends - self._at_us(now)) // 1000
        if left_ms < 1:
            return None
        tags = entry.header.tags
        scopes = call.scopes if tags == call.tags else scopes_of(call.key, dict.fromkeys((*call.tags, *tags)))
        as_of, looked_at = entry.born, self.freshness.version  # what comes while the ledger is asked is looked at later
        verdict = self._verdict(call, as_of, scopes, now)
        if verdict is Verdict.ASK and self._ledger is not None:
            if found.told is not None and scopes is call.scopes:
                answer = found.told.answer()
            else:
                answer = await self._ledger.ask(scopes)
            if answer.allows(as_of, scopes):
                verdict, as_of = Verdict.VALID, max(as_of, min(found.ask.born, answer.clock))
        if verdict is not Verdict.VALID:
            return None
        try:
            value = call.codec.decode(entry.payload)
        except msgspec.DecodeError:
            return None
        held = self.shelf.put(
            call,
            value,
            entry.payload,
            entry.header,
            now=now,
            left_ms=left_ms,
            as_of=as_of,
            scopes=scopes,
            checked=looked_at,
        )
        age = self.shelf.age_by_time(held, call.policy, now)
        if age is Age.FRESH:
            return Value(value, held.payload, as_of, loaded=False)
        call.stats.stale += age is Age.STALE
        renew_ms = _longer(left_ms, call) if age in (Age.EARLY, Age.STALE) else 0
        return Value(value, held.payload, as_of, loaded=False, renew_ms=renew_ms)

    def _verdict(self, call: Call, born: int, scopes: tuple[str, ...], now: float) -> Verdict:
        """Decide as `Freshness.verdict`, with the floor that this call remembers."""
        freshness = self.freshness
        if scopes is not call.scopes or freshness.is_pending(scopes):
            verdict = freshness.verdict(born, scopes)
        elif born < self._floor(call):
            verdict = Verdict.INVALID
        else:
            verdict = Verdict.VALID if born >= freshness.since else Verdict.ASK
        return Verdict.ASK if verdict is Verdict.VALID and not self._hears(now) else verdict


def _longer(left_ms: int, call: Call) -> int:
    """Return how long a renewed entry lives at least, given what is left of this one.

    Plainly longer: our idea of the server's time may be off by a reply, and must not take one for the other.
    """
    return left_ms + 1 + int(call.policy.ttl_ms * RENEWED_BY)
