"""Memory under the freshness rule: what may be served from it, and what may be put there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from cachebus.cache.call import USUAL, Call, Demand
from cachebus.cache.policy import EARLY_REACH, Age, ViewPolicy, draw
from cachebus.cache.tiers.entry import Header
from cachebus.cache.tiers.s3fifo import CachedValue, S3Fifo
from cachebus.cache.values.plain_codec import PlainCodec
from cachebus.clock import now_s
from cachebus.errors import ServerError
from cachebus.freshness.clock import Born
from cachebus.freshness.ledger import Ledger
from cachebus.freshness.rule import Freshness, Verdict

log = logging.getLogger("cachebus")


class Memory:
    """The values this process holds, each with what is known of its freshness."""

    def __init__(
        self,
        store: S3Fifo,
        freshness: Freshness,
        ledger: Ledger | None,
        *,
        up: Callable[[], bool],
        at_us: Callable[[float], int],
        max_staleness_s: float,
    ) -> None:
        self.store = store
        self.keeps = store.keeps
        """Whether it holds anything at all."""
        self.held = store.held
        """The index: a reader looks here directly, and counts the hit (`hits`) itself."""
        self.freshness = freshness
        self._ledger = ledger
        self._up = up
        self._at_us = at_us
        self._max_staleness_s = max_staleness_s

    async def age(self, held: CachedValue, call: Call, demand: Demand, *, asks: bool = False) -> Age:
        """Decide whether what memory holds may be served. Usually no round trip; one where the ledger must be asked.

        *asks*: the table will not do, whatever it says.
        """
        now, freshness = now_s(), self.freshness
        heard = freshness.hears(now) and not asks
        verdict = freshness.judge(held.as_of, held.scopes, heard=heard, moment=held.moment)
        if verdict is Verdict.INVALID:
            return self._age_of_invalid(held, call, demand, now)
        if call.kind.plain and self._is_replaced(held, call, verdict):
            return Age.DEAD
        age = self.age_by_time(held, call.kind.policy, now)
        if age in (Age.DEAD, Age.ERROR_ONLY):
            return age
        if verdict is Verdict.VALID:
            held.checked = freshness.version
            return age
        confirmed = await self.confirmed(held.as_of, held.scopes, held.loaded_at, strictly=asks)
        if confirmed is None:
            return Age.DEAD
        held.as_of = confirmed
        return age

    def _is_replaced(self, held: CachedValue, call: Call, verdict: Verdict) -> bool:
        """Return whether a plain value may have been set elsewhere since: the ledger knows nothing of that, Redis does.

        Where Redis cannot be asked, what memory holds is as good as any.
        """
        if self._ledger is None or not self._up():
            return False
        return verdict is Verdict.ASK or held.as_of.number < self.freshness.replaced_at(call.key)

    async def confirmed(self, born: Born, scopes: tuple[str, ...], loaded_at: float, *, strictly: bool) -> Born | None:
        """Ask the ledger about what this process's table cannot vouch for; returns up to when it is valid, or None.

        Where the ledger cannot be asked: valid within the bounded staleness, unless *strictly*. One round trip.
        """
        known, now = self.freshness.seen, now_s()
        if self._ledger is None:
            return born
        if self._up():
            try:
                answer = await self._ledger.ask(scopes)
            except ServerError as unavailable:
                log.debug("the ledger could not be asked: %s", unavailable)
            else:
                if not answer.allows(born, scopes):
                    return None
                return Born(max(born.number, min(known, answer.clock)), born.era)
        if strictly:
            return None
        vouched = self.freshness.last_heard_at if born.number >= self.freshness.since else loaded_at
        return born if now - max(vouched, loaded_at) <= self._max_staleness_s else None

    def age_by_time(self, held: CachedValue, policy: ViewPolicy, now: float) -> Age:
        """Decide by age alone."""
        if now < held.early_at:
            return Age.FRESH
        return policy.age((held.fresh_until - now) * 1000, held.load_ms, draw())

    def serves_on_error(self, held: CachedValue, policy: ViewPolicy) -> bool:
        """Return whether a failing or late load may be answered with this: valid, and within a window that says so."""
        late_ms = (now_s() - held.fresh_until) * 1000
        return self.is_valid(held) and late_ms < max(policy.stale_if_error_ms, policy.stale_ms)

    def plain(self, keys: Iterable[str], now: float) -> dict[str, CachedValue]:
        """Return what is held of plain values, where it may be served as it is. No round trip."""
        held_of, freshness, found = self.held.get, self.freshness, dict[str, CachedValue]()
        if not freshness.hears(now):
            return found
        for key in keys:
            held = held_of(key)
            if held is None or now >= held.early_at:
                continue
            if held.checked != freshness.version and not freshness.holds(held):
                continue
            if self._ledger is None or held.as_of.number >= freshness.replaced_at(key):
                found[key] = held
        return found

    def share(self, key: str, held: CachedValue, value: Any, codec: PlainCodec) -> None:
        """Keep what *codec* has read of a plain value for all its callers, where none of them can change it."""
        if codec.may_be_shared(value):
            held.value, held.opened_by = value, codec
            self.store.grow(key, held, held.size)

    def is_valid(self, held: CachedValue) -> bool:
        """Return whether this process knows of nothing that invalidated it, and would."""
        return self.freshness.holds(held)

    def put(  # noqa: PLR0913 - one record, described in one place
        self,
        call: Call,
        value: Any,
        payload: bytes,
        header: Header,
        *,
        now: float,
        left_ms: int,
        as_of: Born,
        scopes: tuple[str, ...],
        moment: int | None = None,
        checked: int = -1,
    ) -> CachedValue:
        """Keep a value, never longer than Redis does.

        *left_ms*: what is left of its life at *now*. *moment*: when this process began to load it; None: it is from
        Redis. *checked*: the `Freshness.version` at which it was found valid; without one it is looked at before it is
        served.
        """
        fresh_until = now + (left_ms - header.grace_ms) / 1000
        held = CachedValue(
            value=value if call.kind.codec.shared else None,
            payload=None if call.kind.codec.shared else payload,
            as_of=as_of,
            moment=moment,
            checked=checked,
            scopes=scopes,
            fresh_until=fresh_until,
            early_at=fresh_until - header.load_ms * EARLY_REACH / 1000,
            keep_until=now + left_ms / 1000,
            loaded_at=now - max(0, header.life_ms - left_ms) / 1000,
            load_ms=header.load_ms,
            validator=header.validator,
            view=call.kind.view,
        )
        self.store.put(call.key, held, len(payload))
        return held

    def _age_of_invalid(self, held: CachedValue, call: Call, demand: Demand, now: float) -> Age:
        """Only a view that says so serves what was invalidated, never to a `fresh_after` or strict read."""
        policy = call.kind.policy
        if demand is not USUAL or held.keep_until <= now or held.as_of.era != self.freshness.era:
            return Age.DEAD
        if policy.settle_ms and (now - held.loaded_at) * 1000 < policy.settle_ms:
            return Age.FRESH
        if policy.serve_invalidated_ms:
            invalid_ms = (self._at_us(now) - self.freshness.latest(held.scopes)) / 1000
            return Age.STALE if invalid_ms < policy.serve_invalidated_ms else Age.DEAD
        return Age.DEAD
