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

from cachebus.bus.effects import Broadcast, Effects, Invalidate
from cachebus.bus.feed import Feed, FeedRecord
from cachebus.bus.handlers import on
from cachebus.redis.client import Client

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


async def fed(client: Client) -> list[FeedRecord]:
    """Return the whole feed, checked: every record names the one before it."""
    records = (await Feed(client).read("0-0", 100_000)).records
    if not records:  # nothing before it is in the feed, so it is not `recovered`; read it as it is
        lines = await client.store.call("XRANGE", client.names.feed, "-", "+", timeout_s=5.0)
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


async def data(client: Client) -> list[Any]:
    """Return the data of every broadcast in the feed, in order."""
    return [msgspec.json.decode(record.message)["data"] for record in await fed(client)]


async def ledger(client: Client) -> dict[str, int]:
    """Return scope -> clock."""
    flat = await client.store.call("ZRANGE", client.names.ledger, 0, -1, "WITHSCORES", timeout_s=5.0)
    return {name.decode(): int(float(score)) for name, score in zip(flat[::2], flat[1::2], strict=True)}


async def add(client: Client, channel: str, *payloads: bytes, shard: int = 0) -> list[bytes]:
    """XADD as a foreign program does; returns the positions."""
    stream = client.names.bus("events", str(shard))
    return [await client.store.call("XADD", stream, "*", "channel", channel, "payload", each) for each in payloads]


def number(n: int) -> bytes:
    """Return the payload of event number *n*."""
    return b'{"n":%d}' % n


class Number(msgspec.Struct):
    """What `number` is the payload of."""

    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Invalidate and broadcast."""
    yield Invalidate(tags=[f"n:{event.n}"])
    yield Broadcast("numbers", "n", event.n)


async def has(client: Client, numbers: list[int]) -> bool:
    """Say whether the feed holds exactly these numbers."""
    return await data(client) == numbers


class Held:
    """A handler that waits for the test in the middle of an event."""

    def __init__(self, name: str) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.handler = on("numbers", Number, name="held", timeout="60s")(self.handle)
        self.name = name

    async def handle(self, event: Number) -> Effects:
        """Wait, then broadcast."""
        self.entered.set()
        await self.leave.wait()
        return [Invalidate(tags=[f"n:{event.n}"]), Broadcast("numbers", "n", event.n)]


class Workers:
    """Worker processes of one deployment, to be killed. Stopped, all of them, when the block ends."""

    def __init__(self, client: Client, url: str, lease: str = "500ms") -> None:
        self._client = client
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
        arguments = (str(HERE / "bus_worker.py"), self._url, self._client.names.namespace, name, self._lease)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if "LIMIT" in environment else None,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), **environment},
        )
        self._alive[name] = process
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return name

    async def active(self) -> str:
        """Return the name of the worker that holds shard 0, '' while none does."""
        token: bytes | None = await self._client.store.call("GET", self._client.names.bus("lease", "0"))
        name = (token or b"").decode().partition("/")[0]
        return name if name in self._alive else ""

    async def died(self, name: str) -> None:
        """Wait until a worker has ended by itself."""
        await self._alive[name].wait()  # still ours to stop, should nobody wait for this any more
        del self._alive[name]
        self.deaths += 1

    async def hung(self, name: str) -> tuple[int, str]:
        """Wait until a worker has ended itself; returns its exit code and what it wrote."""
        _, wrote = await self._alive[name].communicate()
        code = self._alive[name].returncode
        await self.died(name)
        assert code is not None
        return code, wrote.decode()

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
