"""Running parts of the bus inside a test, and reading what they wrote."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec

from cachebus.feed import Feed, FeedRecord
from cachebus.link import Link


class Part(Protocol):
    """Something that runs until it is cancelled."""

    async def run(self) -> None: ...


@asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run parts for as long as the block lasts; a part that ends by itself fails the test."""
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield tasks
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def fed(link: Link) -> list[FeedRecord]:
    """Return the whole feed, checked: every record names the one before it."""
    records = (await Feed(link).read("0-0", 100_000)).records
    if not records:  # nothing before it is in the feed, so it is not `recovered`; read it as it is
        lines = await link.store.call("XRANGE", link.names.feed, "-", "+", timeout_s=5.0)
        for _, flat in lines:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            message = fields[b"record"]
            records.append(
                FeedRecord(
                    msgspec.json.decode(message)["id"], fields[b"before"].decode(), fields[b"topic"].decode(), message
                )
            )
    for earlier, later in itertools.pairwise(records):
        assert later.before == earlier.id
    return records


async def data(link: Link) -> list[Any]:
    """Return the data of every broadcast in the feed, in order."""
    return [msgspec.json.decode(record.message)["data"] for record in await fed(link)]


async def ledger(link: Link) -> dict[str, int]:
    """Return scope -> clock."""
    flat = await link.store.call("ZRANGE", link.names.ledger, 0, -1, "WITHSCORES", timeout_s=5.0)
    return {name.decode(): int(float(score)) for name, score in zip(flat[::2], flat[1::2], strict=True)}


async def add(link: Link, channel: str, *payloads: bytes, shard: int = 0) -> list[bytes]:
    """XADD as a foreign program does; returns the positions."""
    stream = link.names.bus("events", str(shard))
    return [await link.store.call("XADD", stream, "*", "channel", channel, "payload", each) for each in payloads]


def number(n: int) -> bytes:
    """Return the payload of event number *n*."""
    return b'{"n":%d}' % n
