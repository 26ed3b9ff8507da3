"""Running parts of the bus inside a test, and reading what they wrote."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from cachebus.feed import Feed, FeedRecord
from cachebus.link import Link

HERE = Path(__file__).parent


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


class Workers:
    """Worker processes of one deployment, to be killed. Stopped, all of them, when the block ends."""

    def __init__(self, link: Link, url: str, lease: str = "500ms") -> None:
        self._link = link
        self._url = url
        self._lease = lease
        self._alive: dict[str, asyncio.subprocess.Process] = {}
        self._names = itertools.count(1)
        self.deaths = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._alive.values():
            process.kill()
            await process.wait()

    async def start(self, **environment: str) -> str:
        """Start a worker and return its name when it is ready."""
        name = f"w{next(self._names)}"
        arguments = (str(HERE / "worker_process.py"), self._url, self._link.names.namespace, name, self._lease)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), **environment},
        )
        self._alive[name] = process
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return name

    async def active(self) -> str:
        """Return the name of the worker that holds shard 0, '' while none does."""
        token: bytes | None = await self._link.store.call("GET", self._link.names.bus("lease", "0"))
        name = (token or b"").decode().partition("/")[0]
        return name if name in self._alive else ""

    async def died(self, name: str) -> None:
        """Wait until a worker has ended by itself."""
        await self._alive[name].wait()  # still ours to stop, should nobody wait for this any more
        del self._alive[name]
        self.deaths += 1

    async def kill(self, name: str) -> None:
        """kill -9."""
        self._alive[name].kill()
        await self.died(name)

    def pause(self, name: str) -> None:
        """SIGSTOP: it does nothing, its connections stay."""
        self._alive[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT: it goes on where it was, its lease long over."""
        self._alive[name].send_signal(signal.SIGCONT)
