"""`publish CHANNEL JSON`: publish one event, as an app does."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cachebus.bus import Bus
from cachebus.errors import PublishRefused
from worker.connection import connected
from worker.settings import Settings


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Print the id of the event; 1 with the reason where it was refused."""
    payload = sys.stdin.buffer.read() if asked.event == "-" else asked.event.encode()
    try:
        sys.stdout.write(asyncio.run(_publish(asked, payload, settings)) + "\n")
    except PublishRefused as refused:
        sys.stderr.write(f"nothing was published: {refused}\n")
        return 1
    return 0


async def _publish(asked: argparse.Namespace, payload: bytes, settings: Settings) -> str:
    async with connected(settings.cache) as cache:
        bus = Bus(cache.link, shards=settings.bus.shards, signatures=settings.bus.signatures())
        return await bus.publish(asked.channel, payload, key=asked.key, id=asked.id)
