"""`locks`: which locks are held, by whom, and how many wait."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from cachebus.cache.settings import CacheSettings
from cachebus.locks.listing import ListedLock, held_locks
from cachebus.worker.commands.output import span, write_json, write_table
from cachebus.worker.connection import connected_client


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print them, by name."""
    locks = asyncio.run(_look(CacheSettings.from_environment(environment)))
    if asked.json:
        write_json(locks)
        return 0
    rows = [
        (lock.name, lock.owner, str(lock.token), span(lock.held_ms * 1000), span(lock.left_ms * 1000), lock.waiting)
        for lock in locks
    ]
    write_table(("LOCK", "HOLDER", "FENCE", "HELD FOR", "LEASE ENDS IN", "WAITING"), rows, "no lock is held")
    return 0


async def _look(settings: CacheSettings) -> list[ListedLock]:
    async with connected_client(settings) as client:
        return await held_locks(client)
