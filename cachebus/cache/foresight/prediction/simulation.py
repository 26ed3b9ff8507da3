"""A cache and its forecasts, played through without a server and faster than the clock: what would have been. Pure.

The forecaster is the one that runs in processes. Values expire and are invalidated as they would be; a load takes the
time it is given, and who comes meanwhile waits for the rest of it.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from cachebus.cache.foresight.prediction.counts import SharedCounts
from cachebus.cache.foresight.prediction.decision import AT_ONCE, HIT_MS, MOST_ORDERED, PER_SECOND, Totals
from cachebus.cache.foresight.prediction.expectation import Expectation, ForecastView
from cachebus.cache.foresight.prediction.forecaster import MOST_CHANGED, Forecaster
from cachebus.cache.foresight.prediction.outcomes import FoundElsewhere
from cachebus.cache.stats import ViewStats

SHARE_S = 60.0
"""How often processes learn of each other."""


class SimulatedView(NamedTuple):
    """A view, and whether its calls may be loaded ahead."""

    name: str
    ttl_s: float
    predicts: bool


class SimulatedRead(NamedTuple):
    """A read: by *identity*, None for nobody's, of the value under *key*, whose load takes *load_ms*."""

    at: float
    view: str
    identity: Hashable
    key: Hashable
    tags: tuple[Hashable, ...]
    load_ms: float
    process: int = -1
    """Which process answers; -1: any."""


class SimulatedChange(NamedTuple):
    """Everything under *tags* is invalidated; *own*: they are one identity's."""

    at: float
    tags: tuple[Hashable, ...]
    own: bool


@dataclass
class SimulatedOutcome:
    """What would have been."""

    reads: int = 0
    hits: int = 0
    loads: int = 0
    """That somebody waited for."""
    wait_ms: float = 0.0
    database_ms: float = 0.0
    views: dict[str, ViewStats] = field(default_factory=dict)

    @property
    def mean_wait_ms(self) -> float:
        """What a read waits."""
        return self.wait_ms / self.reads if self.reads else 0.0

    @property
    def ahead(self) -> int:
        """Loads made ahead."""
        return sum(stats.ahead_loads for stats in self.views.values())

    @property
    def precision(self) -> float:
        """Of the loads made ahead whose end is known, the share that was used."""
        used = sum(stats.ahead_used for stats in self.views.values())
        wasted = sum(stats.ahead_wasted for stats in self.views.values())
        return used / (used + wasted) if used + wasted else 0.0


class _Lying:
    """A value, or the load of one."""

    __slots__ = ("began", "is_ahead", "ready_at", "tags", "until")

    def __init__(self, began: float, ready_at: float, until: float, tags: tuple[Hashable, ...]) -> None:
        self.began = began
        self.is_ahead = False
        """Whether it was loaded ahead, and nobody has read it."""
        self.ready_at = ready_at
        self.until = until
        self.tags = tags


class _Process:
    """One process: its forecaster, and the loads it makes ahead."""

    def __init__(self, forecaster: Forecaster, views: Iterable[SimulatedView], stats: dict[str, ViewStats]) -> None:
        self.forecaster = forecaster
        self.views: dict[str, ForecastView] = {
            view.name: forecaster.follow(view.name, view.ttl_s, stats[view.name], predicts=view.predicts)
            for view in views
        }
        self.ordered: deque[Expectation] = deque()
        self.under_way = 0
        self.next_at = 0.0
        self.counts = SharedCounts(forecaster)


