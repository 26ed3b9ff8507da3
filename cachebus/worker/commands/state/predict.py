"""`predict`: what prediction has learnt, what its loads saved and cost; forgets it again for one view."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from cachebus.cache.foresight.prediction.follows import reset_follows
from cachebus.cache.settings import CacheSettings
from cachebus.monitoring.context_table import ContextRow, context_table
from cachebus.monitoring.wording import counted
from cachebus.worker.commands import audited
from cachebus.worker.commands.output import printable, write_json, write_table
from cachebus.worker.connection import connected_client

COLUMNS = ("CONTEXT", "OUTCOMES", "CHANCE %", "STATE", "LOADS", "USED", "SAVED S", "SPENT S")
NOTHING = "nothing yet; views with Policy(predict=True) are counted every ten seconds"


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one row a context; with --reset 1 where nothing was learnt of the view."""
    settings = CacheSettings.from_environment(environment)
    if asked.reset:
        return asyncio.run(_reset(asked.reset, settings))
    rows = asyncio.run(_look(settings))[: asked.last]
    if asked.json:
        write_json(rows)
    else:
        write_table(COLUMNS, [_cells(row) for row in rows], NOTHING)
    return 0


async def _look(settings: CacheSettings) -> list[ContextRow]:
    async with connected_client(settings) as client:
        return await context_table(client, settings.predict_price)


async def _reset(view: str, settings: CacheSettings) -> int:
    async with connected_client(settings) as client:
        await audited.note(client, "predict-reset", view=view)
        forgotten = await reset_follows(client, view)
    sys.stdout.write(
        f"{printable(view)}: {counted(forgotten, 'context', 'contexts')} forgotten, everywhere in a minute\n"
    )
    return int(forgotten == 0)


def _cells(row: ContextRow) -> tuple[str | int | float | None, ...]:
    return (
        row.says,
        row.outcomes,
        None if row.chance is None else round(100 * row.chance),
        row.state,
        row.loads,
        row.used,
        round(row.saved_s, 1),
        round(row.spent_s, 1),
    )
