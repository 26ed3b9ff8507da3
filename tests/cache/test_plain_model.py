"""The rule of plain values, held to random schedules: nothing stale, no own write lost. Each part of it is needed."""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from cachebus.cache import misses as rule
from cachebus.cache.misses import Misses, OwnInvalidation, birth
from cachebus.freshness.clock import Born

KEY, TAG = "k:price", "t:market"
SCOPES = (KEY, TAG)
SCHEDULES, CONSUMED, STEPS = 150, 100, 400


@dataclass
class Cycle:
    """One caller's get, load and set; or its get, change of the database, invalidation and set."""

    context: contextvars.Context
    began: float
    sets_in: contextvars.Context
    writes: bool
    version: int | None = None
    invalidated: int = 0
    disturbed: bool = False
    """Whether anybody else invalidated a scope of the key after the clock of the miss."""


@dataclass
class World:
    """A database, a ledger, one stored entry, one process with many contexts, and others who invalidate."""

    choose: random.Random
    misses: Any
    birth: Callable[..., Born | None]
    now: float = 0.0
    clock: int = 1
    seen: int = 1
    database: int = 0
    owed: int = 0
    ledger: dict[str, int] = field(default_factory=dict)
    entry: tuple[int, int] | None = None
    cycles: list[Cycle] = field(default_factory=list)
    consumed: bool = False
    consumer: contextvars.Context = field(default_factory=contextvars.Context)
    """Outlives each cycle: it sets and invalidates for others, in the last worlds."""
    outside: list[int] = field(default_factory=list)
    stale: int = 0
    lost: int = 0

    def invalidate(self, scopes: Iterable[str]) -> tuple[int, dict[str, int]]:
        """One script: the clock moves on, the scopes have it."""
        before = {scope: self.ledger.get(scope, 0) for scope in scopes}
        self.clock += 1
        self.ledger.update(dict.fromkeys(before, self.clock))
        return self.clock, before

    def get(self) -> None:
        """Serve what is valid; otherwise a caller begins to do something about it."""
        if self.entry is not None and self.entry[0] >= max(self.ledger.get(scope, 0) for scope in SCOPES):
            self.stale += self.entry[1] < self.owed
            return
        context = contextvars.Context()
        context.run(self.misses.missed, KEY, Born(self.seen, "era"), 0, self.now)
        elsewhere = self.choose.choice((context, context, context.copy(), contextvars.Context()))
        if self.consumed and self.choose.random() < 0.95:
            elsewhere = self.consumer
        unheard = self.seen < max(self.ledger.values(), default=0)
        self.cycles.append(Cycle(context, self.now, elsewhere, self.choose.random() < 0.3, disturbed=unheard))

    def proceed(self, cycle: Cycle) -> None:
        """Take the next step of a cycle."""
        if self.now - cycle.began >= rule.WINDOW_S:
            self.cycles.remove(cycle)
        elif cycle.version is None:
            if cycle.writes:
                self.database += 1
            cycle.version = self.database
        elif cycle.writes and cycle.invalidated < self.choose.choice((1, 2)):
            cycle.invalidated += 1
            scopes = self.choose.choice(((KEY,), (TAG,), SCOPES))
            clock, before = self.invalidate(scopes)
            self.seen = clock
            cycle.sets_in.run(self.misses.invalidated, Born(clock, "era"), before, self.now)
            self.owed = max(self.owed, cycle.version)
            self.disturb(cycle)
        else:
            self.cycles.remove(cycle)
            stored = cycle.sets_in.run(self.set, cycle.version)
            alone = cycle.sets_in is cycle.context and not cycle.disturbed and len(self.cycles) == 0
            newest = cycle.version == self.database
            self.lost += cycle.writes and alone and newest and not stored

    def disturb(self, who: Cycle | None) -> None:
        """Everybody else's own write may have been overtaken."""
        for cycle in self.cycles:
            cycle.disturbed |= cycle is not who

    def set(self, version: int) -> bool:
        """Store a value, as `Cache.set` does."""
        miss = self.misses.answer(KEY, self.now)
        if miss is None:
            born, _ = self.invalidate((KEY,))
            self.seen = born
            self.disturb(None)
        else:
            found = self.birth(miss, SCOPES, self.ledger, self.misses.own(SCOPES, miss))
            if found is None:
                return False
            born = found.number
        if self.entry is None or self.entry[0] <= born:
            self.entry = (born, version)
        return True

    def step(self) -> None:
        """Do something."""
        what = self.choose.random()
        self.now += self.choose.choice((0, 0.1, 1, 5))
        if what < 0.3:
            self.get()
        elif what < 0.7 and self.cycles:
            self.proceed(self.choose.choice(self.cycles[-3:]))
        elif what < 0.8:
            self.database += 1
            self.outside.append(self.database)
        elif what < 0.9 and self.outside:
            self.invalidate((self.choose.choice(SCOPES),))
            self.owed = max(self.owed, self.outside.pop(0))
            self.disturb(None)
        elif what < 0.97:
            self.seen = self.clock
        else:
            self.entry = None


