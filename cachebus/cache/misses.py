"""Which miss a `set` answers, and since when its value counts: the rule of plain values. No I/O.

A miss leaves a token in the context it happened in: the clock known before the key was looked for. It is outstanding in
the process until a `set` of that context answers it. A `set` is a fill, born at its context's token; where the context
has none (`gather`, `wait_for`, another thread), at the oldest outstanding miss of the key, which stays outstanding: it
belongs to another `set`. Only where no miss is outstanding a `set` is a write. A minute ends everything here.

Both take a context for one caller. Where one context does what several ask of it (a queue's consumer, a thread that is
given `get` and `set` as jobs of their own), only `born=` can tell whose value it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from itertools import count
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from cachebus.freshness.clock import Born

WINDOW_S = 60.0
"""How long a cycle of get, load and set may take."""
MOST_TOKENS = 100
"""Misses, and scopes invalidated, that one context remembers. A forgotten one is still outstanding."""
MOST_EARLIER = 8
"""Misses of one key, before its newest one, that one context remembers."""
MOST_OUTSTANDING = 100_000
"""Misses one process remembers, about 30 MB. Beyond them the oldest become one miss of every key: safe, and rare."""

_T = TypeVar("_T")
_Name = tuple[int, str]
"""Which `Misses`, and which key or scope: a context may use several caches."""
_numbers = count()


class Miss(NamedTuple):
    """A key that was looked for in vain."""

    key: str
    born: Born
    """The newest clock known before."""
    moment: int
    """`Freshness.moment` then."""
    at: float
    here: bool = True
    """Whether it happened in the context that asks."""


class OwnInvalidation(NamedTuple):
    """The last invalidation of one scope by one context."""

    clock: Born
    before: int
    """The scope's clock before the context invalidated it, once or several times in a row."""
    at: float


class Remembered(NamedTuple):
    """What one context remembers. Never changed: contexts are copied."""

    misses: Mapping[_Name, Miss] = MappingProxyType({})
    own: Mapping[_Name, OwnInvalidation] = MappingProxyType({})
    earlier: Mapping[_Name, tuple[Miss, ...]] = MappingProxyType({})
    """Misses of a key before its newest one."""


_NOTHING = Remembered()
remembered: ContextVar[Remembered] = ContextVar("cachebus_plain_values", default=_NOTHING)
"""Tokens of this context. Whoever carries a call to another thread carries this back (`cachebus.sync`)."""


class Misses:
    """The outstanding misses of one cache in one process."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._by_key: dict[str, dict[int, Miss]] = {}
        self._in_order: deque[Miss] = deque()
        self._of_all_keys: Miss | None = None

    def missed(self, key: str, born: Born, moment: int, now: float) -> None:
        """Leave a token in this context: *key* was looked for in vain, and *born* was known before."""
        self._expire(now)
        miss = Miss(key, born, moment, now)
        self._by_key.setdefault(key, {})[id(miss)] = miss
        self._in_order.append(miss)
        if len(self._in_order) > MOST_OUTSTANDING:
            self._merge(self._in_order.popleft())
        here, name = remembered.get(), (self._number, key)
        earlier = here.earlier
        if (replaced := here.misses.get(name)) is not None:
            earlier = _with(earlier, name, (*earlier.get(name, ()), replaced)[-MOST_EARLIER:])
        remembered.set(here._replace(misses=_with(here.misses, name, miss), earlier=earlier))

    def answer(self, key: str, now: float) -> Miss | None:
        """Return the miss that a `set` of *key* in this context answers; None where it is a write."""
        self._expire(now)
        here, name = remembered.get(), (self._number, key)
        miss = here.misses.get(name)
        if miss is not None:
            remembered.set(here._replace(misses={other: kept for other, kept in here.misses.items() if other != name}))
            if miss.at > now - WINDOW_S:
                self._discard(miss)
                return miss
        oldest = self._oldest(key)
        if oldest is None or any(oldest is each for each in here.earlier.get(name, ())):
            return oldest
        return oldest._replace(here=False)

    def invalidated(self, clock: Born, before: Mapping[str, int], now: float) -> None:
        """Remember what this context, and nobody else with it, invalidated; *before*: the scopes' clocks before.

        Only a miss that was there before can ask for it: a later one is born after *clock*.
        """
        self._expire(now)
        if not self._in_order and self._of_all_keys is None:
            return
        here = remembered.get()
        own = {name: kept for name, kept in here.own.items() if kept.at > now - WINDOW_S}
        for scope, prior in before.items():
            last = own.pop((self._number, scope), None)
            in_a_row = last is not None and last.clock == Born(prior, clock.era)
            own[self._number, scope] = OwnInvalidation(clock, last.before if last and in_a_row else prior, now)
            if len(own) > MOST_TOKENS:
                del own[next(iter(own))]
        remembered.set(here._replace(own=own))

    def own(self, scopes: Iterable[str], miss: Miss) -> dict[str, OwnInvalidation]:
        """Return this context's own invalidations of *scopes* that came after *miss*; none of a miss elsewhere.

        A context that sets what others have read, and invalidates what others have changed, knows of neither which of
        them came first.
        """
        if not miss.here:
            return {}
        here = remembered.get().own
        found = {scope: here.get((self._number, scope)) for scope in scopes}
        return {
            scope: own
            for scope, own in found.items()
            if own is not None and own.clock.era == miss.born.era and own.clock.number > miss.born.number
        }

    def _oldest(self, key: str) -> Miss | None:
        return self._of_all_keys or next(iter(self._by_key.get(key, {}).values()), None)

    def _discard(self, miss: Miss) -> None:
        outstanding = self._by_key.get(miss.key)
        if outstanding is not None:
            outstanding.pop(id(miss), None)
            if not outstanding:
                del self._by_key[miss.key]

    def _expire(self, now: float) -> None:
        while self._in_order and self._in_order[0].at <= now - WINDOW_S:
            self._discard(self._in_order.popleft())
        if self._of_all_keys is not None and self._of_all_keys.at <= now - WINDOW_S:
            self._of_all_keys = None

    def _merge(self, miss: Miss) -> None:
        if miss.key in self._by_key and id(miss) in self._by_key[miss.key]:
            self._discard(miss)
            older = self._of_all_keys or miss
            self._of_all_keys = older._replace(at=miss.at)


def birth(
    miss: Miss, scopes: Iterable[str], clocks: Mapping[str, int], own: Mapping[str, OwnInvalidation]
) -> Born | None:
    """Return when a value read after *miss* counts as born, given the scopes' clocks now; None: it is invalid.

    An own value may follow its context's own invalidation, and is then born at that clock: only where nobody else
    invalidated any of its scopes between the miss and that clock.
    """
    number = miss.born.number
    for scope in scopes:
        last = clocks.get(scope, 0)
        if last <= miss.born.number:
            continue
        mine = own.get(scope)
        if mine is None or mine.clock.number != last or mine.before > miss.born.number:
            return None
        number = max(number, last)
    return Born(number, miss.born.era)


def _with(kept: Mapping[_Name, _T], name: _Name, value: _T) -> dict[_Name, _T]:
    """Return *kept* with *value* as its newest, and without its oldest where there are too many."""
    renewed = {other: each for other, each in kept.items() if other != name}
    if len(renewed) >= MOST_TOKENS:
        del renewed[next(iter(renewed))]
    renewed[name] = value
    return renewed
