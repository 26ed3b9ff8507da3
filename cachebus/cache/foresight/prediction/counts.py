"""What contexts have seen in all processes together: whole numbers by day, added up in Redis. Pure.

A process learns its own outcomes at once, and those of others once a minute, as what has been added since. A name that
is gone, or counts less than before, was reset: it begins again.
"""

from __future__ import annotations

from collections.abc import Mapping

from cachebus.cache.foresight.prediction.contexts import Context
from cachebus.cache.foresight.prediction.decision import Totals
from cachebus.cache.foresight.prediction.forecaster import Forecaster


class SharedCounts:
    """One process's part in them."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._sent: dict[Context, Totals] = {}
        """Of what this process counted, what it has added."""
        self._known: dict[str, dict[str, Totals]] = {}
        """By day and name: what Redis said last, and what this process has added since."""

    def unsent(self) -> dict[Context, Totals]:
        """Return what there is to add."""
        found = {}
        for context, cell in self._forecaster.cells.items():
            if (new := cell.totals.minus(self._sent.get(context, Totals()))) != Totals():
                found[context] = new
        return found

    def sent(self, day: str, counts: Mapping[Context, Totals]) -> None:
        """Take note that this was added."""
        known = self._known.setdefault(day, {})
        for context, new in counts.items():
            self._sent[context] = self._sent.get(context, Totals()).plus(new)
            known[context.name] = known.get(context.name, Totals()).plus(new)

    def learn(self, day: str, found: Mapping[str, Totals]) -> None:
        """Learn what others have added to a day since this was last asked."""
        known = self._known.get(day, {})
        self._known[day] = dict(found)
        for name in known.keys() - found.keys():
            self._forget(name)
        for name, totals in found.items():
            before = known.get(name, Totals())
            if totals.outcomes < before.outcomes:
                self._forget(name)
                before = Totals()
            outcomes, reads = totals.outcomes - before.outcomes, totals.reads - before.reads
            if outcomes > 0 and (context := Context.named(name)) is not None:
                cell = self._forecaster.cell_of(context)
                if cell is not None:
                    cell.learn_many(outcomes, min(max(reads, 0), outcomes))

    def end(self, days: tuple[str, ...]) -> None:
        """Forget all days but these."""
        self._known = {day: known for day, known in self._known.items() if day in days}

    def _forget(self, name: str) -> None:
        context = Context.named(name)
        cell = self._forecaster.cells.get(context) if context is not None else None
        if cell is not None and context is not None:
            cell.forget()
            self._sent[context] = cell.totals
