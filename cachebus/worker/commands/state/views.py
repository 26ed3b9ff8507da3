"""`views`: what each view is asked, how often the cache answers, and what its loads cost."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from cachebus.cache.settings import CacheSettings
from cachebus.monitoring.view_table import ViewRow, view_table
from cachebus.worker.commands.output import write_json, write_table
from cachebus.worker.connection import connected_client

COLUMNS = (
    "VIEW",
    "READS",
    "HIT %",
    "MEMORY",
    "REDIS",
    "LOADS",
    "ERRORS",
    "MS/LOAD",
    "P95",
    "LOADING S",
    "INVAL/MIN",
    "TTL S",
)


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one row a view, the one that costs most first."""
    rows = asyncio.run(_look(asked.window, CacheSettings.from_environment(environment)))
    if asked.json:
        write_json(rows)
    else:
        write_table(COLUMNS, [_cells(row) for row in rows], "no view yet; processes report every ten seconds")
    return 0


async def _look(window: str, settings: CacheSettings) -> list[ViewRow]:
    async with connected_client(settings) as client:
        return await view_table(client, window)


def _cells(row: ViewRow) -> tuple[str | int | float | None, ...]:
    return (
        row.name,
        row.requests,
        _share(row),
        row.memory,
        row.redis,
        row.loads,
        row.errors,
        None if row.load_ms is None else round(row.load_ms, 1),
        "> 10000" if row.load_p95_ms == -1 else row.load_p95_ms,
        round(row.cost_ms / 1000, 1),
        round(row.invalidations, 1),
        None if row.ttl_ms is None else row.ttl_ms / 1000,
    )


def _share(row: ViewRow) -> float | None:
    """Return how many of the reads that asked the cache it answered, percent; None where none did."""
    asked = row.requests - row.bypassed
    return round(100 * (asked - row.missed) / asked, 1) if asked else None
