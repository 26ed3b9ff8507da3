"""`unlock NAME`: take a lock away from its holder. Says first who holds it; does it, and notes who did, with --yes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from cachebus.locks.locks import Locks
from cachebus.monitoring.audit import Audit
from cachebus.worker.commands import audited
from cachebus.worker.connection import connected_client
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print who holds the lock, or held it; 1 where nobody does, or somebody else by now."""
    return asyncio.run(_unlock(asked, WorkerSettings.from_environment(environment)))


async def _unlock(asked: argparse.Namespace, settings: WorkerSettings) -> int:
    async with connected_client(settings.cache) as client:
        locks = Locks(client)
        holder = await locks.holder(asked.lock)
        if holder is None:
            sys.stdout.write(f"lock {asked.lock!r}: nobody holds it\n")
            return 1
        held = f"{holder.owner} (token {holder.token}), {holder.waiting:,} wait"
        if not asked.yes:
            sys.stdout.write(f"lock {asked.lock!r}: held by {held}; {holder.remaining:.0f} s left unless it renews\n")
            sys.stdout.write("nothing was done; add --yes to take it away\n")
            return 0
        await Audit(client).note(asked.name or audited.operator(), "unlock", f"{asked.lock}, held by {held}")
        taken = await locks.unlock(asked.lock, holder.token)
        said = f"taken away from {held}" if taken else f"{holder.owner} does not hold it any more; nothing was done"
        sys.stdout.write(f"lock {asked.lock!r}: {said}\n")
        return int(not taken)
