"""A worker or a publisher of one library: `python faulted.py LIBRARY work|publish URL WORLD NAME`.

The handler of event n works for five milliseconds and writes n to a server of its own, `WORLD`, which nothing befalls.
A publisher is given numbers on standard input, and answers each when the library has accepted it; what raises is
published again, as a caller would. Each library is used as its documentation has it, with what makes it durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

LEASE_S = 5
"""Our default."""
IDLE_MS = 10_000
"""When what a worker took and did not finish is given to another. Less, and a busy machine repeats what is in hand."""
WORK_S = 0.005
RETRY_S = 0.05
PATIENCE_S = 60.0

Publish = Callable[[int], Awaitable[object]]


class World:
    """What handlers write to."""

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(url)

    async def handle(self, n: int) -> None:
        """Work, and write."""
        await asyncio.sleep(WORK_S)
        await self._client.rpush("handled", n)  # type: ignore[misc] # awaitable, in its asyncio


@asynccontextmanager
async def cachebus_publish(url: str) -> AsyncIterator[Publish]:
    from cachebus import Bus, Client

    async with Client(url) as client:
        bus = Bus(client)
        yield lambda n: bus.publish("numbers", {"n": n})


async def cachebus_work(url: str, world: World, name: str) -> None:
    import msgspec

    from cachebus import Client
    from cachebus.bus.effects import Broadcast, Effect
    from cachebus.bus.engine.consumer import Consumer
    from cachebus.bus.handlers import on

    number = msgspec.defstruct("Number", [("n", int)])

    @on("numbers", number, name="numbers")
    async def numbers(event: Any) -> list[Effect]:
        await world.handle(event.n)
        return [Broadcast("numbers", "n", event.n)]

    async with Client(url) as client:
        await Consumer(client, [numbers], worker=name, lease=LEASE_S).run()


@asynccontextmanager
async def faststream_publish(url: str) -> AsyncIterator[Publish]:
    from faststream.redis import RedisBroker

    async with RedisBroker(url, logger=None) as broker:
        yield lambda n: broker.publish({"n": n}, stream="events")


async def faststream_work(url: str, world: World, name: str) -> None:
    from faststream import AckPolicy, FastStream
    from faststream.redis import RedisBroker, StreamSub

    broker = RedisBroker(url, logger=None)
    own = StreamSub("events", group="workers", consumer=name)
    claimed = StreamSub("events", group="workers", consumer=f"{name}-claims", min_idle_time=IDLE_MS)

    @broker.subscriber(stream=claimed, ack_policy=AckPolicy.NACK_ON_ERROR)
    @broker.subscriber(stream=own, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(event: dict[str, int]) -> None:
        await world.handle(event["n"])

    await FastStream(broker).run()


def _taskiq(url: str, world: World | None, name: str) -> tuple[Any, Any]:
    from taskiq import SimpleRetryMiddleware
    from taskiq_redis import RedisStreamBroker

    broker = RedisStreamBroker(
        url, consumer_name=name, consumer_id="0", idle_timeout=IDLE_MS, unacknowledged_lock_timeout=10
    ).with_middlewares(SimpleRetryMiddleware(default_retry_count=5))

    @broker.task(task_name="handle", retry_on_error=True)
    async def handle(n: int) -> None:
        assert world is not None
        await world.handle(n)

    return broker, handle


@asynccontextmanager
async def taskiq_publish(url: str) -> AsyncIterator[Publish]:
    broker, handle = _taskiq(url, None, "publisher")
    await broker.startup()
    yield handle.kiq
    await broker.shutdown()


async def taskiq_work(url: str, world: World, name: str) -> None:
    from taskiq.api import run_receiver_task

    broker, _ = _taskiq(url, world, name)
    await run_receiver_task(broker, run_startup=True)


@asynccontextmanager
async def arq_publish(url: str) -> AsyncIterator[Publish]:
    from arq import create_pool
    from arq.connections import RedisSettings

    pool = await create_pool(RedisSettings.from_dsn(url))
    yield lambda n: pool.enqueue_job("handle", n, _job_id=f"event-{n}")
    await pool.aclose()


async def arq_work(url: str, world: World, name: str) -> None:
    from arq import func
    from arq.connections import RedisSettings
    from arq.worker import Worker

    async def handle(_context: Any, n: int) -> None:
        await world.handle(n)

    worker = Worker(
        functions=[func(handle, name="handle")],  # type: ignore[arg-type] # untyped there
        redis_settings=RedisSettings.from_dsn(url),
        job_timeout=IDLE_MS / 1000,
        retry_jobs=True,
    )
    await worker.async_run()


PUBLISHERS = {
    "cachebus": cachebus_publish,
    "faststream": faststream_publish,
    "taskiq": taskiq_publish,
    "arq": arq_publish,
}
WORKERS = {"cachebus": cachebus_work, "faststream": faststream_work, "taskiq": taskiq_work, "arq": arq_work}


async def serve(library: str, url: str) -> None:
    """Publish each number that standard input has; say how often one raised before it was accepted."""
    numbers = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(numbers), sys.stdin)
    async with PUBLISHERS[library](url) as publish:
        print("ready", flush=True)
        async for line in numbers:
            raised = 0
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with contextlib.suppress(Exception):
                        await publish(int(line))
                        break
                    raised += 1
                    await asyncio.sleep(RETRY_S)
            print(raised, flush=True)


if __name__ == "__main__":
    its_library, verb, its_url, its_world, its_name = sys.argv[1:]
    doing = (
        serve(its_library, its_url) if verb == "publish" else WORKERS[its_library](its_url, World(its_world), its_name)
    )
    asyncio.run(doing)
