"""`inspect KEY`: what is cached under a key, how old, how long it lives on, and whether it may still be served."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from cachebus.freshness.clock import clock_of
from cachebus.monitoring.inspection import Copy, copies
from cachebus.monitoring.wording import counted
from cachebus.worker.commands.output import moment, printable, write_json
from cachebus.worker.connection import connected
from cachebus.worker.loading import Application, load
from cachebus.worker.settings import WorkerSettings

LONGEST_VALUE = 4_000
NOBODY = "no view of this application: another one, or a deploy whose view returns another type"


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print every copy; 1 if there is none."""
    settings = WorkerSettings.from_environment(environment)
    return asyncio.run(_inspect(asked, settings, load(settings.application)))


async def _inspect(asked: argparse.Namespace, settings: WorkerSettings, application: Application) -> int:
    async with connected(settings.cache, application) as cache:
        found = await copies(cache, asked.key, walk=True)
        now_us = cache.client.now_us()
    if asked.json:
        write_json([_plain(copy, now_us) for copy in found])
        return 0 if found else 1
    sys.stdout.write(f"{printable(asked.key)}: {counted(len(found), 'stored copy', 'stored copies')}\n")
    for copy in found:
        sys.stdout.write("\n".join(map(printable, _lines(copy, now_us))) + "\n")
    return 0 if found else 1


def _lines(copy: Copy, now_us: int) -> list[str]:
    header = copy.entry.header
    fresh_ms = copy.left_ms - header.grace_ms
    value = msgspec.json.format(msgspec.json.encode(copy.value), indent=0).decode()
    if len(value) > LONGEST_VALUE:
        value = value[:LONGEST_VALUE] + f" … ({len(value):,} characters)"
    state = "valid"
    if copy.invalidated_by:
        causes = ", ".join(
            f"{scope} ({(now_us - clock) / 1e6:.1f} s ago)" for scope, clock in copy.invalidated_by.items()
        )
        state = f"INVALID, is not served: {causes}"
    stale = f", then stale for {header.grace_ms / 1000:.1f} s" if header.grace_ms else ""
    return [
        f"  read by     {', '.join(copy.views) or ('cache.get()' if copy.plain else NOBODY)}",
        f"  state       {state}",
        f"  born        {moment(copy.entry.born.number, 'milliseconds')} (clock {clock_of(copy.entry.born)})",
        f"  fresh for   {fresh_ms / 1000:.1f} s{stale}",
        f"  tags        {', '.join(header.tags) or '-'}",
        f"  size        {copy.stored_bytes:,} bytes stored, {len(copy.entry.payload):,} unpacked",
        f"  load took   {header.load_ms:.1f} ms, {copy.loaded_for}",
        *([f"  why         loaded ahead: {copy.ahead}"] if copy.ahead is not None else []),
        f"  value       {value}",
    ]


def _plain(copy: Copy, now_us: int) -> dict[str, Any]:
    header = copy.entry.header
    return {
        "views": copy.views,
        "valid": not copy.invalidated_by,
        "invalidated_us_ago": {scope: now_us - clock for scope, clock in copy.invalidated_by.items()},
        "born_us": copy.entry.born.number,
        "fresh_ms": copy.left_ms - header.grace_ms,
        "left_ms": copy.left_ms,
        "tags": header.tags,
        "stored_bytes": copy.stored_bytes,
        "load_ms": header.load_ms,
        "loaded_for": header.purpose or "read",
        "loaded_ahead": copy.ahead and {**msgspec.to_builtins(copy.ahead), "says": str(copy.ahead)},
        "value": copy.value,
    }