class Simulation:
    """One run. Without forecasters it is the cache alone."""

    def __init__(
        self, views: Iterable[SimulatedView], forecasters: Iterable[Forecaster] = (), *, seed: int = 1
    ) -> None:
        """*forecasters*: one for each process; they share what they count, as processes do. A read is any process's."""
        known = list(views)
        self.outcome = SimulatedOutcome(views={view.name: ViewStats() for view in known})
        self._ttls_s = {view.name: view.ttl_s for view in known}
        self._processes = [_Process(each, known, self.outcome.views) for each in forecasters]
        self._draw = random.Random(seed)  # noqa: S311 - which process answers
        self._lying: dict[Hashable, _Lying] = {}
        self._by_tag: dict[Hashable, set[Hashable]] = defaultdict(set)
        self._calls: dict[Hashable, tuple[str, Hashable, float, tuple[Hashable, ...]]] = {}
        """By key: view, identity, what its load takes, tags."""
        self._later: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._shared: dict[str, dict[str, Totals]] = defaultdict(dict)
        self._share_at = SHARE_S

    def run(self, events: Iterable[SimulatedRead | SimulatedChange]) -> SimulatedOutcome:
        """Play *events*, which are in the order of time, to their end."""
        for event in events:
            self.step(event)
        self._until(float("inf"))
        return self.outcome

    def lay(self, key: Hashable, tags: tuple[Hashable, ...], until: float) -> None:
        """Have a value be there from the beginning."""
        self._lying[key] = _Lying(float("-inf"), float("-inf"), until, tags)
        for tag in tags:
            self._by_tag[tag].add(key)

    def step(self, event: SimulatedRead | SimulatedChange) -> None:
        """Play one event."""
        self._until(event.at)
        if isinstance(event, SimulatedChange):
            self._change(event)
        else:
            self._read(event)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _until(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            at, _, happens = heapq.heappop(self._later)
            happens(at)
        if now == float("inf"):
            return
        for process in self._processes:
            for late in process.forecaster.expire(now):
                process.forecaster.outcomes.settled(late, self._elsewhere(late, now), now)
        if len(self._processes) > 1 and now >= self._share_at:
            self._share_at = now + SHARE_S
            self._exchange(str(int(now // 86_400)))

    def _at(self, at: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._later, (at, next(self._numbers), happens))

    def _read(self, read: SimulatedRead) -> None:
        outcome, lying = self.outcome, self._valid(read.key, read.at)
        outcome.reads += 1
        loaded = lying is None
        self._calls[read.key] = (read.view, read.identity, read.load_ms, read.tags)
        if lying is None:
            outcome.loads += 1
            for each in self._processes:
                each.forecaster.budget.earn(1)
            lying = self._load(read.key, read.at)
        lying.is_ahead = False
        wait_ms = max(HIT_MS, (lying.ready_at - read.at) * 1000)
        outcome.hits += wait_ms <= HIT_MS
        outcome.wait_ms += wait_ms
        if not self._processes or read.identity is None:
            return
        process = self._process_of(read)
        found = lying

        def has_its_value(now: float) -> None:
            view = process.views[read.view]
            until = found.until if self._lying.get(read.key) is found else 0.0
            orders = process.forecaster.read(
                view, ("", read.identity), (view.number, read.key), now, began=read.at, loaded=loaded, until=until
            )
            self._order(process, orders, now)

        self._at(read.at + wait_ms / 1000, has_its_value)

    def _process_of(self, read: SimulatedRead) -> _Process:
        if read.process >= 0:
            return self._processes[read.process % len(self._processes)]
        return self._draw.choice(self._processes) if len(self._processes) > 1 else self._processes[0]

    def _change(self, change: SimulatedChange) -> None:
        invalidated = {key for tag in change.tags for key in self._by_tag.pop(tag, ())}
        for key in invalidated:
            self._lying.pop(key, None)
        if not invalidated:
            return
        people: dict[Hashable, list[Hashable]] = defaultdict(list)
        for key in sorted(invalidated, key=str):
            if key in self._calls and (identity := self._calls[key][1]) is not None:
                people[identity].append(key)
        for process in self._processes:
            forecaster = process.forecaster
            told = people if change.own else [value for _, value in forecaster.people.newest(MOST_CHANGED)]
            for identity in told:
                person, keys = forecaster.people.get(("", identity)), people.get(identity, [])
                if person is not None and keys:
                    calls = [(process.views[self._calls[key][0]].number, key) for key in keys]
                    self._order(process, forecaster.invalidated(person, calls, change.at, own=change.own), change.at)

    def _elsewhere(self, expectation: Expectation, now: float) -> FoundElsewhere:
        lying = self._valid(expectation.call[1], now)
        if lying is None or lying.is_ahead:
            return FoundElsewhere.MISSED
        return FoundElsewhere.READ if lying.began >= expectation.said[0].at else FoundElsewhere.READY

    def _valid(self, key: Hashable, now: float) -> _Lying | None:
        lying = self._lying.get(key)
        return lying if lying is not None and now < lying.until else None

    def _load(self, key: Hashable, now: float) -> _Lying:
        view, _, load_ms, tags = self._calls[key]
        self.outcome.database_ms += load_ms
        ready_at = now + load_ms / 1000
        lying = self._lying[key] = _Lying(now, ready_at, ready_at + self._ttls_s[view], tags)
        for tag in tags:
            self._by_tag[tag].add(key)
        return lying

    def _order(self, process: _Process, orders: Iterable[Expectation], now: float) -> None:
        for each in orders:
            if len(process.ordered) >= MOST_ORDERED:
                process.forecaster.outcomes.refused(each)
            else:
                process.ordered.append(each)
        self._begin(process, now)

    def _begin(self, process: _Process, now: float) -> None:
        outcomes = process.forecaster.outcomes
        while process.ordered and process.under_way < AT_ONCE:
            if now < process.next_at:
                self._at(process.next_at, lambda at: self._begin(process, at))
                return
            expectation = process.ordered.popleft()
            if not outcomes.begun(expectation, now):
                continue
            key = expectation.call[1]
            if (there := self._valid(key, now)) is not None:
                outcomes.loaded(expectation, now, until=there.until, loaded=False)
                continue
            process.under_way += 1
            process.next_at = now + 1 / PER_SECOND
            lying = self._load(key, now)
            lying.is_ahead = True
            self._at(lying.ready_at, lambda at, e=expectation, v=lying: self._ended(process, e, v, at))  # type: ignore[misc]

    def _ended(self, process: _Process, expectation: Expectation, lying: _Lying, now: float) -> None:
        process.under_way -= 1
        process.forecaster.outcomes.loaded(expectation, now, until=lying.until, loaded=True)
        self._begin(process, now)

    def _exchange(self, day: str) -> None:
        found = self._shared[day]
        for process in self._processes:
            new = process.counts.unsent()
            process.counts.sent(day, new)
            for context, totals in new.items():
                found[context.name] = found.get(context.name, Totals()).plus(totals)
        for process in self._processes:
            process.counts.learn(day, found)
