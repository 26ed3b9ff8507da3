"""Contestants that publish events and handle them.

The effect of each event is the same everywhere: one scope with its clock, one record in a journal, one in a feed, one
PUBLISH. Ours is a handler that returns two effects, whose journal record is one for a batch; the others' handlers write
the same with one pipeline of redis-py, as one would. Work "publish" has fifty callers where the library has an event
loop, "handle" ends when the last event's effects are written.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from harness import Works, serve

FEED = 100_000
CALLERS = 50
BATCH = 500
"""Events of one pipeline of raw commands, as ours commits them."""


async def by_callers(publish: Callable[[int], Awaitable[object]], events: int) -> None:
    """Publish from fifty callers at once."""
    numbers = iter(range(events))

    async def caller() -> None:
        for number in numbers:
            await publish(number)

    await asyncio.gather(*[caller() for _ in range(CALLERS)])


def message(user_id: int) -> bytes:
    """Return what the feed and its listeners get."""
    body = {"topic": f"user:{user_id}", "type": "trade.new_trade", "data": {"user_id": user_id}}
    return json.dumps(body, separators=(",", ":")).encode()


def write(pipe: Any, user_id: int) -> None:
    """Put the effects of one event into a pipeline of redis-py."""
    text = message(user_id)
    pipe.zadd("ledger", {f"t:user:{user_id}": time.time_ns() // 1000})
    pipe.xadd("journal", {"scopes": f"t:user:{user_id}"}, maxlen=FEED, approximate=True)
    pipe.xadd("feed", {"record": text}, maxlen=FEED, approximate=True)
    pipe.publish(f"ws:user:{user_id}", text)


class Effects:
    """A handler that counts: `handle` in an event loop, `handle_plain` in a thread."""

    def __init__(self, url: str, events: int) -> None:
        import redis
        import redis.asyncio

        self._client = redis.asyncio.Redis.from_url(url, max_connections=500)
        self._plain = redis.Redis.from_url(url)
        self._left = events
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._heard = asyncio.Event()

    async def handle(self, user_id: int) -> None:
        """Write."""
        async with self._client.pipeline(transaction=True) as pipe:
            write(pipe, user_id)
            await pipe.execute()
        self._left -= 1
        if not self._left:
            self._heard.set()

    def handle_plain(self, user_id: int) -> None:
        """Write, in any thread."""
        with self._plain.pipeline(transaction=True) as pipe:
            write(pipe, user_id)
            pipe.execute()
        with self._lock:
            self._left -= 1
            if not self._left:
                self._done.set()

    async def all(self, running: Awaitable[object]) -> None:
        """Run a worker until all are written."""
        task = asyncio.ensure_future(running)
        heard = asyncio.create_task(self._heard.wait())
        await asyncio.wait([task, heard], return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        if self._left:
            await task
            raise RuntimeError(f"the worker ended with {self._left} events left")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def all_plain(self) -> None:
        """Wait until all are written."""
        if not self._done.wait(timeout=120):
            raise RuntimeError(f"{self._left} events were not handled in two minutes")


@asynccontextmanager
async def cachebus(url: str, events: int) -> AsyncIterator[Works]:
    """Ours."""
    import msgspec

    from cachebus import Client
    from cachebus.bus.effects import Broadcast, Invalidate
    from cachebus.bus.engine.consumer import Consumer
    from cachebus.bus.handlers import on
    from cachebus.bus.publisher import Bus

    trade = msgspec.defstruct("Trade", [("user_id", int)])

    @on("trade:updates", trade)
    def trade_changed(event: Any) -> Any:
        yield Invalidate(tags=[f"user:{event.user_id}"])
        yield Broadcast(f"user:{event.user_id}", "trade.new_trade", {"user_id": event.user_id})

    async with Client(url) as client:
        bus = Bus(client)

        async def handle() -> None:
            running = asyncio.create_task(Consumer(client, [trade_changed]).run())
            while await client.store.call("XLEN", client.names.feed) < events:  # noqa: ASYNC110 - the server counts
                await asyncio.sleep(0.005)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        yield {
            "publish": lambda: by_callers(lambda number: bus.publish("trade:updates", trade(number)), events),
            "handle": handle,
        }


@asynccontextmanager
async def faststream(url: str, events: int) -> AsyncIterator[Works]:
    """FastStream on Redis streams."""
    from faststream.redis import RedisBroker, StreamSub

    effects = Effects(url, events)
    publisher, broker = RedisBroker(url, logger=None, max_connections=500), RedisBroker(url, logger=None)

    @broker.subscriber(stream=StreamSub("events", group="workers", consumer="one", last_id="0"))
    async def handle(event: dict[str, int]) -> None:
        await effects.handle(event["user_id"])

    async with publisher:
        yield {
            "publish": lambda: by_callers(
                lambda number: publisher.publish({"user_id": number}, stream="events"), events
            ),
            "handle": lambda: effects.all(_started(broker)),
        }
    await broker.stop()


async def _started(broker: Any) -> None:
    await broker.start()
    await asyncio.Event().wait()


@asynccontextmanager
async def taskiq(url: str, events: int) -> AsyncIterator[Works]:
    """taskiq and its broker on Redis streams."""
    from taskiq.api import run_receiver_task
    from taskiq_redis import RedisStreamBroker

    effects = Effects(url, events)
    broker = RedisStreamBroker(url=url)

    @broker.task(task_name="handle")
    async def handle(user_id: int) -> None:
        await effects.handle(user_id)

    await broker.startup()
    yield {
        "publish": lambda: by_callers(handle.kiq, events),
        "handle": lambda: effects.all(run_receiver_task(broker)),
    }
    await broker.shutdown()


@asynccontextmanager
async def streaq(url: str, events: int) -> AsyncIterator[Works]:
    """streaq."""
    import streaq as library

    effects = Effects(url, events)
    worker: Any = library.Worker(redis_url=url, handle_signals=False)

    @worker.task()
    async def handle(user_id: int) -> None:
        await effects.handle(user_id)

    async def publish() -> None:
        async with worker:
            await by_callers(lambda number: _awaited(handle.enqueue(number)), events)

    yield {"publish": publish, "handle": lambda: effects.all(worker.run_async())}


async def _awaited(what: Awaitable[object]) -> object:
    return await what


@asynccontextmanager
async def saq(url: str, events: int) -> AsyncIterator[Works]:
    """saq."""
    from saq import Queue, Worker

    effects, queue = Effects(url, events), Queue.from_url(url)

    async def handle(_context: Any, *, user_id: int) -> None:
        await effects.handle(user_id)

    await queue.connect()
    yield {
        "publish": lambda: by_callers(lambda number: queue.enqueue("handle", user_id=number), events),
        "handle": lambda: effects.all(Worker(queue, functions=[("handle", handle)], concurrency=10).start()),
    }
    await queue.disconnect()


@asynccontextmanager
async def arq(url: str, events: int) -> AsyncIterator[Works]:
    """arq, which looks for work twice a second."""
    from arq import create_pool, func
    from arq.connections import RedisSettings
    from arq.worker import Worker

    effects, settings = Effects(url, events), RedisSettings.from_dsn(url)
    pool = await create_pool(settings)

    async def handle(_context: Any, user_id: int) -> None:
        await effects.handle(user_id)

    def work() -> Awaitable[None]:
        worker = Worker(functions=[func(handle, name="handle")], redis_settings=settings, handle_signals=False)
        return effects.all(worker.async_run())

    yield {
        "publish": lambda: by_callers(lambda number: pool.enqueue_job("handle", number), events),
        "handle": work,
    }
    await pool.aclose()


@asynccontextmanager
async def dramatiq(url: str, events: int) -> AsyncIterator[Works]:
    """dramatiq, with its eight threads."""
    import dramatiq as library
    from dramatiq.brokers.redis import RedisBroker

    effects = Effects(url, events)
    broker = RedisBroker(url=url)
    actor = library.actor(effects.handle_plain, actor_name="handle", broker=broker)

    def publish() -> None:
        for number in range(events):
            actor.send(number)

    def handle() -> None:
        worker = library.Worker(broker)
        worker.start()
        effects.all_plain()
        worker.stop()

    yield {"publish": publish, "handle": handle}
    broker.close()


@asynccontextmanager
async def huey(url: str, events: int) -> AsyncIterator[Works]:
    """huey, one thread, no results stored."""
    from huey import RedisHuey

    effects = Effects(url, events)
    queue = RedisHuey("bench", url=url, results=False)

    @queue.task()
    def handle(user_id: int) -> None:
        effects.handle_plain(user_id)

    def publish() -> None:
        for number in range(events):
            handle(number)

    def work() -> None:
        consumer = queue.create_consumer(workers=1, periodic=False, check_worker_health=False)
        consumer.start()
        effects.all_plain()
        consumer.stop(graceful=True)

    yield {"publish": publish, "handle": work}


# -- the limit -------------------------------------------------------------------------------------------------------


def command(*words: str | bytes) -> bytes:
    """Return a command as it is sent."""
    parts = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Wire:
    """A socket that sends bytes made before, and counts what comes back by its length alone: it is no bottleneck."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname, place.port))
        self._end = command("ECHO", "the end of it")

    def send(self, batch: bytes) -> None:
        """Send a batch and wait until all of it is answered."""
        self._socket.sendall(batch + self._end)
        tail = b""
        while not tail.endswith(b"the end of it\r\n"):
            tail = tail[-20:] + self._socket.recv(2**20)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@asynccontextmanager
