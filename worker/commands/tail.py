"""`tail`: broadcasts as they go out, or events as they come in, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

from cachebus import Link
from cachebus.events import InvalidEvent, read_record
from cachebus.feed import Feed
from worker.connection import connected
from worker.settings import Settings

BLOCK_MS = 1000
DEADLINE_S = 3.0
AT_ONCE = 1000


class Shown(NamedTuple):
    """One line: a broadcast with its topic and type, or an event with its channel and id."""

    at_ms: float
    topic: str
    type: str
    json: str


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Print what comes; ends with Ctrl-C, or when the reader of a pipe has enough."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_tail(asked, settings))
    return 0


async def _tail(asked: argparse.Namespace, settings: Settings) -> None:
    async with connected(settings.cache) as cache:
        link = cache.link
        source = _events(link, settings.bus.shards, asked.last) if asked.events else _broadcasts(link, asked.last)
        async for shown in source:
            if not fnmatchcase(shown.topic, asked.topic or "*") or not fnmatchcase(shown.type, asked.type or "*"):
                continue
            at = datetime.fromtimestamp(shown.at_ms / 1000, UTC)
            line = shown.json if asked.json else f"{at:%H:%M:%S.%f}  {shown.topic}  {shown.type}  {shown.json}"
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


async def _broadcasts(link: Link, last: int) -> AsyncIterator[Shown]:
    """Yield broadcasts: the last few there are, then each as it comes."""
    feed = Feed(link)
    newest = await feed.newest()
    before: deque[Shown] = deque(maxlen=last)
    replaying = bool(last and newest)
    async for page in feed.follow("-0" if replaying else newest):
        if not page.recovered and not replaying:
            sys.stderr.write("broadcasts may be missing here\n")
        for record in page.records:
            shown = _broadcast(record.topic, record.message)
            if not replaying:
                yield shown
                continue
            before.append(shown)
            if _clock(record.id) >= _clock(newest):
                replaying = False
                for earlier in before:
                    yield earlier


def _clock(identity: str) -> int:
    return int(identity.partition("-")[2])


def _broadcast(topic: str, message: bytes) -> Shown:
    said = msgspec.json.decode(message)
    return Shown(float(said["ts"]), topic, str(said["type"]), message.decode())


async def _events(link: Link, shards: int, last: int) -> AsyncIterator[Shown]:
    """Yield events of every shard: the last few of each, then each as it comes. Raises: ServerError."""
    streams = [link.names.bus("events", str(shard)) for shard in range(shards)]
    after = []
    for stream in streams:
        records = await link.store.call("XREVRANGE", stream, "+", "-", "COUNT", max(1, last))
        after.append(records[0][0] if records else b"0-0")
        for record in reversed(records[:last]):
            yield _event(record)
    wire = await link.store.dedicated(streams[0])
    try:
        while True:
            command = ("XREAD", "COUNT", AT_ONCE, "BLOCK", BLOCK_MS, "STREAMS", *streams, *after)
            for name, records in await wire.call(*command, timeout_s=DEADLINE_S) or []:
                after[streams.index(name.decode())] = records[-1][0]
                for record in records:
                    yield _event(record)
    finally:
        await wire.close()


def _event(record: Any) -> Shown:
    at_ms = float(record[0].partition(b"-")[0])
    try:
        event = read_record(record)
    except InvalidEvent as foreign:
        return Shown(at_ms, "?", record[0].decode(), f"not an event: {foreign}")
    return Shown(at_ms, event.channel, event.id or event.position, event.payload.decode(errors="backslashreplace"))
