"""`invalidate`: make cached values unreadable, everywhere. Says first what it would reach; does it with --yes."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cachebus import Cache
from cachebus.inspection import reached
from cachebus.keys import scopes_to_invalidate
from worker.connection import connected
from worker.loading import load
from worker.settings import CannotStart, Settings


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Print what is reached, and with --yes the clock at which it was invalidated."""
    if not (asked.key or asked.tag or asked.prefix or asked.everything):
        raise CannotStart(["invalidate: nothing is named; add --key, --tag, --prefix or --everything"])
    prefixes = [asked.prefix] if asked.prefix else []
    scopes_to_invalidate(keys=asked.key, tags=asked.tag, prefixes=prefixes)  # a bad name is refused before anything
    return asyncio.run(_invalidate(asked, settings))


async def _invalidate(asked: argparse.Namespace, settings: Settings) -> int:
    async with connected(settings.cache, load(settings.application).cache) as cache:
        if not asked.yes:
            for what, count in (await _reached(cache, asked)).items():
                sys.stdout.write(f"would invalidate {what}: {count:,} stored entries\n")
            sys.stdout.write("nothing was done; add --yes to do it\n")
            return 0
        if asked.everything:
            clock = await cache.clear()
        else:
            clock = await cache.invalidate(keys=asked.key, tags=asked.tag, prefix=asked.prefix)
        sys.stdout.write(f"invalidated at clock {clock}\n")
        return int(clock.queued)


async def _reached(cache: Cache, asked: argparse.Namespace) -> dict[str, int]:
    prefixes = [asked.prefix] if asked.prefix else []
    return await reached(cache, keys=asked.key, tags=asked.tag, prefixes=prefixes, everything=asked.everything)