def violations(make: Callable[[], Any], judge: Callable[..., Born | None]) -> tuple[int, int]:
    """Return how many reads were stale, and how many own writes were lost, in many schedules."""
    stale = lost = 0
    for seed in range(SCHEDULES + CONSUMED):
        world = World(random.Random(seed), make(), judge, consumed=seed >= SCHEDULES)  # noqa: S311 - draws that can be had again
        for _ in range(STEPS):
            world.step()
        stale, lost = stale + world.stale, lost + world.lost
    return stale, lost


def test_nothing_is_stale_and_no_own_write_is_lost() -> None:
    """The rule as it is."""
    assert violations(Misses, birth) == (0, 0)


class NoToken(Misses):
    """Every `set` is a write."""

    def answer(self, key: str, now: float) -> None:  # type: ignore[override]
        super().answer(key, now)


class NotOutstanding(Misses):
    """A context without a token writes."""

    def _oldest(self, key: str) -> None:  # type: ignore[override]
        return None


class Popped(Misses):
    """A `set` answers another context's miss."""

    def _oldest(self, key: str) -> rule.Miss | None:
        miss = super()._oldest(key)
        if miss is not None:
            self._discard(miss)
        return miss


class Newest(Misses):
    """The newest outstanding miss counts instead of the oldest."""

    def _oldest(self, key: str) -> rule.Miss | None:
        return next(reversed(self._by_key.get(key, {}).values()), None)


class Hasty(Misses):
    """A context without a token is born now."""

    def _oldest(self, key: str) -> rule.Miss | None:
        miss = super()._oldest(key)
        return miss and miss._replace(born=Born(miss.born.number + 1000, "era"))


class NothingOwn(Misses):
    """What the context invalidated itself counts as somebody else's."""

    def own(self, scopes: Iterable[str], miss: rule.Miss) -> dict[str, OwnInvalidation]:
        return {}


class AnybodysOwn(Misses):
    """A context's own invalidation also excuses a value that was missed elsewhere."""

    def answer(self, key: str, now: float) -> rule.Miss | None:
        miss = super().answer(key, now)
        return miss and miss._replace(here=True)


class NotInARow(Misses):
    """Two own invalidations one after the other."""

    def invalidated(self, clock: Born, before: Mapping[str, int], now: float) -> None:
        here = rule.remembered.get()
        rule.remembered.set(here._replace(own={}))
        super().invalidated(clock, before, now)


class Blind(Misses):
    """Does not look who invalidated before the context did."""

    def invalidated(self, clock: Born, before: Mapping[str, int], now: float) -> None:
        super().invalidated(clock, dict.fromkeys(before, 0), now)


def only_own_scopes(miss: rule.Miss, scopes: Iterable[str], clocks: Mapping[str, int], own: Any) -> Born | None:
    """Look only at the scopes that the context invalidated."""
    return birth(miss, [scope for scope in scopes if scope in own] or scopes, clocks, own)


def never_checked(miss: rule.Miss, scopes: Iterable[str], clocks: Mapping[str, int], own: Any) -> Born:
    """Store an own value whatever came between."""
    return max([miss.born, *(each.clock for each in own.values())])


WEAKENED: dict[str, tuple[type[Misses], Callable[..., Born | None], str]] = {
    "no token": (NoToken, birth, "stale"),
    "not outstanding": (NotOutstanding, birth, "stale"),
    "popped": (Popped, birth, "stale"),
    "newest": (Newest, birth, "stale"),
    "hasty": (Hasty, birth, "stale"),
    "nothing own": (NothingOwn, birth, "lost"),
    "anybody's own": (AnybodysOwn, birth, "stale"),
    "not in a row": (NotInARow, birth, "lost"),
    "blind": (Blind, birth, "stale"),
    "only own scopes": (Misses, only_own_scopes, "stale"),
    "never checked": (Misses, never_checked, "stale"),
}


@pytest.mark.parametrize("part", WEAKENED)
def test_each_part_of_the_rule_is_needed(part: str) -> None:
    """Left out, the schedules find it."""
    make, judge, expected = WEAKENED[part]
    stale, lost = violations(make, judge)
    assert {"stale": stale, "lost": lost}[expected]