async def raw(url: str, events: int) -> AsyncIterator[Works]:
    """The same commands, ready to be sent: nothing reads, decides, fences or remembers."""
    wire = Wire(url)
    batches = [range(first, min(first + BATCH, events)) for first in range(0, events, BATCH)]
    published, handled = [], []
    for batch in batches:
        payloads = [b'{"user_id":%d}' % number for number in batch]
        published.append(
            b"".join(
                command("XADD", "events", "*", "channel", "trade:updates", "payload", payload)
                + command("PUBLISH", "trade:updates", payload)
                for payload in payloads
            )
        )
        scopes = [f"t:user:{number}" for number in batch]
        effects = [command("XRANGE", "events", "-", "+", "COUNT", str(BATCH))]
        effects += [command("ZADD", "ledger", str(batch[0]), scope) for scope in scopes]
        effects += [command("XADD", "journal", "*", "scopes", " ".join(scopes))]
        for number in batch:
            effects.append(command("XADD", "feed", "MAXLEN", "~", str(FEED), "*", "record", message(number)))
            effects.append(command("PUBLISH", f"ws:user:{number}", message(number)))
        handled.append(b"".join(effects))

    def sent(of: list[bytes]) -> Callable[[], None]:
        def work() -> None:
            for batch in of:
                wire.send(batch)

        return work

    yield {"publish": sent(published), "handle": sent(handled)}
    wire.close()


if __name__ == "__main__":
    contestants = (cachebus, faststream, taskiq, streaq, saq, arq, dramatiq, huey, raw)
    serve({contestant.__name__: contestant for contestant in contestants})
