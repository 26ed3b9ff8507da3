"""Memory under the freshness rule: what may be served from it, and what may be put there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from cachebus.call import USUAL, Call, Demand
from cachebus.entry import Header
from cachebus.errors import ServerError
from cachebus.freshness import Freshness, Verdict
from cachebus.ledger import Ledger
from cachebus.link import now_s
from cachebus.memory import Held, Memory
from cachebus.policy import EARLY_REACH, Age, Policy, draw

log = logging.getLogger("cachebus")

TRUST_S = 2.0
"""A process whose last journal reply is older than this asks the ledger before it serves from memory."""


class Shelf:
    """The values this process holds, each with what is known of its freshness."""

    def __init__(
        self,
        memory: Memory,
        freshness: Freshness,
        ledger: Ledger | None,
        *,
        up: Callable[[], bool],
        at_us: Callable[[float], int],
        max_staleness_s: float,
    ) -> None:
        self.memory = memory
        self.freshness = freshness
        self._ledger = ledger
        self._up = up
        self._at_us = at_us
        self._max_staleness_s = max_staleness_s

    async def age(self, held: Held, call: Call, demand: Demand) -> Age:
        """Decide whether what memory holds may be served. Usually no round trip; one where the ledger must be asked."""
        now = now_s()
        verdict = self.freshness.verdict(held.as_of, held.scopes, held.moment)
        if verdict is Verdict.INVALID:
            return self._age_of_invalid(held, call, demand, now)
        age = self.age_by_time(held, call.policy, now)
        if age in (Age.DEAD, Age.ERROR_ONLY) or self._ledger is None:
            return age
        if verdict is Verdict.VALID and now - self.freshness.heard_at <= TRUST_S:
            held.checked = self.freshness.version
            return age
        return age if await self._confirmed(held, self._ledger, now) else Age.DEAD

    def age_by_time(self, held: Held, policy: Policy, now: float) -> Age:
        """Decide by age alone."""
        if now < held.early_at:
            return Age.FRESH
        return policy.age((held.fresh_until - now) * 1000, held.load_ms, draw())

    def serves_on_error(self, held: Held, policy: Policy) -> bool:
        """Return whether a failing or late load may be answered with this: valid, and within a window that says so."""
        late_ms = (now_s() - held.fresh_until) * 1000
        valid = self.freshness.verdict(held.as_of, held.scopes, held.moment) is Verdict.VALID
        return valid and late_ms < max(policy.stale_if_error_ms, policy.stale_ms)

    def put(  # noqa: PLR0913 - one record, described in one place
        self,
        call: Call,
        value: Any,
        payload: bytes,
        header: Header,
        *,
        now: float,
        left_ms: int,
        as_of: int,
        scopes: tuple[str, ...],
        moment: int | None = None,
        checked: int = -1,
    ) -> Held:
        """Keep a value, never longer than Redis does.

        *left_ms*: what is left of its life at *now*. *moment*: when this process began to load it; None: it is from
        Redis. *checked*: the `Freshness.version` at which it was found valid; without one it is looked at before it is
        served.
        """
        fresh_until = now + (left_ms - header.grace_ms) / 1000
        held = Held(
            value=value if call.codec.shared else None,
            payload=None if call.codec.shared else payload,
            as_of=as_of,
            moment=moment,
            checked=checked,
            scopes=scopes,
            fresh_until=fresh_until,
            early_at=fresh_until - header.load_ms * EARLY_REACH / 1000,
            keep_until=now + left_ms / 1000,
            loaded_at=now - max(0, header.life_ms - left_ms) / 1000,
            load_ms=header.load_ms,
        )
        self.memory.put(call.key, held, len(payload))
        return held

    def _age_of_invalid(self, held: Held, call: Call, demand: Demand, now: float) -> Age:
        """Only a view that says so serves what was invalidated, never to a `fresh_after` or strict read."""
        policy = call.policy
        if demand is not USUAL or held.keep_until <= now:
            return Age.DEAD
        if policy.settle_ms and (now - held.loaded_at) * 1000 < policy.settle_ms:
            return Age.FRESH
        if policy.serve_invalidated_ms:
            invalid_ms = (self._at_us(now) - self.freshness.latest(held.scopes)) / 1000
            return Age.STALE if invalid_ms < policy.serve_invalidated_ms else Age.DEAD
        return Age.DEAD

    async def _confirmed(self, held: Held, ledger: Ledger, now: float) -> bool:
        """Ask about an entry older than this process's table, or after a stall. Redis away: bounded staleness."""
        known = self.freshness.seen
        if self._up():
            try:
                answer = await ledger.ask(held.scopes)
            except ServerError as away:
                log.debug("the ledger could not be asked: %s", away)
            else:
                if not answer.allows(held.as_of, held.scopes):
                    return False
                held.as_of = max(held.as_of, min(known, answer.clock))
                return True
        vouched = self.freshness.heard_at if held.as_of >= self.freshness.since else held.loaded_at
        return now - max(vouched, held.loaded_at) <= self._max_staleness_s
