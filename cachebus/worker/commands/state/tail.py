"""`tail`: broadcasts as they go out, or events as they come in, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

from cachebus.bus.events import InvalidEvent, read_record
from cachebus.bus.feed import Feed
from cachebus.redis.client import Client
from cachebus.worker.commands.output import moment, printable
from cachebus.worker.connection import connected_client
from cachebus.worker.settings import WorkerSettings

BLOCK_MS = 1000
DEADLINE_S = 3.0
AT_ONCE = 1000


class Shown(NamedTuple):
    """One line: a broadcast with its topic and type, or an event with its channel and id."""

    at_ms: float
    topic: str
    type: str
    json: str


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print what comes; ends with Ctrl-C, or when the reader of a pipe has enough."""
    settings = WorkerSettings.from_environment(environment)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_tail(asked, settings))
    return 0


async def _tail(asked: argparse.Namespace, settings: WorkerSettings) -> None:
    async with connected_client(settings.cache) as client:
        source = _events(client, settings.bus.shards, asked.last) if asked.events else _broadcasts(client, asked.last)
        async for shown in source:
            if not fnmatchcase(shown.topic, asked.topic or "*") or not fnmatchcase(shown.type, asked.type or "*"):
                continue
            line = shown.json
            if not asked.json:
                parts = (moment(shown.at_ms * 1000, "milliseconds"), shown.topic, shown.type, shown.json)
                line = "  ".join(map(printable, parts))
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


async def _broadcasts(client: Client, last: int) -> AsyncIterator[Shown]:
    """Yield broadcasts: the last few there are, then each as it comes."""
    feed = Feed(client)
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


async def _events(client: Client, shards: int, last: int) -> AsyncIterator[Shown]:
    """Yield events of every shard: the last few of each, then each as it comes. Raises: ServerError."""
    streams = [client.names.bus("events", str(shard)) for shard in range(shards)]
    after = []
    for stream in streams:
        records = await client.store.call("XREVRANGE", stream, "+", "-", "COUNT", max(1, last))
        after.append(records[0][0] if records else b"0-0")
        for record in reversed(records[:last]):
            yield _event(record)
    wire = await client.store.dedicated(streams[0])
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
