"""Looking into Redis: one question for each read, and what is found judged as it arrives."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, count

import msgspec

from cachebus.cache.call import Call, CallKind, Value
from cachebus.cache.policy import EARLY_REACH, SERVED, Age, draw
from cachebus.cache.reads.glances import Glances, Seen
from cachebus.cache.tiers.entry import Entry, unpack
from cachebus.cache.tiers.memory import Memory
from cachebus.cache.tiers.redis import Ask, Entries, Found, LeaseState
from cachebus.clock import now_s
from cachebus.errors import ConfigurationError, ServerError
from cachebus.freshness.clock import Born
from cachebus.freshness.ledger import Ledger
from cachebus.freshness.rule import Freshness, Verdict
from cachebus.freshness.scopes import scopes_of
from cachebus.redis.replies import Reply

log = logging.getLogger("cachebus")

HITS_A_MISS = 4
"""A view that is lately found in Redis more often than this for each miss is looked up without a script first."""
MOST_LEANING = 16
"""Of hits, less misses, that are remembered of a view: it changes its ways after four misses, or 32 hits."""
RENEWED_BY = 0.1
"""An entry that ends later than ours by this share of the TTL is another, newer one."""


class Lookup:
    """What Redis holds, as this process may serve it."""

    def __init__(
        self,
        memory: Memory,
        entries: Entries,
        ledger: Ledger,
        *,
        up: Callable[[], bool],
        at_us: Callable[[float], int],
    ) -> None:
        self.entries = entries
        self.ledger = ledger
        self._memory = memory
        self._freshness: Freshness = memory.freshness
        self._up = up
        self._at_us = at_us
        self._glances = Glances(entries.fetch, lambda: self._freshness.position, self._judge_all)
        self.glance_at_all = self._glances.look_at_all
        self._process = f"{os.getpid():x}.{secrets.token_hex(6)}"
        self._count = count()

    def is_trusted(self, scopes: Iterable[str]) -> bool:
        """Whether Redis can be asked, and knows of every invalidation that this process knows of."""
        return self._up() and not self._freshness.is_pending(scopes)

    def token(self) -> str:
        """Return a token for a lease, unlike any other."""
        return f"{self._process}.{next(self._count)}"

    def look(self, call: Call, *, asks: bool, claim: bool = True) -> Awaitable[Value | Found | None]:
        """Ask Redis once: for the value that may be served, or else who loads; None where nobody was asked to.

        MGET costs client and server a third of the script, and a miss one round trip more: so views that mostly hit
        only look first, and whatever cannot be used is asked for again with a lease. So do reads that never load
        (*claim*). Not where the table alone cannot judge, nor where the ledger must be asked (*asks*).
        """
        mostly_hits = call.kind.leaning > 0 or not claim
        if mostly_hits and not asks and self.is_trusted(call.scopes) and not self._doubts(call.kind, now_s()):
            return self._glances.look(call)
        return self._ask_once(call, asks=asks, claim=claim)

    async def _ask_once(self, call: Call, *, asks: bool, claim: bool) -> Value | Found | None:
        if not self.is_trusted(call.scopes):
            return None
        try:
            found, value = await self.find(call, self.token() if claim else "", asks=asks, joins=True)
        except ServerError as away:
            log.debug("%s: Redis cannot be asked: %s", call.key, away)
            return None
        hit = value is not None and found.state is LeaseState.USE
        self._looked(call.kind, hit=hit)
        return value if hit else found

    async def find(
        self, call: Call, token: str, *, floor: int = 0, need_ms: int = 0, asks: bool = False, joins: bool = False
    ) -> tuple[Found, Value | None]:
        """Return what Redis answers, and the value that may be served, if there is one. One round trip.

        *token*: take the lease if nothing can be used; '' only looks. *floor*: least clock of birth. *need_ms*: least
        life left. *asks*: whatever is found, ask the ledger. *joins*: see `Entries.read`. Raises: ServerError.
        """
        asked = self.entries.read(self._ask(call, token, floor, need_ms, asks), joins=joins)
        try:
            found = await asked
            return found, await self.accept(call, found, asks=asks)
        except BaseException:  # a caller may be cancelled in the tick that brings the lease
            self.entries.abandon(asked)
            raise

    def can_glance(self, calls: Sequence[Call]) -> bool:
        """Whether calls of one kind may be looked at, to be judged by this process's table alone."""
        scopes = chain.from_iterable(call.scopes for call in calls)
        return self.is_trusted(scopes) and not self._doubts(calls[0].kind, now_s())

    def _looked(self, kind: CallKind, *, hit: bool) -> None:
        """Take note of what a read found; the last dozen or two of a kind decide how the next one looks."""
        if not hit:
            kind.leaning = max(-MOST_LEANING, kind.leaning - HITS_A_MISS)
        elif kind.leaning < MOST_LEANING:
            kind.leaning += 1

    def _judge_all(self, calls: list[Call], found: Sequence[Reply], position: int, alone: bool) -> list[Seen]:
        """Judge what glances found, by this process's table alone.

        *position*: the journal's when they left. *alone*: whether each value is for one caller, who may keep it.
        """
        now, freshness = now_s(), self._freshness
        at_us, heard, version = self._at_us(now), freshness.hears(now), freshness.version
        keeps, judge, served = self._memory.keeps, freshness.judge, self._served
        seen = list[Seen]()
        for call, data in zip(calls, found, strict=True):
            kind = call.kind
            value: Seen = None
            if type(data) is bytes:
                if (entry := unpack(data)) is not None:
                    scopes, born = _scopes(call, entry), entry.born
                    if judge(born, scopes, heard=heard) is Verdict.VALID:
                        if keeps and kind.plain and born.number < position:
                            born = Born(position, born.era)  # as new as the last `set` that was heard of by then
                        left_ms = (entry.ends - at_us) // 1000
                        try:
                            value = served(call, entry, scopes, born, now, left_ms, version, alone)
                        except ConfigurationError as untyped:
                            value = untyped
            elif isinstance(data, ServerError):
                value = data
            if value is None or kind.leaning < MOST_LEANING:
                self._looked(kind, hit=value is not None)
            seen.append(value)
        return seen

    async def accept(self, call: Call, found: Found, *, asks: bool = False) -> Value | None:
        """Turn what Redis holds into a value: an entry, of our type, valid. Asks the ledger if need be."""
        entry = unpack(found.data) if found.data is not None else None
        if entry is None:
            return None
        now = now_s()
        left_ms = (entry.ends - self._at_us(now)) // 1000
        scopes = _scopes(call, entry)
        looked_at = self._freshness.version  # what comes while the ledger is asked is looked at later
        as_of = await self._judged(call, entry.born, scopes, found, asks=asks)
        return self._served(call, entry, scopes, as_of, now, left_ms, looked_at) if as_of is not None else None

    def _served(  # noqa: PLR0913, PLR0917 - one entry, as it was judged
        self,
        call: Call,
        entry: Entry,
        scopes: tuple[str, ...],
        as_of: Born,
        now: float,
        left_ms: int,
        looked_at: int,
        alone: bool = False,
    ) -> Value | None:
        """Return a valid entry as a value, and keep it in memory. None where its time is over, or it is of no type."""
        if left_ms < 1:
            return None
        kind, header, memory = call.kind, entry.header, self._memory
        try:
            value = kind.codec.decode(entry.payload)
        except msgspec.DecodeError:
            return None
        except ConfigurationError as untyped:
            raise ConfigurationError(f"key {call.key!r}: {untyped}") from None
        if memory.keeps:
            memory.put(
                call,
                value,
                entry.payload,
                header,
                now=now,
                left_ms=left_ms,
                as_of=as_of,
                scopes=scopes,
                checked=looked_at,
            )
        payload = None if alone or kind.codec.shared else entry.payload
        fresh_ms = left_ms - header.grace_ms
        if fresh_ms > header.load_ms * EARLY_REACH:
            return Value(value, payload, as_of, loaded=False)
        age = kind.policy.age(fresh_ms, header.load_ms, draw())
        if age not in SERVED:  # it is in memory now, for a load that fails
            return None
        kind.stats.stale += age is Age.STALE
        renew_ms = 0 if age is Age.FRESH else longer(left_ms, call)
        return Value(value, payload, as_of, loaded=False, renew_ms=renew_ms)

    async def _judged(
        self, call: Call, born: Born, scopes: tuple[str, ...], found: Found, *, asks: bool
    ) -> Born | None:
        """Return the clock up to which an entry is known to be valid; None where it is not. Asks the ledger if need be.

        Raises: ServerError.
        """
        heard = not asks and self._freshness.hears(now_s())
        verdict = self._freshness.judge(born, scopes, heard=heard)
        if verdict is Verdict.INVALID:
            return None
        if verdict is Verdict.VALID:  # a plain value is as new as the last `set` this process had heard of
            return Born(max(born.number, found.ask.position), born.era) if call.kind.plain else born
        if self.ledger.recall.excludes(born, self._freshness.seen):
            return None
        if found.ledger is not None and scopes is call.scopes:
            answer = found.ledger.answer()
        else:
            answer = await self.ledger.ask(scopes)
        if not answer.allows(born, scopes):
            return None
        return Born(max(born.number, min(found.ask.born, answer.clock)), born.era)

    async def clocks(self, scopes: tuple[str, ...]) -> dict[str, int] | None:
        """Return the clock of each scope's last invalidation; None in another era. Raises: ServerError."""
        answer = await self.ledger.ask(scopes)
        return {scope: max(answer.floor, clock) for scope, clock in answer.clocks.items()} if answer.era else None

    def _ask(self, call: Call, token: str, floor: int, need_ms: int, asks: bool) -> Ask:
        policy, now = call.kind.policy, now_s()
        need_ms = max(need_ms, policy.grace_ms - policy.stale_ms)
        return Ask(
            call.entry,
            self.entries.lease(call.entry),
            Born(max(floor, self._freshness.latest(call.scopes)), self._freshness.era),
            token,
            self._freshness.seen,
            self._at_us(now) + need_ms * 1000 if need_ms else 0,
            call.scopes if asks or self._doubts(call.kind, now) else (),
            self._freshness.position,
        )

    def _doubts(self, kind: CallKind, now: float) -> bool:
        """Whether our table may lack an invalidation of what is found: the ledger is asked in the same round trip."""
        since = self._freshness.since
        if kind.covered_since != since:
            oldest_us = self._at_us(now) - (kind.policy.ttl_ms + kind.policy.grace_ms) * 1000
            if oldest_us <= since:
                return True
            kind.covered_since = since  # and so it stays until the table forgets
        return not self._freshness.hears(now)


def _scopes(call: Call, entry: Entry) -> tuple[str, ...]:
    """Return the scopes of an entry, which may have tags of its own."""
    tags = entry.header.tags
    return call.scopes if tags == call.tags else scopes_of(call.key, dict.fromkeys((*call.tags, *tags)))


def longer(left_ms: int, call: Call) -> int:
    """Return how long a renewed entry lives at least, given what is left of this one.

    Plainly longer: our idea of the server's time may be off by a reply, and must not take one for the other.
    """
    return left_ms + 1 + int(call.kind.policy.ttl_ms * RENEWED_BY)
