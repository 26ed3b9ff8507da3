"""What became of the values that this process loaded: what ended them, and whether anybody had read them again.

Counted per load and per end of a value, never per read; by view and by tag template, never by key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict

from cachebus.cache.call import Call
from cachebus.cache.stats import Purpose
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.cache.upkeep.reach import Reach
from cachebus.clock import now_s
from cachebus.freshness.rule import Freshness, Verdict

TAGGED = "(tag) "
"""Before the template of a tag, where counters of views are: no template of a view begins with a bracket."""
LOAD_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
SIZE_BOUNDS = (100, 1_000, 10_000, 100_000, 1_000_000)
LOAD = "load "
"""Before the upper bound of a step, in the names of the counters of loads by how long they took."""
MOST_EXPIRED = 5_000
"""Keys remembered as expired, to see whether they are loaded again; in this process only."""

Counted = Counter[tuple[str, str]]
"""By view, or tag, and counter."""


class Lives:
    """Counts loads and ends of values of one process."""

    def __init__(self, counted: Counted, freshness: Freshness, reach: Reach) -> None:
        self._counted = counted
        self._freshness = freshness
        self._reach = reach
        self._expired: OrderedDict[str, float] = OrderedDict()
        """Until when a load of the key is one that twice the TTL would have saved."""

    def loaded(self, call: Call, load_ms: float, payload: bytes, _purpose: Purpose) -> None:
        """Take note of one load."""
        self._counted[call.kind.view, f"{LOAD}{_step(LOAD_BOUNDS_MS, load_ms)}"] += 1
        self._counted[call.kind.view, f"size {_step(SIZE_BOUNDS, len(payload))}"] += 1
        if now_s() < self._expired.pop(call.key, 0.0):
            self._counted[call.kind.view, "reloaded"] += 1

    def ended(self, key: str, held: CachedValue, after: CachedValue | None) -> None:
        """Take note that memory no longer holds a value; *after* takes its place. Not counted: what Redis brought."""
        if held.moment is None:
            return
        now = now_s()
        is_invalid = self._freshness.judge(held.as_of, held.scopes, heard=True, moment=held.moment) is Verdict.INVALID
        if is_invalid:
            cause = "invalidated"
            self._met(held)
        elif now >= held.fresh_until:
            cause = "expired"
            self._note_expired(key, held, after, now)
        else:
            cause = "evicted" if after is None else "renewed"
        self._counted[held.view, f"ended {cause}"] += 1
        if held.is_unread:
            self._counted[held.view, f"unread {cause}"] += 1

    def _met(self, held: CachedValue) -> None:
        """Count the value for each tag whose invalidation ended it."""
        for scope in held.scopes:
            if scope.startswith("t:") and self._freshness.latest((scope,)) > held.as_of.number:
                for template in self._reach.of(scope).tags:
                    self._counted[TAGGED + template, "met"] += 1
                    self._counted[TAGGED + template, "met unread"] += held.is_unread

    def _note_expired(self, key: str, held: CachedValue, after: CachedValue | None, now: float) -> None:
        again_until = held.fresh_until + (held.fresh_until - held.loaded_at)
        if now >= again_until:
            return
        if after is None:
            self._expired[key] = again_until
            if len(self._expired) > MOST_EXPIRED:
                self._expired.popitem(last=False)
        elif after.moment is not None:
            self._counted[held.view, "reloaded"] += 1


def _step(bounds: tuple[int, ...], value: float) -> str:
    """Return the upper bound of the step that *value* is in, as text; "more" beyond the last."""
    at = bisect_left(bounds, value)
    return str(bounds[at]) if at < len(bounds) else "more"
