"""The forecaster: who is expected to read what, and which loads are worth making ahead of it. Pure.

`read` and `invalidated` are told what happened and return what to load; seconds of any clock are arguments. What is
not loaded, because its context is not good enough yet or nothing may be loaded at all, has its outcome counted all the
same: shadow and live are one path.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from cachebus.cache.foresight.prediction.contexts import (
    AGES,
    IDLES,
    INVALIDATED,
    RANKS,
    Context,
    age_of,
    contexts_after_invalidation,
    contexts_after_read,
    idle_of,
)
from cachebus.cache.foresight.prediction.decision import LOWEST, Budget, Cell
from cachebus.cache.foresight.prediction.expectation import Ahead, Expectation, ForecastView, Said
from cachebus.cache.foresight.prediction.outcomes import Outcomes
from cachebus.cache.foresight.prediction.repertoire import CallMade, Identity, Person, Repertoire
from cachebus.cache.stats import ViewStats

MOST_CONTEXTS = 5_000
MOST_OPEN = 10_000
"""Expectations whose outcome is to come; half of them are kept for what is loaded."""
MOST_CHANGED = 200
"""Identities looked at after an invalidation that names none: those that read last."""
LOOK_S = 5.0
"""How often it is worked out which views have a context that may load."""

NOTHING: Sequence[Expectation] = ()
ANY_AGE = len(AGES)
Known = Person[Expectation]


class Forecaster:
    """The forecasts of one process."""

    def __init__(
        self,
        *,
        live: bool,
        waste: float,
        price: float,
        is_valid: Callable[[Expectation], bool] = lambda _: True,
        mark: Callable[[], int] = lambda: 0,
    ) -> None:
        """*waste*, *price*: `CACHE_PREDICT_WASTE`, `CACHE_PREDICT_PRICE`. *mark*: the clock of invalidations."""
        self.people: Repertoire[Expectation] = Repertoire()
        self.views: list[ForecastView] = []
        self.cells: dict[Context, Cell] = {}
        self.budget = Budget(waste)
        self.outcomes = Outcomes(self.budget, is_valid)
        self._live = live
        self._price = price
        self._mark = mark
        self._due: list[tuple[float, int, Expectation]] = []
        self._numbers = count()
        self._looked_at = 0.0

    def follow(self, name: str, ttl_s: float, stats: ViewStats, *, predicts: bool) -> ForecastView:
        """Take note of a view."""
        view = ForecastView(len(self.views), name, ttl_s, stats, predicts=predicts, price=self._price)
        self.views.append(view)
        return view

    def read(  # noqa: PLR0913 - all there is to say of a read; an object for it would cost more than the rest
        self,
        view: ForecastView,
        identity: Identity,
        call: CallMade,
        now: float,
        *,
        began: float,
        loaded: bool = False,
        until: float = 0.0,
    ) -> Sequence[Expectation]:
        """Take note of a read that has its value *now*; returns what is to be loaded ahead of the next.

        *began*: when it was asked for. *loaded*: whether it had to be loaded for this read. *until*: how long its value
        lies ready. Raises: TypeError where an argument cannot be told apart.
        """
        if loaded:
            view.took((now - began) * 1000)
        person = self.people.latest(identity)
        if view.predicts:
            if person is None:
                person = self._meet(identity, now)
            if person.expected and (expectation := person.expected.pop(call, None)) is not None:
                self.outcomes.read(expectation, now, began, loaded=loaded)
            person.read(call, now, until)
        elif person is None:
            return NOTHING
        if now < person.ready_until or not (person.is_counted or view.is_live):
            return NOTHING
        return self._follows(view, person, call, now)

    def invalidated(self, person: Known, calls: Iterable[CallMade], now: float, *, own: bool) -> list[Expectation]:
        """Take note that calls of an identity were invalidated; returns what is to be loaded again."""
        orders: list[Expectation] = []
        for call in calls:
            habit, view = person.calls.get(call), self.views[call[0]]
            if habit is None:
                continue
            habit.until = person.ready_until = 0.0
            if (expectation := person.expected.pop(call, None)) is not None:
                self.outcomes.lost(expectation, now)
            if not (person.is_counted or view.is_live_when_changed):
                continue
            if not view.changed:
                view.changed = self._row(contexts_after_invalidation(view.name))
            if view.changed:
                cell = view.changed[own * len(IDLES) + idle_of(now - habit.at)]
                said = Said(now, cell, None, cell.chance, cell.chance >= view.least)
                if (ordered := self._expect(view, person, call, said)) is not None:
                    orders.append(ordered)
        return orders

    def expire(self, now: float) -> list[Expectation]:
        """Return what was expected and not read in time, for `Outcomes.settled`. To be called every second or so."""
        due, late = self._due, list[Expectation]()
        while due and due[0][0] <= now:
            expectation = heapq.heappop(due)[2]
            if expectation.over:
                continue
            if (part := expectation.take_late(now)) is not None:
                late.append(part)
                heapq.heappush(due, (expectation.deadline(), next(self._numbers), expectation))
            else:
                late.append(expectation)
                expectation.person.expected.pop(expectation.call, None)
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look()
        return late

    def cell_of(self, context: Context) -> Cell | None:
        """Return the cell of a context of views that are followed, None of others, or where there are too many."""
        if (cell := self.cells.get(context)) is None:
            after, then = self._named(context.after), self._named(context.then)
            if then is None or not then.predicts:
                return None
            if context.after == INVALIDATED:
                then.changed = then.changed or self._row(contexts_after_invalidation(then.name))
            elif after is not None and then.number not in after.after:
                after.after[then.number] = self._row(contexts_after_read(after.name, then.name))
            cell = self.cells.get(context)
        return cell

    # -- inside -----------------------------------------------------------------------------------------------------

    def _follows(self, view: ForecastView, person: Known, read: CallMade, now: float) -> Sequence[Expectation]:
        """Expect what follows a read: of each view the calls that this identity made last."""
        orders: Sequence[Expectation] = NOTHING
        ranks: dict[int, int] = {}
        views, rows, is_counted = self.views, view.after, person.is_counted
        ready_until = float("inf")
        for call, habit in reversed(person.calls.items()):
            ready_until = min(ready_until, habit.until)
            if call == read:
                continue
            number = call[0]
            rank = ranks.get(number, 0)
            if rank >= RANKS:
                continue
            ranks[number] = rank + 1
            if habit.until > now:  # it lies ready, and nobody would have to wait
                continue
            then = views[number]
            row = rows.get(number)
            if row is None:
                row = rows[number] = self._row(contexts_after_read(view.name, then.name))
            if not row:
                continue
            at = rank * (ANY_AGE + 1)
            cell, broad = row[at + age_of(now - habit.at)], row[at + ANY_AGE]
            chance = cell.chance if cell.chance >= 0 else broad.chance
            if (is_counted or chance >= then.least) and (
                ordered := self._expect(then, person, call, Said(now, cell, broad, chance, chance >= then.least))
            ):
                orders = [*orders, ordered]
        person.ready_until = ready_until
        return orders

    def _expect(self, view: ForecastView, person: Known, call: CallMade, said: Said) -> Expectation | None:
        """Take note of what a context says of a call; returns its expectation where that orders a load."""
        now = said.at
        expectation = person.expected.get(call)
        if expectation is None:
            if len(self._due) >= (MOST_OPEN if said.would and self._live else MOST_OPEN // 2):
                return None
            expectation = person.expected[call] = Expectation(view, person, call, self._mark())
            heapq.heappush(self._due, (now + view.horizon_s, next(self._numbers), expectation))
        elif expectation.was_said_by(said.cell):
            return None
        expectation.said.append(said)
        if not (said.would and self._live) or expectation.because is not None or now < view.record.suspended_until:
            return None
        if not self.budget.spend(said.chance, view.least):
            view.stats.ahead_refused += 1
            return None
        expectation.because, expectation.ahead = said, Ahead.ORDERED
        return expectation

    def _look(self) -> None:
        """Work out which views have a context that may load, and forget what is over."""
        if len(self._due) > MOST_OPEN // 4:
            self._due = [each for each in self._due if not each[2].over]
            heapq.heapify(self._due)
        for view in self.views:
            view.is_live_when_changed = view.may_be_ahead = _may_load(view.changed)
        for view in self.views:
            live = [number for number, row in view.after.items() if _may_load(row)]
            view.is_live = bool(live)
            for number in live:
                self.views[number].may_be_ahead = True

    def _meet(self, identity: Identity, now: float) -> Known:
        person, leaving = self.people.meet(identity)
        if leaving is not None:
            for expectation in leaving.expected.values():
                self.outcomes.left(expectation, now)
        return person

    def _row(self, contexts: list[Context]) -> list[Cell]:
        """Return the cells of some contexts; none where there are too many already."""
        if len(self.cells) + len(contexts) > MOST_CONTEXTS:
            return []
        row = [Cell(context) for context in contexts]
        self.cells.update(zip(contexts, row, strict=True))
        return row

    def _named(self, name: str) -> ForecastView | None:
        return next((view for view in self.views if view.name == name), None)


def _may_load(row: list[Cell]) -> bool:
    return any(cell.chance >= LOWEST for cell in row)
