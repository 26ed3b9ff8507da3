"""`inspect KEY`: what is cached under a key, how old, how long it lives on, and whether it may still be served."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime

import msgspec

from cachebus.inspection import Copy, copies
from worker.connection import connected
from worker.loading import load
from worker.settings import Settings

LONGEST_VALUE = 4_000


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Print every copy; 1 if there is none."""
    return asyncio.run(_inspect(asked.key, settings))


async def _inspect(key: str, settings: Settings) -> int:
    async with connected(settings.cache, load(settings.application).cache) as cache:
        found = await copies(cache, key)
        sys.stdout.write(f"{key}: {len(found) or 'no'} stored {'copy' if len(found) == 1 else 'copies'}\n")
        for copy in found:
            sys.stdout.write("\n".join(_lines(copy, cache.link.now_us())) + "\n")
    return 0 if found else 1


def _lines(copy: Copy, now_us: int) -> list[str]:
    header = copy.entry.header
    fresh_ms = copy.left_ms - header.grace_ms
    value = msgspec.json.format(msgspec.json.encode(copy.value)).decode()
    if len(value) > LONGEST_VALUE:
        value = value[:LONGEST_VALUE] + f"\n… ({len(value):,} characters)"
    state = "valid"
    if copy.invalidated_by:
        causes = ", ".join(
            f"{scope} ({(now_us - clock) / 1e6:.1f} s ago)" for scope, clock in copy.invalidated_by.items()
        )
        state = f"INVALID, is not served: {causes}"
    born = datetime.fromtimestamp(copy.entry.born / 1e6, UTC)
    stale = f", then stale for {header.grace_ms / 1000:.1f} s" if header.grace_ms else ""
    return [
        f"  read by     {', '.join(copy.views) or 'cache.get()'}",
        f"  state       {state}",
        f"  born        {born:%Y-%m-%d %H:%M:%S.%f} UTC (clock {copy.entry.born})",
        f"  fresh for   {fresh_ms / 1000:.1f} s{stale}",
        f"  tags        {', '.join(header.tags) or '-'}",
        f"  size        {copy.stored_bytes:,} bytes stored, {len(copy.entry.payload):,} unpacked",
        f"  load took   {header.load_ms:.1f} ms",
        f"  value       {value}",
    ]
