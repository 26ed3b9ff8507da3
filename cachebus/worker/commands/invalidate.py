"""`invalidate`: make cached values unreadable, everywhere. Says first what it would reach; does it with --yes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from cachebus.cache.cache import Cache
from cachebus.errors import CannotStart
from cachebus.freshness.cause import caused_by
from cachebus.freshness.clock import is_queued
from cachebus.freshness.scopes import scopes_to_invalidate
from cachebus.monitoring.inspection import Reached, reached
from cachebus.monitoring.wording import counted
from cachebus.worker.commands import audited
from cachebus.worker.commands.output import printable, progress, write_json
from cachebus.worker.connection import connected
from cachebus.worker.loading import Application, load
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print what is reached, and with --yes the clock at which it was invalidated."""
    settings = WorkerSettings.from_environment(environment)
    if not (asked.key or asked.tag or asked.prefix or asked.everything):
        raise CannotStart(["nothing is named; add --key, --tag, --prefix or --everything"])
    prefixes = [asked.prefix] if asked.prefix else []
    scopes_to_invalidate(keys=asked.key, tags=asked.tag, prefixes=prefixes)  # a bad name is refused before anything
    return asyncio.run(_invalidate(asked, settings, load(settings.application)))


async def _invalidate(asked: argparse.Namespace, settings: WorkerSettings, application: Application) -> int:
    async with connected(settings.cache, application) as cache:
        if not asked.yes:
            found = await _reached(cache, asked)
            if asked.json:
                write_json({"would_invalidate": found.by_name, "entries": found.entries})
                return 0
            for what, count in found.by_name.items():
                entries = counted(count, "stored entry", "stored entries")
                sys.stdout.write(f"would invalidate {printable(what)}: {entries}\n")
            if len(found.by_name) > 1:
                sys.stdout.write(f"together: {counted(found.entries, 'entry', 'entries')}\n")
            sys.stdout.write("nothing was done; add --yes to do it\n")
            return 0
        named = {"keys": asked.key, "tags": asked.tag, "prefix": asked.prefix, "everything": asked.everything}
        await audited.note(cache.client, "purge", **{kind: each for kind, each in named.items() if each})
        with caused_by("command", audited.operator(), "invalidate"):
            if asked.everything:
                clock = await cache.clear()
            else:
                clock = await cache.invalidate(keys=asked.key, tags=asked.tag, prefix=asked.prefix)
        if asked.json:
            write_json({"clock": clock})
        else:
            sys.stdout.write(f"invalidated at clock {clock}\n")
        return int(is_queued(clock))


async def _reached(cache: Cache, asked: argparse.Namespace) -> Reached:
    prefixes = [asked.prefix] if asked.prefix else []
    with progress("counting") as step:
        return await reached(
            cache, keys=asked.key, tags=asked.tag, prefixes=prefixes, everything=asked.everything, step=step
        )
