"""`cancel ID`: take back a delayed event."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from cachebus.bus.publisher import Bus
from cachebus.errors import NotDelayed
from cachebus.worker.commands import audited
from cachebus.worker.connection import connected_client
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Cancel it; 1 with the reason where no event waits under this id."""
    settings = WorkerSettings.from_environment(environment)
    try:
        asyncio.run(_cancel(asked.id, settings))
    except NotDelayed as unknown:
        sys.stderr.write(f"nothing was cancelled: {unknown}\n")
        return 1
    sys.stdout.write(f"{asked.id} will not be published\n")
    return 0


async def _cancel(event_id: str, settings: WorkerSettings) -> None:
    async with connected_client(settings.cache) as client:
        await audited.note(client, "cancel", id=event_id)
        await Bus(client, shards=settings.bus.shards).cancel(event_id)
