"""A worker of its own process for the crash harness: `python harness_worker.py URL NAMESPACE NAME LEASE`.

Handles `numbers`, and `imports` debounced; publishes what is delayed. An event that names this worker in `"stop"`
stops the whole process (SIGSTOP) in the middle of its handler, as a virtual machine is paused; when it goes on it has
effects in hand and a lease that is long over.
`FENCE=off` takes the fence out of the commit script: the harness has to notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec

import cachebus.redis.server
from cachebus.bus.effects import Broadcast, Effects, Invalidate
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.engine.mover import Mover
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from cachebus.redis.scripts import Script, script

myself = ""
WORKING_BYTES = 1 << 20
"""What an event needs to be handled, so that a limit to the process' memory is felt."""
RETRIED = os.open(os.environ["RETRIED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "RETRIED" in os.environ else None
"""Where the numbers of events are noted that did not get it: they are retried, so their order is not kept."""


class Number(msgspec.Struct):
    n: int
    stop: str = ""


@on("numbers", Number, name="numbers", backoff="1ms")
def numbers(event: Number) -> Effects:
    """Broadcast the number and invalidate its tag."""
    if event.stop and event.stop == myself:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        bytearray(WORKING_BYTES)
    except MemoryError:
        if RETRIED is not None:
            os.write(RETRIED, b"%d\n" % event.n)
        raise
    yield Invalidate(tags=[f"n:{event.n}"])
    yield Broadcast("numbers", "n", event.n)


@on("imports", Number, name="imported", debounce="2s", at_most="5m", backoff="1ms")
def imported(event: Number) -> Effects:
    """Broadcast the number of an import's last event."""
    yield Broadcast("imports", "imported", event.n)


def unfenced() -> Script:
    """Return the commit script that asks neither for the lease nor for the number nor for the position."""
    whole = script("bus/engine/commit").text
    lease = "if redis.call('GET', lease) ~= ARGV[1] then return { 0 } end\n"
    first = whole.index("local number = tonumber(redis.call('HGET', shard, 'commits')")
    last = whole.index("local now = server_time()\nlocal gone")
    return Script("commit", (whole[:first] + whole[last:]).replace(lease, ""), "0" * 40)


async def main(url: str, namespace: str, name: str, lease: str) -> None:
    """Work until killed."""
    global myself  # noqa: PLW0603 - what the handler compares with
    myself = name
    if os.environ.get("FENCE") == "off":
        bare = unfenced()
        cachebus.redis.server.script = lambda verb: bare if verb == "bus/engine/commit" else script(verb)  # type: ignore[attr-defined] # the point of it
    async with Client(url, store_url=os.environ.get("STORE_REDIS_URL"), namespace=namespace) as client:
        handlers = [numbers, imported]
        consumer = Consumer(client, handlers, worker=name, lease=lease, options=ConsumerOptions(feed_length=1_000_000))
        print("ready", flush=True)  # noqa: T201 - tells the harness
        await asyncio.gather(consumer.run(), Bridge(client, handlers).run(), Mover(client).run())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
