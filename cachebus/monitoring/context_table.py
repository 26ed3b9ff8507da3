"""What prediction has learnt: one row a context, of all processes, yesterday's and today's."""

from __future__ import annotations

from dataclasses import dataclass

from cachebus.cache.foresight.prediction.contexts import ANY, Context
from cachebus.cache.foresight.prediction.decision import Cell, Totals, threshold
from cachebus.cache.foresight.prediction.follows import days_of, read_follows
from cachebus.redis.client import Client


@dataclass(frozen=True, slots=True)
class ContextRow:
    """One context."""

    after: str
    then: str
    which: str
    when: str
    says: str
    """The same in words."""
    outcomes: int
    chance: float | None
    """None before thirty outcomes."""
    state: str
    """silent: has seen too little; shadow: not good enough; live: loads, where `CACHE_PREDICT` and budget let it."""
    loads: int
    used: int
    saved_s: float
    """What users would have waited for the loads that were used."""
    spent_s: float
    """Of the database, for all of them."""


async def context_table(client: Client, price: float) -> list[ContextRow]:
    """Return the contexts, those first that load and save most. Two round trips. Raises: ServerError."""
    cells: dict[Context, Cell] = {}
    sums: dict[Context, Totals] = {}
    for day in reversed(days_of(client)):
        for name, totals in (await read_follows(client, day)).items():
            if (context := Context.named(name)) is None:
                continue
            sums[context] = sums.get(context, Totals()).plus(totals)
            if totals.outcomes > 0:
                cells.setdefault(context, Cell(context)).learn_many(totals.outcomes, totals.reads)
    rows = [_row(cell, sums[context], price) for context, cell in cells.items()]
    return sorted(rows, key=lambda row: (-row.saved_s, row.state != "live", -row.outcomes, row.says))


def _row(cell: Cell, sums: Totals, price: float) -> ContextRow:
    context, chance = cell.context, cell.chance if cell.chance >= 0 else None
    state = "silent" if chance is None else "live" if chance >= threshold(None, price) else "shadow"
    says = f"{context} (any time)" if context.when == ANY else str(context)
    return ContextRow(
        *context, says, sums.outcomes, chance, state, sums.loads, sums.used, sums.saved_ms / 1000, sums.spent_ms / 1000
    )
